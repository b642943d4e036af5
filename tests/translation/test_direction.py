import pytest

from nnunet_da.domains import Domain, Domains
from nnunet_da.errors import UserError
from nnunet_da.translation.direction import source_and_target
from nnunet_da.translation.settings import TranslationSettings

T1 = Domain("t1", ("disc",), labelled=("a",))
MIXED = Domain("mixed", ("disc",), labelled=("b",), unlabelled=("c",))
T2 = Domain("t2", ("disc",), unlabelled=("d",))
GRE = Domain("gre", ("disc",), unlabelled=("e",))


def names(domains, **settings):
    return tuple(domain.name for domain in source_and_target(Domains(domains), TranslationSettings(**settings)))


def test_the_only_ones_that_there_are():
    assert names([T2, T1]) == ("t1", "t2")


def test_what_is_named():
    assert names([T1, MIXED, T2, GRE], source="mixed", target="gre") == ("mixed", "gre")
    assert names([T1, MIXED, T2], source="mixed") == ("mixed", "t2")
    assert names([T1, MIXED], target="mixed") == ("t1", "mixed")
    assert names([T1, MIXED], target="t1", source="mixed") == ("mixed", "t1")


@pytest.mark.parametrize(
    ("domains", "settings", "message"),
    [
        ([T1, MIXED, T2], {}, r"translation.source: name it, .* with labelled cases .* \(there: t1, mixed\)"),
        ([T1, T2, GRE], {}, r"translation.target: name it, .* without labelled cases .* \(there: t2, gre\)"),
        ([T1, MIXED], {"source": "t1"}, r"translation.target: .*\(there: none\)"),
        ([T2, GRE], {}, r"translation.source: .*\(there: none\)"),
        ([T1, T2], {"source": "t2", "target": "t1"}, "translation.source: domain 't2' has no labelled case"),
        ([T1, T2], {"target": "t3"}, "no domain 't3'; did you mean"),
    ],
)
def test_what_is_not_clear_is_asked_for(domains, settings, message):
    with pytest.raises(UserError, match=message):
        names(domains, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"percentiles": (99.0, 1.0)}, "percentiles: must be two values of 0 to 100"),
        ({"features": (8,)}, "features: must name at least 2 levels"),
        ({"features": (8, 0)}, "features: values must be at least 1"),
        ({"discriminator_layers": 0}, "discriminator_layers: must be at least 1"),
        ({"weight_kspace": -1.0}, "weight_kspace: must not be negative"),
        ({"buffer_size": -1}, "buffer_size: must not be negative"),
        ({"lr": 0.0}, "lr: must be above 0"),
        ({"betas": (0.5, 1.0)}, "betas: must be from 0 to below 1"),
        ({"final_lr": 0.0}, "final_lr: must be above 0 and up to 1"),
        ({"foreground": 2.0}, "foreground: must be from 0 to 1"),
        ({"source": "t1", "target": "t1"}, "target: must be another domain"),
    ],
)
def test_settings_have_rules(settings, message):
    with pytest.raises(UserError, match=message):
        TranslationSettings(**settings)
