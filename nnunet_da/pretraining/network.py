"""A U-Net in pretraining: without segmentation layers, with projection heads."""

import torch
from torch import nn

from nnunet_da.errors import UserError
from nnunet_da.pretraining.heads import GlobalHead, LocalHead
from nnunet_da.pretraining.views import sample

# nnU-Net passes over weights whose name holds this when it loads pretrained ones. All that the U-Net does not have is
# named so: heads are never taken over, and a file without them can be loaded.
NOT_TRANSFERRED = ".seg_layers."
NOTHING_TO_SEGMENT = (
    "this model is pretrained only and has nothing to segment with; fine-tune it first: nnUNetv2_train … "
    "-pretrained_weights with the file pretrained.pth of its fold"
)


class PretrainingNetwork(nn.Module):
    """Ψ: a U-Net whose segmentation layers are replaced by one 1×1 convolution g(·), or by nothing.

    Everything goes through `forward`, since ``torch.compile`` and DDP wrap nothing else. The weights of the U-Net keep
    the names that they have in it.

    Parameters
    ----------
    unet : Module
        With `encoder`, which returns the features of its stages, the bottleneck last, and tells their
        `output_channels`, and `decoder`, which takes them and applies the last of its `seg_layers` to its last map.
    last_layer : Module
        What stands in its place.
    """

    def __init__(self, unet, last_layer):
        super().__init__()
        self.encoder = unet.encoder
        self.decoder = unet.decoder
        # Those of coarser maps are not used without deep supervision, and would be parameters without a gradient.
        n_layers = len(self.decoder.seg_layers)
        self.decoder.seg_layers = nn.ModuleList([*(nn.Identity() for _ in range(n_layers - 1)), last_layer])

    def decode(self, images):
        return self.decoder(self.encoder(images))

    def forward(self, images, mode=None, **inputs):
        """What the method named `mode` makes of `images`. Raises UserError without one, as in nnU-Net's predictor."""
        if mode is None:
            raise UserError(NOTHING_TO_SEGMENT)
        return getattr(self, mode)(images, **inputs)


class RegressionNetwork(PretrainingNetwork):
    """With a 1×1 convolution from the last map of the decoder to the channels of the images, in place of classes.

    ``forward(images, "reconstruct")`` takes and gives (batch, channels, *space).
    """

    def __init__(self, unet, n_channels):
        layer = unet.decoder.seg_layers[-1]
        super().__init__(unet, unet.encoder.conv_op(layer.in_channels, n_channels, kernel_size=1))

    def reconstruct(self, images):
        return self.decode(images)


class ContrastiveNetwork(PretrainingNetwork):
    """With a head on the bottleneck of the encoder, and one on the last map of the decoder.

    ``forward(images, "embed")`` gives embeddings of images, (batch, n_features). ``forward(images, "embed_points",
    positions=…)`` gives those of points, (batch, n, n_features); `positions` as in `views`, (batch, n, axes).
    """

    def __init__(self, unet, n_features, frozen_encoder=True, pooling="mean"):
        channels = unet.decoder.seg_layers[-1].in_channels
        super().__init__(unet, nn.Identity())
        self.frozen_encoder = frozen_encoder
        heads = {
            "global": GlobalHead(self.encoder.output_channels[-1], n_features, pooling),
            "local": LocalHead(channels, n_features),
        }
        self.projection = nn.ModuleDict({"seg_layers": nn.ModuleDict(heads)})

    @property
    def heads(self):
        return self.projection["seg_layers"]

    def embed(self, images):
        return self.heads["global"](self.encoder(images)[-1])

    def embed_points(self, images, positions):
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen_encoder):
            features = self.encoder(images)
        return self.heads["local"](sample(self.decoder(features), positions))


def transferable(weights):
    """The weights (state dict) that fine-tuning starts from, on the CPU: those of the U-Net without any head."""
    kept = {}
    # A U-Net names each tensor several times: encoder and decoder.encoder, conv and all_modules.
    moved = {}
    for name, value in weights.items():
        if NOT_TRANSFERRED not in name:
            kept[name] = moved.setdefault((value.data_ptr(), value.shape), value.detach().cpu())
    return kept
