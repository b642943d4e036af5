"""Arguments that several verbs share, named as nnU-Net names them."""

from pathlib import Path


def add_dataset(parser, *, required=True):
    parser.add_argument("-d", dest="dataset", required=required, metavar="ID", help="dataset id or DatasetXXX_Name")


def add_model(parser):
    """-d, -c, -tr, -p: which trained model."""
    add_dataset(parser)
    parser.add_argument("-c", dest="configuration", required=True, metavar="CONFIGURATION", help="such as 3d_fullres")
    parser.add_argument("-tr", dest="trainer", default="nnUNetTrainerIntensityDA", help="default: %(default)s")
    parser.add_argument("-p", dest="plans", default="nnUNetPlans", help="default: %(default)s")


def add_scans(parser, *, required=True):
    """-i: a folder of scans under any names."""
    parser.add_argument(
        "-i",
        dest="scans",
        type=Path,
        required=required,
        metavar="DIR",
        help="scans: CASE.nii.gz, or CASE_0000.nii.gz, CASE_0001.nii.gz, … for several channels; "
        "also .nii, .mha, .mhd, .nrrd and a folder per DICOM series",
    )


def add_processes(parser):
    parser.add_argument("-np", dest="n_processes", type=int, default=None, metavar="N", help="parallel processes")


def add_volume_margin(parser):
    parser.add_argument(
        "--volume-margin",
        type=float,
        default=0.5,
        metavar="SHARE",
        help="by which plausible volumes may lie outside those of the true labels; default: %(default)s",
    )
