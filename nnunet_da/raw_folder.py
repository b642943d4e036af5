"""A raw folder of nnU-Net and its dataset.json, with the rules that make it one of several domains."""

import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

from nnunet_da.domains import (
    BACKGROUND,
    IGNORE,
    Domain,
    Domains,
    check_ignore,
    check_name,
    label_values,
    read_domains,
    structures,
)
from nnunet_da.errors import UserError
from nnunet_da.files import read_json
from nnunet_da.paths import PREPROCESSED, RAW, nnunet_folder

READER = "NibabelIOWithReorient"
_REPLACEABLE_READERS = (None, "None", "NibabelIO", "SimpleITKIO", READER)
_MAX_IGNORE = 255  # label maps are uint8
# Entries of dataset.json that are each dataset's own.
_OWN = (
    *("channel_names", "labels", "regions_class_order", "numTraining", "file_ending", "overwrite_image_reader_writer"),
    *("name", "domains", "subjects", "pseudo_labels"),
)


@dataclass(frozen=True)
class RawFolder:
    """A raw folder and the dataset.json that it has, or will have; `content` without domains and numTraining."""

    folder: Path
    content: dict
    domains: Domains | None

    @property
    def ending(self):
        return self.content["file_ending"]

    @property
    def labels(self):
        return self.content["labels"]

    @property
    def ignore(self):
        return self.labels[IGNORE]

    @property
    def json_path(self):
        return self.folder / "dataset.json"

    @property
    def channel_names(self):
        return tuple(self.content["channel_names"].values())

    @property
    def extra(self):
        """What else dataset.json says, such as a licence, which holds of datasets made of this one too."""
        return {key: value for key, value in self.content.items() if key not in _OWN}

    @classmethod
    def new(cls, folder, channel_names, labels, regions_class_order, extra):
        """A dataset that is still to be written. Raises UserError where nnU-Net could not use these labels."""
        labels = with_background(labels, folder.name)
        if any(isinstance(value, list) for value in labels.values()) and not regions_class_order:
            raise UserError(f"{folder.name}: labels that are regions need a regions_class_order")
        if not channel_names:
            raise UserError(f"{folder.name}: at least one channel must be named")
        content = {
            "channel_names": {str(index): channel for index, channel in enumerate(channel_names)},
            "labels": with_ignore(labels, folder.name),
            **({"regions_class_order": list(regions_class_order)} if regions_class_order else {}),
            "numTraining": 0,
            "file_ending": ".nii.gz",
            "overwrite_image_reader_writer": READER,
            "name": folder.name,
            **extra,
        }
        return cls(folder, content, None)

    @classmethod
    def read(cls, folder):
        """A dataset that exists, with an `ignore` label. Raises UserError where scans cannot be added to it."""
        path = folder / "dataset.json"
        content = read_json(path)
        if not isinstance(content, dict):
            raise UserError(f"{path}: not a dataset.json of nnU-Net")
        if "modality" in content and "channel_names" not in content:
            content["channel_names"] = content.pop("modality")
        for key in ("channel_names", "labels", "file_ending"):
            if key not in content:
                raise UserError(f"{path}: '{key}' is missing; this is not a dataset.json of nnU-Net v2")
        if "dataset" in content:
            raise UserError(f"{path}: lists its files under 'dataset'; only datasets in imagesTr and labelsTr can grow")
        if content["file_ending"] not in (".nii.gz", ".nii"):
            raise UserError(
                f"{path}: file_ending is '{content['file_ending']}'; only .nii.gz and .nii can be reoriented"
            )
        reader = content.get("overwrite_image_reader_writer")
        if reader not in _REPLACEABLE_READERS:
            raise UserError(
                f"{path}: reads its images with '{reader}', which must give way to {READER}; remove it first"
            )
        if not isinstance(content["labels"], dict) or any(str(name).isdigit() for name in content["labels"]):
            raise UserError(f"{path}: 'labels' must map names to values, as in nnU-Net v2")
        domains = read_domains(content, path) if "domains" in content else None
        content["labels"] = with_ignore(content["labels"], path)
        content["overwrite_image_reader_writer"] = READER
        return cls(folder, content, domains)

    def json_with(self, domains):
        """The content of dataset.json with `domains`."""
        return {**self.content, "numTraining": len(domains.cases), **domains.to_json()}

    def as_one_domain(self, name):
        """The cases in imagesTr as one labelled domain called `name`."""
        check_name(name, "domain", "--source-domain")
        cases = tuple(self.images_on_disk())
        if not cases:
            raise UserError(f"{self.folder / 'imagesTr'}: holds no images named CASE_0000{self.ending}")
        return Domains([Domain(name, structures(self.labels), labelled=cases)], source=self.json_path)

    def images_on_disk(self, part="imagesTr"):
        """Case id → paths of its images in the folder `part`, in the order of the channels."""
        images = defaultdict(list)
        for path in sorted((self.folder / part).glob(f"*{self.ending}")):
            match = re.fullmatch(rf"(.+)_\d{{4}}{re.escape(self.ending)}", path.name)
            if match and not path.name.startswith("."):
                images[match[1]].append(path)
        return dict(images)

    def label_path(self, case):
        return self.folder / "labelsTr" / f"{case}{self.ending}"


def new_folder(dataset_id, name):
    """The folder of a dataset to write. Raises UserError where the id is out of range or another dataset has it."""
    raw, _ = nnunet_folder(RAW), nnunet_folder(PREPROCESSED)  # both are written to
    if not 1 <= dataset_id <= 999:
        raise UserError(f"-d {dataset_id}: a dataset id must lie within 1 and 999")
    check_name(name, "dataset name", "--name")
    dataset_name = f"Dataset{dataset_id:03d}_{name}"
    for variable in (RAW, PREPROCESSED):
        for folder in sorted(nnunet_folder(variable).glob(f"Dataset{dataset_id:03d}_*")):
            if folder.name != dataset_name:
                raise UserError(
                    f"{folder}: has the id {dataset_id} already; choose another -d, or --name {folder.name[11:]}"
                )
    return raw / dataset_name


def with_background(labels, source):
    """`labels` with background first and lists for regions, checked for nnU-Net: values 0, 1, 2, … without gaps."""
    labels = {name: list(value) if isinstance(value, list | tuple) else value for name, value in labels.items()}
    if IGNORE in labels:
        raise UserError(f"{source}: '{IGNORE}' is added by itself; leave it out of the labels")
    labels = {BACKGROUND: 0, **labels}
    if labels[BACKGROUND] != 0:
        raise UserError(f"{source}: '{BACKGROUND}' must have the value 0, not {labels[BACKGROUND]}")
    if not structures(labels):
        raise UserError(f"{source}: the labels name no structure")
    values = label_values(labels, source)
    if values != tuple(range(len(values))):
        raise UserError(
            f"{source}: label values must be 1, 2, 3, … without gaps, but are {', '.join(map(str, values[1:]))}"
        )
    plain = [value for value in labels.values() if isinstance(value, int)]
    if len(set(plain)) < len(plain):
        raise UserError(f"{source}: two labels have the value {Counter(plain).most_common(1)[0][0]}")
    return labels


def with_ignore(labels, source):
    """`labels` with `ignore` as the highest value."""
    labels = dict(labels)
    labels.setdefault(IGNORE, max(label_values(labels, source), default=0) + 1)
    if check_ignore(labels, source) > _MAX_IGNORE:
        raise UserError(f"{source}: {len(labels)} labels do not fit into 8 bits")
    return labels
