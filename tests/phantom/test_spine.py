import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from nnunet_da.phantom.scanner import SCANNERS
from nnunet_da.phantom.spine import SACRUM, TISSUES, Spine
from nnunet_da.phantom.tissues import INDEX, NAMES


def draw(seed, size=(8, 48, 64), scanner="ge_t1"):
    rng = np.random.default_rng(seed)
    spine = Spine.sample(rng)
    return spine, spine.rasterise(*SCANNERS[scanner].grid(rng, size))


def heights(labels, affine):
    """World z of the centre of mass of each label of a map, in the order of the labels."""
    numbers = np.setdiff1d(np.unique(labels), [0, SACRUM])
    centres = np.array(ndimage.center_of_mass(labels > 0, labels, numbers))
    return numbers, (centres @ affine[:3, :3].T + affine[:3, 3])[:, 2]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.tuples(st.integers(6, 12), st.integers(48, 64), st.integers(64, 80)))
def test_discs_are_numbered_upwards_apart_and_whole(seed, size):
    _, anatomy = draw(seed, size)
    numbers, z = heights(anatomy.discs, anatomy.affine)
    assert len(numbers) >= 5
    assert numbers.tolist() == list(range(1, len(numbers) + 1))
    assert np.all(np.diff(z) > 10)
    # As many pieces as discs: each is one piece, and none touches another, not even by a corner.
    _, pieces = ndimage.label(anatomy.discs > 0, np.ones((3, 3, 3)))
    assert pieces == len(numbers)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([name for name, scanner in SCANNERS.items() if scanner.body == "spine"]))
def test_fractions_are_shares_of_one(seed, scanner):
    _, anatomy = draw(seed, (6, 32, 40), scanner)
    assert anatomy.fractions.dtype == np.float32
    assert anatomy.fractions.min() >= -1e-6
    np.testing.assert_allclose(anatomy.fractions.sum(axis=0), 1, atol=1e-5)


def test_vertebrae_lie_between_discs():
    _, anatomy = draw(5, (10, 96, 128))
    _, disc_z = heights(anatomy.discs, anatomy.affine)
    vertebrae, vertebra_z = heights(anatomy.vertebrae, anatomy.affine)
    assert vertebrae[:4].tolist() == [1, 2, 3, 4]
    for number in range(1, 5):
        above_own_disc = vertebra_z[number - 1] - disc_z[number - 1]
        below_next_disc = disc_z[number] - vertebra_z[number - 1]
        assert above_own_disc > 8
        assert below_next_disc > 8
    assert (anatomy.vertebrae == SACRUM).any()
    assert not ((anatomy.vertebrae > 0) & (anatomy.discs > 0)).any()


def test_labels_agree_with_the_tissues():
    _, anatomy = draw(3, (14, 128, 160))
    disc_tissue = anatomy.fractions[[INDEX[name] for name in ("nucleus", "degenerated_nucleus", "annulus")]].sum(axis=0)
    assert disc_tissue[anatomy.discs > 0].min() > 0.4
    assert anatomy.disc_mask.dtype == np.uint8
    np.testing.assert_array_equal(anatomy.disc_mask, anatomy.discs != 0)
    bone = anatomy.fractions[[INDEX[name] for name in ("marrow", "cortical_bone", "fat", "blood")]].sum(axis=0)
    assert bone[anatomy.vertebrae > 0].mean() > 0.95


def test_volumes_do_not_depend_on_the_grid():
    spine = Spine.sample(np.random.default_rng(2))
    volumes = []
    for spacing in [(4, 2, 2), (2, 1.5, 1.5)]:
        size = np.ceil(np.array([56, 150, 220]) / spacing).astype(int)
        affine = np.diag([*spacing, 1.0])
        affine[:3, 3] = [-28, -70, -120]
        anatomy = spine.rasterise(size, affine)
        volumes.append(np.bincount(anatomy.discs.ravel(), minlength=6)[1:6] * np.prod(spacing))
    np.testing.assert_allclose(volumes[0], volumes[1], rtol=0.12)
    # A lumbar disc has some 5 to 25 ml.
    assert np.all((volumes[1] > 4e3) & (volumes[1] < 25e3))


