"""CrossMoDA 2023: vestibular schwannoma in two parts and cochleas, of three centres, from labelled ceT1 to T2.

London (ldn), Tilburg (etz) and, with routine scans of many scanners, the United Kingdom (ukm): 227 ceT1 scans with
labels, 295 T2 scans of other patients without, 96 T2 scans for validation. Wijethilake et al., crossMoDA challenge:
evolution of cross-modality domain adaptation techniques for vestibular schwannoma and cochlea segmentation from 2021 to
2023, arXiv 2025. On request from Synapse; licence: see there.

Layout: ``crossmoda23_training/TrainingSource/crossmoda2023_{ldn,etz,ukm}_N_{ceT1,Label}.nii.gz``,
``crossmoda23_training/TrainingTarget/…_T2.nii.gz`` (not hrT2), ``crossmoda23_validation/…_T2.nii.gz``. Labels:
1 intrameatal and 2 extrameatal part of the tumour, 3 cochleas.

Domains ldn_ceT1, etz_ceT1, ukm_ceT1, ldn_T2, etz_T2, ukm_T2; every case is a subject; one channel. Ids are the names
without the sequence. Validation scans become test cases. Schemes: ``intra-extra-cochlea``; ``vs-cochlea``, ``vs`` and
``cochlea`` with the names of the earlier years (1 and 2 are one there).
"""

from nnunet_da.dataset_conversion import About, _crossmoda
from nnunet_da.dataset_conversion._layout import Layout
from nnunet_da.dataset_conversion._structures import add_structures

ABOUT = About(
    anatomy="head: vestibular schwannoma (intra- and extrameatal), cochleas",
    cases="227 labelled ceT1, 295 unlabelled T2, 96 T2 for validation",
    domains="ldn_ceT1, etz_ceT1, ukm_ceT1, ldn_T2, etz_T2, ukm_T2",
    licence="on request, see Synapse",
    source="Synapse syn51236108 (Wijethilake et al. 2025)",
)
LAYOUTS = (
    Layout(
        "CrossMoDA 2023",
        {
            "source": "crossmoda23_training/TrainingSource/{case}_ceT1.{nii}",
            "label": "crossmoda23_training/TrainingSource/{case}_Label.{nii}",
            "target": "crossmoda23_training/TrainingTarget/{case}_T2.{nii}",
            "validation": "crossmoda23_validation/{case}_T2.{nii}",
        },
        key=("case",),
        fields={"case": r"crossmoda2023_(?P<centre>ldn|etz|ukm)_\d+"},
        shown={"case": "crossmoda2023_etz_N"},
        also=_crossmoda.ALSO,
    ),
)
SCHEMES = {
    "intra-extra-cochlea": {"intrameatal": (1,), "extrameatal": (2,), "cochlea": (3,)},
    **_crossmoda.schemes(vs=(1, 2), cochlea=(3,)),
}


def add_arguments(parser):
    add_structures(parser, SCHEMES)


def cases(raw, arguments):
    return _crossmoda.conversion(raw, arguments, "crossmoda2023", LAYOUTS, SCHEMES, ABOUT, target_sequence="T2")
