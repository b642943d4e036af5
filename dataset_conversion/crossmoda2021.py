"""CrossMoDA 2021: vestibular schwannoma and cochleas, from labelled ceT1 to unlabelled high-resolution T2.

Dorent et al., CrossMoDA 2021 challenge: benchmark of cross-modality domain adaptation techniques for vestibular
schwannoma and cochlea segmentation, Medical Image Analysis 83 (2023). London (ldn): 105 ceT1 scans with labels, 105
hrT2 scans of other patients without, 32 hrT2 scans for validation. Licence: CC BY 4.0.

Layout: ``crossmoda_training/source_training/crossmoda_N_{ceT1,Label}.nii.gz``,
``crossmoda_training/target_training/crossmoda_N_hrT2.nii.gz``,
``crossmoda_validation/target_validation/crossmoda_N_hrT2.nii.gz``; the files circulate as ``crossmoda2021_ldn_N_…``,
too. Labels: 1 tumour, 2 cochleas.

Domains ldn_ceT1 and ldn_hrT2; every case is a subject; one channel. Ids are the names without the sequence. Validation
scans become test cases. Schemes: ``vs-cochlea``, ``vs``, ``cochlea``.

Known defects: crossmoda2022 holds these scans again under other names; a scan is refused where the dataset has it.
"""

from nnunet_da.dataset_conversion import About, _crossmoda
from nnunet_da.dataset_conversion._layout import Layout
from nnunet_da.dataset_conversion._structures import add_structures

ABOUT = About(
    anatomy="head: vestibular schwannoma, cochleas",
    cases="105 labelled ceT1, 105 unlabelled hrT2, 32 hrT2 for validation",
    domains="ldn_ceT1, ldn_hrT2",
    licence="CC BY 4.0",
    source="Zenodo 4662239 (Dorent et al. 2023)",
)
FILES = {
    "source": "crossmoda_training/source_training/{case}_ceT1.{nii}",
    "label": "crossmoda_training/source_training/{case}_Label.{nii}",
    "target": "crossmoda_training/target_training/{case}_hrT2.{nii}",
    "validation": "crossmoda_validation/target_validation/{case}_hrT2.{nii}",
}
LAYOUTS = (
    Layout(
        "CrossMoDA 2021",
        FILES,
        key=("case",),
        fields={"case": r"crossmoda_\d+"},
        shown={"case": "crossmoda_N"},
    ),
    Layout(
        "CrossMoDA 2021 under its later names",
        FILES,
        key=("case",),
        fields={"case": r"crossmoda2021_(?P<centre>ldn)_\d+"},
        shown={"case": "crossmoda2021_ldn_N"},
    ),
)
SCHEMES = _crossmoda.schemes(vs=(1,), cochlea=(2,))


def add_arguments(parser):
    add_structures(parser, SCHEMES)


def cases(raw, arguments):
    return _crossmoda.conversion(raw, arguments, "crossmoda2021", LAYOUTS, SCHEMES, ABOUT, target_sequence="hrT2")
