"""The contrastive losses: of whole images for the encoder, of regions for the decoder.

The paper, "Contrastive Loss"; the global one after SimCLR, the local one after Chaitanya et al.
"""

import torch
from torch.nn import functional

from nnunet_da.similarity import gathered, similarities


def nt_xent(first, second, tau):
    """Normalised temperature-scaled cross-entropy: each embedding is to find its partner among all others.

    ℓ(x_a, x_p) = -log( exp(D(x_a, x_p) / τ) / Σ exp(D(x_a, x) / τ) ) with cosine similarity D, the sum over all
    embeddings but that of x_a itself, as in SimCLR; averaged over both directions of all pairs. By log-sum-exp, in
    float32 at least.

    Parameters
    ----------
    first, second : Tensor, (…, n, features)
        Row i of one is the partner of row i of the other. Leading axes are groups, each contrasted by itself.
    tau : float
        Temperature τ.

    Returns a scalar.
    """
    n = first.shape[-2]
    similarity = similarities(torch.cat([first, second], dim=-2), tau).reshape(-1, 2 * n)
    partner = torch.arange(2 * n, device=first.device).roll(n)
    return functional.cross_entropy(similarity, partner.repeat(len(similarity) // (2 * n)))


def global_contrast(first, second, tau=0.1):
    """The loss of the encoder, over the images of all processes under DDP.

    Parameters
    ----------
    first, second : Tensor, (batch, features)
        Embeddings of both views of each image; the batch is equal in all processes.
    tau : float
    """
    return nt_xent(gathered(first), gathered(second), tau)


def local_contrast(first, second, tau=0.1, negatives="image"):
    """The loss of the decoder: a region is to find itself in the other view among other regions.

    Parameters
    ----------
    first, second : Tensor, (batch, regions, features)
        Embeddings of corresponding regions in both views of each image.
    tau : float
    negatives : 'image' or 'batch'
        Whether the other regions are those of the same image, or of all images of this process.
    """
    if negatives == "batch":
        first, second = first.flatten(0, 1), second.flatten(0, 1)
    return nt_xent(first, second, tau)


def spread(embeddings):
    """How far embeddings are spread over the sphere: 1 evenly, 0 where all have collapsed into one.

    √features · the standard deviation of the normalised embeddings over the samples, averaged over the features (as
    Chen and He, "Exploring simple Siamese representation learning", CVPR 2021, arXiv:2011.10566, without the factor).

    Parameters
    ----------
    embeddings : Tensor, (n, features)
    """
    z = functional.normalize(embeddings.detach().float(), dim=1)
    return z.std(dim=0).mean() * z.shape[1] ** 0.5
