from dataclasses import replace

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_da.phantom.bodies import BODIES
from nnunet_da.phantom.scanner import COILS, SCANNERS, add_noise, ideal_echoes, sensitivity, simulate, world_coordinates
from nnunet_da.phantom.sequences import Dixon
from nnunet_da.phantom.spine import Spine
from nnunet_da.phantom.tissues import INDEX, pools

OTHERS = [name for name, scanner in SCANNERS.items() if scanner.body != "spine"]


def take(name, seed=0, size=(8, 64, 80), **changes):
    rng = np.random.default_rng(seed)
    return simulate(BODIES[SCANNERS[name].body].sample(rng), replace(SCANNERS[name], **changes), rng, size)


def tissue_signal(name):
    """Magnitude images per tissue, (channels, tissues), of a scanner without coil and noise."""
    sequence = SCANNERS[name].sequence
    return sequence.reconstruct(sequence.echoes(pools(SCANNERS[name].field)))


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(list(SCANNERS)), st.integers(0, 1000), st.tuples(*[st.integers(5, 40)] * 3))
def test_grid_has_the_stated_orientation_and_covers_the_field_of_view(name, seed, size):
    scanner = SCANNERS[name]
    shape, affine = scanner.grid(np.random.default_rng(seed), size)
    assert "".join(nibabel.aff2axcodes(affine)) == scanner.axcodes
    assert sorted(shape) == sorted(size)
    canonical = nibabel.as_closest_canonical(nibabel.Nifti1Image(np.zeros(shape, dtype=np.uint8), affine))
    assert canonical.shape == size
    np.testing.assert_allclose(np.array(canonical.header.get_zooms()) * size, scanner.field_of_view, rtol=1e-5)
    centre = affine @ [*(np.array(shape) - 1) / 2, 1]
    assert np.abs(centre[:3]).max() < 50


@pytest.mark.parametrize("name", SCANNERS)
def test_own_spacing(name):
    scanner = SCANNERS[name]
    _, affine = scanner.grid(np.random.default_rng(0))
    canonical = nibabel.io_orientation(affine)[:, 0].astype(int)
    spacing = np.empty(3)
    spacing[canonical] = np.linalg.norm(affine[:3, :3], axis=0)
    np.testing.assert_allclose(spacing, scanner.spacing, rtol=0.01)


@pytest.mark.parametrize("name", SCANNERS)
def test_images_and_labels_lie_on_one_grid(name, draw_coarsely, monkeypatch):
    draw_coarsely(monkeypatch, 8.0)
    scan = take(name, size=(32, 32, 16) if name in OTHERS else (8, 64, 80))
    assert scan.images.dtype == np.int16
    assert scan.images.min() >= 0
    assert scan.images.shape == (len(SCANNERS[name].channels), *scan.anatomy.structures.shape)
    assert "".join(nibabel.aff2axcodes(scan.affine)) == SCANNERS[name].axcodes
    assert (scan.anatomy.structures > 0).sum() > (5 if SCANNERS[name].body == "head" else 100)


def test_a_seed_gives_one_scan(draw_coarsely, monkeypatch):
    draw_coarsely(monkeypatch, 8.0)
    np.testing.assert_array_equal(take("dixon_3t", 3).images, take("dixon_3t", 3).images)
    assert (take("ge_t1", 3).images != take("ge_t1", 4).images).mean() > 0.5


def test_contrast_of_disc_and_vertebra_is_inverted_between_scanners():
    ratios = {
        name: tissue_signal(name)[:, INDEX["nucleus"]] / tissue_signal(name)[:, INDEX["marrow"]] for name in SCANNERS
    }
    annulus = tissue_signal("ge_t1")[0, INDEX["annulus"]] / tissue_signal("ge_t1")[0, INDEX["marrow"]]
    assert ratios["philips_3t"][0] > 1.8
    assert ratios["siemens_1p5t"][0] > 1.8
    assert annulus < ratios["ge_t1"][0] < 0.95
    fat, _, opposed, _ = ratios["dixon_3t"]
    assert fat < 0.15
    assert opposed > 2


@pytest.mark.parametrize("name", ["philips_3t", "siemens_1p5t"])
def test_fluid_is_bright_and_degenerated_discs_are_dark_in_t2(name):
    signal = tissue_signal(name)[0]
    assert signal[INDEX["csf"]] > signal[INDEX["nucleus"]] > 2 * signal[INDEX["degenerated_nucleus"]]
    assert signal[INDEX["degenerated_nucleus"]] > signal[INDEX["cortical_bone"]]


def test_fluid_is_dark_and_fat_is_bright_in_t1():
    signal = tissue_signal("ge_t1")[0]
    assert signal[INDEX["csf"]] < signal[INDEX["nucleus"]] < signal[INDEX["marrow"]] < signal[INDEX["fat"]]


def test_simulated_images_show_that_contrast():
    for name, brighter in [("philips_3t", True), ("ge_t1", False)]:
        scan = take(name, 21, (10, 96, 128))
        fractions = scan.anatomy.fractions
        nucleus = np.median(scan.images[0][fractions[INDEX["nucleus"]] > 0.6])
        marrow = np.median(scan.images[0][(fractions[INDEX["marrow"]] > 0.6) & (scan.anatomy.vertebrae > 0)])
        assert (nucleus > 1.4 * marrow) if brighter else (nucleus < 0.9 * marrow)


