"""Slices of a scan with the contours of reference and predictions, as SVG: grey pixels below, crisp lines above."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunet_da.evaluation.label_map import ENDINGS, read_label_map, require_same_geometry

# The axis that a plane cuts in a volume with axes R, A, S, and the letters at its left, right, upper and lower edge.
# All other axes run from their positive end: the patient's right is at the left, anterior or superior above.
PLANES = {"sagittal": (0, "APSI"), "coronal": (1, "RLSI"), "axial": (2, "RLAP")}
MARGIN = 0.15  # of the longest side of what is outlined, around it
SMALLEST_VIEW = 40.0  # mm


@dataclass(frozen=True)
class Panel:
    """One plane of one case: what the SVG needs. Lengths in mm from the upper left corner of the cut-out.

    `image`: a PNG as a data URL, '' without a scan; `reference`, `predictions` (by model): path data of the contours.
    """

    plane: str
    letters: str
    position: str
    width: float
    height: float
    image: str
    reference: str
    predictions: dict[str, str]


@dataclass(frozen=True)
class CaseFiles:
    """The files of a case that is drawn. `values`: the structures to outline, name → label values."""

    name: str
    values: dict[str, tuple[int, ...]]
    image: Path | None
    reference: Path | None
    predictions: dict[str, Path]


def image_of(folder, case):
    """The scan of a case: CASE_0000 (nnU-Net's first channel) or CASE, with any ending that is read; None if absent."""
    paths = (Path(folder) / f"{case}{channel}{ending}" for channel in ("_0000", "") for ending in ENDINGS)
    return next((path for path in paths if path.is_file()), None)


def draw(case):
    """The `Panel`s of a `CaseFiles`: three planes through what is outlined; of a 2D scan, one.

    A plane lies where most voxels of the reference are, without a reference (or where it is empty) of all predictions.
    All planes are cut out to the same box around reference and predictions. Raises UserError where files do not lie on
    one grid.
    """
    paths = [path for path in (case.reference, *case.predictions.values()) if path is not None]
    maps = {path: read_label_map(path) for path in paths}
    grid = maps[paths[0]]
    for path in paths[1:]:
        require_same_geometry(maps[path], grid, path, paths[0])
    scan = None
    if case.image is not None:
        image = read_label_map(case.image)
        require_same_geometry(image, grid, case.image, paths[0])
        scan = np.nan_to_num(oriented(image)[0])
    volumes = {path: oriented(label_map)[0] for path, label_map in maps.items()}
    _, spacing = oriented(grid)
    masks = {path: [np.isin(volume, values) for values in case.values.values()] for path, volume in volumes.items()}
    everything = np.any([mask for several in masks.values() for mask in several], axis=0)
    main = np.any(masks[case.reference], axis=0) if case.reference is not None else everything
    if not main.any():
        main = everything
    box = _box(everything, spacing)
    window = np.percentile(scan[box], [0.5, 99.5]) if scan is not None else None
    panels = []
    for plane, (axis, letters) in PLANES.items():
        # A 2D scan has one plane, across its only axis of length 1.
        if grid.array.ndim == 2 and everything.shape[axis] != 1:
            continue
        index = _fullest(main, axis)

        def cut(volume, axis=axis, index=index):
            return volume[box].take(index - box[axis].start, axis=axis)[::-1, ::-1].T

        size = [spacing[other] for other in range(3) if other != axis]
        rows, columns = cut(everything).shape
        panels.append(
            Panel(
                plane=plane,
                letters=letters,
                position=f"slice {index + 1} of {everything.shape[axis]}",
                width=columns * size[0],
                height=rows * size[1],
                image="" if scan is None else _data_url(cut(scan), window),
                reference="" if case.reference is None else contours(map(cut, masks[case.reference]), size),
                predictions={model: contours(map(cut, masks[path]), size) for model, path in case.predictions.items()},
            )
        )
    return panels


def oriented(label_map):
    """The array of a `LabelMap` with axes R, A, S (a 2D one with a third axis of length 1), and the spacing in mm."""
    from nibabel.orientations import apply_orientation, io_orientation

    array = label_map.array.T
    columns = label_map.direction[:, ::-1] * label_map.spacing[::-1]
    if array.ndim == 2:
        array = array[..., None]
        normal = np.cross(columns[:, 0], columns[:, 1])
        columns = np.column_stack([columns, normal / np.linalg.norm(normal)])
    affine = np.eye(4)
    affine[:3, :3] = columns
    orientation = io_orientation(affine)
    spacing = np.empty(3)
    spacing[orientation[:, 0].astype(int)] = np.linalg.norm(columns, axis=0)
    return apply_orientation(array, orientation), spacing


def contours(masks, spacing):
    """SVG path data of the outlines of 2D masks, halfway between voxel centres; '' where all are empty.

    spacing: mm per column and per row. Coordinates are in mm from the upper left corner of the masks.
    """
    from contourpy import contour_generator

    parts = []
    for mask in masks:
        if not mask.any():
            continue
        # A border of zeros closes what runs into the edge; +0.5 − 1 takes indices of padded voxels to corners.
        for line in contour_generator(z=np.pad(mask, 1).astype(float)).lines(0.5):
            points = (line - 0.5) * spacing
            parts.append("M" + "L".join(f"{x:.2f} {y:.2f}" for x, y in points[:-1]) + "Z")
    return "".join(parts)


def _fullest(mask, axis):
    """The index along `axis` whose slice has most voxels of the mask; the middle where it is empty."""
    counts = mask.sum(axis=tuple(other for other in range(3) if other != axis))
    return int(counts.argmax()) if counts.any() else len(counts) // 2


def _box(mask, spacing):
    """Slices of the box around a mask with a margin, at least `SMALLEST_VIEW` wide; everything where it is empty."""
    if not mask.any():
        return tuple(slice(0, length) for length in mask.shape)
    ends = []
    for axis in range(3):
        hits = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        ends.append((hits[0] * spacing[axis], (hits[-1] + 1) * spacing[axis]))
    longest = max(stop - start for start, stop in ends)
    box = []
    for (start, stop), length, step in zip(ends, mask.shape, spacing, strict=True):
        margin = max(MARGIN * longest, (SMALLEST_VIEW - (stop - start)) / 2)
        box.append(slice(max(0, int((start - margin) / step)), min(length, int(np.ceil((stop + margin) / step)))))
    return tuple(box)


def _data_url(pixels, window):
    """A grey PNG of 2D `pixels`, black at the lower and white at the upper value of `window`."""
    from PIL import Image

    low, high = window
    scaled = np.clip((pixels - low) / max(high - low, 1e-12), 0, 1)
    stream = io.BytesIO()
    Image.fromarray((255 * scaled).round().astype(np.uint8)).save(stream, format="png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
