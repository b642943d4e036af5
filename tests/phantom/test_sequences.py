import numpy as np
import pytest

from nnunet_da.phantom.sequences import (
    Dixon,
    GradientEcho,
    SpinEcho,
    ernst_angle,
    opposed_phase_te,
    spin_echo,
    spoiled_gradient_echo,
)
from nnunet_da.phantom.tissues import INDEX, pools


def test_spin_echo_with_endless_repetition_and_no_echo_time_is_proton_density():
    assert spin_echo(0.8, t1=900, t2=40, tr=1e9, te=0) == pytest.approx(0.8)


def test_spin_echo_by_hand():
    # TR = T1 and TE = T2: (1 - 1/e) / e.
    assert spin_echo(1, t1=700, t2=50, tr=700, te=50) == pytest.approx((1 - np.exp(-1)) * np.exp(-1))


def test_spin_echo_vanishes_without_recovery():
    assert spin_echo(1, t1=700, t2=50, tr=0, te=10) == 0


def test_gradient_echo_of_90_degrees_is_saturation_recovery():
    assert spoiled_gradient_echo(0.7, 900, 30, tr=300, te=4, flip=90) == pytest.approx(
        0.7 * (1 - np.exp(-300 / 900)) * np.exp(-4 / 30)
    )


def test_gradient_echo_is_the_steady_state_of_repeated_pulses():
    t1, tr, flip = 900, 12, np.deg2rad(15)
    longitudinal = 1.0
    for _ in range(2000):
        longitudinal = 1 - (1 - longitudinal * np.cos(flip)) * np.exp(-tr / t1)
    assert spoiled_gradient_echo(1, t1, 1e9, tr, 0, 15) == pytest.approx(longitudinal * np.sin(flip))


@pytest.mark.parametrize(("t1", "tr"), [(300, 10), (900, 10), (4000, 25), (900, 600)])
def test_gradient_echo_is_strongest_at_the_ernst_angle(t1, tr):
    flips = np.linspace(0.1, 90, 9000)
    strongest = flips[np.argmax(spoiled_gradient_echo(1, t1, 50, tr, 5, flips))]
    assert strongest == pytest.approx(ernst_angle(t1, tr), abs=0.01)


def test_echo_times_at_which_fat_opposes_water():
    # At 3 T fat is 434 Hz away, half a turn takes 1.15 ms.
    assert opposed_phase_te(3.0) == pytest.approx(1.151, abs=0.001)
    assert opposed_phase_te(1.5) == pytest.approx(2 * opposed_phase_te(3.0))


def test_turbo_brightens_fat_and_leaves_water():
    plain, turbo = (SpinEcho(3000, 100, turbo=flag).echoes(pools(3.0)).real[0] for flag in (False, True))
    assert turbo[INDEX["fat"]] > 1.5 * plain[INDEX["fat"]]
    assert turbo[INDEX["csf"]] == plain[INDEX["csf"]]


def test_flowing_blood_is_dark_in_spin_echo_only():
    blood, muscle = INDEX["blood"], INDEX["muscle"]
    spin = np.abs(SpinEcho(500, 10).echoes(pools(1.5))[0])
    gradient = np.abs(GradientEcho(500, 5, 60).echoes(pools(1.5))[0])
    assert spin[blood] < 0.3 * spin[muscle]
    assert gradient[blood] > 0.5 * gradient[muscle]


def test_gradient_echo_in_and_opposed_phase():
    table = pools(1.5)
    te = opposed_phase_te(1.5)
    opposed = GradientEcho(100, te, 30).echoes(table)[0, INDEX["marrow"]]
    in_phase = GradientEcho(100, 2 * te, 30).echoes(table)[0, INDEX["marrow"]]
    assert opposed.imag == pytest.approx(0, abs=1e-12)
    assert in_phase.imag == pytest.approx(0, abs=1e-12)
    assert abs(opposed) < 0.5 * abs(in_phase)


def test_dixon_images_of_pure_and_mixed_voxels():
    # Some fat, water alone, fat alone; at echo times so close that nothing decays between them: opposed, then in phase.
    echoes = np.array([[0.6 - 0.4, 1.0, -0.9], [1.0, 1.0, 0.9]], dtype=complex)
    fat, inn, opp, wat = Dixon(10, 10).reconstruct(echoes)
    np.testing.assert_allclose(wat, [0.6, 1.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(fat, [0.4, 0.0, 0.9], atol=1e-12)
    np.testing.assert_allclose(inn, wat + fat)
    np.testing.assert_allclose(opp, np.abs(wat - fat))


def test_dixon_separates_the_tissues():
    fat, _, _, wat = Dixon(10, 10).reconstruct(Dixon(10, 10).echoes(pools(3.0)))
    assert wat[INDEX["muscle"]] > 5 * fat[INDEX["muscle"]]
    assert fat[INDEX["fat"]] > 5 * wat[INDEX["fat"]]
    assert fat[INDEX["nucleus"]] < 0.05 * wat[INDEX["nucleus"]]
