"""What the releases of CrossMoDA share: labelled ceT1 scans as source, unlabelled T2 scans as target.

Centre and sequence make the domain; numbers of source, target and validation are disjoint within a release. Layouts
have the roles source, label, target and validation, and the fields ``case`` and (else London) ``centre``.
"""

import csv
import re
from pathlib import Path

from nnunet_da.dataset_conversion._layout import find_files
from nnunet_da.dataset_conversion._structures import labels_and_values
from nnunet_da.errors import UserError, nearest

# Beside the folders of training scans; of use to classify tumours, not to segment them.
GRADES = "infos_source_training.csv"
ALSO = (rf"[^/]+/{GRADES}",)
_GRADE_COLUMN = re.compile("koos|grade|class", re.IGNORECASE)
_PARTS = ("source", "target", "validation")


def schemes(vs, cochlea):
    """Schemes that every release has, for its values of tumour and cochlea."""
    return {"vs-cochlea": {"vs": vs, "cochlea": cochlea}, "vs": {"vs": vs}, "cochlea": {"cochlea": cochlea}}


def conversion(raw, arguments, dataset, layouts, schemes, about, target_sequence):
    """The folder `raw` of the release `dataset` as a Conversion; its target scans are of `target_sequence`."""
    from nnunet_da.raw_dataset import Case, Conversion

    found = find_files(raw, layouts, dataset)
    found.require_role("source", "ceT1 scans")
    found.require_role("target", f"{target_sequence} scans for training")
    if not found.with_role("validation"):
        print(f"note: {raw}: no validation scans ({found.layout.example('validation')}), so there are no test cases")
    for key, paths in found.cases.items():
        parts = [part for part in _PARTS if part in paths]
        if len(parts) > 1:
            raise UserError(
                f"{paths[parts[1]]}: case '{key[0]}' is also {paths[parts[0]].relative_to(raw)}, but a release has "
                f"every number once; keep one of them"
            )
    known = {value for scheme in schemes.values() for values in scheme.values() for value in values}
    labels, label_values = labels_and_values(arguments.structures, schemes, sorted(known))

    def case(key, role, sequence, label=None):
        centre = found.fields[key].get("centre", "ldn")
        values = label_values if label else None
        return Case(key[0], f"{centre}_{sequence}", None, tuple(found.require(key, [role])), label, values)

    grades = _grades(found)
    return Conversion(
        cases=[
            *(
                case(key, "source", "ceT1", None if arguments.unlabelled else found.label(key))
                for key in found.with_role("source", "label")
            ),
            *(case(key, "target", target_sequence) for key in found.with_role("target")),
        ],
        test_cases=[case(key, "validation", target_sequence) for key in found.with_role("validation")],
        tables={"koos.csv": grades} if grades else {},
        channel_names=["MR"],
        labels=labels,
        name=dataset.replace("crossmoda", "CrossMoDA"),
        extra=about.entries,
    )


def _grades(found):
    """Case → {"koos": grade} from the release's table, where it has one; rows without a grade are left out."""
    known = {key[0] for key in found.cases}
    grades = {}
    for path in sorted(Path(found.raw).glob(f"*/{GRADES}")):
        for line, case, grade in _rows(path):
            if case not in known:
                raise UserError(
                    f"{path}, line {line}: there is no scan of case '{case}'{nearest(case, known)}; the download is "
                    f"incomplete, or the table is of another release"
                )
            if grades.setdefault(case, {"koos": grade}) != {"koos": grade}:
                raise UserError(f"{path}, line {line}: case '{case}' has the grade '{grades[case]['koos']}' already")
    return grades


def _rows(path):
    """(line, case, grade) of the rows that have a grade. The first column holds the case, perhaps with its sequence."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        raise UserError(f"{path}: must be a readable CSV file in UTF-8") from None
    header = text.split("\n", 1)[0]
    reader = csv.reader(text.splitlines(), delimiter=";" if header.count(";") > header.count(",") else ",")
    columns = next(reader, [])
    of_grades = [index for index, column in enumerate(columns) if index and _GRADE_COLUMN.search(column)]
    if len(of_grades) != 1:
        raise UserError(f"{path}, line 1: one column must hold grades (koos, grade or class), but {len(of_grades)} do")
    for row in reader:
        if not row:
            continue
        if len(row) != len(columns):
            raise UserError(f"{path}, line {reader.line_num}: has {len(row)} cells, but line 1 has {len(columns)}")
        grade = row[of_grades[0]].strip()
        if grade:
            yield reader.line_num, re.sub(r"_ceT1(\.nii(\.gz)?)?$", "", row[0].strip()), grade
