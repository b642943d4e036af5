"""A picture of a localisation: the sagittal slice through the discs, with their numbers."""

import nibabel.orientations as orientations
import numpy as np

from nnunet_da.discs.confidence import FLAGGED
from nnunet_da.files import atomic_file

MARGIN = 15.0  # mm around the discs
INCHES = 6.0  # height of the picture
COLOURS = ("#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#b07aa1", "#76b7b2", "#edc948", "#ff9da7", "#9c755f", "#bab0ac")


def draw(found, affine, path, *, scan=None, title=""):
    """Writes the picture of a `Localisation` as PNG: discs over the `scan` (X, Y, Z), or alone, and the centreline.

    The slice is that with most disc among those nearest to sagittal. Anterior is left, superior above. Discs that
    should be looked at are marked with a question mark.
    """
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure

    labels, to_ras = _canonical(found.label_map, affine)
    slices = np.count_nonzero(labels, axis=(1, 2))
    across = int(slices.argmax())
    spacing = np.linalg.norm(to_ras[:3, :3], axis=0)
    hits = np.argwhere(labels.any(axis=0))
    margin = MARGIN / spacing[1:]
    low = np.maximum(hits.min(axis=0) - margin, 0).astype(int)
    high = np.minimum(hits.max(axis=0) + margin + 1, labels.shape[1:]).astype(int)
    box = (across, slice(low[0], high[0]), slice(low[1], high[1]))
    height, width = (high - low)[::-1] * spacing[[2, 1]]

    figure = Figure(figsize=(max(INCHES * width / height, 2.5), INCHES), layout="constrained")
    axes = figure.add_subplot()
    # Anterior, where indices are high, belongs on the left.
    extent = (high[0] - 0.5, low[0] - 0.5, low[1] - 0.5, high[1] - 0.5)
    shown = {"origin": "lower", "extent": extent, "aspect": spacing[2] / spacing[1]}
    grey = np.zeros(labels[box].shape) if scan is None else _canonical(np.nan_to_num(scan), affine)[0][box]
    window = np.percentile(grey, [1, 99.5])
    axes.imshow(grey.T[:, ::-1], cmap="gray", vmin=window[0], vmax=max(window[1], window[0] + 1e-9), **shown)
    colours = ListedColormap(COLOURS)
    discs = np.ma.masked_equal(labels[box].T[:, ::-1].astype(int), 0)
    axes.imshow((discs - 1) % len(COLOURS), cmap=colours, vmin=-0.5, vmax=len(COLOURS) - 0.5, alpha=0.55, **shown)

    to_index = np.linalg.inv(to_ras)
    line = found.line.points @ to_index[:3, :3].T + to_index[:3, 3]
    axes.plot(line[:, 1], line[:, 2], color="#ff4040", linewidth=1)
    for disc in found.discs:
        _, y, z = to_index[:3, :3] @ disc.centroid + to_index[:3, 3]
        text = f"{disc.number}{'?' if disc.confidence < FLAGGED else ''}"
        axes.text(y, z, text, color="white", ha="center", va="center", fontsize=11, weight="bold")
    axes.set(xlim=extent[:2], ylim=extent[2:], xticks=[], yticks=[])
    axes.set_title(f"{title}\nconfidence {found.confidence:.2f}".strip(), fontsize=9)
    if found.doubts:
        axes.set_xlabel("\n".join(found.doubts[:4]), fontsize=8)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=110)


def _canonical(array, affine):
    """An array (X, Y, Z) with its axes as near to right, anterior, superior as flips and swaps bring it; its affine."""
    orientation = orientations.io_orientation(affine)
    turned = orientations.apply_orientation(array, orientation)
    return turned, affine @ orientations.inv_ornt_aff(orientation, array.shape)
