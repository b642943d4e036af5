"""The members of an ensemble: folders of predictions as nnU-Net writes them.

``nnUNetv2_predict … -f FOLD --save_probabilities`` leaves CASE.nii.gz, the label map, and CASE.npz, the probabilities
in the order of nnU-Net's reader. The CASE.pkl beside them says how the two lie to one another, but reading a pickle
runs whatever code it holds; the label map's own header says the same, and whether both agree is checked.
"""

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform

from nnunet_da import scans
from nnunet_da.domains import IGNORE
from nnunet_da.errors import UserError
from nnunet_da.files import read_json

_REORIENTING_READER = "NibabelIOWithReorient"
_READERS = (_REORIENTING_READER, "NibabelIO", "SimpleITKIO")
# How far a probability may lie beyond 0 and 1: half precision and interpolation leave as much.
_TOLERANCE = 1e-2


@dataclass(frozen=True)
class Member:
    """One folder of predictions.

    Attributes
    ----------
    name : str
        Tells it from the others in tables and records.
    folder : Path
    ending : str
        Of the label maps.
    soft : bool
        Whether probabilities are read, or label maps alone.
    reorients : bool
        Whether the probabilities lie in RAS, as `NibabelIOWithReorient` reads scans, or as the scan's file has them.
    """

    name: str
    folder: Path
    ending: str
    soft: bool
    reorients: bool

    def label_path(self, case) -> Path:
        return self.folder / f"{case}{self.ending}"

    def probabilities_path(self, case) -> Path:
        return self.folder / f"{case}.npz"

    def paths(self, case) -> list[Path]:
        """The files that are read for `case`."""
        return [self.label_path(case)] + ([self.probabilities_path(case)] if self.soft else [])

    def cases(self) -> list[str]:
        """The cases that have a label map here, sorted."""
        names = (path.name for path in self.folder.iterdir() if path.is_file() and not path.name.startswith("."))
        return sorted(name.removesuffix(self.ending) for name in names if name.endswith(self.ending))

    def read(self, case, channels, grid=None):
        """Probabilities (n_channels, X, Y, Z) and label map (X, Y, Z) of `case`, on the scan's own grid, and the Grid.

        `grid`: the scan's, where it is known. Raises UserError where a file is missing, damaged, on another grid, of
        other labels, or where both contradict one another.
        """
        path = self.label_path(case)
        scan = scans.read_scan(path)
        if grid is not None and not scans.same_grid(scan.grid, grid):
            raise UserError(f"{path}: does not lie on the grid of the scan of case '{case}'")
        label_map = scans.integer_voxels(scan)
        unknown = set(scans.values_in(label_map).tolist()) - set(channels.values)
        if unknown:
            known = ", ".join(map(str, channels.values))
            raise UserError(f"{path}: holds the value {min(unknown)}, which is no label of the dataset ({known})")
        label_map = label_map.astype(np.uint8)
        if not self.soft:
            return channels.one_hot(label_map), label_map, scan.grid
        probabilities = self._read_probabilities(case, channels, scan.grid)
        if not np.array_equal(channels.decide(probabilities), label_map):
            raise UserError(
                f"{self.probabilities_path(case)}: contradicts the label map {path.name} beside it; predict again with "
                f"--save_probabilities, and give folders without postprocessing"
            )
        return probabilities, label_map, scan.grid

    def _read_probabilities(self, case, channels, grid):
        path = self.probabilities_path(case)
        probabilities = read_npz(path)
        orientation = ornt_transform(axcodes2ornt("RAS"), io_orientation(grid.affine)) if self.reorients else None
        if probabilities.ndim == 4:
            # (channels, z, y, x) → (x, y, z, channels), since nibabel turns the first axes.
            voxels_first = probabilities.transpose(3, 2, 1, 0)
            if orientation is not None:
                voxels_first = apply_orientation(voxels_first, orientation)
            probabilities = np.moveaxis(voxels_first, -1, 0)
        expected = (channels.n_channels, *grid.shape)
        if probabilities.shape != expected:
            raise UserError(
                f"{path}: has the shape {probabilities.shape} on the scan's grid, but {expected} are its classes and "
                f"voxels"
            )
        # True of NaN too.
        if not (probabilities.min() >= -_TOLERANCE and probabilities.max() <= 1 + _TOLERANCE):
            raise UserError(f"{path}: must hold probabilities, from 0 to 1")
        return np.clip(probabilities, 0, 1, dtype=np.float32)


