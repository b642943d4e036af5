import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_da.discs.confidence import CUT, FLAGGED, FUSED, GAP, LESS, LEVEL, LOCALISER, MORE
from nnunet_da.discs.localisation import localise
from nnunet_da.discs.reference import Reference


def numbers(found):
    return [disc.number for disc in found.discs]


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    st.integers(4, 7),
    st.floats(32, 42),
    st.floats(-0.002, 0.006),
    st.tuples(st.floats(-20, 20), st.floats(-12, 12), st.floats(-12, 12)),
)
def test_discs_on_an_arc_are_numbered_from_below(make_spine, n, pitch, curvature, turn):
    spine = make_spine(n, pitch, curvature, turn, spacing=3.0)
    found = localise(spine.label_map > 0, spine.affine)
    np.testing.assert_array_equal(found.label_map, spine.label_map)
    assert numbers(found) == list(range(1, n + 1))
    for disc, centroid in zip(found.discs, spine.centroids, strict=True):
        assert np.linalg.norm(disc.centroid - centroid) < 1.6  # half a voxel
        assert disc.volume == pytest.approx(27 * np.sum(spine.label_map == disc.number))


@settings(max_examples=8, deadline=None, derandomize=True)
@given(st.permutations(range(3)), st.tuples(*[st.booleans()] * 3))
def test_storage_does_not_matter(make_spine, order, flips):
    spine = make_spine(5, turn=(8, 5, 0), spacing=3.0)
    expected = localise(spine.label_map > 0, spine.affine)
    truth, affine = np.transpose(spine.label_map, order), spine.affine[:, [*order, 3]].copy()
    for axis in np.flatnonzero(flips):
        truth = np.flip(truth, axis)
        affine[:3, 3] += affine[:3, axis] * (truth.shape[axis] - 1)
        affine[:3, axis] *= -1
    found = localise(truth > 0, affine)
    np.testing.assert_array_equal(found.label_map, truth)
    np.testing.assert_allclose(found.confidence, expected.confidence, atol=0.05)
    for disc, other in zip(found.discs, expected.discs, strict=True):
        np.testing.assert_allclose(disc.centroid, other.centroid, atol=1e-6)


def test_a_missing_disc_leaves_its_number_out(make_spine):
    spine = make_spine(7)
    spine.label_map[spine.label_map == 4] = 0
    found = localise(spine.label_map > 0, spine.affine)
    np.testing.assert_array_equal(found.label_map, spine.label_map)
    assert numbers(found) == [1, 2, 3, 5, 6, 7]
    assert GAP in found.doubts
    assert GAP not in found.discs[2].doubts
    assert found.discs[2].confidence > found.discs[3].confidence


def test_fused_discs_are_parted_between_them(make_spine):
    spine = make_spine(6, spacing=2.0)
    points = np.indices(spine.label_map.shape).reshape(3, -1).T * 2.0 + spine.affine[:3, 3]
    start, way = spine.centroids[2], spine.centroids[3] - spine.centroids[2]
    share = np.clip((points - start) @ way / (way @ way), 0, 1)
    bridge = (np.linalg.norm(points - start - share[:, None] * way, axis=1) <= 6).reshape(spine.label_map.shape)
    mask = (spine.label_map > 0) | bridge
    found = localise(mask, spine.affine)
    assert numbers(found) == [1, 2, 3, 4, 5, 6]
    assert [FUSED in disc.doubts for disc in found.discs] == [False, False, True, True, False, False]
    # All voxels stay; discs keep their own, and the bridge is shared halfway.
    np.testing.assert_array_equal(found.label_map > 0, mask)
    np.testing.assert_array_equal(found.label_map[spine.label_map > 0], spine.label_map[spine.label_map > 0])
    halves = [np.sum((found.label_map == number) & (spine.label_map == 0)) for number in (3, 4)]
    assert min(halves) > 0.4 * sum(halves)


def test_what_lies_beside_and_above_the_spine_is_left_out(make_spine, add_ball):
    spine = make_spine(5, room=60)
    mask = add_ball(spine.label_map > 0, spine.affine, spine.centroids[2] + (0, 39, 0), 10)
    mask = add_ball(mask, spine.affine, spine.centroids[4] + (20, 25, 25), 9)
    assert mask.sum() > (spine.label_map > 0).sum() + 200
    found = localise(mask, spine.affine)
    np.testing.assert_array_equal(found.label_map, spine.label_map)


