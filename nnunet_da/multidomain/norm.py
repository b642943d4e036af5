"""Domain-specific normalisation (eq. 1 of the paper), which plans.json can name as its `norm_op`.

A layer holds one torch norm of K·C channels, `stacked`, in which the C channels of domain k follow those of domain
k - 1. A batch of all domains, (n, C, *space) with sample i of domain i mod K, is to it the batch (n/K, K·C, *space):
one call, no loop over domains, and no copy of a contiguous tensor. ``convert_sync_batchnorm`` converts what is held.
"""

import abc

import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional

from nnunet_da.multidomain.layer import DomainLayer, rounds

# Names the held norm in state dicts.
STACKED = "stacked"
COUNTER = "num_batches_tracked"


class DomainNorm(DomainLayer, abc.ABC):
    """A norm of whose statistics, scale and shift each domain has its own.

    Parameters
    ----------
    num_features : int
        C.
    eps, affine, momentum
        As of torch's norms.
    num_domains : int
        K.

    `forward` takes and gives (n, C, *space); raises ValueError where a batch of all domains is no multiple of K.
    """

    # The torch norm of one domain, which eq. 1 is with K = 1.
    norm_class: type

    def __init__(self, num_features, eps=1e-5, affine=True, momentum=0.1, *, num_domains):
        super().__init__(num_domains)
        self.num_features = num_features
        self.stacked = self.norm_class(num_domains * num_features, eps=eps, affine=affine, momentum=momentum)

    @property
    def weight(self):
        """Scales, (K·C,); initialisation of residual encoders asks for it."""
        return self.stacked.weight

    @property
    def bias(self):
        """Shifts, (K·C,)."""
        return self.stacked.bias

    def forward(self, x):
        domain = self.choice.index
        if domain is not None:
            return self._of_domain(x, domain)
        n_rounds = rounds(len(x), self.num_domains)
        y = self.stacked(x.reshape(n_rounds, self.num_domains * self.num_features, *x.shape[2:]))
        # A view in all but name: for an activation in place on a view, autograd would copy the gradient three times.
        # Sound, since nothing else holds `y`, and no norm needs its output for the gradient.
        return torch.ops.aten._unsafe_view(y, x.shape)

    @abc.abstractmethod
    def _of_domain(self, x, domain):
        """`x` (n, C, *space), all of it of `domain`, normalised with that domain's part alone."""

    def _slice(self, tensor, domain):
        """The part of one domain, as a view: what changes it changes the layer."""
        return None if tensor is None else tensor.narrow(0, domain * self.num_features, self.num_features)

    def extra_repr(self):
        return f"{self.num_features}, num_domains={self.num_domains}"


class DomainBatchNorm(DomainNorm):
    """Eq. 1: batch normalisation; running statistics are kept, and batches counted, for each domain alone.

    Raises ValueError for ``momentum=None``, a cumulative average: domains may have seen different numbers of batches.
    """

    def __init__(self, num_features, eps=1e-5, affine=True, momentum=0.1, *, num_domains):
        if momentum is None:
            raise ValueError("momentum must be a number: domain-specific statistics are exponential averages")
        super().__init__(num_features, eps, affine, momentum, num_domains=num_domains)
        self.stacked.num_batches_tracked = torch.zeros(num_domains, dtype=torch.long)

    def _of_domain(self, x, domain):
        # The held norm itself with views of its tensors, so that a converted one synchronises here too.
        views = {
            name: tensor[domain] if name == COUNTER else self._slice(tensor, domain)
            for tensors in (self.stacked.named_parameters(), self.stacked.named_buffers())
            for name, tensor in tensors
        }
        return functional_call(self.stacked, views, (x,))


class DomainInstanceNorm(DomainNorm):
    """Instance normalisation, whose statistics are of one sample anyway, with each domain's scale and shift."""

    def _of_domain(self, x, domain):
        weight, bias = self._slice(self.weight, domain), self._slice(self.bias, domain)
        return functional.instance_norm(x, weight=weight, bias=bias, eps=self.stacked.eps)


class DomainBatchNorm2d(DomainBatchNorm):
    norm_class = nn.BatchNorm2d


class DomainBatchNorm3d(DomainBatchNorm):
    norm_class = nn.BatchNorm3d


class DomainInstanceNorm2d(DomainInstanceNorm):
    norm_class = nn.InstanceNorm2d


class DomainInstanceNorm3d(DomainInstanceNorm):
    norm_class = nn.InstanceNorm3d


# By the setting `multidomain.norm` and the number of spatial axes.
DOMAIN_NORMS = {
    ("batch", 2): DomainBatchNorm2d,
    ("batch", 3): DomainBatchNorm3d,
    ("instance", 2): DomainInstanceNorm2d,
    ("instance", 3): DomainInstanceNorm3d,
}


def domain_norm_plan(norm, dimension, num_domains, norm_op_kwargs=None):
    """What an architecture in plans.json changes for domain-specific norms: `norm_op` and `norm_op_kwargs` (dict).

    Parameters
    ----------
    norm : 'batch' or 'instance'
    dimension : int
        Spatial axes, 2 or 3.
    num_domains : int
    norm_op_kwargs : dict or None
        Those planned; kept, but for scale and shift, which there always are.
    """
    keywords = {**(norm_op_kwargs or {}), "affine": True, "num_domains": num_domains}
    return {"norm_op": _path(DOMAIN_NORMS[norm, dimension]), "norm_op_kwargs": keywords}


def stock_norm_plan(norm_op, norm_op_kwargs):
    """The inverse of `domain_norm_plan`: what the architecture of a single domain's network changes (dict).

    Raises KeyError where `norm_op` (dotted path) is no domain-specific norm.
    """
    stock = {_path(domain_norm): _path(domain_norm.norm_class) for domain_norm in DOMAIN_NORMS.values()}
    keywords = {name: value for name, value in norm_op_kwargs.items() if name != "num_domains"}
    return {"norm_op": stock[norm_op], "norm_op_kwargs": keywords}


def collapse_norm(name, value, domain, num_domains):
    """The entry of a stock network's state dict that `value`, called `name`, of a domain-specific norm becomes.

    Returns name and value; those of any other layer as they are.
    """
    *layer, holder, tensor = name.split(".")
    if holder != STACKED:
        return name, value
    value = value[domain] if tensor == COUNTER else value.chunk(num_domains)[domain]
    # A copy: a view would be saved with the tensor that it is a view of.
    return ".".join([*layer, tensor]), value.clone()


def _path(norm_class):
    return f"{norm_class.__module__}.{norm_class.__qualname__}"