def read_npz(path):
    """The array ``probabilities`` of an npz file of nnU-Net. Raises UserError where there is none.

    Nothing in the file is unpickled.
    """
    try:
        with zipfile.ZipFile(path) as archive, archive.open("probabilities.npy") as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except KeyError:
        raise UserError(f"{path}: holds no 'probabilities'; it was not written by nnU-Net 2") from None
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path}: not a readable npz file, perhaps cut short ({error})") from None
    if array.dtype.kind != "f":
        raise UserError(f"{path}: must hold probabilities, not values of the type {array.dtype}")
    return array


def open_members(folders, labels, cases=None):
    """The members (list) in `folders` (name → Path), of predictions of `cases`; None: those that each of them has.

    Probabilities are read where any folder has some; then all must. Files are looked for, not read. Raises UserError
    where a folder lacks a case, or says that it was predicted with other labels than `labels` (dataset.json's).
    """
    for folder in folders.values():
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder")
    soft = any(any(folder.glob("*.npz")) for folder in folders.values())
    members = [_open(name, folder, labels, soft) for name, folder in folders.items()]
    for member in members:
        for case in member.cases() if cases is None else cases:
            for path in member.paths(case):
                if not path.is_file():
                    raise UserError(f"{path}: no such file{_ADVICE.get(path.suffix, '')}")
    return members


_ADVICE = {
    ".npz": "; predict with --save_probabilities, in every folder or in none",
    ".gz": ", but every folder must have a prediction of every case",
    ".nii": ", but every folder must have a prediction of every case",
}


def _open(name, folder, labels, soft):
    content = read_json(folder / "dataset.json") if (folder / "dataset.json").is_file() else {}
    theirs = content.get("labels", labels)
    without_ignore = [{key: one[key] for key in one if key != IGNORE} for one in (theirs, labels)]
    if without_ignore[0] != without_ignore[1]:
        raise UserError(
            f"{folder / 'dataset.json'}: the labels {without_ignore[0]} are not those of the dataset "
            f"({without_ignore[1]})"
        )
    plans = read_json(folder / "plans.json") if (folder / "plans.json").is_file() else {}
    reader = plans.get("image_reader_writer", _REORIENTING_READER)
    if soft and reader not in _READERS:
        raise UserError(
            f"{folder / 'plans.json'}: predicted with the reader {reader}, in whose probabilities axes may lie "
            f"otherwise; only {', '.join(_READERS)} can be read"
        )
    endings = [ending for ending in scans.NIFTI_ENDINGS if any(folder.glob(f"*{ending}"))]
    if len(endings) != 1:
        raise UserError(f"{folder}: must hold label maps {' or '.join(scans.NIFTI_ENDINGS)}, of one of these endings")
    return Member(name, folder, endings[0], soft, reader == _REORIENTING_READER)


def name_folders(texts, flag="--predictions"):
    """Name → folder of texts ``FOLDER`` or ``NAME=FOLDER``; unnamed ones bear as much of their path as is needed.

    Raises UserError where a name or folder is given twice.
    """
    named, folders = {}, [text for text in texts if "=" not in text or Path(text).is_dir()]
    depth = 1
    parts = [Path(folder).resolve().parts for folder in folders]
    if len(set(parts)) < len(parts):
        raise UserError(f"{flag}: a folder is given twice; members must differ")
    while len({one[-depth:] for one in parts}) < len(parts):
        depth += 1
    names = dict(zip(folders, ("/".join(one[-depth:]) for one in parts), strict=True))
    for text in texts:
        name, folder = (names[text], text) if text in names else text.split("=", 1)
        if not name or not folder:
            raise UserError(f"{flag} {text}: must be FOLDER or NAME=FOLDER")
        if name in named:
            raise UserError(f"{flag} {text}: the name '{name}' is given twice")
        named[name] = Path(folder)
    return named
