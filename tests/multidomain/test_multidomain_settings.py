import pytest

from nnunet_da import settings
from nnunet_da.errors import UserError
from nnunet_da.multidomain.settings import ContrastiveSettings, MultiDomainSettings


def test_defaults_are_the_papers():
    assert ContrastiveSettings() == ContrastiveSettings(weight=0.1, tau=0.1)
    assert (MultiDomainSettings().norm, MultiDomainSettings().loss) == ("batch", "ce")


@pytest.mark.parametrize(
    ("settings_class", "block", "message"),
    [
        (MultiDomainSettings, {"norm": "group"}, "norm: must be one of batch, instance"),
        (MultiDomainSettings, {"loss": "dice"}, "loss: must be one of ce, nnunet"),
        (MultiDomainSettings, {"sampling": "random"}, "sampling: must be one of balanced, by_size"),
        (MultiDomainSettings, {"domain": ""}, "multidomain.domain: must be the name of a domain"),
        (ContrastiveSettings, {"tau": 0}, "contrastive.tau: must be above 0"),
        (ContrastiveSettings, {"weight": -0.1}, "contrastive.weight: must be above 0"),
    ],
)
def test_what_makes_no_sense_is_refused(settings_class, block, message):
    with pytest.raises(UserError, match=message):
        settings.build(settings_class, block)
