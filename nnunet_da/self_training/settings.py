"""Settings of the combined training."""

from dataclasses import dataclass
from typing import Literal

from nnunet_da.settings import require


@dataclass(frozen=True)
class SelfTrainingSettings:
    """How true labels and pseudo-labels share the training (the paper, 2.3: "combined dataset").

    Attributes
    ----------
    true_share : float or None
        Share of the samples that come from cases with true labels. None: every case is as likely as any other, times
        its weight.
    weights : 'dataset' or 'equal'
        'dataset': a pseudo-labelled case is drawn in proportion to its weight in dataset.json; 'equal': those are
        passed over.
    """

    true_share: float | None = None
    weights: Literal["dataset", "equal"] = "dataset"

    def __post_init__(self):
        share = self.true_share
        require(share is None or 0 < share < 1, "self_training.true_share", "must be between 0 and 1")
