"""The histogram pretext task: how are the intensities of the image distributed?

"Predicting intensity histograms" is named by the paper as a task to come ("Discussion") and not worked out. It follows
the colour histograms of Kim et al., "Self-supervised visual attribute learning for fashion compatibility", ICCV
Workshops 2021: an image's normalised histogram is predicted from its features, as a distribution.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional

from nnunet_da.pretext.task import PretextTask
from nnunet_da.settings import require


@dataclass(frozen=True)
class HistogramSettings:
    """What is counted; both are this package's choice.

    Attributes
    ----------
    n_bins : int
        Bins of equal width, per channel.
    limit : float
        The bins span mean ± limit standard deviations; what lies outside counts to the outer ones.
    """

    n_bins: int = 16
    limit: float = 3.0

    def __post_init__(self):
        require(self.n_bins >= 2, "histogram.n_bins", "must be at least 2")
        require(self.limit > 0, "histogram.limit", "must be above 0")


class HistogramTask(PretextTask):
    """Prediction of the histogram of each channel.

    Intensities are taken relative to mean and standard deviation of the image, since a network whose first norm is
    InstanceNorm cannot know those: what is asked for is the shape of the distribution.
    """

    name = "histogram"
    score_name = "intersection"

    @property
    def n_outputs(self):
        return self.n_channels * self.settings.n_bins

    def sample(self, images):
        return images, histograms(images, self.settings.n_bins, self.settings.limit)

    def loss(self, outputs, answers):
        """Kullback-Leibler divergence of the prediction from the histogram, mean over batch and channels; 0: equal."""
        predicted = self._by_channel(outputs).log_softmax(dim=2).flatten(0, 1)
        return functional.kl_div(predicted, answers.flatten(0, 1), reduction="batchmean")

    def score(self, outputs, answers):
        """The intersection of both histograms, mean over channels; 1: equal."""
        predicted = self._by_channel(outputs).softmax(dim=2)
        return torch.minimum(predicted, answers).sum(dim=2).mean(dim=1)

    def chance(self, n_images):
        return None

    def _by_channel(self, outputs):
        return outputs.float().unflatten(1, (self.n_channels, self.settings.n_bins))


def histograms(images, n_bins, limit):
    """Normalised histograms of standardised intensities.

    Parameters
    ----------
    images : Tensor, (batch, channels, *space)
    n_bins : int
    limit : float
        In standard deviations; see HistogramSettings.

    Returns a Tensor (batch, channels, n_bins) whose last axis sums to 1. A constant channel stands in the mean's bin.
    """
    values = images.flatten(2).float()
    std, mean = torch.std_mean(values, dim=2, keepdim=True)
    position = (values - mean) / std.clamp_min(torch.finfo(values.dtype).tiny) / limit
    bins = ((position + 1) * (n_bins / 2)).floor().clamp(0, n_bins - 1).long()
    counts = torch.zeros(*values.shape[:2], n_bins, device=images.device)
    counts.scatter_add_(2, bins, torch.ones_like(values))
    return counts / values.shape[2]
