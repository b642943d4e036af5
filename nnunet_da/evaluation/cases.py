"""Evaluates folders of predictions against a folder of reference label maps, case by case in parallel processes."""

import functools
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from nnunet_da.errors import UserError
from nnunet_da.evaluation.finished import FinishedCases, fingerprint
from nnunet_da.evaluation.label_map import (
    ENDINGS,
    label_maps_in,
    read_label_map,
    require_known_values,
    require_same_geometry,
)
from nnunet_da.evaluation.membership import Structures, parse_labels, structures_of_domain
from nnunet_da.evaluation.metrics import COUNTS, METRICS, TOLERANCE_MM, mask_pairs
from nnunet_da.parallel import run_parallel

DEFAULT_DOMAIN = "all"
COLUMNS = ("model", "domain", "case", "structure", *(metric.key for metric in METRICS), *COUNTS)
SLICE_COLUMNS = ("model", "domain", "case", "structure", "slice", "dsc", "sensitivity", "specificity")
# The axes of a file's grid, in the order of the arrays' axes.
AXES = ("z", "y", "x")
COARSEST = "coarsest"


@dataclass(frozen=True)
class Case:
    """One reference and each model's prediction of it (None where there is none); small, for other processes."""

    name: str
    domain: str
    reference: Path
    predictions: dict[str, Path | None]


def parse_models(texts, flag="--pred"):
    """Model → folder of texts such as ``unet=FOLDER``. Raises UserError for another form or a name given twice."""
    folders = {}
    for name, folder in _parse_named(texts, flag):
        if name in folders:
            raise UserError(f"{flag} {name}={folder}: duplicate model '{name}' (also {folders[name]})")
        folders[name] = folder
    return folders


def parse_folds(texts, flag="--fold-pred"):
    """Model → folders, one per fold, of texts such as ``unet=FOLDER``. Raises UserError for another form."""
    folders = {}
    for name, folder in _parse_named(texts, flag):
        folders.setdefault(name, []).append(folder)
    return folders


def _parse_named(texts, flag):
    for text in texts:
        name, separator, folder = text.partition("=")
        if not (name and separator and folder):
            raise UserError(f"{flag} {text}: must be NAME=FOLDER")
        yield name, Path(folder)


@dataclass(frozen=True)
class Options:
    """How metrics are computed: `tolerance_mm` and `empty` as in `metrics.label_map_metrics`; across which axis of the
    files' grid slices are taken ("x", "y", "z", or "coarsest": that with the largest spacing, z among equals)."""

    tolerance_mm: float = TOLERANCE_MM
    empty: str = "nan"
    slice_axis: str = COARSEST


@dataclass(frozen=True)
class Evaluation:
    """Two pandas DataFrames: `cases` with `COLUMNS`, a row per model, case and structure; and `slices` with
    `SLICE_COLUMNS`, a row per slice in which either mask holds the structure. `n_empty_slices` is the number of
    slices without a row, over all models, cases and structures, because both masks are empty there."""

    cases: object
    slices: object
    n_empty_slices: int


def evaluate_folders(references, predictions, labels, **options):
    """The metrics of every model, case and structure: `cases` of `evaluate`, which has the same arguments."""
    return evaluate(references, predictions, labels, **options).cases


