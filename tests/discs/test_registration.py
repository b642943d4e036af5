import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from nnunet_da.discs.pieces import VoxelCloud
from nnunet_da.discs.reference import Reference
from nnunet_da.discs.registration import STEP, register


@pytest.mark.parametrize(("turn", "scale"), [((0, 0, 0), 1.0), ((15, 5, 0), 0.9), ((-12, -8, 6), 1.1)])
def test_a_similarity_is_found_again(make_spine, turn, scale):
    spine = make_spine(6, curvature=0.005, spacing=2.0)
    reference = Reference.from_label_map(spine.label_map, spine.affine)
    affine = np.eye(4)
    affine[:3, :3] = scale * Rotation.from_euler("xyz", turn, degrees=True).as_matrix()
    affine[:3, 3] = (12, -30, 55)
    moved = spine.centroids @ affine[:3, :3].T + affine[:3, 3]
    cloud = VoxelCloud.of(spine.label_map > 0, affine @ spine.affine)
    found = register(reference, cloud, [(0, moved[0]), (0, moved[1]), (1, moved[0])])
    registered = reference.centroids @ found[:3, :3].T + found[:3, 3]
    assert np.linalg.norm(registered - moved, axis=1).max() < STEP
    linear = found[:3, :3] / np.cbrt(np.linalg.det(found[:3, :3]))
    np.testing.assert_allclose(linear @ linear.T, np.eye(3), atol=1e-5)
