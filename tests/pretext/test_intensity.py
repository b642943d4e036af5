import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d

from nnunet_da.errors import UserError
from nnunet_da.pretext.intensity import IntensitySettings, IntensityTask, gaussian_blur

NONE, NOISE, BLUR, CONTRAST = range(4)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def task(spacing=(1.0, 1.0), **settings):
    return IntensityTask(IntensitySettings(**settings), spacing, n_channels=1)


def applied(label, images, **keywords):
    return task(**keywords).transform(images, torch.full((len(images),), label))


def test_every_class_comes_equally_often_whatever_the_batch():
    images = torch.randn(6, 1, 4, 4)
    counts = sum(torch.bincount(task().sample(images)[1], minlength=4) for _ in range(400))
    assert counts.sum() == 2400
    # Each class is expected 600 times; six of a batch hold each class once and two of them twice.
    assert (counts - 600).abs().max() < 60
    labels = task().sample(torch.randn(8, 1, 4, 4))[1]
    assert torch.bincount(labels).tolist() == [2, 2, 2, 2]


def test_none_is_the_image_and_the_input_is_left_alone():
    images = torch.randn(4, 2, 5, 6)
    before = images.clone()
    transformed, labels = task().sample(images)
    assert torch.equal(images, before)
    assert torch.equal(transformed[labels == NONE], images[labels == NONE])
    for label in (NOISE, BLUR, CONTRAST):
        assert not torch.allclose(transformed[labels == label], images[labels == label])


def test_noise_has_the_chosen_standard_deviation_relative_to_each_channel():
    images = torch.randn(2, 2, 128, 128) * torch.tensor([1.0, 50.0])[None, :, None, None]
    difference = applied(NOISE, images, noise_sigma=(0.3, 0.3)) - images
    relative = difference.std(dim=(2, 3)) / images.std(dim=(2, 3))
    assert torch.allclose(relative, torch.full((2, 2), 0.3), atol=0.01)
    assert (difference.mean(dim=(2, 3)) / images.std(dim=(2, 3))).abs().max() < 0.02


def test_blur_is_scipys_gaussian_inside_and_keeps_constants_to_the_border():
    image = np.random.default_rng(1).normal(size=(40, 44))
    sigma = torch.full((1, 1, 1, 1), 1.3, dtype=torch.float64)
    blurred = gaussian_blur(torch.from_numpy(image)[None, None], sigma, [1.0, 0.5])[0, 0].numpy()
    expected = gaussian_filter1d(gaussian_filter1d(image, 1.3, axis=0, truncate=8), 0.65, axis=1, truncate=8)
    assert np.allclose(blurred[12:-12, 12:-12], expected[12:-12, 12:-12], atol=1e-6)
    constant = torch.full((3, 1, 5, 6, 7), 2.5)
    widths = torch.tensor([0.5, 1.0, 3.0])[:, None, None, None, None]
    assert torch.allclose(gaussian_blur(constant, widths, [1.0, 1.0, 1.0]), constant)


def test_each_image_is_blurred_by_its_own_width():
    images = torch.randn(2, 1, 16, 16)
    sigma = torch.tensor([0.6, 2.0])[:, None, None, None]
    together = gaussian_blur(images, sigma, [1.0, 1.0])
    for index in range(2):
        alone = gaussian_blur(images[index : index + 1], sigma[index : index + 1], [1.0, 1.0])
        assert torch.allclose(together[index], alone[0], atol=1e-6)
    assert together[1].std() < together[0].std()


def test_blur_is_isotropic_in_millimetres():
    point = torch.zeros(1, 1, 33, 33, 33)
    point[0, 0, 16, 16, 16] = 1
    spread = applied(BLUR, point, spacing=(4.0, 2.0, 2.0), blur_sigma=(2.0, 2.0))[0, 0]
    position = torch.arange(33.0) - 16

    def width(axis):
        profile = spread.sum(dim=[other for other in range(3) if other != axis])
        return float((profile * position**2).sum().sqrt())

    assert width(0) * 4.0 == pytest.approx(width(1) * 2.0, rel=0.02)
    assert width(1) == pytest.approx(2.0, rel=0.02)


def test_contrast_steepens_about_the_mean_and_saturates_at_the_ends():
    images = torch.randn(2, 1, 64, 64)
    mean = images.mean(dim=(2, 3), keepdim=True)
    linear = applied(CONTRAST, images, contrast_factor=(2.0, 2.0), contrast_clip=False)
    assert torch.allclose(linear, mean + 2 * (images - mean), atol=1e-5)
    clipped = applied(CONTRAST, images, contrast_factor=(2.0, 2.0))
    assert torch.equal(clipped.amax(dim=(2, 3)), images.amax(dim=(2, 3)))
    assert torch.allclose(clipped, linear.clamp(images.amin((2, 3), True), images.amax((2, 3), True)), atol=1e-5)


def test_what_instance_norm_leaves_of_each_class():
    """Linear contrast is invisible behind InstanceNorm; noise, blur and saturating contrast are not."""
    images = torch.randn(1, 1, 64, 64)
    norm = torch.nn.InstanceNorm2d(1)
    linear = applied(CONTRAST, images, contrast_clip=False)
    assert torch.allclose(norm(linear), norm(images), atol=1e-3)
    for label in (NOISE, BLUR, CONTRAST):
        assert not torch.allclose(norm(applied(label, images)), norm(images), atol=0.1)


@pytest.mark.parametrize(
    "settings",
    [{"noise_sigma": (0.0, 0.1)}, {"blur_sigma": (2.0, 1.0)}, {"contrast_factor": (1.0, 2.0)}],
)
def test_ranges_are_checked(settings):
    (name,) = settings
    with pytest.raises(UserError, match=f"setting intensity.{name}"):
        IntensitySettings(**settings)
