"""CrossMoDA 2021, 2022 and 2023: vestibular schwannoma and cochlea, contrast-enhanced T1 against high-resolution T2."""

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from nnunet_da.phantom.head import Head
from nnunet_da.phantom.public.release import HIDDEN_LABELS, Part, Release
from nnunet_da.phantom.scanner import SCANNERS
from nnunet_da.phantom.study import write_csv, write_nifti

TUMOUR_AND_COCHLEA = {"intra-meatal tumour": 1, "extra-meatal tumour": 1, "cochlea": 2}
PARTS_OF_TUMOUR = {"intra-meatal tumour": 1, "extra-meatal tumour": 2, "cochlea": 3}
# Diameters in mm, outside the meatus, up to which a tumour has grade 2 and grade 3: as commonly given with the grades
# of Koos et al., J Neurosurg 88 (1998), which go by how the tumour lies to the brainstem.
KOOS_DIAMETERS = (20.0, 30.0)

# Each centre has its own scanners, for contrast-enhanced T1 and for T2; spacings are typical ones.
_SPACINGS = {
    "ldn": ((0.41, 0.41, 1.5), (0.55, 0.55, 1.5)),
    "etz": ((0.8, 0.8, 1.5), (0.4, 0.4, 1.0)),
    "ukm": ((0.5, 0.5, 3.0), (0.5, 0.5, 1.5)),
}
CENTRES = {
    centre: tuple(
        replace(SCANNERS[f"crossmoda_{centre}_{contrast}"], spacing=spacing)
        for contrast, spacing in zip(("cet1", "hrt2"), spacings, strict=True)
    )
    for centre, spacings in _SPACINGS.items()
}
KINDS = ("source", "target", "validation")
CENTRE_NAMES = {"ldn": "London", "etz": "Tilburg"}


@dataclass(frozen=True)
class Year:
    """How one year names things. folders: of source, target and validation; stems: of the names, by centre; t2: how
    the T2 is called; values: of the labels; firsts: number of the first case by centre, in the same order as folders.
    """

    folders: tuple[str, str, str]
    stems: dict[str, str]
    t2: str
    values: dict[str, int]
    firsts: dict[str, tuple[int, int, int]]


YEARS = {
    "crossmoda2021": Year(
        folders=(
            "crossmoda_training/source_training",
            "crossmoda_training/target_training",
            "crossmoda_validation/target_validation",
        ),
        stems={"ldn": "crossmoda"},
        t2="hrT2",
        values=TUMOUR_AND_COCHLEA,
        firsts={"ldn": (1, 106, 211)},
    ),
    "crossmoda2022": Year(
        folders=(
            "crossmoda2022_training/training_source",
            "crossmoda2022_training/training_target",
            "crossmoda2022_validation",
        ),
        stems={"ldn": "crossmoda2021_ldn", "etz": "crossmoda2022_etz"},
        t2="hrT2",
        values=TUMOUR_AND_COCHLEA,
        firsts={"ldn": (1, 106, 211), "etz": (0, 105, 210)},
    ),
    "crossmoda2023": Year(
        folders=(
            "crossmoda23_training/TrainingSource",
            "crossmoda23_training/TrainingTarget",
            "crossmoda23_validation",
        ),
        stems={centre: f"crossmoda2023_{centre}" for centre in CENTRES},
        t2="T2",
        values=PARTS_OF_TUMOUR,
        firsts=dict.fromkeys(CENTRES, (1, 101, 201)),
    ),
}


def _parts(year):
    """Source, target and validation of every centre."""
    return tuple(
        Part(f"{centre}/{kind}", CENTRES[centre][:1] if kind == "source" else CENTRES[centre][1:], first=first)
        for centre, firsts in year.firsts.items()
        for kind, first in zip(KINDS, firsts, strict=True)
    )


def _write_crossmoda(case):
    """CASE_ceT1.nii.gz and CASE_Label.nii.gz of the source, CASE_hrT2.nii.gz (2023: CASE_T2.nii.gz) of the target.

    Returns the row of a source case in infos_source_training.csv.
    """
    year = YEARS[case.release]
    centre, kind = case.part.split("/")
    name = f"{year.stems[centre]}_{case.number}"
    folder = case.folder / year.folders[KINDS.index(kind)]
    cet1, hrt2 = CENTRES[centre]
    is_source = kind == "source"
    scan = case.scan(case.subject(Head), cet1 if is_source else hrt2)
    write_nifti(scan.images[0], scan.affine, folder / f"{name}_{'ceT1' if is_source else year.t2}.nii.gz")
    labels = folder if is_source else case.aside
    if labels:
        write_nifti(scan.anatomy.label_map(year.values), scan.affine, labels / f"{name}_Label.nii.gz")
    return [name, CENTRE_NAMES.get(centre, centre), "training_source", koos_grade(scan)] if is_source else None


def koos_grade(scan):
    """Grade of a vestibular schwannoma, 1 (within the meatus) to 4, here by the size of what lies outside alone."""
    outside = scan.anatomy.label_map({"extra-meatal tumour": 1})
    volume = outside.sum() * abs(np.linalg.det(scan.affine[:3, :3]))
    diameter = (6 * volume / np.pi) ** (1 / 3)
    return 1 if diameter == 0 else 2 + int(np.searchsorted(KOOS_DIAMETERS, diameter))


def _write_infos(folder, rows, _aside):
    rows = [row for row in rows if row]
    write_csv(
        [["crossmoda_name", "center", "group", "koos"], *rows],
        folder / "crossmoda2022_training/infos_source_training.csv",
    )


def _release(name, year):
    named = {}
    for label, value in year.values.items():
        named.setdefault(value, []).append(label)
    centres = f", of each of {', '.join(year.firsts)}" if len(year.firsts) > 1 else ""
    return Release(
        name,
        anatomy="vestibular schwannoma and cochlea, contrast-enhanced T1 (source) and T2 (target)",
        n=f"cases of each of source, target and validation{centres}",
        labels=", ".join(f"{value} {' and '.join(labels)}" for value, labels in named.items()) + "; source only",
        parts=_parts(year),
        write=_write_crossmoda,
        finish=_write_infos if name == "crossmoda2022" else None,
        scale=0.5,
        n_max=min(second - first for firsts in year.firsts.values() for first, second in pairwise(firsts)),
        aside=HIDDEN_LABELS,
    )


RELEASES = tuple(_release(name, year) for name, year in YEARS.items())
