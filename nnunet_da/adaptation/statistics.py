"""Batch normalisation with the target's statistics, and adaptation to a single scan at prediction.

AdaBN: Li et al., "Revisiting batch normalization for practical domain adaptation", arXiv:1603.04779 (2016). A network
with batch norms carries means and variances of the domains it was trained on; those of the target's images replace
them, and all weights stay. nnU-Net plans instance norms, which take each image's own statistics anyway.

Test-time adaptation: TENT of Wang et al., "Tent: fully test-time adaptation by entropy minimization", ICLR 2021, which
moves the scales and shifts of the norms down the gradient of the entropy of the predictions; and, because entropy alone
is least where everything is background, the consistency of views with other intensities (cf. Zhang et al., "MEMO: test
time robustness via adaptation and augmentation", NeurIPS 2022). The papers adapt to a stream of images; here every scan
starts from the stored model, so that no scan depends on those before it.
"""

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from nnunet_da.adaptation.randomisation import randomise
from nnunet_da.settings import require

# Norms whose scales and shifts are adapted to a scan; torch has no public name for what instance and batch norm share.
_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


@dataclass(frozen=True)
class StatisticsSettings:
    """Whose statistics batch norms have.

    Attributes
    ----------
    adabn : bool
        Whether the model that is kept has the target's statistics in its batch norms; scans of the source are then
        predicted worse.
    """

    adabn: bool = False


@dataclass(frozen=True)
class TestTimeSettings:
    """How a model is adapted to a single scan.

    Attributes
    ----------
    steps : int
        Updates for each scan; 0: none.
    patches : int
        Of the scan, that take turns.
    lr : float
        Of Adam; TENT's.
    entropy, consistency : float
        Weights of the two losses.
    """

    steps: int = 10
    patches: int = 8
    lr: float = 1e-3
    entropy: float = 1.0
    consistency: float = 1.0

    # Not a test, whatever pytest takes it for.
    __test__ = False

    def __post_init__(self):
        require(self.steps >= 0, "test_time.steps", "must not be negative")
        require(self.patches >= 1, "test_time.patches", "must be at least 1")
        require(self.lr > 0, "test_time.lr", "must be above 0")
        for name in ("entropy", "consistency"):
            require(getattr(self, name) >= 0, f"test_time.{name}", "must not be negative")


def batch_norms(network):
    """The batch norms (list of Module) of a network that keep running statistics."""
    return [module for module in network.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]


@torch.no_grad()
def reestimate(network, batches):
    """Replaces the running statistics of the batch norms of `network`, in place, by those of `batches`.

    `batches`: iterable of Tensor (batch, channels, *space), each of which counts alike. Weights stay, and so does the
    mode of every module. Raises ValueError where there is no batch norm or no batch.
    """
    norms = batch_norms(network)
    if not norms:
        raise ValueError("the network has no batch norm with running statistics")
    modes = {module: module.training for module in network.modules()}
    momenta = [norm.momentum for norm in norms]
    network.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # The mean over all batches.
        norm.train()
    n_batches = 0
    for images in batches:
        network(images)
        n_batches += 1
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    for module, mode in modes.items():
        module.training = mode
    if n_batches == 0:
        raise ValueError("no batch to estimate statistics from")


def adapt_to_scan(network, batches, settings, randomisation, exclusive=True):
    """A copy of `network` adapted to one scan; `network` itself is not changed.

    Parameters
    ----------
    network : Module
        Gives logits (batch, n_outputs, *space) of images.
    batches : sequence of Tensor (batch, channels, *space)
        Patches of the scan, which take turns.
    settings : TestTimeSettings
    randomisation : RandomisationSettings
        How intensities of the second view are drawn.
    exclusive : bool
        Whether outputs are classes (softmax), or structures of which several may be present (sigmoid).

    Returns the copy, in evaluation mode. Raises ValueError where the network has no norm with scale and shift.
    """
    adapted = copy.deepcopy(network).requires_grad_(False).eval()
    parameters = [
        parameter for module in adapted.modules() if isinstance(module, _NORMS) for parameter in module.parameters()
    ]
    if not parameters:
        raise ValueError("the network has no norm with scale and shift to adapt")
    # Blocks alias their norms under several names.
    parameters = list(dict.fromkeys(parameters))
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimizer = torch.optim.Adam(parameters, settings.lr)
    with torch.enable_grad():
        for step in range(settings.steps):
            images = batches[step % len(batches)]
            seen = _log_probabilities(adapted(images), exclusive)
            other = _log_probabilities(adapted(randomise(images, randomisation, 1.0)), exclusive)
            loss = settings.entropy * entropy(seen) + settings.consistency * divergence(seen.detach(), other)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
    return adapted.requires_grad_(False)


def _log_probabilities(logits, exclusive):
    """Logarithms of probabilities, (n_choices, …): those of the classes, or of present and absent."""
    logits = logits.float()
    if exclusive:
        return logits.log_softmax(1).movedim(1, 0)
    return torch.stack([F.logsigmoid(logits), F.logsigmoid(-logits)])


def entropy(log_probabilities):
    """Mean entropy (nats) of `log_probabilities` (n_choices, …), each choice weighed alike.

    Nearly all voxels are sure background: the mean over voxels of each likeliest choice is taken first, so that the
    few voxels of a structure count as much.
    """
    values = -(log_probabilities.exp() * log_probabilities).sum(0)
    choices = log_probabilities.argmax(0)
    means = [values[choices == choice].mean() for choice in range(len(log_probabilities)) if (choices == choice).any()]
    return torch.stack(means).mean()


def divergence(log_probabilities, others):
    """Mean Kullback–Leibler divergence (nats) of `others` from `log_probabilities`, both (n_choices, …)."""
    return (log_probabilities.exp() * (log_probabilities - others)).sum(0).mean()
