"""Medical Segmentation Decathlon: any of its tasks, as one domain.

Antonelli et al., The Medical Segmentation Decathlon, Nature Communications 2022. Ten tasks of CT or MR. Licence:
CC BY-SA 4.0.

Layout: ``TaskNN_Name/{dataset.json,imagesTr,labelsTr,imagesTs}``, files ``name_NNN.nii.gz``; hidden ``._*`` files of
the archives are passed over. Images of several channels are 4-D; each channel becomes a file. Channels and labels are
those of dataset.json; without that file, ``--channels`` and ``--labels`` name them.

One domain, the task's name in lower case (``--domain``); every case is a subject (the release does not say which scans
are of one patient); ``imagesTs`` become test cases. ``--channels`` takes some of the channels, ``--labels`` some of the
labels, or several as one: ``--labels prostate=1,2``.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from nnunet_da.dataset_conversion import About
from nnunet_da.dataset_conversion._layout import Layout, find_files
from nnunet_da.dataset_conversion.manifest import parse_labels
from nnunet_da.errors import UserError, nearest
from nnunet_da.files import read_json

ABOUT = About(
    anatomy="that of the task: prostate, hippocampus, heart, liver, …",
    cases="those of the task",
    domains="the task's name, or --domain",
    licence="CC BY-SA 4.0",
    source="medicaldecathlon.com (Antonelli et al. 2022)",
)
LAYOUTS = (
    Layout(
        "MSD",
        {"image": "imagesTr/{case}.{nii}", "label": "labelsTr/{case}.{nii}", "test": "imagesTs/{case}.{nii}"},
        key=("case",),
        # Not as in nnU-Net's folders, where names end in a channel of four digits.
        fields={"case": r"[A-Za-z]+_\d{1,3}"},
        shown={"case": "NAME_NNN"},
        also=(r"dataset\.json",),
    ),
)


def add_arguments(parser):
    parser.add_argument("--domain", metavar="NAME", help="default: the task's name in lower case")
    parser.add_argument(
        "--channels", nargs="+", metavar="NAME", help="take these of dataset.json's channels (without it: all names)"
    )
    parser.add_argument(
        "--labels",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="labels and their values in the files, several as prostate=1,2; other values become background "
        "(default: those of dataset.json)",
    )


def cases(raw, arguments):
    from nnunet_da.raw_dataset import Case, Conversion
    from nnunet_da.scan_sources import Missing, Volume

    found = find_files(raw, LAYOUTS, "msd")
    found.require_role("image", "training images")
    task = re.sub(r"^Task\d+_", "", Path(raw).absolute().name)
    content = _content(found, arguments)
    taken = _taken_channels(content, arguments)
    labels, label_values = _labels(content, arguments)

    def case(key, role, label=None):
        (path,) = found.require(key, [role])
        # A file of one channel can be taken as it is.
        n_channels = len(content.channels)
        whole = n_channels == 1 or isinstance(path, Missing)
        images = [path if whole else Volume(path, index, n_channels) for index in taken]
        return Case(key[0], arguments.domain or task.lower(), None, tuple(images), label, label and label_values)

    return Conversion(
        cases=[
            case(key, "image", None if arguments.unlabelled else found.label(key))
            for key in found.with_role("image", "label")
        ],
        test_cases=[case(key, "test") for key in found.with_role("test")],
        channel_names=[content.channels[index] for index in taken],
        labels=labels,
        name=f"MSD_{task}",
        extra=ABOUT.entries,
    )


@dataclass(frozen=True)
class Content:
    """What a task's dataset.json (`source`) says: the names of the channels, and the values of each label but 0."""

    source: Path
    channels: Sequence[str]
    labels: Mapping[str, tuple[int, ...]]


def _content(found, arguments):
    """What dataset.json says, else the command line. Raises UserError where an image that is listed is absent."""
    path = found.raw / "dataset.json"
    if not path.exists():
        if not arguments.labels or not arguments.channels:
            raise UserError(f"{path}: no such file; get it, or give --channels NAME … and --labels NAME=VALUE …")
        return Content(path, arguments.channels, {})
    content = read_json(path)
    try:
        channels = [name for _, name in sorted((int(index), name) for index, name in content["modality"].items())]
        name_of = {int(value): name for value, name in content["labels"].items()}
        images = [entry["image"] for entry in content["training"]] + list(content["test"])
        listed = [PurePosixPath(image).as_posix() for image in images]
    except (TypeError, KeyError, ValueError, AttributeError):
        raise UserError(
            f"{path}: not a dataset.json of the Decathlon, with modality, labels, training and test"
        ) from None
    for image in listed:
        role, fields = found.layout.match(image) or (None, {})
        if role not in found.cases.get((fields.get("case"),), {}):
            raise UserError(f"{found.raw / image}: no such file, but {path.name} lists it; the download is incomplete")
    labels = {}
    for value, name in sorted(name_of.items()):
        if value != 0:
            labels[name] = (*labels.get(name, ()), value)
    return Content(path, channels, labels)


def _taken_channels(content, arguments):
    """The indices of the channels to take."""
    for name in arguments.channels or ():
        if name not in content.channels:
            raise UserError(
                f"--channels {name}: {content.source} has no such channel{nearest(name, content.channels)} "
                f"(channels: {', '.join(content.channels)})"
            )
    return [content.channels.index(name) for name in dict.fromkeys(arguments.channels or content.channels)]


def _labels(content, arguments):
    """The dataset's labels (name → 1, 2, …), and the mapping of the files' values to them."""
    structures = parse_labels(arguments.labels) or content.labels
    known = {value for values in content.labels.values() for value in values}
    for name, values in structures.items():
        for value in values:
            if known and value not in known:
                raise UserError(f"--labels {name}={value}: {content.source} has no label of this value")
    labels = {name: index for index, name in enumerate(structures, start=1)}
    label_values = {value: labels[name] for name, values in structures.items() for value in values}
    return labels, {**dict.fromkeys(sorted(known), 0), **label_values}
