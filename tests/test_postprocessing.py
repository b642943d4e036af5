import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from nnunet_da.postprocessing import ball, close, largest_component, postprocess


def test_the_ball_is_that_of_5_by_5_by_5():
    kernel = ball()
    assert kernel.shape == (5, 5, 5)
    # 1 centre, 6 at distance 1, 12 at √2, 8 at √3, 6 at 2.
    assert kernel.sum() == 33
    assert kernel[0, 2, 2]
    assert not kernel[0, 1, 2]


def test_the_largest_set_stays_whole_along_a_diagonal():
    mask = np.zeros((6, 6, 6), bool)
    mask[range(4), range(4), range(4)] = True
    mask[5, 0, :3] = True
    largest = largest_component(mask)
    assert largest.sum() == 4
    assert largest[range(4), range(4), range(4)].all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(9, 10, 11), (1, 12, 12), (3, 3, 30)]))
def test_postprocessing_leaves_one_set_per_structure_and_only_fills_background(seed, shape):
    rng = np.random.default_rng(seed)
    blobs = ndimage.gaussian_filter(rng.standard_normal((3, *shape)), (0, 1, 1, 1))
    label_map = np.where(blobs.max(axis=0) > 0.1, blobs.argmax(axis=0) + 1, 0).astype(np.int32)
    after = postprocess(label_map)
    for label in range(1, 4):
        before = label_map == label
        if not before.any():
            assert not (after == label).any()
            continue
        sets, n_sets = ndimage.label(before, np.ones((3, 3, 3)))
        sizes = ndimage.sum_labels(before, sets, range(1, n_sets + 1))
        kept = (after == label) & before
        assert kept.sum() == sizes.max()
        assert (after == label)[kept].all()
        # What is new was background, or a part that was removed.
        assert not np.isin(after[(after == label) & ~before], [other for other in range(1, 4) if other != label]).any()
    # Closing loses nothing.
    opened = postprocess(label_map, radius=0)
    np.testing.assert_array_equal(after[opened > 0], opened[opened > 0])


def test_closing_fills_a_gap_and_never_loses_a_voxel_at_the_border():
    mask = np.ones((8, 8, 8), bool)
    mask[4, 4, 4] = False
    assert close(mask).all()
    label_map = np.zeros((12, 12, 12), np.int32)
    label_map[:, :5], label_map[:, 6:] = 1, 2
    label_map[3, 2, 3] = 0
    after = postprocess(label_map)
    assert after[3, 2, 3] == 1
    assert (after[label_map > 0] == label_map[label_map > 0]).all()


def test_labels_far_apart_in_value():
    label_map = np.zeros((5, 5, 5), np.int32)
    label_map[:2], label_map[4] = 7, 250
    np.testing.assert_array_equal(postprocess(label_map, 0), label_map)


def test_an_empty_map_stays_empty():
    assert not postprocess(np.zeros((4, 4, 4), np.int32)).any()
