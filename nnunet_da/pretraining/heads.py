"""Projection heads g(·): they part the space of the loss from that of the representations, and are discarded.

Both have one hidden layer of the width of what they take, with ReLU, and no norm: g(h) = W₂ max(W₁ h, 0) as in SimCLR.
"""

import torch
from torch import nn


def projection(in_features, n_features):
    """g(·) on the last axis of a Tensor (…, in_features); gives (…, n_features)."""
    return nn.Sequential(nn.Linear(in_features, in_features), nn.ReLU(inplace=True), nn.Linear(in_features, n_features))


class GlobalHead(nn.Module):
    """An embedding of an image from the bottleneck of the encoder, pooled over space: 'mean' (SimCLR) or 'max'.

    `forward` takes (batch, in_features, *space) and gives (batch, n_features).
    """

    def __init__(self, in_features, n_features, pooling="mean"):
        super().__init__()
        self.project = projection(in_features, n_features)
        self.pool = {"mean": torch.mean, "max": torch.amax}[pooling]

    def forward(self, features):
        return self.project(self.pool(features.flatten(start_dim=2), dim=2))


class LocalHead(nn.Module):
    """Embeddings of points from the last map of the decoder: two 1×1 convolutions (Chaitanya et al.).

    They are applied to the features at the points alone, which gives what sampling their map would give, in a fraction
    of the memory. `forward` takes (batch, in_features, n) and gives (batch, n, n_features).
    """

    def __init__(self, in_features, n_features):
        super().__init__()
        self.project = projection(in_features, n_features)

    def forward(self, features):
        return self.project(features.transpose(1, 2))
