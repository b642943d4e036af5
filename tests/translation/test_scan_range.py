import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunet_da.translation.intensities import ScanRange

NOWHERE = np.zeros((4, 5, 6), bool)


def scan(seed=0, channels=2):
    return np.random.default_rng(seed).normal(size=(channels, 4, 5, 6)).astype(np.float32)


def test_min_and_max_become_0_and_1():
    voxels = scan()
    unit = ScanRange.of(voxels, NOWHERE, (0, 100)).to_unit(voxels, NOWHERE[None])
    assert unit.dtype == np.float32
    for channel, ours in zip(voxels, unit, strict=True):
        expected = (channel - channel.min()) / (channel.max() - channel.min())
        assert np.allclose(ours, expected, atol=1e-6)


def test_percentiles_are_those_of_the_whole_scan_and_what_lies_beyond_is_clipped():
    voxels = scan()
    found = ScanRange.of(voxels, NOWHERE, (10, 90))
    assert np.allclose(found.low, np.percentile(voxels.reshape(2, -1), 10, axis=1), atol=1e-6)
    assert np.allclose(found.high, np.percentile(voxels.reshape(2, -1), 90, axis=1), atol=1e-6)
    unit = found.to_unit(voxels, NOWHERE[None])
    assert (unit.min(), unit.max()) == (0, 1)
    assert np.array_equal(unit == 1, voxels >= found.high.reshape(2, 1, 1, 1))


@given(st.floats(0.01, 1000), st.floats(-1000, 1000), st.sampled_from([(0.0, 100.0), (0.5, 99.5)]))
def test_a_linear_change_of_the_scan_makes_no_difference(factor, shift, percentiles):
    voxels = scan().astype(np.float64)
    changed = factor * voxels + shift

    def unit(image):
        return ScanRange.of(image, NOWHERE, percentiles).to_unit(image, NOWHERE[None])

    assert np.allclose(unit(voxels), unit(changed), atol=2e-3)


def test_a_patch_has_the_scale_of_its_scan():
    voxels = scan()
    found = ScanRange.of(voxels, NOWHERE, (0, 100))
    whole = found.to_unit(voxels, NOWHERE[None])
    patch = voxels[:, 2, 1:4, 2:5]
    assert np.array_equal(found.to_unit(patch, np.zeros((1, 3, 3), bool)), whole[:, 2, 1:4, 2:5])


def test_outside_is_0_and_counts_as_the_darkest():
    voxels = scan()
    outside = np.zeros_like(NOWHERE)
    outside[:2] = True
    # As nnU-Net leaves it where it normalises within a mask: 0, in the midst of the z-scores.
    masked = np.where(outside, 0, voxels)
    darkest = np.where(outside, voxels[:, 2:].min(axis=(1, 2, 3), keepdims=True), voxels)
    found = ScanRange.of(masked, outside, (30, 95))
    assert np.allclose(found.low, np.percentile(darkest.reshape(2, -1), 30, axis=1))
    assert not found.to_unit(masked, outside[None])[:, :2].any()


def test_constant_channels_and_scans_without_an_inside():
    constant = np.full((1, 4, 5, 6), 3, np.float32)
    assert not ScanRange.of(constant, NOWHERE, (0, 100)).to_unit(constant, NOWHERE[None]).any()
    unit = ScanRange.of(scan(), ~NOWHERE, (0, 100)).to_unit(scan(), ~NOWHERE[None])
    assert not unit.any()


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_have_scales_of_their_own(channels):
    voxels = scan(channels=channels) * np.array([1, 10, 100][:channels], np.float32).reshape(-1, 1, 1, 1)
    unit = ScanRange.of(voxels, NOWHERE, (0, 100)).to_unit(voxels, NOWHERE[None])
    assert (unit.max(axis=(1, 2, 3)) == 1).all()
