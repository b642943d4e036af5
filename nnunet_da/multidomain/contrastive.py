"""Supervised contrastive regularisation over domains (eq. 3 of the paper, after Khosla et al., NeurIPS 2020)."""

from collections import Counter

import torch
from torch import distributed as dist

from nnunet_da.similarity import gathered, similarities


def contrastive_loss(embeddings, domains, tau=0.1):
    """Eq. 3: pulls embeddings of one domain together and pushes those of different domains apart.

    Computed in float32 at least, whatever the precision around it. Under DDP it is over the embeddings of all
    processes, each of which holds the same domains in the same order. The mean of the gradients over processes, which
    DDP takes, is then the gradient of one process with all embeddings.

    Parameters
    ----------
    embeddings : Tensor, (n, features)
        z.
    domains : sequence of int
        Index of the domain of each sample, (n,). Not a tensor of the device, which would have to be waited for.
    tau : float
        Temperature τ (the paper: 0.1).

    Returns a scalar. Raises ValueError where a domain has fewer than two samples, over all processes: P(i) would be
    empty.
    """
    domains = [int(domain) for domain in domains]
    if len(domains) != len(embeddings):
        raise ValueError(f"{len(embeddings)} embeddings, but {len(domains)} domains")
    if dist.is_available() and dist.is_initialized():
        embeddings = gathered(embeddings)
        domains *= dist.get_world_size()
    alone = sorted(domain for domain, count in Counter(domains).items() if count < 2)
    if alone:
        raise ValueError(f"domain {alone[0]} has one sample; the contrastive loss needs at least two of each domain")
    positive = _positives(domains, embeddings.device)
    similarity = similarities(embeddings, tau)
    with torch.autocast(embeddings.device.type, enabled=False):
        # By log-sum-exp over j ≠ i.
        log_probabilities = torch.log_softmax(similarity, dim=1).masked_fill(~positive, 0)
        return -(log_probabilities.sum(dim=1) / positive.sum(dim=1)).mean()


def _positives(domains, device):
    """Where p is in P(i), bool, (n, n). Made on the host, from what it knows."""
    labels = torch.tensor(domains)
    positive = (labels[:, None] == labels) & ~torch.eye(len(labels), dtype=torch.bool)
    return positive.to(device, non_blocking=True)
