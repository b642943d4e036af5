import numpy as np
import pytest

from nnunet_da.discs.reference import Reference, default_reference
from nnunet_da.discs.simulation import draw_discs, mean_spine
from nnunet_da.phantom.spine import DISCS


def test_the_default_has_the_phantoms_discs():
    reference, spine = default_reference(), mean_spine()
    assert len(reference.centroids) == len(DISCS)
    # The middle of L3 is the origin, and chords are a little shorter than the bent line.
    assert reference.centroids[2, 2] < 0 < reference.centroids[3, 2]
    np.testing.assert_allclose(np.diff(reference.positions), np.diff(spine.disc_positions[1:]), atol=1)


def test_drawn_discs_are_those_of_the_whole_phantom():
    spine = mean_spine()
    affine = np.diag([3.0, 3, 1.5, 1])
    affine[:3, 3] = (-30, -60, -110)
    shape = (20, 26, 50)
    drawn, whole = draw_discs(spine, shape, affine), spine.rasterise(shape, affine).discs
    assert set(np.unique(drawn)) == set(np.unique(whole)) == {0, 1, 2}
    for number in (1, 2):
        both = np.sum((drawn == number) & (whole == number))
        assert 2 * both > 0.9 * (np.sum(drawn == number) + np.sum(whole == number))


def test_a_mask_is_numbered(make_spine):
    spine = make_spine(4, spacing=3.0)
    numbered = Reference.from_label_map(spine.label_map, spine.affine)
    binary = Reference.from_label_map((spine.label_map > 0).astype(np.uint8), spine.affine)
    np.testing.assert_allclose(binary.centroids, numbered.centroids)
    np.testing.assert_allclose(numbered.centroids, spine.centroids, atol=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda discs: 0 * discs, "it is empty"),
        (lambda discs: np.where(discs <= 2, discs, 0), r"it has 2 disc\(s\)"),
        (lambda discs: np.where(discs == 2, 0, discs), "without a gap, not 1, 3, 4"),
        (lambda discs: np.where(discs > 0, 5 - discs, 0), "from the lowest"),
    ],
)
def test_refusals(make_spine, change, message):
    spine = make_spine(4, spacing=3.0)
    with pytest.raises(ValueError, match=message):
        Reference.from_label_map(change(spine.label_map), spine.affine)
