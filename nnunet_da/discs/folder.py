"""A folder of disc masks: numbered label maps, tables of discs and cases, and a picture of each."""

import csv
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from nnunet_da.discs.confidence import FLAGGED
from nnunet_da.discs.localisation import N_DISCS, localise
from nnunet_da.discs.picture import draw
from nnunet_da.discs.reference import Reference
from nnunet_da.errors import UserError, nearest
from nnunet_da.evaluation.finished import FinishedCases, fingerprint
from nnunet_da.files import atomic_file
from nnunet_da.parallel import run_parallel
from nnunet_da.scan_folder import scans_by_stem
from nnunet_da.scans import integer_voxels, read_scan, same_grid, save_nifti

# Of centroids: mm along the patient's right, anterior and superior (RAS), as NIfTI's affines give them.
DISC_COLUMNS = (
    "case",
    "disc",
    "right_mm",
    "anterior_mm",
    "superior_mm",
    "volume_mm3",
    "confidence",
    "flagged",
    "doubts",
)
CASE_COLUMNS = ("case", "n_discs", "lowest", "highest", "confidence", "flagged", "doubts")


@dataclass(frozen=True)
class _Task:
    """One case: its files (None where there is none), and where the results go."""

    name: str
    mask: Path
    localiser: Path | None
    scan: Path | None
    reference: Path | None
    n_discs: int | None
    expected: int | None
    output: Path
    finished: FinishedCases

    @property
    def label_map(self):
        return self.output / f"{self.name}.nii.gz"

    @property
    def picture(self):
        return self.output / "pictures" / f"{self.name}.png"

    @property
    def mark(self):
        files = [self.mask, self.localiser, self.scan, self.reference]
        return fingerprint(files, ["localise", self.n_discs, self.expected, str(self.label_map.resolve())])


def localise_folder(
    masks,
    output,
    *,
    localiser=None,
    reference=None,
    n_discs=N_DISCS,
    expected=None,
    scans=None,
    n_processes=None,
):
    """Localises the discs in every mask of the folder `masks`; see `localisation.localise`.

    Writes to `output`: CASE.nii.gz, uint8 on the mask's grid; pictures/CASE.png; discs.csv (`DISC_COLUMNS`) and
    cases.csv (`CASE_COLUMNS`). localiser, scans: folders with a file for every mask, under its name (scans may end in
    _0000); reference: a label map. Interrupted, it goes on where it stopped. Returns the rows of cases.csv.

    Raises UserError: before anything is written, where files are missing, the reference is none, or `output` holds
    something else; after all other cases, where a mask is empty, unreadable or not on the grid of what belongs to it.
    """
    masks, output = Path(masks), Path(output)
    if n_discs is not None and not 1 <= n_discs <= 255:
        raise UserError(f"--n-discs {n_discs}: must be a number from 1 to 255, or auto")
    if expected is not None and expected < 1:
        raise UserError(f"--expect {expected}: must be at least 1")
    finished = FinishedCases.beside(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())) and not finished.folder.exists():
        raise UserError(f"{output}: exists already; numbered discs are written to a new or empty folder")
    paths = scans_by_stem(masks)
    localisers = _beside(localiser, paths, masks)
    images = _beside(scans, paths, masks, "_0000")
    if reference is not None:
        reference = Path(reference)
        read_reference(reference)
    tasks = [
        _Task(name, path, localisers.get(name), images.get(name), reference, n_discs, expected, output, finished)
        for name, path in paths.items()
    ]
    rows = run_parallel(_localise_file, tasks, n_processes, "Localising discs")
    _write_table([disc for row in rows for disc in row["discs"]], DISC_COLUMNS, output / "discs.csv")
    cases = [row["case"] for row in rows]
    _write_table(cases, CASE_COLUMNS, output / "cases.csv")
    finished.clear()
    return cases


@lru_cache(maxsize=1)
def read_reference(path):
    """The `Reference` of a label map. Raises UserError where it is none."""
    scan = read_scan(path)
    try:
        return Reference.from_label_map(_labels(scan), scan.grid.affine)
    except ValueError as error:
        raise UserError(f"{path}: cannot serve as reference: {error}") from None


def _beside(folder, paths, masks, ending=""):
    """Name → file of every mask in another folder; {} without one."""
    if folder is None:
        return {}
    found = scans_by_stem(folder)
    chosen = {name: found.get(name + ending, found.get(name)) for name in paths}
    for name, path in chosen.items():
        if path is None:
            raise UserError(f"{folder}: holds no file '{name}' for {masks}{nearest(name, found)}")
    return chosen


def _localise_file(task):
    mark = task.mark
    if task.label_map.exists() and task.picture.exists() and (row := task.finished.load(mark)):
        return row
    mask = read_scan(task.mask)
    labels = _labels(mask)
    localiser = None if task.localiser is None else _labels(_on_grid(task.localiser, mask))
    scan = None if task.scan is None else _on_grid(task.scan, mask).voxels
    reference = None if task.reference is None else read_reference(task.reference)
    affine = mask.grid.affine
    try:
        options = {"reference": reference, "n_discs": task.n_discs, "expected": task.expected}
        found = localise(labels > 0, affine, localiser=localiser, **options)
    except ValueError as error:
        raise UserError(f"{task.mask}: {error}") from None
    with atomic_file(task.label_map) as temporary:
        save_nifti(found.label_map, mask.grid, temporary)
    draw(found, affine, task.picture, scan=scan, title=task.name)
    row = _rows(task.name, found)
    task.finished.save(mark, row)
    return row


def _labels(scan):
    """The values of a label map, which are integers from 0; UserError where they are not."""
    labels = integer_voxels(scan)
    if labels.min() < 0:
        raise UserError(f"{scan.path}: label values must be 0 or more, but one is {labels.min()}")
    return labels


def _on_grid(path, mask):
    scan = read_scan(path)
    if not same_grid(scan.grid, mask.grid):
        raise UserError(f"{path}: not on the grid of {mask.path}")
    return scan


def _rows(name, found):
    """The rows of the tables: ``case``, a dict, and ``discs``, a list of dicts."""
    discs = [
        {
            "case": name,
            "disc": disc.number,
            **dict(zip(DISC_COLUMNS[2:5], (round(float(x), 2) for x in disc.centroid), strict=True)),
            "volume_mm3": round(disc.volume, 1),
            **_trust(disc),
        }
        for disc in found.discs
    ]
    numbers = [disc.number for disc in found.discs]
    case = {"case": name, "n_discs": len(numbers), "lowest": min(numbers), "highest": max(numbers), **_trust(found)}
    return {"case": case, "discs": discs}


def _trust(found):
    return {
        "confidence": round(found.confidence, 3),
        "flagged": found.confidence < FLAGGED,
        "doubts": "; ".join(found.doubts),
    }


def _write_table(rows, columns, path):
    with atomic_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
