"""Studies of simulated scanners, written as NIfTI files with the manifest that `nnunet-da convert manifest` reads.

::

    FOLDER/cases.csv                              case,domain,subject,image_0000[,…],label; paths relative to FOLDER
    FOLDER/<scanner>/images/<case>_0000.nii.gz    int16, one file per channel
    FOLDER/<scanner>/labels/<case>.nii.gz         uint8, 1 = intervertebral disc; labelled scanners only
    FOLDER/test/images|labels/…                   held-out subjects of all scanners, named likewise, all labelled
    FOLDER/test/cases.csv                         case,domain of those, as `nnunet-da evaluate --cases` reads it
"""

import csv
import zlib
from pathlib import Path

import nibabel
import numpy as np
from tqdm import tqdm

from nnunet_da.errors import UserError, nearest
from nnunet_da.files import atomic_folder
from nnunet_da.phantom.scanner import SCANNERS, simulate
from nnunet_da.phantom.spine import Spine


def write_study(
    folder, scanners, n_per_scanner, seed, *, labelled=None, n_test=0, size=None, numbered=False, progress=False
):
    """Simulates `n_per_scanner` subjects on each scanner and writes them to `folder`. Returns the path of cases.csv.

    scanners: names in SCANNERS, or Scanner objects; n_per_scanner: one number, or a dict by scanner's name; labelled:
    names of the scanners whose cases have labels (None: the first); n_test: held-out cases per scanner; size: voxels
    along R, A, S over each scanner's own field of view (None: its own spacing); numbered: labels number the discs
    from L5/S1 = 1 instead of being 1; progress: show a bar.

    A case depends on `seed`, its scanner and its number alone. Every case is another subject. Raises UserError for an
    unknown scanner, scanners of unequal channels, or a folder that holds something; `folder` is complete or absent.
    """
    folder = Path(folder)
    scanners = [_scanner(scanner) for scanner in scanners]
    names = [scanner.name for scanner in scanners]
    labelled = names[:1] if labelled is None else list(labelled)
    counts = n_per_scanner if isinstance(n_per_scanner, dict) else dict.fromkeys(names, n_per_scanner)
    _check(folder, scanners, labelled, counts, size)
    plan = [(scanner, False, index) for scanner in scanners for index in range(counts[scanner.name])]
    plan += [(scanner, True, index) for scanner in scanners for index in range(n_test)]
    rows, test_rows = [], []
    with atomic_folder(folder) as temporary:
        for scanner, test, index in tqdm(plan, desc="Simulating scans", unit="scan", disable=not progress):
            scan = simulate_case(scanner, seed, index, test=test, size=size)
            case = f"{scanner.name}_{'test_' if test else ''}{index + 1:03d}"
            place = temporary / ("test" if test else scanner.name)
            images, label = write_scan(scan, place, case, label=test or scanner.name in labelled, numbered=numbered)
            if test:
                test_rows.append([case, scanner.name])
            else:
                paths = [path.relative_to(temporary).as_posix() if path else "" for path in (*images, label)]
                rows.append([case, scanner.name, f"subject_{case}", *paths])
        columns = [f"image_{channel:04d}" for channel in range(len(scanners[0].channels))]
        write_csv([["case", "domain", "subject", *columns, "label"], *rows], temporary / "cases.csv")
        if test_rows:
            write_csv([["case", "domain"], *test_rows], temporary / "test" / "cases.csv")
    return folder / "cases.csv"


def simulate_case(scanner, seed, index, *, test=False, size=None):
    """The scan of subject number `index` (from 0) on `scanner`: always the same for the same arguments."""
    rng = np.random.default_rng([seed, zlib.crc32(scanner.name.encode()), int(test), index])
    return simulate(Spine.sample(rng), scanner, rng, size)


def write_scan(scan, folder, case, *, label, numbered=False):
    """Writes a scan's images and, if `label`, its discs, in the layout above; returns their paths (label: or None)."""
    images = [folder / "images" / f"{case}_{channel:04d}.nii.gz" for channel in range(len(scan.images))]
    for path, image in zip(images, scan.images, strict=True):
        write_nifti(image, scan.affine, path)
    if not label:
        return images, None
    path = folder / "labels" / f"{case}.nii.gz"
    write_nifti(scan.anatomy.discs if numbered else scan.anatomy.disc_mask, scan.affine, path)
    return images, path


def write_csv(rows, path):
    """Writes rows of cells; commas, and a line feed behind each row."""
    with open(path, "w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, lineterminator="\n").writerows(rows)


def write_nifti(array, affine, path):
    """Writes an array (X, Y, Z[, channels]) with its affine (voxel → RAS mm), in the folder that `path` asks for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)


def require_new(folder):
    """Raises UserError where `folder` is a file, or holds something."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: exists already; simulated scans are written to a new or empty folder")


def require_size(size):
    """Raises UserError where `size` is neither None nor three numbers of voxels."""
    if size is not None and (len(size) != 3 or min(size) < 1):
        raise UserError(f"size {size}: must be three numbers of voxels, along right, anterior and superior")


def _scanner(scanner):
    if not isinstance(scanner, str):
        return scanner
    if scanner not in SCANNERS:
        raise UserError(
            f"{scanner}: no such simulated scanner, there are {', '.join(SCANNERS)}{nearest(scanner, SCANNERS)}"
        )
    return SCANNERS[scanner]


def _check(folder, scanners, labelled, counts, size):
    names = [scanner.name for scanner in scanners]
    listed = ", ".join(names)
    if not names or len(set(names)) != len(names):
        raise UserError(f"scanners {listed or '(none)'}: a study needs at least one, each with its own name")
    for scanner in scanners:
        if scanner.body != "spine":
            raise UserError(f"{scanner.name}: takes scans of the {scanner.body}; a study is one of the spine")
    if len({len(scanner.channels) for scanner in scanners}) != 1:
        raise UserError(f"scanners {listed}: those of one study must take the same number of images")
    for name in [*labelled, *counts]:
        if name not in names:
            raise UserError(f"{name}: not among the scanners of the study ({listed}){nearest(name, names)}")
    if missing := [name for name in names if name not in counts]:
        raise UserError(f"{missing[0]}: the number of cases is missing")
    require_size(size)
    require_new(folder)
