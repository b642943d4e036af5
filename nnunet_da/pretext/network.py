"""A U-Net whose encoder also feeds pretext heads."""

from torch import nn

# nnU-Net passes over weights whose name holds ".seg_layers." when it loads pretrained ones, and refuses a file that
# misses any other: so named, the heads may start anew on a U-Net that was trained without them.
HEADS_PREFIX = "pretext.seg_layers."


class DualTaskNetwork(nn.Module):
    """Encoder e(·) and decoder d(·) of a U-Net, and pretext heads i(·) on its bottleneck (Fig. 2 of the paper).

    Everything goes through `forward`, since ``torch.compile`` and DDP wrap nothing else. The weights of the U-Net keep
    the names that they have in it.

    Parameters
    ----------
    unet : Module
        With `encoder`, which returns the features of its stages, the bottleneck last, and `decoder`, which takes them.
    heads : dict of str to Module
        By the name of the task.
    """

    def __init__(self, unet, heads):
        super().__init__()
        self.encoder = unet.encoder
        self.decoder = unet.decoder
        self.pretext = nn.ModuleDict({"seg_layers": nn.ModuleDict(heads)})

    @property
    def pretext_heads(self):
        """By the name of the task."""
        return self.pretext["seg_layers"]

    def forward(self, images=None, pretext_images=None):
        """Segmentation of `images`, and where there are `pretext_images`, a pair of it and the pretext logits.

        Parameters
        ----------
        images : Tensor, (batch, channels, *space), or None
        pretext_images : dict of str to Tensor (batch, channels, *space), or None
            Transformed images by the name of the task.
        """
        segmentation = None if images is None else self.decoder(self.encoder(images))
        if pretext_images is None:
            return segmentation
        logits = {name: self.pretext_heads[name](self.encoder(x)[-1]) for name, x in pretext_images.items()}
        return segmentation, logits


def without_heads(weights):
    """The weights of the U-Net alone: a state dict of DualTaskNetwork less its heads."""
    return {name: value for name, value in weights.items() if not name.startswith(HEADS_PREFIX)}