def test_noise_in_air_is_rayleigh_and_in_tissue_gaussian():
    sigma, signal = 3.0, 60.0
    magnitude = np.abs(add_noise(np.zeros(200_000, dtype=complex), sigma, np.random.default_rng(0)))
    assert magnitude.mean() == pytest.approx(sigma * np.sqrt(np.pi / 2), rel=0.01)
    assert magnitude.std() == pytest.approx(sigma * np.sqrt(2 - np.pi / 2), rel=0.01)
    magnitude = np.abs(add_noise(np.full(200_000, signal, dtype=complex), sigma, np.random.default_rng(1)))
    assert magnitude.mean() == pytest.approx(np.hypot(signal, sigma), rel=0.002)
    assert magnitude.std() == pytest.approx(sigma, rel=0.01)


@pytest.mark.parametrize("snr", [8, 30])
def test_scans_have_the_stated_snr(snr):
    scan = take("ge_t1", 2, (8, 96, 120), snr=snr)
    air = scan.anatomy.fractions[INDEX["air"]]
    background = scan.images[0][air > 0.9999].astype(float)
    sigma = background.mean() / np.sqrt(np.pi / 2)
    assert scan.images[0][air < 0.5].mean() / sigma == pytest.approx(snr, rel=0.15)


def test_dixon_images_of_one_scan_fit_together():
    spine = Spine.sample(np.random.default_rng(0))
    scanner = SCANNERS["dixon_3t"]
    anatomy = spine.rasterise(*scanner.grid(np.random.default_rng(0), (6, 40, 48)))
    fat, inn, opp, wat = Dixon(10, 10).reconstruct(ideal_echoes(anatomy, scanner))
    # Water alone decays a little from the opposed to the later in-phase echo, so which of the two is larger may change.
    np.testing.assert_allclose(np.maximum(inn, opp), wat + fat, atol=1e-5)
    np.testing.assert_allclose(np.minimum(inn, opp), np.abs(wat - fat), atol=1e-5)
    fatty = anatomy.fractions[INDEX["fat"]] > 0.2
    assert fatty.sum() > 50
    np.testing.assert_allclose(inn[fatty], (wat + fat)[fatty], atol=1e-5)


def test_coil_is_strongest_at_the_back_and_the_band_darkens_the_front():
    scanner = replace(SCANNERS["siemens_1p5t"], bias=0.0)
    anatomy = Spine.sample(np.random.default_rng(0)).rasterise(*scanner.grid(np.random.default_rng(0), (4, 30, 30)))
    world = world_coordinates(anatomy)
    with_band = sensitivity(world, scanner, np.random.default_rng(0))
    without = sensitivity(world, replace(scanner, saturation=None), np.random.default_rng(0))
    np.testing.assert_allclose(without, np.exp(-(world[1] + 60) / scanner.coil_depth), rtol=1e-4)
    front, back = world[1] > scanner.saturation + 20, world[1] < scanner.saturation - 20
    np.testing.assert_allclose((with_band / without)[front], 0.15, atol=0.01)
    np.testing.assert_allclose((with_band / without)[back], 1, atol=0.01)


def test_world_coordinates_are_those_of_the_affine():
    _, affine = SCANNERS["philips_3t"].grid(np.random.default_rng(1), (3, 4, 5))
    anatomy = Spine.sample(np.random.default_rng(1)).rasterise((5, 4, 3), affine)
    world = world_coordinates(anatomy)
    np.testing.assert_allclose(world[:, 2, 1, 2], (affine @ [2, 1, 2, 1])[:3], atol=1e-3)


def test_coils_around_a_part_are_weakest_in_its_middle_and_those_of_joints_strongest():
    world = np.stack(np.meshgrid(*[np.array([-80.0, 0, 80])] * 3, indexing="ij"))
    around, joint = (COILS[kind](world, 100.0) for kind in ("around", "joint"))
    assert around[1, 1, 1] == around.min() == 0
    assert joint[1, 1, 1] == joint.max() == 0
    assert joint[2, 1, 1] == pytest.approx(-0.64)
    assert around[1, 2, 1] == pytest.approx(np.log(np.cosh(0.8)))


def test_contrast_agent_brightens_what_takes_it_up():
    scanner = SCANNERS["crossmoda_ldn_cet1"]
    plain, enhanced = (
        scanner.sequence.reconstruct(scanner.sequence.echoes(pools(scanner.field, dose=dose)))[0] for dose in (0, 1)
    )
    assert enhanced[INDEX["schwannoma"]] > 2 * plain[INDEX["schwannoma"]]
    assert enhanced[INDEX["csf"]] == plain[INDEX["csf"]]


def test_quantities_are_stored_as_they_are_whatever_the_gain():
    first, second = (take("msd_prostate", 3, (32, 32, 6), gain=gain) for gain in (200, 2000))
    np.testing.assert_array_equal(first.images[1], second.images[1])
    assert np.median(second.images[0]) > 8 * np.median(first.images[0])