def evaluate(
    references,
    predictions,
    labels,
    *,
    domain_of_case=None,
    default_domain=None,
    domain_labels=None,
    allow_missing=False,
    n_processes=None,
    options: Options | None = None,
    finished: FinishedCases | None = None,
):
    """The `Evaluation` of every model, case and structure.

    Args:
        references: folder of reference label maps, a file with one of `label_map.ENDINGS` per case.
        predictions: model → folder of predictions under the same names, with whichever of these endings.
        labels: `labels` of dataset.json. A list of values is a region: the union of its labels. Background is no
            structure, and voxels whose reference is ``ignore`` are left out.
        domain_of_case: case → domain; its order is the order of the domains. Cases it does not name belong to
            `default_domain` (``all`` where that is None).
        domain_labels: domain → the structures it names; a domain that is not in it has all of them.
        allow_missing: an absent prediction counts as an empty one: Dice 0 and missed wherever the reference holds the
            structure. Otherwise it is an error.
        n_processes: parallel processes; by default one per core.
        options: `Options`; None for the defaults.
        finished: where to take results from and keep them; None to compute all and keep none.

    Rows are ordered by domain, model as given, case and structure as in `labels`. The metrics, and the values for empty
    masks, are those of `metrics`. Raises UserError where a folder, file, geometry or label value breaks a rule; the
    other cases are evaluated, and kept in `finished`, all the same.
    """
    import pandas

    options = options or Options()
    structures = parse_labels(labels)
    cases = _collect(references, predictions, domain_of_case or {}, default_domain, allow_missing)
    domains = list(dict.fromkeys(case.domain for case in cases))
    chosen = {d: structures_of_domain(structures, (domain_labels or {}).get(d), f"labels of '{d}'") for d in domains}
    work = functools.partial(
        _evaluate_and_keep, chosen=chosen, structures=structures, options=options, finished=finished
    )
    marks = [_mark(case, chosen, structures, options) if finished else None for case in cases]
    results = [finished.load(mark) if finished else None for mark in marks]
    pending = [index for index, result in enumerate(results) if result is None]
    if len(pending) < len(cases):
        _note(f"{len(cases) - len(pending)} of {len(cases)} cases were finished before (kept in {finished.folder})")
    found = run_parallel(work, [(cases[index], marks[index]) for index in pending], n_processes, "Evaluating cases")
    for index, result in zip(pending, found, strict=True):
        results[index] = result

    order = {"domain": domains, "model": list(predictions)}
    frames = []
    for table, columns in (("cases", COLUMNS), ("slices", SLICE_COLUMNS)):
        rows = [row for result in results for row in result[table]]
        rows.sort(key=lambda row: [names.index(row[column]) for column, names in order.items()])
        frames.append(pandas.DataFrame(rows, columns=list(columns)))
    return Evaluation(*frames, sum(result["n_empty_slices"] for result in results))


def _mark(case, chosen, structures, options):
    """The fingerprint of a case's result."""
    # As lists: their order is that of the rows.
    names = [case.name, case.domain, list(case.predictions), list(chosen[case.domain].items())]
    settings = [names, asdict(structures), asdict(options), COLUMNS, SLICE_COLUMNS]
    return fingerprint([case.reference, *case.predictions.values()], settings)


def _evaluate_and_keep(case_and_mark, chosen, structures, options, finished):
    case, mark = case_and_mark
    result = evaluate_case(case, chosen, structures, options)
    if finished:
        finished.save(mark, result)
    return result


def evaluate_case(case: Case, chosen, structures: Structures, options: Options):
    """``cases`` and ``slices``, rows of the tables of `Evaluation` as dicts, and ``n_empty_slices`` of one case.

    `chosen`: domain → name → label values of the structures to evaluate. Raises UserError unless all files of the case
    can be read, lie on one grid and hold values that `structures` knows.
    """
    ignore, known = structures.ignore, structures.predictable
    reference = read_label_map(case.reference)
    require_known_values(reference, known if ignore is None else [*known, ignore], case.reference)
    truth = _unsigned(reference.array)
    valid = truth != ignore if ignore is not None and ignore in truth else None
    result = {"cases": [], "slices": [], "n_empty_slices": 0}
    for model, path in case.predictions.items():
        if path is None:
            predicted = np.zeros_like(truth)
        else:
            prediction = read_label_map(path)
            require_same_geometry(prediction, reference, path, case.reference)
            require_known_values(prediction, known, path)
            predicted = _unsigned(prediction.array)
        for structure, pair in mask_pairs(truth, predicted, reference.spacing, chosen[case.domain], valid):
            names = {"model": model, "domain": case.domain, "case": case.name, "structure": structure}
            metrics = pair.metrics(tolerance_mm=options.tolerance_mm, empty=options.empty)
            result["cases"].append({**names, **metrics})
            axis = _slice_axis(options.slice_axis, pair.spacing)
            slices = pair.slice_metrics(axis)
            values = zip(*(column.tolist() for column in slices.values()), strict=True)
            result["slices"] += [names | dict(zip(slices, row, strict=True)) for row in values]
            result["n_empty_slices"] += (pair.shape[axis] if len(pair.shape) == 3 else 1) - len(slices["slice"])
    return result


def _slice_axis(name, spacing):
    """The axis of the arrays that `Options.slice_axis` names."""
    return int(np.argmax(spacing)) if name == COARSEST else AXES.index(name)


def _unsigned(array):
    """Label values, which are whole numbers ≥ 0, as an unsigned integer type."""
    return array if array.dtype.kind == "u" else array.astype(np.uint32)


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
