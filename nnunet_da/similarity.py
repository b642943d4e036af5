"""Similarities of embeddings, over all processes: what the contrastive losses of several methods are made of."""

import torch
from torch import distributed as dist
from torch.nn import functional


def similarities(embeddings, tau):
    """Cosine similarity of all pairs over τ; -∞ with itself.

    Computed in float32 at least, whatever the precision around it.

    Parameters
    ----------
    embeddings : Tensor, (…, n, features)
    tau : float
        Temperature τ.

    Returns a Tensor (…, n, n). Rows are what a log-sum-exp over j ≠ i takes.
    """
    with torch.autocast(embeddings.device.type, enabled=False):
        z = embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))
        z = functional.normalize(z, dim=-1)
        itself = torch.eye(z.shape[-2], dtype=torch.bool, device=z.device)
        return (z @ z.transpose(-1, -2) / tau).masked_fill(itself, -torch.inf)


def gathered(embeddings):
    """The embeddings of all processes under DDP, (processes · n, …), n being equal in each; else those given."""
    if dist.is_available() and dist.is_initialized():
        return GatherEmbeddings.apply(embeddings)
    return embeddings


class GatherEmbeddings(torch.autograd.Function):
    """Embeddings of all processes, in their order; the gradient flows to the own ones.

    It is multiplied by the number of processes, by which DDP divides it.
    """

    @staticmethod
    def forward(ctx, embeddings):
        ctx.n = len(embeddings)
        gathered = [torch.empty_like(embeddings) for _ in range(dist.get_world_size())]
        dist.all_gather(gathered, embeddings.contiguous())
        return torch.cat(gathered)

    @staticmethod
    def backward(ctx, gradient):
        own = gradient.narrow(0, dist.get_rank() * ctx.n, ctx.n)
        return own * dist.get_world_size()
