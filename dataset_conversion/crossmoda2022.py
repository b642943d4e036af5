"""CrossMoDA 2022: vestibular schwannoma and cochleas of two centres, from labelled ceT1 to unlabelled hrT2.

The scans of 2021 (London, ldn) and as many of Tilburg (etz): 210 ceT1 scans with labels, 210 hrT2 scans of other
patients without, 64 hrT2 scans for validation. Wijethilake et al., crossMoDA challenge: evolution of cross-modality
domain adaptation techniques for vestibular schwannoma and cochlea segmentation from 2021 to 2023, arXiv 2025. Licence:
CC BY-NC-SA 4.0.

Layout: ``crossmoda2022_training/training_source/{crossmoda2021_ldn,crossmoda2022_etz}_N_{ceT1,Label}.nii.gz``,
``crossmoda2022_training/training_target/…_hrT2.nii.gz``, ``crossmoda2022_validation/…_hrT2.nii.gz``, and
``crossmoda2022_training/infos_source_training.csv``, whose Koos grades are kept in koos.csv beside dataset.json (1 to
4, or what the table says of operated patients). Labels: 1 tumour, 2 cochleas.

Domains ldn_ceT1, etz_ceT1, ldn_hrT2, etz_hrT2; every case is a subject; one channel. Ids are the names without the
sequence. Validation scans become test cases. Schemes: ``vs-cochlea``, ``vs``, ``cochlea``.

Known defects: most label maps of Tilburg are rescaled by their headers, so that 1 is read as 0.9999999998; values are
rounded.
"""

from nnunet_da.dataset_conversion import About, _crossmoda
from nnunet_da.dataset_conversion._layout import Layout
from nnunet_da.dataset_conversion._structures import add_structures

ABOUT = About(
    anatomy="head: vestibular schwannoma, cochleas",
    cases="210 labelled ceT1, 210 unlabelled hrT2, 64 hrT2 for validation",
    domains="ldn_ceT1, etz_ceT1, ldn_hrT2, etz_hrT2",
    licence="CC BY-NC-SA 4.0",
    source="Zenodo 6504722 (Wijethilake et al. 2025)",
)
LAYOUTS = (
    Layout(
        "CrossMoDA 2022",
        {
            "source": "crossmoda2022_training/training_source/{case}_ceT1.{nii}",
            "label": "crossmoda2022_training/training_source/{case}_Label.{nii}",
            "target": "crossmoda2022_training/training_target/{case}_hrT2.{nii}",
            "validation": "crossmoda2022_validation/{case}_hrT2.{nii}",
        },
        key=("case",),
        fields={"case": r"crossmoda202[12]_(?P<centre>ldn|etz)_\d+"},
        shown={"case": "crossmoda2022_etz_N"},
        also=_crossmoda.ALSO,
    ),
)
SCHEMES = _crossmoda.schemes(vs=(1,), cochlea=(2,))


def add_arguments(parser):
    add_structures(parser, SCHEMES)


def cases(raw, arguments):
    return _crossmoda.conversion(raw, arguments, "crossmoda2022", LAYOUTS, SCHEMES, ABOUT, target_sequence="hrT2")