def test_only_the_lowest_are_kept(make_spine):
    spine = make_spine(7, spacing=3.0)
    found = localise(spine.label_map > 0, spine.affine, n_discs=5)
    np.testing.assert_array_equal(found.label_map, np.where(spine.label_map <= 5, spine.label_map, 0))
    assert numbers(localise(spine.label_map > 0, spine.affine, n_discs=None)) == [1, 2, 3, 4, 5, 6, 7]


def test_a_scan_that_ends_below_the_lowest_disc_is_in_doubt(make_spine):
    spine = make_spine(7)
    whole = localise(spine.label_map > 0, spine.affine)
    assert whole.confidence > FLAGGED
    start = np.argwhere(spine.label_map == 1)[:, 2].max() + 1
    affine = spine.affine.copy()
    affine[2, 3] += start * affine[2, 2]
    cropped = localise(spine.label_map[:, :, start:] > 0, affine)
    assert cropped.confidence < FLAGGED
    assert LEVEL in cropped.doubts


def test_the_lowest_disc_may_be_the_one_that_lacks_of_those_expected(make_spine):
    spine = make_spine(5, room=35, above=90)
    complete = localise(spine.label_map > 0, spine.affine, expected=5)
    assert complete.confidence > FLAGGED
    np.testing.assert_array_equal(complete.label_map, spine.label_map)
    without_lowest = localise(spine.label_map > 1, spine.affine, expected=5)
    assert {LEVEL, LESS} <= set(without_lowest.doubts)
    # Sizes tell that it is; that one lacks makes it likely enough.
    assert numbers(without_lowest) == [2, 3, 4, 5]
    assert without_lowest.confidence > FLAGGED > localise(spine.label_map > 1, spine.affine).confidence
    more = localise(spine.label_map > 0, spine.affine, expected=4)
    assert MORE in more.doubts
    assert more.confidence < FLAGGED
    # Those above the seventh are expected all the same, and only not kept.
    kept = localise(spine.label_map > 0, spine.affine, expected=5, n_discs=3)
    assert kept.confidence > FLAGGED
    assert numbers(kept) == [1, 2, 3]


def test_a_disc_at_the_border_is_said_to_be_cut(make_spine):
    spine = make_spine(5)
    stop = np.argwhere(spine.label_map == 5)[:, 2].mean().astype(int)
    found = localise(spine.label_map[:, :, :stop] > 0, spine.affine)
    assert [CUT in disc.doubts for disc in found.discs] == [False, False, False, False, True]


def test_the_localiser_restricts_the_mask_and_has_a_vote(make_spine, add_ball):
    spine = make_spine(6, room=20)
    shifted = np.where(spine.label_map > 0, spine.label_map + 1, 0)
    mask = add_ball(spine.label_map > 0, spine.affine, spine.centroids[3] + (0, 39, 0), 10)
    found = localise(mask, spine.affine, localiser=shifted)
    # Nothing is seen below the lowest disc, so that the localiser decides.
    np.testing.assert_array_equal(found.label_map, shifted)
    agreed = localise(mask, spine.affine, localiser=spine.label_map)
    np.testing.assert_array_equal(agreed.label_map, spine.label_map)
    assert LOCALISER not in agreed.doubts
    with pytest.raises(ValueError, match="no voxel in common"):
        localise(mask, spine.affine, localiser=(~mask).astype(np.uint8))


def test_another_case_serves_as_reference(make_spine):
    other, spine = make_spine(7, pitch=34, curvature=0.004), make_spine(5, pitch=38, turn=(10, 0, 0))
    reference = Reference.from_label_map(other.label_map, other.affine)
    found = localise(spine.label_map > 0, spine.affine, reference=reference)
    np.testing.assert_array_equal(found.label_map, spine.label_map)


def test_masks_without_a_spine_are_refused(make_spine):
    with pytest.raises(ValueError, match="the mask is empty"):
        localise(np.zeros((4, 4, 4)), np.eye(4))
    spine = make_spine(5, room=20)
    with pytest.raises(ValueError, match="no disc with a number up to 1"):
        localise(
            spine.label_map > 0,
            spine.affine,
            localiser=np.where(spine.label_map > 0, spine.label_map + 2, 0),
            n_discs=1,
        )


def test_speckle_is_no_spine():
    mask = np.random.default_rng(0).random((60, 60, 60)) < 0.02
    with pytest.raises(ValueError, match="no connected set lies along a spine"):
        localise(mask, np.eye(4))
