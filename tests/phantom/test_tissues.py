import numpy as np
import pytest

from nnunet_da.phantom.tissues import INDEX, NAMES, TISSUES, pools


@pytest.mark.parametrize("field", [1.5, 3.0])
def test_pools_share_the_proton_density_and_relax_in_order(field):
    table = pools(field)
    np.testing.assert_allclose(table.water + table.fat, [tissue.pd for tissue in TISSUES.values()])
    assert np.all(table.t2_star < table.t2)
    assert np.all(table.t2 < table.t1)
    np.testing.assert_allclose(1 / table.fat_t2_star - 1 / table.fat_t2, 1 / table.t2_star - 1 / table.t2)


def test_t1_grows_with_the_field_and_t2_does_not():
    low, high = pools(1.5), pools(3.0)
    assert np.all(high.t1 >= low.t1)
    assert np.all(high.t2 <= low.t2)


def test_degenerated_nucleus_has_lost_water_and_relaxes_faster():
    table = pools(3.0)
    old, healthy = INDEX["degenerated_nucleus"], INDEX["nucleus"]
    assert table.water[old] < table.water[healthy]
    assert table.t2[old] < table.t2[healthy] / 2


def test_deviations_scale_pd_t1_and_t2():
    deviations = np.zeros((len(NAMES), 3))
    deviations[INDEX["muscle"]] = [1, -1, 2]
    table, mean = pools(1.5, deviations), pools(1.5)
    at = INDEX["muscle"]
    assert table.water[at] / mean.water[at] == pytest.approx(np.exp(0.05))
    assert table.t1[at] / mean.t1[at] == pytest.approx(np.exp(-0.07))
    assert table.t2[at] / mean.t2[at] == pytest.approx(np.exp(0.16))
    others = np.arange(len(NAMES)) != at
    np.testing.assert_array_equal(table.t2[others], mean.t2[others])


def test_other_fields_are_refused():
    with pytest.raises(ValueError, match="not at 7"):
        pools(7)


def test_contrast_agent_shortens_relaxation_by_its_concentration():
    plain, dosed = pools(1.5), pools(1.5, dose=2)
    at = INDEX["schwannoma"]
    assert 1 / dosed.t1[at] - 1 / plain.t1[at] == pytest.approx(2 * 3.6 * TISSUES["schwannoma"].uptake / 1000)
    assert 1 / dosed.t2[at] - 1 / plain.t2[at] == pytest.approx(2 * 4.6 * TISSUES["schwannoma"].uptake / 1000)
    assert dosed.t1[INDEX["csf"]] == pytest.approx(plain.t1[INDEX["csf"]])


def test_pools_of_some_tissues_are_those_of_the_whole_table():
    some, table = pools(3.0, names=("muscle", "fat", "liver")), pools(3.0)
    for name in ("water", "fat", "t1", "t2", "t2_star", "fat_t1", "flowing", "adc"):
        np.testing.assert_array_equal(
            getattr(some, name), getattr(table, name)[[INDEX["muscle"], INDEX["fat"], INDEX["liver"]]]
        )
