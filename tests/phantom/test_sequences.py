import numpy as np
import pytest

from nnunet_da.phantom.sequences import (
    BalancedEcho,
    Dixon,
    DoubleEcho,
    GradientEcho,
    OppositeAndInPhase,
    SpinEcho,
    T2AndDiffusion,
    balanced_echo,
    ernst_angle,
    opposed_phase_te,
    spin_echo,
    spoiled_gradient_echo,
    steady_state_pair,
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


def steady_state(t1, t2, tr, flip, phases, alternate):
    """Bloch's equations over many pulses, for spins that turn by `phases` in between: transverse before, and after."""
    flip = np.deg2rad(flip)
    e1, e2 = np.exp(-tr / t1), np.exp(-tr / t2)
    x, y, z = np.zeros_like(phases), np.zeros_like(phases), np.ones_like(phases)
    for pulse in range(3000):
        turn = -flip if alternate and pulse % 2 else flip
        before = x + 1j * y
        y, z = y * np.cos(turn) + z * np.sin(turn), z * np.cos(turn) - y * np.sin(turn)
        after = x + 1j * y
        rotated = after * np.exp(1j * phases) * e2
        x, y, z = rotated.real, rotated.imag, 1 - (1 - z) * e1
    return before, after


@pytest.mark.parametrize(("t1", "t2", "flip"), [(1168, 37, 25), (3620, 767, 25), (900, 60, 60)])
def test_echoes_around_a_pulse_are_the_steady_state_of_dephased_spins(t1, t2, flip):
    phases = 2 * np.pi * (np.arange(400) + 0.5) / 400
    before, after = (np.abs(spins.mean()) for spins in steady_state(t1, t2, 16.3, flip, phases, alternate=False))
    assert steady_state_pair(1, t1, t2, 16.3, flip) == pytest.approx((after, before), rel=1e-3)


@pytest.mark.parametrize(("t1", "t2", "flip"), [(4300, 1900, 65), (1124, 95, 65), (900, 60, 20)])
def test_balanced_echo_is_the_steady_state_of_alternating_pulses(t1, t2, flip):
    _, after = steady_state(t1, t2, 9.0, flip, np.zeros(1), alternate=True)
    assert balanced_echo(1, t1, t2, 9.0, 0, flip) == pytest.approx(np.abs(after[0]), rel=1e-3)
    assert balanced_echo(1, t1, t2, 9.0, 4.5, flip) < np.abs(after[0])


def test_dess_adds_the_squares_of_its_echoes():
    echoes = DoubleEcho(16.3, 4.7, 25).echoes(pools(3.0))
    np.testing.assert_allclose(DoubleEcho(16.3, 4.7, 25).reconstruct(echoes)[0] ** 2, (np.abs(echoes) ** 2).sum(axis=0))
    # The earlier echo is weighted by T2: cartilage keeps less of it than fluid.
    earlier, later = np.abs(echoes)
    fluid, cartilage = INDEX["fluid"], INDEX["cartilage"]
    assert earlier[fluid] / later[fluid] > 1.8 * earlier[cartilage] / later[cartilage]


def test_fat_suppression_leaves_its_share_of_fat_and_all_water():
    for plain, suppressed in (
        (SpinEcho(1800, 70), SpinEcho(1800, 70, fat=0.1)),
        (GradientEcho(28, 7, 30), GradientEcho(28, 7, 30, fat=0.1)),
    ):
        before, after = (sequence.echoes(pools(1.5))[0] for sequence in (plain, suppressed))
        assert after[INDEX["csf"]] == before[INDEX["csf"]]
        assert np.abs(after[INDEX["fat"]]) < 0.2 * np.abs(before[INDEX["fat"]])


def test_dual_echo_is_what_dixon_starts_from():
    echoes = OppositeAndInPhase(140, 75).echoes(pools(1.5))
    np.testing.assert_array_equal(echoes, Dixon(140, 75).echoes(pools(1.5)))
    np.testing.assert_array_equal(OppositeAndInPhase(140, 75).reconstruct(echoes), np.abs(echoes))


def test_diffusion_map_gives_the_coefficient_where_there_is_signal():
    sequence = T2AndDiffusion(4000, 110)
    table = pools(3.0)
    t2, adc = sequence.reconstruct(sequence.echoes(table))
    for tissue in ("peripheral_zone", "transition_zone", "prostate_cancer", "fluid"):
        assert adc[INDEX[tissue]] == pytest.approx(table.adc[INDEX[tissue]])
    assert adc[INDEX["cortical_bone"]] == adc[INDEX["air"]] == 0
    np.testing.assert_allclose(t2, np.abs(SpinEcho(4000, 110, turbo=True).echoes(table)[0]))


def test_balanced_echo_is_bright_where_t2_is_near_t1():
    signal = np.abs(BalancedEcho(9, 65).echoes(pools(1.5))[0])
    assert signal[INDEX["csf"]] > 2 * signal[INDEX["schwannoma"]] > 3 * signal[INDEX["muscle"]]
