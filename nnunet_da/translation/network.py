"""Two generators with segmenters on their encoders, and two discriminators (Fig. 2)."""

import itertools
from dataclasses import dataclass

import torch
from torch import nn
from torch.func import functional_call

from nnunet_da.errors import UserError

SLOPE = 0.2  # of the leaky ReLU
TRANSLATES = (
    "this model translates images and segments nothing; translate scans with nnunet-da translate, and train a "
    "segmentation on them"
)


def convolution(n_in, n_out, stride=1):
    """3 × 3 convolution, instance norm, leaky ReLU. Borders are mirrored, so that none is drawn into the image."""
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False, padding_mode="reflect"),
        nn.InstanceNorm2d(n_out, affine=True),
        nn.LeakyReLU(SLOPE),
    )


class Encoder(nn.Module):
    """Two convolutions per level; the first of each level but the uppermost halves the image.

    ``forward`` gives the features of every level, the finest first.
    """

    def __init__(self, n_channels, features):
        super().__init__()
        widths = [n_channels, *features]
        self.levels = nn.ModuleList(
            nn.Sequential(convolution(n_in, n_out, stride=1 if level == 0 else 2), convolution(n_out, n_out))
            for level, (n_in, n_out) in enumerate(itertools.pairwise(widths))
        )

    def forward(self, images):
        features = []
        for level in self.levels:
            images = level(images)
            features.append(images)
        return features


class Decoder(nn.Module):
    """The way back up: doubled by repeating pixels and convolved, joined with the encoder's features, convolved twice.

    Transposed convolutions would leave a checkerboard. A 1 × 1 convolution gives `n_out` channels.
    """

    def __init__(self, features, n_out):
        super().__init__()
        pairs = list(zip(features[:0:-1], features[-2::-1], strict=True))
        self.up = nn.ModuleList(
            nn.Sequential(nn.Upsample(scale_factor=2), convolution(coarse, fine)) for coarse, fine in pairs
        )
        self.levels = nn.ModuleList(
            nn.Sequential(convolution(2 * fine, fine), convolution(fine, fine)) for _, fine in pairs
        )
        self.last = nn.Conv2d(features[0], n_out, 1)

    def forward(self, features):
        *finer, x = features
        for up, level, skipped in zip(self.up, self.levels, reversed(finer), strict=True):
            x = level(torch.cat([up(x), skipped], dim=1))
        return self.last(x)


class Generator(nn.Module):
    """U-Net from images to images in [0, 1], with a segmenter: a decoder of its own on the same encoder.

    Parameters
    ----------
    n_channels : int
    n_classes : int
        Channels of the segmenter; 0: there is none.
    features : sequence of int
        Filters of each level.
    residual : bool
        Whether the image is added to.
    """

    def __init__(self, n_channels, n_classes, features, residual=False):
        super().__init__()
        self.encoder = Encoder(n_channels, features)
        self.decoder = Decoder(features, n_channels)
        self.segmenter = Decoder(features, n_classes) if n_classes else None
        self.residual = residual

    def forward(self, images, segment=False):
        """The translated images, and logits of the segmenter where `segment` (else None)."""
        features = self.encoder(2 * images - 1)
        change = torch.tanh(self.decoder(features).float())
        translated = images + change if self.residual else (1 + change) / 2
        return translated, self.segmenter(features) if segment and self.segmenter is not None else None


class Discriminator(nn.Sequential):
    """PatchGAN: a score for every patch of the image, without a norm at first (CycleGAN).

    `n_layers` convolutions of 4 × 4 halve the image, each with twice the filters of the last, up to eight times as
    many; one more keeps its size, and one gives the scores. Three layers see patches of 70 × 70, two of 34 × 34, one of
    16 × 16.
    """

    def __init__(self, n_channels, features, n_layers):
        layers = [nn.Conv2d(n_channels, features, 4, 2, 1), nn.LeakyReLU(SLOPE)]
        widths = [features * min(2**layer, 8) for layer in range(n_layers + 1)]
        for layer, (n_in, n_out) in enumerate(itertools.pairwise(widths), start=1):
            stride = 2 if layer < n_layers else 1
            layers += [nn.Conv2d(n_in, n_out, 4, stride, 1), nn.InstanceNorm2d(n_out), nn.LeakyReLU(SLOPE)]
        super().__init__(*layers, nn.Conv2d(widths[-1], 1, 4, 1, 1))


