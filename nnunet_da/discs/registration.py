"""A reference laid over a prediction: the similarity under which both densities of disc agree best."""

from itertools import product

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

# Densities of disc are compared on a grid of this many mm, smoothed by a Gaussian of this many mm: between the height
# of a disc and the distance of two.
STEP = 6.0
SIGMA = 5.0
# How far beyond the prediction, in mm, discs of the reference count as unmatched; more than the distance of two discs.
MARGIN = 45.0
# Turns about the axes right and anterior, in degrees, and scales that are tried in all combinations.
TURNS = ((0, -14, 14), (0, -12, 12))
SCALES = (0.88, 1.0, 1.12)
N_POINTS = 250  # of the reference, to choose the start by
ITERATIONS = 30


def register(reference, cloud, anchors):
    """The affine (4, 4) that takes the reference's mm to those of the `VoxelCloud` of a prediction.

    A similarity (rotation, translation, one scale) that minimises the mean squared difference of smoothed disc
    densities inside the scan, by gradient descent from the best of many starts: each of `TURNS` and `SCALES` with each
    pair of `anchors`, (number of a disc of the reference from 0, the point in mm where it may lie). Raises ValueError
    where the optimiser gives up.
    """
    import SimpleITK as sitk  # noqa: N813

    low, high = cloud.points.min(axis=0) - MARGIN, cloud.points.max(axis=0) + MARGIN
    fixed = _density(cloud.points, abs(np.linalg.det(cloud.affine[:3, :3])), low, high)
    inside = _inside(cloud, low, fixed.shape)
    linear, disc, point = _best_start(reference, fixed, inside, low, anchors)

    # ITK's transforms take points of the prediction to the reference: x → A⁻¹ (x − point) + disc.
    start = sitk.Similarity3DTransform()
    start.SetCenter(np.asarray(point, float).tolist())
    start.SetMatrix(np.linalg.inv(linear).ravel().tolist())
    start.SetTranslation((disc - point).tolist())
    registration = sitk.ImageRegistrationMethod()
    registration.SetNumberOfThreads(1)
    registration.SetMetricAsMeanSquares()
    registration.SetMetricFixedMask(_image(inside.astype(np.uint8), low))
    registration.SetInterpolator(sitk.sitkLinear)
    registration.SetOptimizerAsRegularStepGradientDescent(
        learningRate=4.0, minStep=0.05, numberOfIterations=ITERATIONS, relaxationFactor=0.6
    )
    registration.SetOptimizerScalesFromPhysicalShift()
    registration.SetInitialTransform(start, inPlace=False)
    corner = reference.points.min(axis=0) - 2 * MARGIN
    moving = _density(reference.points, reference.voxel_volume, corner, reference.points.max(axis=0) + 2 * MARGIN)
    try:
        found = registration.Execute(_image(fixed, low), _image(moving, corner))
    except RuntimeError as error:
        raise ValueError("no reference could be registered to the mask") from error
    return np.linalg.inv(_matrix(found))


def _best_start(reference, density, inside, low, anchors):
    """The matrix A (3, 3), disc and point of the start x → A (x − disc) + point.

    There most of the reference's voxels lie in discs of the prediction. Those outside the scan count half as much
    against it as those in the scan and in no disc.
    """
    points = reference.points[:: max(len(reference.points) // N_POINTS, 1)]
    known = inside.astype(np.float32)
    best, best_score = None, -np.inf
    for *turn, scale in product(*TURNS, SCALES):
        linear = scale * Rotation.from_euler("xy", turn, degrees=True).as_matrix()
        for number, point in anchors:
            disc = reference.centroids[number]
            cells = (((points - disc) @ linear.T + point - low) / STEP).T - 0.5
            n_known = ndimage.map_coordinates(known, cells, order=1).sum()
            score = ndimage.map_coordinates(density, cells, order=1).sum() / (n_known + len(points))
            if score > best_score:
                best, best_score = (linear, disc, point), score
    return best


def _inside(cloud, low, shape):
    """Which cells of a grid from the corner `low` lie inside the scan: bool (X, Y, Z)."""
    to_index = np.linalg.inv(cloud.affine)
    axes = [low[i] + STEP * (np.arange(shape[i]) + 0.5) for i in range(3)]
    inside = np.ones(shape, bool)
    for row, length in zip(to_index[:3], cloud.shape, strict=True):
        x, y, z = (row[i] * axes[i] for i in range(3))
        index = x[:, None, None] + y[:, None] + z + row[3]
        inside &= (index >= -0.5) & (index <= length - 0.5)
    return inside


def _density(points, volume, low, high):
    """The share of disc in the cells of a grid between two corners, smoothed: float32 (X, Y, Z)."""
    shape = np.ceil((high - low) / STEP).astype(int)
    cells = np.ravel_multi_index(tuple(((points - low) / STEP).astype(int).T), shape)
    shares = np.bincount(cells, minlength=shape.prod()).reshape(shape) * (volume / STEP**3)
    return ndimage.gaussian_filter(shares.astype(np.float32), SIGMA / STEP, mode="constant")


def _image(array, low):
    """An image of SimpleITK whose axes are those of the world."""
    import SimpleITK as sitk  # noqa: N813

    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    image.SetSpacing([STEP] * 3)
    image.SetOrigin((low + STEP / 2).tolist())
    return image


def _matrix(transform):
    """A linear transform of SimpleITK as a matrix (4, 4)."""
    matrix = np.eye(4)
    origin = np.array(transform.TransformPoint((0.0, 0.0, 0.0)))
    for axis in range(3):
        matrix[:3, axis] = np.array(transform.TransformPoint(np.eye(3)[axis].tolist())) - origin
    matrix[:3, 3] = origin
    return matrix
