"""What domain-specific layers share: how a batch tells its domains."""

from torch import nn


class DomainChoice:
    """What the batch at hand holds, told to all domain-specific layers of a network by one shared object.

    Attributes
    ----------
    index : int or None
        None: every domain alike, sample i of domain i mod K. Otherwise all samples are of the domain of this index.
    """

    def __init__(self):
        self.index = None


class DomainLayer(nn.Module):
    """A layer with parameters of its own for each domain.

    Attributes
    ----------
    num_domains : int
        K.
    choice : DomainChoice
        A network replaces it by the one that all of its layers share.
    """

    def __init__(self, num_domains):
        super().__init__()
        if num_domains < 1:
            raise ValueError(f"num_domains must be at least 1, not {num_domains}")
        self.num_domains = num_domains
        self.choice = DomainChoice()


def rounds(n_samples, num_domains):
    """How often a batch of all domains goes through them: n / K. Raises ValueError where that is no whole number."""
    if n_samples % num_domains:
        raise ValueError(
            f"a batch of {n_samples} samples does not hold {num_domains} domains alike; make it a multiple, or name "
            f"the one domain that all samples are of"
        )
    return n_samples // num_domains
