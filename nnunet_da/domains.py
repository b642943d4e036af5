"""Which case belongs to which domain: the blocks of a dataset.json that say so, read and checked.

    "labels":   {"background": 0, "disc": 1, "ignore": 2},
    "domains":  {"philips_3t":   {"labels": ["disc"], "labelled": ["mrss_001"], "unlabelled": []},
                 "siemens_1p5t": {"labels": ["disc"], "labelled": [],           "unlabelled": ["chu_01"]}},
    "subjects": {"ivd_01": "s1", "ivd_02": "s1"},
    "pseudo_labels": {"mrss_001": 1.0}

The order of `domains` is the domain index. `labels` of a domain names those of the dataset's structures that are
annotated there. A case without an entry in `subjects` is a subject of its own. `pseudo_labels`, where there are any,
names the labelled cases whose labels a network drew, with the weight of each in training (`nnunet_da.self_training`).
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from nnunet_da.errors import UserError, nearest

BACKGROUND = "background"
IGNORE = "ignore"
NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_KEYS = ("labels", "labelled", "unlabelled")


@dataclass(frozen=True)
class Domain:
    """One domain: its name, the structures annotated in it, its cases with labels and those without."""

    name: str
    labels: tuple[str, ...]
    labelled: tuple[str, ...] = ()
    unlabelled: tuple[str, ...] = ()

    @property
    def cases(self) -> tuple[str, ...]:
        return self.labelled + self.unlabelled


class Domains:
    """The domains of a dataset in the order of their indices.

    `domains` are checked by `read_domains`; `subjects` maps case to subject and may leave out cases that are subjects
    of their own; `source` names the file in messages; `pseudo_labels` maps those of the labelled cases whose labels are
    not true ones to their weights, in (0, 1].
    """

    def __init__(
        self,
        domains: Iterable[Domain],
        subjects: Mapping[str, str] | None = None,
        source="dataset.json",
        pseudo_labels: Mapping[str, float] | None = None,
    ):
        self.source = source
        self.pseudo_labels = dict(pseudo_labels or {})
        self._domains = {domain.name: domain for domain in domains}
        self._subjects = dict(subjects or {})
        self._index_of_case = {
            case: index for index, domain in enumerate(self._domains.values()) for case in domain.cases
        }

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._domains)

    @property
    def labelled_cases(self) -> tuple[str, ...]:
        return tuple(case for domain in self for case in domain.labelled)

    @property
    def unlabelled_cases(self) -> tuple[str, ...]:
        return tuple(case for domain in self for case in domain.unlabelled)

    @property
    def cases(self) -> tuple[str, ...]:
        """All cases, domain by domain."""
        return tuple(self._index_of_case)

    def __iter__(self) -> Iterator[Domain]:
        return iter(self._domains.values())

    def __len__(self) -> int:
        return len(self._domains)

    def __contains__(self, name) -> bool:
        return name in self._domains

    def __getitem__(self, name: str) -> Domain:
        """The domain called `name`. Raises UserError, naming the nearest, where there is none."""
        if name not in self._domains:
            raise UserError(
                f"{self.source}: no domain '{name}'{nearest(name, self.names)} (domains: {', '.join(self.names)})"
            )
        return self._domains[name]

    def select(self, names: Iterable[str]) -> tuple[Domain, ...]:
        """The domains called `names`, in that order. Raises UserError where one is unknown."""
        return tuple(self[name] for name in names)

    def index_of_case(self, case: str) -> int:
        """The index of the domain that `case` belongs to. Raises UserError where it belongs to none."""
        if case not in self._index_of_case:
            raise UserError(f"{self.source}: case '{case}' belongs to no domain{nearest(case, self._index_of_case)}")
        return self._index_of_case[case]

    def domain_of_case(self, case: str) -> str:
        """The name of the domain that `case` belongs to. Raises UserError where it belongs to none."""
        return self.names[self.index_of_case(case)]

    def subject_of(self, case: str) -> str:
        """The subject whose scan `case` is; the case itself where none is named."""
        return self._subjects.get(case, case)

    def to_json(self) -> dict:
        """The blocks `domains`, `subjects` and (where there are any) `pseudo_labels` as they stand in dataset.json."""
        return {
            "domains": {domain.name: {key: list(getattr(domain, key)) for key in _KEYS} for domain in self},
            "subjects": {case: subject for case, subject in self._subjects.items() if subject != case},
            **({"pseudo_labels": self.pseudo_labels} if self.pseudo_labels else {}),
        }


def structures(labels: Mapping) -> tuple[str, ...]:
    """The names in a dataset.json's `labels` that are structures: neither background nor ignore."""
    return tuple(name for name in labels if name not in (BACKGROUND, IGNORE))


def label_values(labels: Mapping, source="labels") -> tuple[int, ...]:
    """The values (of regions: those they are made of) that `labels` uses for anything but ignore, ascending.

    Raises UserError where one is no integer.
    """
    values = set()
    for name, value in labels.items():
        parts = value if isinstance(value, list | tuple) else [value]
        if not all(type(part) is int for part in parts):
            raise UserError(f"{source}: the value of label '{name}' must be an integer, not {value!r}")
        if name != IGNORE:
            values.update(parts)
    return tuple(sorted(values))