def test_degenerated_discs_have_lost_height_and_nucleus():
    discs = [spine_disc for seed in range(60) for spine_disc in _grades_and_heights(seed)]
    grades, heights = np.array(discs).T
    assert np.corrcoef(grades, heights)[0, 1] < -0.3
    spine, anatomy = draw(4, (12, 96, 120))
    healthy, old = (
        [anatomy.fractions[INDEX[name]][anatomy.discs == number].sum() for number in range(1, 6)]
        for name in ("nucleus", "degenerated_nucleus")
    )
    share = np.array(old) / (np.array(healthy) + old)
    assert np.corrcoef(share, spine.grades[1:6])[0, 1] > 0.95


def _grades_and_heights(seed):
    spine = Spine.sample(np.random.default_rng(seed))
    return zip(spine.grades[2:5], spine.disc_heights[2:5], strict=True)


def test_straighten_undoes_the_bend():
    spine = Spine.sample(np.random.default_rng(8))
    s, line_y, line_z, sine, cosine, _ = spine._curve
    at = np.arange(200, len(s) - 900, 40)
    for v in (-60, 0, 40):
        y, z = line_y[at] + v * cosine[at], line_z[at] - v * sine[at]
        u, found_v, found_s = spine.straighten(np.zeros_like(y), y, z)
        np.testing.assert_allclose(found_v, v, atol=0.3)
        np.testing.assert_allclose(found_s, s[at], atol=0.8)
        np.testing.assert_allclose(u, -spine.bend * ((s[at] - spine.vertebra_positions[3]) / 100) ** 2, atol=0.1)


def test_a_seed_gives_one_spine():
    first, again, other = (draw(seed, (6, 32, 40))[1].fractions for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.5


def test_anatomy_is_the_same_however_its_axes_are_stored():
    spine = Spine.sample(np.random.default_rng(1))
    shape, affine = SCANNERS["ge_t1"].grid(np.random.default_rng(0), (6, 32, 40))
    flip = np.array([[0, 0, 1, 0], [-1, 0, 0, shape[1] - 1], [0, 1, 0, 0], [0, 0, 0, 1.0]])
    plain = spine.rasterise(shape, affine)
    stored = spine.rasterise((shape[1], shape[2], shape[0]), affine @ flip)
    np.testing.assert_array_equal(np.moveaxis(plain.discs[:, ::-1], 0, 2), stored.discs)
    np.testing.assert_allclose(np.moveaxis(plain.fractions[:, :, ::-1], 1, 3), stored.fractions, atol=2e-3)


def test_the_subjects_differ_in_size_and_shape():
    depths = [Spine.sample(np.random.default_rng(seed)).half_depths[3] for seed in range(40)]
    assert 0.7 < np.std(depths) < 2
    assert np.mean(depths) == pytest.approx(17.5, abs=0.6)


def test_label_map_names_every_structure():
    _, anatomy = draw(3, (14, 96, 120))
    assert anatomy.names[:2] == ("L5-S1", "L4-L5")
    assert anatomy.names[8] == "T9-T10"
    labels = anatomy.label_map({"L5-S1": 11, "L3": 4, "sacrum": 1, "canal": 100})
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels == 11, anatomy.discs == 1)
    np.testing.assert_array_equal(labels == 4, anatomy.vertebrae == 3)
    np.testing.assert_array_equal(labels == 1, anatomy.vertebrae == SACRUM)
    assert set(np.unique(labels)) == {0, 1, 4, 11, 100}
    with pytest.raises(ValueError, match="L6: no such structure"):
        anatomy.label_map({"L6": 1})


def test_canal_runs_behind_the_bodies_and_holds_fluid_and_nerves():
    _, anatomy = draw(3, (14, 96, 120))
    fluid = anatomy.fraction("csf") + anatomy.fraction("nerve")
    assert fluid[anatomy.canal].mean() > 0.85
    assert fluid[anatomy.canal].sum() > 0.9 * anatomy.fraction("csf").sum()
    for number in range(1, 5):
        body = ndimage.center_of_mass(anatomy.vertebrae == number)
        at = anatomy.canal & (np.abs(np.arange(anatomy.canal.shape[2]) - body[2]) < 1)
        assert np.nonzero(at)[1].mean() * anatomy.affine[1, 1] < body[1] * anatomy.affine[1, 1] - 15


def test_the_tissues_are_the_first_of_the_table():
    assert NAMES[: len(TISSUES)] == TISSUES
