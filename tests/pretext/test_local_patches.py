import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nnunet_da.errors import UserError
from nnunet_da.pretext.local_patches import LocalPatchSettings, LocalPatchTask, mosaic


def task(spacing=(1.0, 1.0), **settings):
    return LocalPatchTask(LocalPatchSettings(**settings), spacing, n_channels=1)


def tiles(image, size):
    """The tiles of an image of one channel, whole or cut off at the border, by their first voxel."""
    grid = np.stack(np.meshgrid(*(np.arange(0, n, s) for n, s in zip(image.shape, size, strict=True)), indexing="ij"))
    for start in grid.reshape(len(size), -1).T:
        yield image[tuple(slice(a, a + s) for a, s in zip(start, size, strict=True))]


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 12)), min_size=2, max_size=3),
    st.integers(0, 2**31),
)
def test_every_tile_is_a_piece_of_its_own_image(axes, seed):
    torch.manual_seed(seed)
    size, shape = [edge for edge, _ in axes], [length for _, length in axes]
    images = torch.arange(2 * 2 * np.prod(shape)).reshape(2, 2, *shape).float()
    result = mosaic(images, size)
    assert result.shape == images.shape
    size = [min(edge, length) for edge, length in axes]
    strides = np.array([np.prod(shape[axis + 1 :]) for axis in range(len(shape))], int)
    for image, made in zip(images, result, strict=True):
        assert torch.equal(made[1] - made[0], torch.full(shape, float(np.prod(shape))))
        for tile in tiles(made[0].numpy(), size):
            inside = np.stack(np.meshgrid(*(np.arange(n) for n in tile.shape), indexing="ij"))
            assert np.array_equal(tile - tile.flat[0], np.tensordot(strides, inside, axes=1))
            start = np.unravel_index(int(tile.flat[0] - image[0].min()), shape)
            assert all(a + n <= length for a, n, length in zip(start, size, shape, strict=True))


def test_mosaics_draw_from_the_whole_image_and_keep_its_values():
    torch.manual_seed(0)
    image = torch.arange(64.0).reshape(1, 1, 8, 8)
    seen = torch.cat([mosaic(image, (3, 3)).flatten() for _ in range(100)])
    assert len(seen.unique()) == 64
    assert torch.equal(mosaic(image, (8, 20)), image)


def test_each_mosaic_has_to_find_its_partner():
    torch.manual_seed(0)
    images = torch.randn(3, 1, 8, 8)
    inputs, answers = task(size=4).sample(images)
    assert inputs.shape == (6, 1, 8, 8)
    assert answers.tolist() == [3, 4, 5, 0, 1, 2]
    assert task().chance(3) == pytest.approx(1 / 5)


def test_the_loss_is_info_nce():
    torch.manual_seed(0)
    outputs = torch.randn(6, 5)
    answers = torch.arange(6).roll(3)
    z = (outputs / outputs.norm(dim=1, keepdim=True)).double().numpy()
    losses = []
    for i in range(6):
        others = [np.exp(z[i] @ z[j] / 0.1) for j in range(6) if j != i]
        losses.append(-np.log(np.exp(z[i] @ z[int(answers[i])] / 0.1) / sum(others)))
    assert float(task().loss(outputs, answers)) == pytest.approx(np.mean(losses), rel=1e-5)
    assert float(task().loss(7 * outputs, answers)) == pytest.approx(np.mean(losses), rel=1e-5)


def test_the_score_counts_partners_found():
    z = torch.eye(3)
    assert task().score(torch.cat([z, z]), torch.arange(6).roll(3)).tolist() == [1, 1, 1]
    # The first image's second mosaic lies nearer to the second image's.
    other = z.clone()
    other[0] = torch.tensor([0.0, 1.0, 0.01])
    assert task().score(torch.cat([z, other]), torch.arange(6).roll(3)).tolist()[2] == 1
    assert task().score(torch.cat([z, other]), torch.arange(6).roll(3)).sum() < 3


def test_patches_are_isotropic_in_millimetres():
    torch.manual_seed(0)
    images = torch.randn(1, 1, 4, 16, 16)
    inputs, _ = task(spacing=(4.0, 1.0, 1.0), size=8).sample(images)
    # 8 mm are two slices: slices 0 and 1 of a tile are neighbours in the image, too.
    first, second = inputs[0, 0, 0, :8, :8], inputs[0, 0, 1, :8, :8]
    pairs = [
        (images[0, 0, z, y : y + 8, x : x + 8], images[0, 0, z + 1, y : y + 8, x : x + 8])
        for z in range(3)
        for y in range(9)
        for x in range(9)
    ]
    assert any(torch.equal(first, a) and torch.equal(second, b) for a, b in pairs)


@pytest.mark.parametrize("settings", [{"size": 1}, {"n_features": 1}, {"temperature": 0.0}])
def test_bad_values_are_refused(settings):
    with pytest.raises(UserError, match="setting local_patches"):
        LocalPatchSettings(**settings)