def check_name(name, kind, source) -> str:
    """`name`, checked: letters, digits, "_", "-" and ".", starting with a letter or digit. Raises UserError."""
    if not isinstance(name, str) or not NAME_PATTERN.fullmatch(name):
        raise UserError(
            f"{source}: {kind} '{name}': use letters, digits, '_', '-' and '.', starting with a letter or digit"
        )
    return name


def read_domains(dataset_json: Mapping, source="dataset.json") -> Domains:
    """The checked domains of a dataset.json's content; `source` names the file in messages.

    Raises UserError where a block is missing or malformed, a domain is empty or names a label that the dataset lacks, a
    case stands twice, a subject is given for an unknown case, unlabelled cases stand without an `ignore` label, or a
    pseudo-label is of no labelled case or has no weight.
    """
    source = str(source)
    blocks = dataset_json.get("domains")
    if not blocks:
        raise UserError(f"{source}: no 'domains' block; make one with `nnunet-da convert` or `nnunet-da add-domain`")
    if not isinstance(blocks, Mapping):
        raise UserError(f"{source}: 'domains' must map each domain's name to its labels and cases")
    labels = dataset_json.get("labels")
    if not isinstance(labels, Mapping):
        raise UserError(f"{source}: 'labels' must map each label's name to its value")

    domains = Domains([_read_domain(name, block, labels, source) for name, block in blocks.items()], source=source)
    _check_cases_unique(domains, source)
    if domains.unlabelled_cases:
        check_ignore(labels, source)
    subjects = dataset_json.get("subjects", {})
    if not isinstance(subjects, Mapping):
        raise UserError(f"{source}: 'subjects' must map cases to subjects")
    cases = set(domains.cases)
    for case, subject in subjects.items():
        if case not in cases:
            raise UserError(f"{source}: 'subjects' names the unknown case '{case}'{nearest(case, cases)}")
        if not isinstance(subject, str) or not subject:
            raise UserError(f"{source}: the subject of case '{case}' must be a name, not {subject!r}")
    pseudo_labels = dataset_json.get("pseudo_labels", {})
    _check_pseudo_labels(pseudo_labels, domains.labelled_cases, source)
    return Domains(domains, subjects, source, pseudo_labels)


def _check_pseudo_labels(pseudo_labels, labelled, source) -> None:
    if not isinstance(pseudo_labels, Mapping):
        raise UserError(f"{source}: 'pseudo_labels' must map cases to weights")
    known = set(labelled)
    for case, weight in pseudo_labels.items():
        if case not in known:
            raise UserError(f"{source}: 'pseudo_labels' names '{case}', no labelled case{nearest(case, known)}")
        if type(weight) not in (int, float) or not 0 < weight <= 1:
            raise UserError(
                f"{source}: the pseudo-label of case '{case}' must weigh above 0, at most 1, not {weight!r}"
            )


def check_ignore(labels: Mapping, source) -> int:
    """The value of `ignore`. Raises UserError where it is missing or not the highest value of `labels`."""
    value = labels.get(IGNORE)
    if value is None:
        raise UserError(f"{source}: unlabelled cases need an '{IGNORE}' label, and 'labels' has none")
    highest = max(label_values(labels, source), default=0)
    if value != highest + 1:
        raise UserError(f"{source}: '{IGNORE}' is {value}, but must follow the highest label ({highest + 1})")
    return value


def _read_domain(name, block, labels, source) -> Domain:
    check_name(name, "domain", source)
    if not isinstance(block, Mapping):
        raise UserError(f"{source}: domain '{name}' must hold {', '.join(_KEYS)}")
    for key in block:
        if key not in _KEYS:
            raise UserError(f"{source}: domain '{name}' has an unknown entry '{key}'{nearest(key, _KEYS)}")
    entries = {"labels": structures(labels), "labelled": (), "unlabelled": ()}
    for key, value in block.items():
        if not isinstance(value, list | tuple) or not all(isinstance(entry, str) for entry in value):
            raise UserError(f"{source}: '{key}' of domain '{name}' must be a list of names")
        entries[key] = tuple(value)
    check_domain_labels(name, entries["labels"], labels, source)
    domain = Domain(name, **entries)
    if not domain.cases:
        raise UserError(f"{source}: domain '{name}' has no cases")
    return domain


def check_domain_labels(name, domain_labels, labels, source) -> None:
    """Raises UserError where `domain_labels` of domain `name` is empty or holds what is no structure of `labels`."""
    if not domain_labels:
        raise UserError(f"{source}: domain '{name}' has no labels; name the structures that are annotated there")
    for label in domain_labels:
        if label not in structures(labels):
            raise UserError(
                f"{source}: domain '{name}' names the unknown label '{label}'{nearest(label, structures(labels))}"
            )


def _check_cases_unique(domains, source) -> None:
    place_of_case = {}
    for domain in domains:
        for kind in ("labelled", "unlabelled"):
            for case in getattr(domain, kind):
                place = f"{kind} in domain '{domain.name}'"
                if case in place_of_case:
                    raise UserError(f"{source}: case '{case}' stands twice: {place_of_case[case]} and {place}")
                place_of_case[case] = place
