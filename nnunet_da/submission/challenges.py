"""What each challenge calls its scans and results, which labels it has, and what its containers read and write.

Names are templates over the fields of a challenge, compared with the end of a path: ``{case}_hrT2.{nii}`` fits
``…/crossmoda_211_hrT2.nii.gz``. The fields that stand in `Challenge.result` make a case.
"""

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from nnunet_da.errors import UserError, nearest

# Fields of every challenge: NIfTI with or without compression, and the channel that nnU-Net appends to a case.
_FIELDS = {"nii": r"nii(?:\.gz)?", "channel": r"\d{4}"}

# By name, the first for each value being the challenge's; the others are those of converted datasets that mean it.
_TUMOUR_AND_COCHLEA = {"vs": 1, "cochlea": 2, "intrameatal": 1, "extrameatal": 1}
_PARTS_OF_TUMOUR = {"intrameatal": 1, "extrameatal": 2, "cochlea": 3}
_DISCS = {
    "disc": 1,
    **dict.fromkeys(("L5-S1", "L4-L5", "L3-L4", "L2-L3", "L1-L2", "T12-L1", "T11-T12", "T10-T11", "T9-T10"), 1),
}
# Of each task's dataset.json (Antonelli et al., The Medical Segmentation Decathlon, Nature Communications 2022).
_MSD_LABELS = {
    "Task01_BrainTumour": {"edema": 1, "non-enhancing tumor": 2, "enhancing tumour": 3},
    "Task02_Heart": {"left atrium": 1},
    "Task03_Liver": {"liver": 1, "cancer": 2},
    "Task04_Hippocampus": {"Anterior": 1, "Posterior": 2},
    "Task05_Prostate": {"PZ": 1, "TZ": 2},
    "Task06_Lung": {"cancer": 1},
    "Task07_Pancreas": {"pancreas": 1, "cancer": 2},
    "Task08_HepaticVessel": {"Vessel": 1, "Tumour": 2},
    "Task09_Spleen": {"spleen": 1},
    "Task10_Colon": {"colon cancer primaries": 1},
}


@dataclass(frozen=True)
class Container:
    """What a challenge's container reads below ``/input``, an entry per channel, and writes below ``/output``.

    ``{case}`` stands for the case's name; without it a container gets one case per start. `channels`: the names that
    a model's channels must have, each read from the entry of that name; empty: any one channel will do.
    """

    inputs: Mapping[str, str]
    output: str
    channels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Challenge:
    """The naming rules of one challenge.

    `fields`: regular expressions of what stands in braces; `scans`, `predictions`: templates of the names that are
    accepted; `beside`: of what may lie among the scans and is passed over; `result`: the name in the zip; `labels`:
    name → value, or task → such a mapping where the challenge has tasks; `shown`: what stands for a field in messages.
    """

    name: str
    fields: Mapping[str, str]
    scans: tuple[str, ...]
    predictions: tuple[str, ...]
    result: str
    labels: Mapping
    beside: tuple[str, ...] = ()
    container: Container | None = None
    shown: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, ...]:
        """The fields that tell cases apart."""
        return tuple(dict.fromkeys(re.findall(r"\{(\w+)\}", self.result)))

    @property
    def has_tasks(self) -> bool:
        return "task" in self.key

    def labels_of(self, case) -> Mapping[str, int]:
        """The labels (name → value) of a case, given by its key."""
        return self.labels[case[0]] if self.has_tasks else self.labels

    def result_of(self, case) -> str:
        """The name in the zip of a case, given by its key."""
        return self.result.format(**dict(zip(self.key, case, strict=True)))

    def parse(self, path, templates) -> dict[str, str] | None:
        """The fields of the first of `templates` that the end of `path` (Path) fits, or None."""
        text = path.as_posix()
        for template in templates:
            if found := _pattern(template, tuple(self.fields.items())).fullmatch(text):
                return found.groupdict()
        return None

    def example(self, templates) -> str:
        """`templates` in words, for messages."""
        values = {"nii": "nii.gz", "channel": "0000", **self.shown}
        return " or ".join(dict.fromkeys(template.format_map(values) for template in templates))

    def check_task(self, task) -> None:
        """Raises UserError unless `task` is one of the challenge's."""
        if task not in self.labels:
            raise UserError(f"{task}: is no task of {self.name}{nearest(task, self.labels)} ({', '.join(self.labels)})")


