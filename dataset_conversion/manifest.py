"""Any collection of scans, described by a table.

``cases.csv`` has the columns ``case,domain,subject,image_0000[,image_0001…],label``: `label` empty where there is none,
`subject` empty (or absent) where a case is a subject of its own, paths relative to the table.
"""

import csv
import difflib
import re
from pathlib import Path

from nnunet_da.dataset_conversion import About
from nnunet_da.errors import UserError, nearest

ABOUT = About(
    anatomy="any",
    cases="the rows of a table cases.csv",
    domains="its column `domain`",
    licence="that of the scans",
    source="columns case,domain,subject,image_0000[,image_0001…],label (empty: unlabelled)",
)

_REQUIRED = ("case", "domain", "image_0000", "label")
_OPTIONAL = ("subject",)
_IMAGE_COLUMN = re.compile(r"image_\d{4}")


def add_arguments(parser):
    parser.add_argument(
        "--labels",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="structures and their values in the label files; several values of one structure: disc=3,5 "
        "(default: a structure per value found)",
    )
    parser.add_argument(
        "--channels", nargs="+", metavar="NAME", help="a name per image column (CT changes normalisation; default: MR)"
    )
    parser.add_argument(
        "--domain-labels",
        nargs="+",
        default=[],
        metavar="DOMAIN=NAME,NAME",
        help="structures that are annotated in a domain, where not all are",
    )


def cases(raw, arguments):
    """The rows of the table `raw` as a Conversion. Raises UserError with file and line where one breaks a rule."""
    from nnunet_da.raw_dataset import Case, Conversion

    path = Path(raw)
    channels, rows = read_table(path)
    channel_names = arguments.channels or ["MR"] * len(channels)
    if len(channel_names) != len(channels):
        raise UserError(f"{path}: has {len(channels)} image columns, but --channels names {len(channel_names)}")

    label_files = [path.parent / row["label"] for _, row in rows if row["label"]]
    values = parse_labels(arguments.labels) or _values_found(label_files, arguments.n_processes, path)
    # nnU-Net wants 1, 2, 3, …; the files may hold anything.
    labels = {name: index for index, name in enumerate(sorted(values, key=lambda name: values[name]), start=1)}
    label_values = {value: labels[name] for name in labels for value in values[name]}
    if any(value != target for value, target in label_values.items()):
        print(
            f"note: label values become {', '.join(f'{name} {list(values[name])} → {labels[name]}' for name in labels)}"
        )
    else:
        label_values = None
    return Conversion(
        cases=[
            Case(
                id=row["case"],
                domain=row["domain"],
                subject=row["subject"] or None,
                images=tuple(path.parent / row[channel] for channel in channels),
                label=path.parent / row["label"] if row["label"] else None,
                label_values=label_values,
            )
            for _, row in rows
        ],
        channel_names=channel_names,
        labels=labels,
        domain_labels=_parse_domain_labels(arguments.domain_labels),
        name=re.sub(r"[^A-Za-z0-9]+", "_", path.stem).strip("_") or None,
    )


def read_table(path):
    """The image columns of a table, and its rows as (line number, column → text), blank rows left out."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError):
        raise UserError(f"{path}: must be a readable CSV file in UTF-8") from None
    header = text.split("\n", 1)[0]
    reader = csv.DictReader(text.splitlines(), delimiter=";" if header.count(";") > header.count(",") else ",")
    columns = [column.strip() for column in reader.fieldnames or ()]
    reader.fieldnames = columns
    channels = _check_columns(columns, path)

    rows, line_of_case = [], {}
    for fields in reader:
        line = reader.line_num
        if None in fields or None in fields.values():
            raise UserError(f"{path}, line {line}: has more or fewer cells than the {len(columns)} columns of line 1")
        row = {"subject": "", **{column: text.strip() for column, text in fields.items()}}
        for column in ("case", "domain", *channels):
            if not row[column]:
                raise UserError(f"{path}, line {line}: '{column}' is empty")
        if row["case"] in line_of_case:
            raise UserError(
                f"{path}, line {line}: case '{row['case']}' stands in line {line_of_case[row['case']]} already"
            )
        line_of_case[row["case"]] = line
        rows.append((line, row))
    if not rows:
        raise UserError(f"{path}: has no rows")
    return channels, rows


def _check_columns(columns, path):
    """The image columns in their order. Raises UserError where a column is missing, twice, or looks misspelt."""
    for column in _REQUIRED:
        if column not in columns:
            raise UserError(f"{path}, line 1: the column '{column}' is missing{nearest(column, columns)}")
    channels = sorted(column for column in columns if _IMAGE_COLUMN.fullmatch(column))
    for index, column in enumerate(channels):
        if column != f"image_{index:04d}":
            raise UserError(f"{path}, line 1: the column 'image_{index:04d}' is missing, but there is '{column}'")
    known = (*_REQUIRED, *_OPTIONAL, *channels)
    for column in columns:
        if columns.count(column) > 1:
            raise UserError(f"{path}, line 1: the column '{column}' stands twice")
        if column not in known and difflib.get_close_matches(column, known, cutoff=0.8):
            raise UserError(f"{path}, line 1: unknown column '{column}'{nearest(column, known)}")
    unused = [column for column in columns if column not in known]
    if unused:
        print(f"note: {path}: columns not used: {', '.join(unused)}")
    return channels


def parse_labels(texts):
    """``["disc=1", "vertebra=2,3"]`` → {"disc": (1,), "vertebra": (2, 3)}. Raises UserError where it is otherwise."""
    values, name_of_value = {}, {}
    for text in texts:
        match = re.fullmatch(r"([^=]+)=(\d+(?:,\d+)*)", text)
        if not match:
            raise UserError(f"--labels {text}: must be NAME=VALUE or NAME=VALUE,VALUE with whole numbers")
        name = match[1]
        if name in values:
            raise UserError(f"--labels {text}: '{name}' is given twice")
        values[name] = tuple(sorted({int(value) for value in match[2].split(",")}))
        for value in values[name]:
            if value == 0:
                raise UserError(f"--labels {text}: 0 is the background")
            if value in name_of_value:
                raise UserError(f"--labels {text}: the value {value} is '{name_of_value[value]}' already")
            name_of_value[value] = name
    return values


def _parse_domain_labels(texts):
    """``["ankle=talus,tibia"]`` → {"ankle": ("talus", "tibia")}."""
    domain_labels = {}
    for text in texts:
        domain, separator, names = text.partition("=")
        if not separator or not domain or not all(names.split(",")):
            raise UserError(f"--domain-labels {text}: must be DOMAIN=NAME,NAME")
        domain_labels[domain] = tuple(names.split(","))
    return domain_labels


def _values_found(label_files, n_processes, path):
    """A structure ``label_VALUE`` for every value but 0 in the label files."""
    from nnunet_da.parallel import run_parallel
    from nnunet_da.raw_cases import values_in_label

    found = sorted(
        {
            value
            for values in run_parallel(values_in_label, label_files, n_processes, "Reading labels")
            for value in values
            if value != 0
        }
    )
    if not found:
        raise UserError(f"{path}: no label file holds a structure; name the structures with --labels NAME=VALUE")
    if found[0] < 0:
        raise UserError(f"{path}: label files hold the negative value {found[0]}")
    print(f"note: structures named after the values found: {', '.join(f'label_{value}' for value in found)}")
    return {f"label_{value}": (value,) for value in found}
