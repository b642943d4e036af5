"""A U-Net with domain-specific norms and segmentation layers, and the stock U-Net of each of its domains."""

from torch import nn

from nnunet_da.errors import UserError
from nnunet_da.multidomain.heads import DomainHead, collapse_head
from nnunet_da.multidomain.layer import DomainChoice, DomainLayer
from nnunet_da.multidomain.norm import DomainNorm, collapse_norm

SEGMENTATION_LAYERS = "seg_layers"
ASK_FOR_DOMAIN = (
    "this network has norms and segmentation layers of several domains, and does not know which a scan is of; write a "
    "model per domain with `nnunet-da export`, and predict with that of the scan's domain (-p nnUNetPlans_DOMAIN)"
)


class DomainNetwork(nn.Module):
    """S(x; Θ, Λ_k, W_k) of the paper: filters Θ are shared, norms Λ_k and segmentation layers W_k are each domain's.

    Everything goes through `forward`, since ``torch.compile`` and DDP wrap nothing else. Encoder and decoder are those
    of the U-Net, under the same names.

    Parameters
    ----------
    unet : Module
        Built with a DomainNorm. With `encoder`, which returns the features of its stages, the bottleneck last, and
        `decoder`, which takes them and holds a 1×1 convolution per resolution in `seg_layers`; these are replaced.
    channels : sequence of sequence of int
        Per domain, the global channels that it has (`heads.domain_channels`).

    Attributes
    ----------
    domain : int or None
        What a call runs as that names no domain, for callers that know none, as nnU-Net's predictor.

    Raises ValueError where the U-Net has no domain-specific norm, or one of another number of domains.
    """

    def __init__(self, unet, channels):
        super().__init__()
        self.encoder = unet.encoder
        self.decoder = unet.decoder
        self.num_domains = len(channels)
        self.domain = None
        norms = [module for module in self.modules() if isinstance(module, DomainNorm)]
        if {norm.num_domains for norm in norms} != {self.num_domains}:
            raise ValueError(f"the U-Net must be built with norms of {self.num_domains} domains")
        heads = (DomainHead(layer, channels) for layer in self.decoder.seg_layers)
        self.decoder.seg_layers = nn.ModuleList(heads)
        self.choice = DomainChoice()
        for module in self.modules():
            if isinstance(module, DomainLayer):
                module.choice = self.choice

    def forward(self, x, domain=None, with_embedding=False):
        """Logits in the global channels, and with `with_embedding` a pair of them and the embedding.

        Parameters
        ----------
        x : Tensor, (n, channels, *space)
        domain : int or None
            The domain that all samples are of; only its norms and layers are used and changed. None: that of the
            attribute `domain`, and where it is None too, sample i is of domain i mod K, and n a multiple of K.
        with_embedding : bool

        Returns logits (n, global channels, *space), a list of them, finest first, under deep supervision; the embedding
        z is the globally max-pooled bottleneck, (n, features) ("Supervised Contrastive Regularization"). Raises
        UserError where no domain is named and n is no multiple of K, as nnU-Net's predictor does.
        """
        domain = self.domain if domain is None else domain
        if domain is None and len(x) % self.num_domains:
            raise UserError(ASK_FOR_DOMAIN)
        if domain is not None and not 0 <= domain < self.num_domains:
            raise ValueError(f"domain {domain}: the network has domains 0 to {self.num_domains - 1}")
        self.choice.index = domain
        features = self.encoder(x)
        segmentation = self.decoder(features)
        if not with_embedding:
            return segmentation
        return segmentation, features[-1].flatten(start_dim=2).amax(dim=2)


def collapse(weights, domain, channels, n_channels):
    """The state dict of the stock U-Net of one domain, which predicts what the multi-domain network predicts of it.

    In evaluation mode the two predict equal bits: both make the same calls with the same numbers.

    Parameters
    ----------
    weights : dict of str to Tensor
        State dict of a DomainNetwork; left as it is.
    domain : int
    channels : sequence of sequence of int
        Those it was built with.
    n_channels : int
        Global channels; those that the domain lacks get weight 0 and bias -100.
    """
    stock = {}
    for name, value in weights.items():
        if SEGMENTATION_LAYERS in name.split("."):
            value = collapse_head(name, value, domain, channels, n_channels)
        else:
            name, value = collapse_norm(name, value, domain, len(channels))
        stock[name] = value
    return stock
