"""Evaluates folders of predictions against a folder of reference label maps, case by case in parallel processes."""

import functools
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from nnunet_da.errors import UserError
from nnunet_da.evaluation.label_map import (
    ENDINGS,
    label_maps_in,
    read_label_map,
    require_known_values,
    require_same_geometry,
)
from nnunet_da.evaluation.membership import Structures, parse_labels, structures_of_domain
from nnunet_da.evaluation.metrics import structure_metrics
from nnunet_da.parallel import run_parallel

DEFAULT_DOMAIN = "all"
COLUMNS = (
    "model",
    "domain",
    "case",
    "structure",
    "dsc",
    "hd_mm",
    "hd_voxels",
    "hd95_mm",
    "assd_mm",
    "sensitivity",
    "specificity",
    "missed",
    "false",
    "n_reference_voxels",
    "n_predicted_voxels",
)


@dataclass(frozen=True)
class Case:
    """One reference and each model's prediction of it (None where there is none); small, for other processes."""

    name: str
    domain: str
    reference: Path
    predictions: dict[str, Path | None]


def parse_models(texts):
    """Model → folder of texts such as ``unet=FOLDER``. Raises UserError for another form or a name given twice."""
    folders = {}
    for text in texts:
        name, separator, folder = text.partition("=")
        if not (name and separator and folder):
            raise UserError(f"--pred {text}: must be NAME=FOLDER")
        if name in folders:
            raise UserError(f"--pred {text}: duplicate model '{name}' (also {folders[name]})")
        folders[name] = Path(folder)
    return folders


def evaluate_folders(
    references,
    predictions,
    labels,
    *,
    domain_of_case=None,
    default_domain=None,
    domain_labels=None,
    allow_missing=False,
    n_processes=None,
):
    """Metrics of every model, case and structure, as a pandas DataFrame with `COLUMNS`.

    Args:
        references: folder of reference label maps, CASE.nii.gz or .nii.
        predictions: model → folder of predictions under the same names.
        labels: `labels` of dataset.json. A list of values is a region: the union of its labels. Background is no
            structure, and voxels whose reference is ``ignore`` are left out.
        domain_of_case: case → domain; its order is the order of the domains. Cases it does not name belong to
            `default_domain` (``all`` where that is None).
        domain_labels: domain → the structures it names; a domain that is not in it has all of them.
        allow_missing: an absent prediction counts as an empty one: Dice 0 and missed wherever the reference holds the
            structure. Otherwise it is an error.
        n_processes: parallel processes; by default one per core.

    Rows are ordered by domain, model as given, case and structure as in `labels`. The metrics, and the values for empty
    masks, are those of `metrics.structure_metrics`. Every file is checked before the first metric is computed.
    Raises UserError where a folder, file, geometry or label value breaks a rule.
    """
    import pandas

    structures = parse_labels(labels)
    cases = _collect(references, predictions, domain_of_case or {}, default_domain, allow_missing)
    domains = list(dict.fromkeys(case.domain for case in cases))
    chosen = {d: structures_of_domain(structures, (domain_labels or {}).get(d), f"labels of '{d}'") for d in domains}
    check = functools.partial(check_case, structures=structures)
    evaluate = functools.partial(evaluate_case, chosen=chosen, ignore=structures.ignore)
    run_parallel(check, cases, n_processes, "Checking files")
    rows = [row for rows in run_parallel(evaluate, cases, n_processes, "Computing metrics") for row in rows]
    order = {"domain": domains, "model": list(predictions)}
    rows.sort(key=lambda row: [names.index(row[column]) for column, names in order.items()])
    return pandas.DataFrame(rows, columns=list(COLUMNS))


def check_case(case: Case, structures: Structures):
    """Raises UserError unless all files of a case can be read, lie on one grid and hold known values only."""
    known = structures.predictable
    reference = read_label_map(case.reference)
    require_known_values(reference, known if structures.ignore is None else [*known, structures.ignore], case.reference)
    for path in case.predictions.values():
        if path is not None:
            prediction = read_label_map(path)
            require_same_geometry(prediction, reference, path, case.reference)
            require_known_values(prediction, known, path)


def evaluate_case(case: Case, chosen, ignore):
    """Rows (dicts with `COLUMNS`) of one case, for the structures `chosen` (domain → name → label values)."""
    reference = read_label_map(case.reference)
    valid = reference.array != ignore if ignore is not None and ignore in reference.array else None
    rows = []
    for model, path in case.predictions.items():
        prediction = np.zeros_like(reference.array) if path is None else read_label_map(path).array
        for structure, values in chosen[case.domain].items():
            metrics = structure_metrics(
                np.isin(reference.array, values), np.isin(prediction, values), reference.spacing, valid
            )
            rows.append({"model": model, "domain": case.domain, "case": case.name, "structure": structure, **metrics})
    return rows


def _collect(references, predictions, domain_of_case, default_domain, allow_missing):
    """The `Case`s of all references, ordered by domain, then name; checks which files there are."""
    reference_paths = label_maps_in(references)
    if not reference_paths:
        raise UserError(f"{references}: no reference label maps ({', '.join(ENDINGS)})")
    if not predictions:
        raise UserError("no model to evaluate")
    found = {model: label_maps_in(folder) for model, folder in predictions.items()}
    for model, folder in predictions.items():
        missing = [case for case in reference_paths if case not in found[model]]
        if missing and not allow_missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise UserError(
                f"{folder}: model '{model}' has no prediction for case '{missing[0]}'{more} of {references};"
                " --allow-missing counts such cases as missed"
            )
        if len(missing) == len(reference_paths):
            raise UserError(f"{folder}: model '{model}' has no prediction for any case of {references}")
        extra = [case for case in found[model] if case not in reference_paths]
        if extra:
            _note(f"{folder}: {len(extra)} prediction(s) without a reference are left out, such as '{extra[0]}'")
    unknown = [case for case in reference_paths if case not in domain_of_case]
    if unknown and domain_of_case and default_domain is None:
        _note(
            f"{len(unknown)} case(s) belong to no known domain, such as '{unknown[0]}', and stand under"
            f" '{DEFAULT_DOMAIN}'; name it with --cases or --domain"
        )
    default_domain = default_domain or DEFAULT_DOMAIN
    domains = list(dict.fromkeys([*domain_of_case.values(), default_domain]))
    cases = [
        Case(name, domain_of_case.get(name, default_domain), path, {model: found[model].get(name) for model in found})
        for name, path in reference_paths.items()
    ]
    return sorted(cases, key=lambda case: domains.index(case.domain))


def _note(text):
    tqdm.write(f"note: {text}", file=sys.stderr)
