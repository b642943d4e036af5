"""The settings of the adaptation, each method's beside it."""

from dataclasses import dataclass, field
from typing import Literal

from nnunet_da.adaptation.check import CheckSettings
from nnunet_da.adaptation.randomisation import RandomisationSettings
from nnunet_da.adaptation.statistics import StatisticsSettings
from nnunet_da.adaptation.teacher import TeacherSettings


@dataclass(frozen=True)
class AdaptationSettings:
    """What `nnUNetTrainerAdapt` is made of. Every part can be turned off by itself.

    Attributes
    ----------
    weights : 'teacher' or 'student'
        Whose weights are checked, kept and predicted with, where there are unlabelled cases.
    randomisation : RandomisationSettings
    teacher : TeacherSettings
    statistics : StatisticsSettings
    check : CheckSettings
    """

    weights: Literal["teacher", "student"] = "teacher"
    randomisation: RandomisationSettings = field(default_factory=RandomisationSettings)
    teacher: TeacherSettings = field(default_factory=TeacherSettings)
    statistics: StatisticsSettings = field(default_factory=StatisticsSettings)
    check: CheckSettings = field(default_factory=CheckSettings)