@dataclass
class Exchange:
    """What the generators make of a batch of each domain, (batch, channels, *space) each.

    Attributes
    ----------
    fake_target, fake_source : Tensor
        Source slices as target, target slices as source.
    restored_source, restored_target : Tensor
        Those, translated back.
    same_source, same_target : Tensor or None
        Source slices through the generator of source slices, target slices through that of target slices.
    fake_target_scores, fake_source_scores : Tensor
        What the discriminators make of the fakes.
    logits, fake_logits : Tensor or None
        The segmentation of the source slices, and of them as target slices.
    """

    fake_target: torch.Tensor
    fake_source: torch.Tensor
    restored_source: torch.Tensor
    restored_target: torch.Tensor
    same_source: torch.Tensor | None
    same_target: torch.Tensor | None
    fake_target_scores: torch.Tensor
    fake_source_scores: torch.Tensor
    logits: torch.Tensor | None
    fake_logits: torch.Tensor | None


class TranslationNetwork(nn.Module):
    """All that is trained. Everything goes through one `forward`, since DDP wraps nothing else.

    The segmenter of source slices shares the encoder of the generator that makes target slices, and that of fake target
    slices the encoder of the other (Fig. 2).

    Parameters
    ----------
    n_channels, n_classes : int
        As in Generator.
    settings : TranslationSettings
    """

    def __init__(self, n_channels, n_classes, settings):
        super().__init__()
        chosen = (n_channels, n_classes if settings.segments else 0, settings.features, settings.residual)
        self.generators = nn.ModuleDict({"to_target": Generator(*chosen), "to_source": Generator(*chosen)})
        judge = (n_channels, settings.discriminator_features, settings.discriminator_layers)
        self.discriminators = nn.ModuleDict({"target": Discriminator(*judge), "source": Discriminator(*judge)})
        self.apply(_initialise)

    def forward(self, images, mode=None, **inputs):
        """What the method named `mode` makes of `images`. Raises UserError without one, as in nnU-Net's predictor."""
        if mode is None:
            raise UserError(TRANSLATES)
        return getattr(self, mode)(images, **inputs)

    def translate(self, images, to):
        """Images in [0, 1] in the look of the other domain; `to`: 'to_target' or 'to_source'."""
        return self.generators[to](images)[0].clamp(0, 1)

    def exchange(self, source, target, identity=True, segment_fakes=True):
        """`Exchange` of a batch of each domain, for the generators' step: the discriminators' weights are constants.

        `identity`: whether each generator is also shown what it should leave as it is. `segment_fakes`: whether the
        fake target slices are segmented.
        """
        to_target, to_source = self.generators["to_target"], self.generators["to_source"]
        fake_target, logits = to_target(source, segment=True)
        restored_source, fake_logits = to_source(fake_target, segment=segment_fakes)
        fake_source, _ = to_source(target)
        restored_target, _ = to_target(fake_source)
        return Exchange(
            fake_target=fake_target,
            fake_source=fake_source,
            restored_source=restored_source,
            restored_target=restored_target,
            same_source=to_source(source)[0] if identity else None,
            same_target=to_target(target)[0] if identity else None,
            fake_target_scores=_with_constant_weights(self.discriminators["target"], fake_target),
            fake_source_scores=_with_constant_weights(self.discriminators["source"], fake_source),
            logits=logits,
            fake_logits=fake_logits,
        )

    def judge(self, source, target, fake_source, fake_target):
        """Scores by domain, of real and of fake images, for the discriminators' step."""
        return {
            "source": (self.discriminators["source"](source), self.discriminators["source"](fake_source)),
            "target": (self.discriminators["target"](target), self.discriminators["target"](fake_target)),
        }


def _with_constant_weights(module, images):
    """``module(images)``, whose gradient reaches the images but not the weights."""
    return functional_call(module, {name: value.detach() for name, value in module.named_parameters()}, (images,))


def _initialise(module):
    """Weights from N(0, 0.02²), as in CycleGAN."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
