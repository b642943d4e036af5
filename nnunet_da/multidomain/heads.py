"""One 1×1 segmentation layer per domain, with that domain's classes ("domain-specific segmentation layer", W_k).

Their logits stand in the global channels of the dataset, so that nnU-Net's losses and predictor need not know of
domains; a channel that a domain lacks has the logit -100.
"""

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional

from nnunet_da.domains import BACKGROUND, IGNORE
from nnunet_da.multidomain.layer import DomainLayer, rounds

# A probability of 4e-44 beside a logit of 0; far lower, nnU-Net's Gaussian window would overflow half precision.
FILL = -100.0
CONVOLUTIONS = {4: functional.conv2d, 5: functional.conv3d}


def domain_channels(labels: Mapping, structures):
    """The channels of a network's output that stand for the `structures` (names) of a domain: tuple of int, ascending.

    As nnU-Net numbers them: without regions, the channel is the label's value and background has one; with regions,
    each region in the order of `labels` (those of dataset.json) has one, and background has none.
    """
    values = {name: value for name, value in labels.items() if name != IGNORE}
    if any(isinstance(value, list | tuple) and len(value) > 1 for value in values.values()):
        regions = [name for name in values if name != BACKGROUND]
        return tuple(sorted(regions.index(name) for name in structures))
    chosen = (values[name] for name in {BACKGROUND, *structures})
    return tuple(sorted(value[0] if isinstance(value, list | tuple) else value for value in chosen))


class DomainHead(DomainLayer):
    """The segmentation layers of all domains at one resolution.

    Parameters
    ----------
    layer : torch.nn.Conv2d or torch.nn.Conv3d
        The 1×1 convolution to the global channels that it replaces; each domain starts with its weights of the channels
        that it has.
    channels : sequence of sequence of int
        Per domain, the global channels that it has.

    Attributes
    ----------
    weight, bias : Parameter, (Σ|C_k|, C, 1, 1[, 1]) and (Σ|C_k|,)
        Those of domain k follow those of domain k - 1.

    `forward` takes features (n, C, *space) and gives logits (n, global channels, *space); raises ValueError where a
    batch of all domains is no multiple of K.
    """

    def __init__(self, layer, channels):
        super().__init__(len(channels))
        self.n_channels = layer.out_channels
        _check_channels(channels, self.n_channels)
        copied = torch.tensor([channel for of_domain in channels for channel in of_domain])
        self.weight = nn.Parameter(layer.weight.detach()[copied])
        self.bias = nn.Parameter(layer.bias.detach()[copied])
        self.register_buffer("rows", _rows(channels, self.n_channels), persistent=False)

    def forward(self, x):
        weight, bias = _fill(self.weight, self.bias, self.rows, self.num_domains * self.n_channels)
        domain, n = self.choice.index, self.n_channels
        if domain is not None:
            # The very convolution of the network that `collapse` gives.
            weight, bias = (tensor.narrow(0, domain * n, n) for tensor in (weight, bias))
            return CONVOLUTIONS[x.ndim](x, weight, bias)
        n_rounds = rounds(len(x), self.num_domains)
        # A matrix product per sample: the grouped convolution, without its slow gradients in 3D.
        weight = weight.reshape(self.num_domains, n, -1).repeat(n_rounds, 1, 1)
        bias = bias.reshape(self.num_domains, n, 1).repeat(n_rounds, 1, 1)
        return torch.baddbmm(bias, weight, x.flatten(2)).reshape(len(x), n, *x.shape[2:])

    def extra_repr(self):
        return f"{self.weight.shape[1]}, {self.n_channels}, num_domains={self.num_domains}"


def collapse_head(name, value, domain, channels, n_channels):
    """The 1×1 convolution's weight or bias that the entry `name` of a head's state dict becomes for one domain."""
    sizes = [len(of_domain) for of_domain in channels]
    value = value.split(sizes)[domain]
    rows = torch.tensor(channels[domain], device=value.device)
    fill = FILL if name.endswith("bias") else 0.0
    return value.new_full((n_channels, *value.shape[1:]), fill).index_copy(0, rows, value)


def _fill(weight, bias, rows, n_rows):
    """Weight and bias with `n_rows` rows: the given ones at `rows`, elsewhere 0 and -100."""
    weight = weight.new_zeros(n_rows, *weight.shape[1:]).index_copy(0, rows, weight)
    return weight, bias.new_full((n_rows,), FILL).index_copy(0, rows, bias)


def _rows(channels, n_channels):
    """Where the rows of the compact weight stand among K times all global channels, int64."""
    return torch.tensor([domain * n_channels + c for domain, of_domain in enumerate(channels) for c in of_domain])


def _check_channels(channels, n_channels):
    for domain, of_domain in enumerate(channels):
        if not of_domain or len(set(of_domain)) < len(of_domain) or not set(of_domain) <= set(range(n_channels)):
            raise ValueError(
                f"domain {domain}: channels {list(of_domain)} must be different ones of the {n_channels} there are"
            )