@functools.cache
def _pattern(template, fields):
    expressions = {**_FIELDS, **dict(fields)}
    parts, seen = [], set()
    for literal, name in re.findall(r"([^{}]+)|\{(\w+)\}", template):
        if not name:
            parts.append(re.escape(literal))
        elif name in seen:
            parts.append(f"(?P={name})")
        else:
            parts.append(f"(?P<{name}>{expressions[name]})")
            seen.add(name)
    return re.compile(f"(?:.*/)?{''.join(parts)}")


def _crossmoda(year, case, sequence, labels, shown, result="{case}_Label.nii.gz", stem="{case}", **fields):
    """One year of CrossMoDA. `stem`: a case in the names of files."""
    return Challenge(
        name=f"crossmoda{year}",
        fields={"case": case, **fields},
        scans=(f"{stem}_{sequence}.{{nii}}", f"{stem}_{{channel}}.{{nii}}"),
        predictions=(f"{stem}.{{nii}}", f"{stem}_{sequence}.{{nii}}", f"{stem}_Label.{{nii}}"),
        result=result,
        labels=labels,
        container=Container({"T2": f"{{case}}_{sequence}.nii.gz"}, "{case}_Label.nii.gz"),
        shown=shown,
    )


_DIXON = ("fat", "inn", "opp", "wat")

CHALLENGES = {
    challenge.name: challenge
    for challenge in (
        # The scans circulate under the names of the later years, too; the board knows the first.
        _crossmoda(
            2021,
            r"\d+",
            "hrT2",
            _TUMOUR_AND_COCHLEA,
            {"case": "N", "prefix": "crossmoda"},
            result="crossmoda_{case}_Label.nii.gz",
            stem="{prefix}_{case}",
            prefix=r"crossmoda(?:2021_ldn)?",
        ),
        _crossmoda(
            2022, r"crossmoda202[12]_(?:ldn|etz)_\d+", "hrT2", _TUMOUR_AND_COCHLEA, {"case": "crossmoda2022_etz_N"}
        ),
        _crossmoda(2023, r"crossmoda2023_(?:ldn|etz|ukm)_\d+", "T2", _PARTS_OF_TUMOUR, {"case": "crossmoda2023_etz_N"}),
        Challenge(
            name="msd",
            fields={"task": r"Task\d{2}_[A-Za-z]+", "case": r"[A-Za-z]+_\d{1,3}"},
            scans=("{task}/imagesTs/{case}.{nii}", "{case}_{channel}.{nii}", "{case}.{nii}"),
            beside=("imagesTr/{case}.{nii}", "labelsTr/{case}.{nii}"),
            predictions=("{task}/{case}.{nii}", "{case}.{nii}"),
            result="{task}/{case}.nii.gz",
            labels=_MSD_LABELS,
            shown={"task": "TaskNN_Name", "case": "name_NNN"},
        ),
        Challenge(
            name="ivdm3seg",
            fields={"case": r"\d{2}|[A-Z]\d", "contrast": "|".join(_DIXON)},
            scans=("{case}_{contrast}.{nii}", "ivdm3seg_{case}_{channel}.{nii}"),
            beside=("{case}_Labels.{nii}", "{case}-Labels.{nii}"),
            predictions=("ivdm3seg_{case}.{nii}", "{case}_Labels.{nii}", "{case}/result.{nii}", "{case}.{nii}"),
            # The challenge itself took containers: the name is that of the labels in its release.
            result="{case}/{case}_Labels.nii.gz",
            labels=_DISCS,
            container=Container({name: f"{name}.nii.gz" for name in _DIXON}, "result.nii.gz", channels=_DIXON),
            shown={"case": "NN", "contrast": "fat"},
        ),
    )
}

GRAND_CHALLENGE = "grand-challenge"


def grand_challenge(input_slugs, output_slug) -> Challenge:
    """An algorithm on Grand Challenge, of any model: the interfaces' slugs, one per channel, and that of the result.

    Raises UserError where one is missing, given twice, or no slug.
    """
    if not input_slugs or not output_slug:
        raise UserError(f"{GRAND_CHALLENGE}: give --input-slug (of each channel) and --output-slug")
    for slug in (*input_slugs, output_slug):
        if not re.fullmatch("[a-z0-9]+(-[a-z0-9]+)*", slug):
            raise UserError(f"{slug}: must be a slug, lower-case words with hyphens such as t2-mri")
    if len(set(input_slugs)) != len(input_slugs):
        raise UserError("--input-slug: must be another one for each channel")
    return Challenge(
        name=GRAND_CHALLENGE,
        fields={},
        scans=(),
        predictions=(),
        result="",
        labels={},
        container=Container(
            {slug: f"images/{slug}/{{case}}.mha" for slug in input_slugs}, f"images/{output_slug}/{{case}}.mha"
        ),
    )
