"""Lumbar spines of several vendors with a mask per structure (Al Khalil et al.), likely the T2 target of intensity_da.

Al Khalil et al., Multi-scanner and multi-modal lumbar vertebral body and intervertebral disc segmentation database,
Scientific Data 9 (2022), doi 10.1038/s41597-022-01222-8. 39 patients, 51 T2w volumes of several vendors beside other
sequences (intensity_da's paper used 30 volumes of 29 patients: give a list with ``--cases``). Licence: see the release.

Layout: a folder per volume with the image and one mask per structure: five vertebral bodies (L1 to L5) and four discs
(L1/L2 to L4/L5). Names differ between copies of the release: ``--names STRUCTURE=NAME`` says which file, without
ending, holds the image (`image`) or a structure.

One domain, multivendor; one channel. A patient may have several volumes: the release names no patients, so give
``--subjects`` (CSV with the columns case, subject), else every volume counts as a subject.
"""

from pathlib import Path

from nnunet_da.dataset_conversion import About
from nnunet_da.dataset_conversion._layout import Layout, find_files
from nnunet_da.dataset_conversion._structures import (
    DISC_LEVELS,
    VERTEBRA_LEVELS,
    add_structures,
    by_level,
    labels_and_values,
)

ABOUT = About(
    anatomy="lumbar spine: vertebral bodies L1 to L5, discs L1/L2 to L4/L5, by level",
    cases="51 volumes of 39 patients, T2w",
    domains="multivendor",
    licence="see the release",
    source="OSF (Al Khalil et al. 2022)",
)
DISCS, VERTEBRAE = DISC_LEVELS[1:5], VERTEBRA_LEVELS[:5]
# File names without ending; --names changes them.
NAMES = {"image": "T2", **{level: level for level in (*VERTEBRAE, *DISCS)}}
VALUES = {level: value for value, level in enumerate((*VERTEBRAE, *DISCS), start=1)}
SCHEMES = {
    "discs": {"disc": tuple(VALUES[level] for level in DISCS)},
    "vertebrae": {"vertebra": tuple(VALUES[level] for level in VERTEBRAE)},
    "discs-numbered": by_level(DISCS, [VALUES[level] for level in DISCS]),
    "vertebrae-numbered": by_level(VERTEBRAE, [VALUES[level] for level in VERTEBRAE]),
}
DOMAIN = "multivendor"


def layout(names):
    """The layout in which files have the given `names`."""
    files = {role: f"{{volume}}/{name}.{{nii}}" for role, name in names.items()}
    return Layout("Al Khalil", files, key=("volume",), fields={"volume": "[^/]+"}, shown={"volume": "VOLUME"})


LAYOUTS = (layout(NAMES),)


def add_arguments(parser):
    add_structures(parser, SCHEMES)
    parser.add_argument(
        "--names",
        nargs="+",
        default=[],
        metavar="STRUCTURE=NAME",
        help=f"file names without ending, where they differ: {', '.join(f'{k}={v}' for k, v in NAMES.items())}",
    )
    parser.add_argument(
        "--subjects", type=Path, metavar="CSV", help="columns case,subject (default: a subject per volume)"
    )


def cases(raw, arguments):
    from nnunet_da.dataset_conversion._layout import natural
    from nnunet_da.errors import UserError
    from nnunet_da.raw_dataset import Case, Conversion
    from nnunet_da.scan_folder import read_subjects
    from nnunet_da.scan_sources import Masks

    found = find_files(raw, (layout(_names(arguments.names)),), "alkhalil_lumbar")
    found.require_role("image", "image")
    labels, label_values = labels_and_values(arguments.structures, SCHEMES, known=VALUES.values())
    used = [level for level, value in VALUES.items() if label_values[value]]
    id_of = {key: f"alkhalil_{_number(key[0])}" for key in sorted(found.cases, key=natural)}
    if len(set(id_of.values())) < len(id_of):
        raise UserError(f"{raw}: two folders have the same number: {', '.join(key[0] for key in id_of)}")
    subjects = read_subjects(arguments.subjects, set(id_of.values())) if arguments.subjects else {}

    def label(key):
        if arguments.unlabelled:
            return None
        masks = found.require(key, used, "get it, leave the case out with --cases, or name the file with --names")
        values = tuple(zip(masks, (VALUES[level] for level in used), strict=True))
        return Masks(Path(raw) / key[0], values)

    return Conversion(
        cases=[
            Case(id, DOMAIN, subjects.get(id), tuple(found.require(key, ["image"])), label(key), label_values)
            for key, id in id_of.items()
        ],
        channel_names=["MR"],
        labels=labels,
        name="AlKhalilLumbar",
        extra=ABOUT.entries,
    )


def _names(texts):
    from nnunet_da.errors import UserError, nearest

    names = dict(NAMES)
    for text in texts:
        structure, separator, name = text.partition("=")
        if not separator or not name:
            raise UserError(f"--names {text}: must be STRUCTURE=NAME")
        if structure not in NAMES:
            raise UserError(f"--names {text}: no structure '{structure}'{nearest(structure, NAMES)}")
        names[structure] = name
    return names


def _number(volume):
    """The number in a folder's name, or the name itself."""
    digits = "".join(character for character in volume if character.isdigit())
    return digits or volume
