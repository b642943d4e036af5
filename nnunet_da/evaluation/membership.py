"""Which labels a dataset has and which domain each case belongs to, from dataset.json and from a table of cases."""

import csv
import os
from dataclasses import dataclass
from pathlib import Path

from nnunet_da.domains import read_domains
from nnunet_da.errors import UserError, nearest
from nnunet_da.files import read_json
from nnunet_da.paths import PREPROCESSED, RAW, find_dataset


@dataclass(frozen=True)
class Structures:
    """The structures of a dataset: name → label values (several for a region), and the ignore value, if any."""

    values: dict[str, tuple[int, ...]]
    ignore: int | None

    @property
    def predictable(self):
        """Every value that a prediction may hold: background and the structures' values, sorted."""
        return sorted({0}.union(*self.values.values()))


@dataclass(frozen=True)
class Membership:
    """What dataset.json says: its `labels`, the domain of each case, the structures that each domain names, and the
    domains with labelled cases (None for a dataset without domains)."""

    labels: dict
    domain_of_case: dict[str, str]
    domain_labels: dict[str, list[str]]
    labelled_domains: list[str] | None = None


def parse_labels(labels, source="labels"):
    """`Structures` of nnU-Net's `labels` (name → int, or list of ints for a region), without background.

    Raises UserError, naming `source`, where a value is no label or there is no structure.
    """
    if not isinstance(labels, dict):
        raise UserError(f"{source}: 'labels' must be an object of names and values")
    values, ignore = {}, None
    for name, value in labels.items():
        several = value if isinstance(value, list | tuple) else [value]
        if not several or any(not isinstance(v, int) or isinstance(v, bool) or v < 0 for v in several):
            raise UserError(f"{source}: label '{name}' must be a whole number ≥ 0 or a list of such, not {value!r}")
        if name == "ignore":
            if len(several) != 1:
                raise UserError(f"{source}: label 'ignore' must be one value, not {value!r}")
            ignore = several[0]
        elif name != "background":
            values[name] = tuple(several)
    structures = Structures(values, ignore)
    if not values:
        raise UserError(f"{source}: 'labels' names no structure beside background and ignore")
    if ignore is not None and ignore <= max(structures.predictable):
        raise UserError(f"{source}: label 'ignore' must be the highest value, not {ignore}")
    return structures


def structures_of_domain(structures, names, source):
    """The part of `structures` that a domain names, in the dataset's order; `names` None stands for all of them."""
    if names is None:
        return structures.values
    for name in names:
        if name not in structures.values and name != "background":
            raise UserError(f"{source}: '{name}' is no structure of the dataset{nearest(name, structures.values)}")
    chosen = {name: values for name, values in structures.values.items() if name in names}
    if not chosen:
        raise UserError(f"{source}: names no structure")
    return chosen


def find_dataset_json(dataset):
    """The dataset.json of an id (``101``) or name (``Dataset101_Spine``) in nnUNet_raw, else nnUNet_preprocessed.

    Raises UserError where there is no such dataset, or neither folder has its dataset.json.
    """
    name = find_dataset(dataset)
    roots = [Path(os.environ[variable]) for variable in (RAW, PREPROCESSED) if os.environ.get(variable)]
    found = [root / name / "dataset.json" for root in roots if (root / name / "dataset.json").is_file()]
    if not found:
        raise UserError(f"-d {dataset}: no {name}/dataset.json in {' or '.join(map(str, roots))}; give --dataset-json")
    return found[0]


def read_membership(path):
    """`Membership` of a dataset.json. A dataset without `domains` has none: both maps are empty.

    Raises UserError where the file or its domains are malformed, see `domains.read_domains`.
    """
    content = read_json(path)
    if not isinstance(content, dict) or "labels" not in content:
        raise UserError(f"{path}: no 'labels'; is this an nnU-Net dataset.json?")
    parse_labels(content["labels"], path)
    if "domains" not in content:
        return Membership(content["labels"], {}, {})
    domains = read_domains(content, path)
    return Membership(
        content["labels"],
        {case: domain.name for domain in domains for case in domain.cases},
        {domain.name: list(domain.labels) for domain in domains},
        [domain.name for domain in domains if domain.labelled],
    )


def read_cases(path):
    """The domain of each case, from a CSV file with the columns ``case`` and ``domain`` (others are left aside).

    Raises UserError where a column or value is missing or a case is listed twice.
    """
    try:
        # utf-8-sig: spreadsheet programs put a byte order mark in front.
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = {"case", "domain"} - set(reader.fieldnames or [])
            if missing:
                raise UserError(
                    f"{path}: no column {' and '.join(map(repr, sorted(missing)))} (a CSV with a header line)"
                )
            domain_of_case = {}
            for row in reader:
                case, domain = (row["case"] or "").strip(), (row["domain"] or "").strip()
                if not case or not domain:
                    raise UserError(f"{path}: line {reader.line_num} must name a case and a domain")
                _assign(domain_of_case, case, domain, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a CSV file ({error})") from None
    return domain_of_case


def _assign(domain_of_case, case, domain, source):
    if case in domain_of_case:
        raise UserError(f"{source}: duplicate case '{case}' (in '{domain_of_case[case]}' and '{domain}')")
    domain_of_case[case] = domain
