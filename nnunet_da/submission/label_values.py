"""Which value of a prediction is which label of a challenge."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from nnunet_da.errors import UserError, nearest


@dataclass(frozen=True)
class LabelValues:
    """`to_challenge`: value in predictions → the challenge's, background included; `names`: value in predictions → its
    name, as far as it has one; `notes`: what the user should know of it.
    """

    to_challenge: Mapping[int, int]
    names: Mapping[int, str]
    notes: tuple[str, ...] = ()

    @property
    def is_identity(self) -> bool:
        return all(value == target for value, target in self.to_challenge.items())

    def apply(self, voxels) -> np.ndarray:
        """`voxels`, integers that are all in `to_challenge`, as the challenge's values, uint8."""
        if self.is_identity:
            return voxels.astype(np.uint8)
        table = np.zeros(max(self.to_challenge) + 1, np.uint8)
        for value, target in self.to_challenge.items():
            table[value] = target
        return table[voxels]


def shown(labels: Mapping[str, int]) -> str:
    """The labels of a challenge in words: ``1 vs, 2 cochlea``; the first name of each value."""
    first = {}
    for name, value in labels.items():
        first.setdefault(value, name)
    return ", ".join(f"{value} {name}" for value, name in sorted(first.items()))


def label_values(labels: Mapping[str, int], dataset_json, source, given, challenge) -> LabelValues:
    """The values of predictions in terms of a challenge's `labels`.

    Args:
        labels: name → value of the challenge.
        dataset_json: content of the dataset.json that the predictions go by, or None: values are the challenge's.
        source: what messages call it.
        given: words ``LABEL=VALUE``: a label's name in dataset.json, or its value, and the challenge's value for it.
        challenge: its name, for messages.

    Labels are matched by name, in upper or lower case. Raises UserError where no name matches, or `given` names what
    is not there.
    """
    if dataset_json is None:
        names, mapping, notes = {}, {0: 0, **{value: value for value in labels.values()}}, []
    else:
        names, mapping, notes = _by_name(labels, dataset_json, source, challenge, may_match_none=bool(given))
    mapping |= _given(labels, names, given, challenge)
    first = {value: name for name, value in reversed(labels.items())}
    notes += [
        f"{source} has no label '{first[value]}' ({value} in {challenge}): it will be in no label map"
        for value in sorted(set(labels.values()) - set(mapping.values()))
    ]
    return LabelValues(mapping, names, tuple(notes))


def _by_name(labels, dataset_json, source, challenge, may_match_none):
    """Name by value, mapping, and notes of what dataset.json says."""
    in_dataset = dataset_json.get("labels") if isinstance(dataset_json, dict) else None
    if not isinstance(in_dataset, dict):
        raise UserError(f"{source}: no 'labels'; is this an nnU-Net dataset.json?")
    if any(isinstance(value, list) for value in in_dataset.values()):
        note = f"{source} has regions, so values are taken as they are"
        return {}, {0: 0, **{value: value for value in labels.values()}}, [note]
    names = {int(value): name for name, value in in_dataset.items() if name not in ("background", "ignore")}
    known = {name.casefold(): value for name, value in labels.items()}
    mapping = {value: known[name.casefold()] for value, name in names.items() if name.casefold() in known}
    if not mapping and not may_match_none:
        raise UserError(
            f"{source}: none of its labels ({', '.join(names.values())}) has a name of {challenge} ({shown(labels)}); "
            f"say which is which with --labels NAME=VALUE"
        )
    return names, {0: 0, **mapping}, []


def _given(labels, names, given, challenge):
    """Value in predictions → the challenge's, of the words `given`."""
    mapping = {}
    values = {name: value for value, name in names.items()}
    for word in given:
        match = re.fullmatch(r"(.+)=(\d+)", word)
        if not match:
            raise UserError(f"--labels {word}: must be LABEL=VALUE, such as tumour=1 or 3=1")
        label, target = match[1], int(match[2])
        if label not in values and not label.isdecimal():
            raise UserError(f"--labels {word}: the dataset has no label '{label}'{nearest(label, values)}")
        if target != 0 and target not in labels.values():
            raise UserError(f"--labels {word}: {challenge} has no label {target} ({shown(labels)})")
        mapping[values[label] if label in values else int(label)] = target
    return mapping
