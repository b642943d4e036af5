import numpy as np
import pytest
import torch
from scipy import ndimage

from nnunet_da.discs.deformation import middle_slice, random_displacement

SHAPE = (24, 30)


def field(limits=(1.5, 2.0, 3.0), sigma=4.0, seed=0, shape=SHAPE):
    return random_displacement(shape, limits, sigma, torch.Generator().manual_seed(seed))


def test_displacements_stay_within_their_limits_and_use_them():
    largest = torch.stack([field(seed=seed).abs().amax(dim=(1, 2)) for seed in range(40)])
    limits = torch.tensor([1.5, 2.0, 3.0])
    assert (largest <= limits + 1e-5).all()
    assert (largest.amax(dim=0) > 0.85 * limits).all()
    assert (largest.amin(dim=0) < 0.2 * limits).all()


def test_displacements_are_smooth():
    rough, smooth = (field(sigma=sigma, limits=(1, 1, 1)) for sigma in (0.3, 6.0))

    def steps(displacement):
        return (displacement.diff(dim=2).abs().amax() / displacement.abs().amax()).item()

    assert steps(smooth) < 0.25 < steps(rough)


def test_each_axis_is_displaced_in_its_own_way():
    one, two, three = field()
    assert not torch.allclose(one / one.abs().max(), two / two.abs().max())
    assert not torch.allclose(two / two.abs().max(), three / three.abs().max())


def test_nothing_done_is_the_middle_slice():
    slab = torch.randn(2, 5, *SHAPE)
    still = torch.zeros(3, 12, 20)
    assert torch.allclose(middle_slice(slab, still), slab[:, 2, 6:18, 5:25], atol=1e-6)
    labels = torch.randint(-1, 4, (1, 5, *SHAPE), dtype=torch.int16)
    assert torch.equal(middle_slice(labels, still, labels=True), labels[:, 2, 6:18, 5:25])


def test_it_is_that_of_scipy():
    slab = torch.randn(1, 5, 40, 44)
    displacement = field(limits=(1.9, 3.0, 3.0))
    zoom = 1.2
    taken = middle_slice(slab, displacement, zoom)
    grid = np.stack(np.meshgrid(np.arange(24) - 11.5, np.arange(30) - 14.5, indexing="ij")) / zoom
    z, y, x = displacement.numpy().astype(float)
    positions = [2 + z, 19.5 + grid[0] + y, 21.5 + grid[1] + x]
    expected = ndimage.map_coordinates(slab[0].numpy().astype(float), positions, order=1)
    assert np.abs(z).max() > 0.2
    np.testing.assert_allclose(taken[0].numpy(), expected, atol=1e-4)


def test_a_step_across_slices_brings_the_next_one():
    slab = torch.arange(5.0).reshape(1, 5, 1, 1).expand(1, 5, *SHAPE)
    up = torch.zeros(3, *SHAPE)
    up[0] = 1.0
    assert torch.allclose(middle_slice(slab, up), torch.tensor(3.0))
    assert torch.allclose(middle_slice(slab, 0.5 * up), torch.tensor(2.5))
    # The scan ends at slice 2: what lies beyond is as that.
    assert torch.allclose(middle_slice(slab, up, valid=(0, 2)), torch.tensor(2.0))


def test_labels_take_the_one_with_the_most_weight():
    slab = torch.zeros(1, 3, 1, 6, dtype=torch.int16)
    slab[..., 3:] = 7
    moved = torch.zeros(3, 1, 6)
    moved[2] = 0.4
    assert middle_slice(slab, moved, labels=True).tolist() == [[[0, 0, 0, 7, 7, 7]]]
    moved[2] = 0.6
    assert middle_slice(slab, moved, labels=True, outside=-1).tolist() == [[[0, 0, 7, 7, 7, 7]]]
    moved[2] = 2
    assert middle_slice(slab, moved, labels=True, outside=-1).tolist() == [[[0, 7, 7, 7, -1, -1]]]


@pytest.mark.parametrize("zoom", [0.5, 2.0])
def test_zoom_enlarges_what_is_seen(zoom):
    slab = torch.zeros(1, 3, 64, 64)
    slab[..., 28:36, 24:40] = 1
    seen = middle_slice(slab, torch.zeros(3, 32, 32), zoom)[0]
    assert seen[16].sum().item() == pytest.approx(16 * zoom, abs=1)
    assert seen[:, 16].sum().item() == pytest.approx(8 * zoom, abs=1)
