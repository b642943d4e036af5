"""Values equal those of MONAI, MedPy and DeepMind's surface-distance wherever the definitions agree."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from nnunet_da.evaluation.metrics import structure_metrics
from nnunet_da.evaluation.surfaces import surface_distances

SPACING = (2.5, 0.8, 1.1)
TOLERANCE_MM = 1.2


def smooth_masks(seed, shape=(20, 44, 40)):
    """A reference and a prediction of it that is a little wrong, and has a false island where `seed` is odd."""
    generator = np.random.default_rng(seed)
    field = gaussian_filter(generator.normal(size=shape), 3)
    wrong = field + 0.4 * field.std() * gaussian_filter(generator.normal(size=shape), 1)
    masks = [np.pad(f > 0.5 * field.std(), 1) for f in (field, wrong)]
    masks[1][1:3, 1:3, 1:3] = seed % 2
    return masks


@pytest.fixture(params=range(4))
def masks(request):
    return smooth_masks(request.param)


def ours(masks):
    return structure_metrics(*masks, SPACING, tolerance_mm=TOLERANCE_MM)


def test_monai(masks):
    metrics = pytest.importorskip("monai.metrics", reason="MONAI is not installed")
    torch = pytest.importorskip("torch")
    reference, prediction = (torch.from_numpy(mask)[None, None] for mask in masks)
    options = {"include_background": True, "spacing": SPACING}
    found = ours(masks)
    expected = {
        "dsc": metrics.compute_dice(prediction, reference),
        "hd_mm": metrics.compute_hausdorff_distance(prediction, reference, **options),
        "hd95_mm": metrics.compute_hausdorff_distance(prediction, reference, percentile=95, **options),
        "assd_mm": metrics.compute_average_surface_distance(prediction, reference, symmetric=True, **options),
        "aad_mm": metrics.compute_average_surface_distance(prediction, reference, **options),
        "nsd": metrics.compute_surface_dice(prediction, reference, [TOLERANCE_MM], **options),
        "hd_voxels": metrics.compute_hausdorff_distance(prediction, reference, include_background=True),
    }
    matrix = metrics.get_confusion_matrix(prediction.float(), reference.float())
    for name in ("sensitivity", "specificity"):
        expected[name] = metrics.compute_confusion_matrix_metric(name, matrix)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value.item(), rel=1e-6), name


def test_medpy(masks):
    binary = pytest.importorskip("medpy.metric.binary", reason="MedPy is not installed")
    reference, prediction = masks
    found = ours(masks)
    expected = {
        "dsc": binary.dc(prediction, reference),
        "hd_mm": binary.hd(prediction, reference, SPACING),
        "hd_voxels": binary.hd(prediction, reference),
        "assd_mm": binary.assd(prediction, reference, SPACING),
        "aad_mm": binary.asd(prediction, reference, SPACING),
        "sensitivity": binary.sensitivity(prediction, reference),
        "specificity": binary.specificity(prediction, reference),
        "ravd": abs(binary.ravd(prediction, reference)),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-6), name


# The 0.1 on the package index calls SciPy and NumPy by names that they are giving up.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
class TestSurfaceDistance:
    @pytest.fixture
    def library(self):
        return pytest.importorskip("surface_distance.metrics", reason="surface-distance is not installed")

    def test_dice(self, library, masks):
        assert ours(masks)["dsc"] == pytest.approx(library.compute_dice_coefficient(*masks), rel=1e-6)

    def test_hausdorff_distance_of_shifted_boxes(self, library):
        # Its surfaces run through the corners of voxels, ours through their centres: shifts are alike.
        for axis in range(3):
            reference = np.zeros((20, 20, 20), bool)
            reference[4:9, 5:11, 6:14] = True
            prediction = np.roll(reference, 3, axis)
            expected = library.compute_robust_hausdorff(
                library.compute_surface_distances(reference, prediction, SPACING), 100
            )
            assert ours((reference, prediction))["hd_mm"] == pytest.approx(expected, rel=1e-6)

    def test_distances_between_its_own_surfaces(self, library, masks):
        # Given the voxels that it takes for surfaces as masks without interior, the distances are the same.
        tables = pytest.importorskip("surface_distance.lookup_tables")
        from scipy.ndimage import correlate

        borders = []
        for mask in masks:
            codes = correlate(mask.astype(np.uint8), tables.ENCODE_NEIGHBOURHOOD_3D_KERNEL, mode="constant", cval=0)
            borders.append((codes != 0) & (codes != 255))
        expected = library.compute_surface_distances(*masks, SPACING)
        # Every second voxel along an axis is left out of the grid, so that all voxels of a border are surface.
        spread = [np.zeros([2 * n for n in border.shape], bool) for border in borders]
        for wide, border in zip(spread, borders, strict=True):
            wide[::2, ::2, ::2] = border
        found = surface_distances(*spread, np.divide(SPACING, 2))
        np.testing.assert_allclose(np.sort(found.from_reference), expected["distances_gt_to_pred"], rtol=1e-6)
        np.testing.assert_allclose(np.sort(found.from_prediction), expected["distances_pred_to_gt"], rtol=1e-6)
