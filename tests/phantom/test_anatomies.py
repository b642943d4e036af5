"""Body parts but the spine: what is drawn, where, how much of it, and how it contrasts."""

from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from scipy import ndimage

from nnunet_da.phantom.bodies import BODIES
from nnunet_da.phantom.scanner import SCANNERS, simulate
from nnunet_da.phantom.tissues import INDEX, TISSUES, pools

PARTS = [body for body in BODIES if body != "spine"]
SEEDS = (0, 1)
# Lowest and highest corner in mm, and voxels' side, of a grid that holds the structures.
GRIDS = {
    "knee": ((-48, -45, -42), (48, 48, 52), 1.6),
    "ankle": ((-36, -74, -70), (36, 46, 26), 1.6),
    "shoulder": ((-66, -50, -90), (66, 50, 62), 3.6),
    "head": ((-54, -18, -20), (54, 26, 20), 1.0),
    "abdomen": ((-165, -100, -100), (165, 105, 110), 4.8),
    "prostate": ((-45, -40, -36), (45, 35, 36), 1.6),
}
# In ml. Of long bones that the grid cuts, what lies within it.
VOLUMES = {
    "femur": (70, 240),
    "femoral cartilage": (6, 27),
    "tibia": (20, 170),
    "medial tibial cartilage": (0.7, 4.5),
    "lateral tibial cartilage": (0.7, 4.5),
    "calcaneus": (35, 110),
    "talus": (20, 65),
    "scapula": (25, 110),
    "humerus": (50, 170),
    "intra-meatal tumour": (0.08, 0.8),
    "extra-meatal tumour": (0.15, 8),
    "cochlea": (0.06, 0.25),  # each
    "liver": (900, 2300),
    "right kidney": (80, 260),
    "left kidney": (80, 260),
    "spleen": (70, 420),
    "peripheral zone": (8, 50),
    "transition zone": (8, 130),
}


def grid(body, flip=False):
    low, high, side = GRIDS[body]
    shape = np.ceil(np.subtract(high, low) / side).astype(int)
    affine = np.diag([side, side, side, 1.0])
    affine[:3, 3] = low
    if flip:
        # Half a voxel aside, with axes in another order and direction.
        affine[0, 3] += side / 2
        order = np.array([[0, 0, 1, 0], [-1, 0, 0, shape[1] - 1], [0, 1, 0, 0], [0, 0, 0, 1.0]])
        return (shape[1], shape[2], shape[0]), affine @ order
    return tuple(shape), affine


@cache
def draw(body, seed):
    subject = BODIES[body].sample(np.random.default_rng(seed))
    return subject, subject.rasterise(*grid(body))


def mask(anatomy, name):
    return anatomy.label_map({name: 1}) > 0


def centre(anatomy, name):
    """World coordinates of the middle of a structure."""
    return (anatomy.affine @ [*ndimage.center_of_mass(mask(anatomy, name)), 1])[:3]


def side_of(anatomy, name):
    """World x of each of a structure's voxels."""
    return (np.argwhere(mask(anatomy, name)) @ anatomy.affine[:3, :3].T + anatomy.affine[:3, 3])[:, 0]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("body", PARTS)
def test_fractions_structures_and_volumes(body, seed):
    _, anatomy = draw(body, seed)
    assert anatomy.fractions.dtype == np.float32
    assert anatomy.fractions.min() >= -1e-5
    np.testing.assert_allclose(anatomy.fractions.sum(axis=0), 1, atol=1e-4)
    labels = anatomy.label_map({name: 10 * place for place, name in enumerate(anatomy.names, 1)})
    assert labels.dtype == np.uint8
    for place, name in enumerate(anatomy.names, 1):
        volume = (labels == 10 * place).sum() * abs(np.linalg.det(anatomy.affine[:3, :3])) / 1000
        low, high = VOLUMES[name]
        assert low <= volume / (2 if name == "cochlea" else 1) <= high, name


@pytest.mark.parametrize("body", PARTS)
def test_a_seed_gives_one_subject(body):
    affine = np.diag([9.0, 9, 9, 1])
    affine[:3, 3] = -50
    first, again, other = (
        BODIES[body].sample(np.random.default_rng(seed)).rasterise((12, 12, 12), affine) for seed in (5, 5, 6)
    )
    np.testing.assert_array_equal(first.fractions, again.fractions)
    np.testing.assert_array_equal(first.structures, again.structures)
    assert np.abs(first.fractions - other.fractions).max() > 0.5


@pytest.mark.parametrize("body", PARTS)
def test_the_anatomy_does_not_depend_on_the_grid(body):
    subject, anatomy = draw(body, 1)
    other = subject.rasterise(*grid(body, flip=True))
    places = np.argwhere(np.ones(anatomy.structures.shape, dtype=bool))
    world = places @ anatomy.affine[:3, :3].T + anatomy.affine[:3, 3]
    inverse = np.linalg.inv(other.affine)
    there = np.round(world @ inverse[:3, :3].T + inverse[:3, 3] - 1e-3).astype(int)
    inside = np.all((there >= 0) & (there < other.structures.shape), axis=1)
    here, there = places[inside], there[inside]
    for place, name in enumerate(anatomy.names, 1):
        first = anatomy.structures[tuple(here.T)] == place
        second = other.structures[tuple(there.T)] == place
        dice = 2 * (first & second).sum() / (first.sum() + second.sum())
        thin = "cartilage" in name or name in ("cochlea", "intra-meatal tumour", "scapula")
        # The nearest voxel's centre is half a voxel away.
        assert dice > (0.7 if thin else 0.88), name


@pytest.mark.parametrize("body", PARTS)
def test_unknown_structures_are_refused(body):
    _, anatomy = draw(body, 0)
    with pytest.raises(ValueError, match="femurs: no such structure"):
        anatomy.label_map({"femurs": 1})
    with pytest.raises(ValueError, match="1 to 255"):
        anatomy.label_map({anatomy.names[0]: 256})


@pytest.mark.parametrize("seed", SEEDS)
def test_knee_lies_as_its_side_says(seed):
    knee, anatomy = draw("knee", seed)
    medial, lateral = (centre(anatomy, f"{which} tibial cartilage") for which in ("medial", "lateral"))
    assert knee.side * (lateral[0] - medial[0]) > 20
    assert centre(anatomy, "femur")[2] > centre(anatomy, "femoral cartilage")[2] > medial[2]
    assert medial[2] > centre(anatomy, "tibia")[2] + 10


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("cartilage", "bone"),
    [
        ("femoral cartilage", "femur"),
        ("medial tibial cartilage", "tibia"),
        ("lateral tibial cartilage", "tibia"),
    ],
)
def test_cartilage_lies_on_its_bone(seed, cartilage, bone):
    knee, anatomy = draw("knee", seed)
    depth = ndimage.distance_transform_edt(~mask(anatomy, bone), sampling=GRIDS["knee"][2])[mask(anatomy, cartilage)]
    # Every voxel lies in a layer as thick as it should be, to a voxel's diagonal, and its lowest ones touch the bone.
    assert depth.max() < 1.1 * knee.cartilage * knee.size + 2.8
    assert (depth <= GRIDS["knee"][2]).mean() > 0.3


@pytest.mark.parametrize("seed", SEEDS)
def test_ankle_bones_are_stacked_and_the_heel_is_behind(seed):
    _, anatomy = draw("ankle", seed)
    calcaneus, talus, tibia = (centre(anatomy, name) for name in ("calcaneus", "talus", "tibia"))
    assert tibia[2] > talus[2] + 15 > calcaneus[2] + 25
    assert calcaneus[1] < talus[1] - 10
    gap = ndimage.distance_transform_edt(~mask(anatomy, "talus"), sampling=GRIDS["ankle"][2])
    for bone in ("calcaneus", "tibia"):
        assert 0 < gap[mask(anatomy, bone)].min() < 7


@pytest.mark.parametrize("seed", SEEDS)
def test_humerus_is_lateral_and_meets_the_socket(seed):
    shoulder, anatomy = draw("shoulder", seed)
    assert shoulder.side * (centre(anatomy, "humerus")[0] - centre(anatomy, "scapula")[0]) > 30
    gap = ndimage.distance_transform_edt(~mask(anatomy, "humerus"), sampling=GRIDS["shoulder"][2])
    assert 1 < gap[mask(anatomy, "scapula")].min() < 8


@pytest.mark.parametrize("seed", SEEDS)
def test_tumour_fills_the_canal_from_the_cistern(seed):
    head, anatomy = draw("head", seed)
    inner, outer = (mask(anatomy, f"{which}-meatal tumour") for which in ("intra", "extra"))
    assert head.side * centre(anatomy, "intra-meatal tumour")[0] > head.side * centre(anatomy, "extra-meatal tumour")[0]
    assert head.side * centre(anatomy, "extra-meatal tumour")[0] > 8
    assert (ndimage.binary_dilation(inner) & outer).any()
    # Both parts together are one piece of 10 to 35 mm.
    _, pieces = ndimage.label(inner | outer, np.ones((3, 3, 3)))
    assert pieces == 1
    extent = [np.ptp(axis) for axis in np.nonzero(inner | outer)]
    assert 9 <= max(extent) <= 36
    # One cochlea on each side, about 8 mm in size, farther out than the tumour.
    cochlea = side_of(anatomy, "cochlea")
    assert ndimage.label(mask(anatomy, "cochlea"), np.ones((3, 3, 3)))[1] == 2
    for side in (-1, 1):
        one = cochlea[side * cochlea > 0]
        assert 30 < abs(one.mean()) < 50
        assert 4 <= np.ptp(one) <= 10
    assert abs(cochlea).min() > abs(centre(anatomy, "intra-meatal tumour")[0])


@pytest.mark.parametrize("seed", SEEDS)
def test_abdominal_organs_lie_on_their_sides(seed):
    _, anatomy = draw("abdomen", seed)
    liver, right, left, spleen = (centre(anatomy, name) for name in anatomy.names)
    assert liver[0] > 25
    assert spleen[0] < -60
    assert 35 < right[0] < 95
    assert -95 < left[0] < -35
    assert right[2] < left[2]
    assert max(right[1], left[1]) < liver[1] - 20
    assert spleen[2] > left[2]


@pytest.mark.parametrize("seed", SEEDS)
def test_peripheral_zone_wraps_the_transition_zone_from_behind(seed):
    _, anatomy = draw("prostate", seed)
    assert centre(anatomy, "peripheral zone")[1] < centre(anatomy, "transition zone")[1] - 3
    assert abs(centre(anatomy, "peripheral zone")[0]) < 3
    peripheral, transition = (mask(anatomy, f"{zone} zone") for zone in ("peripheral", "transition"))
    rim = ndimage.binary_dilation(transition) & ~transition
    assert 0.4 < peripheral[rim].mean() < 1
    _, pieces = ndimage.label(peripheral | transition)
    assert pieces == 1


def signal(scanner, tissue, channel=0):
    """Ideal image of a pure tissue, or of a mixture {tissue: share}."""
    scanner = SCANNERS[scanner]
    echoes = scanner.sequence.echoes(pools(scanner.field, dose=scanner.dose))
    if isinstance(tissue, dict):
        echoes = sum(share * echoes[:, [INDEX[name]]] for name, share in tissue.items())
        return scanner.sequence.reconstruct(echoes)[channel][0]
    return scanner.sequence.reconstruct(echoes)[channel][INDEX[tissue]]


@pytest.mark.parametrize(
    ("scanner", "order"),
    [
        ("ski10_t1", ("cartilage", "fluid")),
        ("ski10_t1", ("cartilage", "marrow", "cortical_bone")),
        ("oai_dess", ("fluid", "cartilage", "muscle", "marrow", "ligament", "cortical_bone")),
        ("ankle_t1", ("fat", "marrow", "muscle", "fluid")),
        ("shoulder_t1", ("fat", "marrow", "muscle", "fluid")),
        ("crossmoda_ldn_cet1", ("schwannoma", "grey_matter", "csf")),
        ("crossmoda_etz_cet1", ("schwannoma", "grey_matter", "csf")),
        ("crossmoda_ukm_cet1", ("schwannoma", "white_matter", "grey_matter", "csf")),
        ("crossmoda_ldn_hrt2", ("csf", "perilymph", "schwannoma", "white_matter", "cortical_bone")),
        ("crossmoda_etz_hrt2", ("csf", "perilymph", "schwannoma", "grey_matter", "white_matter", "cortical_bone")),
        ("crossmoda_ukm_hrt2", ("csf", "perilymph", "schwannoma", "grey_matter", "white_matter", "cortical_bone")),
        ("chaos_t2spir", ("fluid", "renal_cortex", "spleen", "liver", "muscle", "fat")),
        ("chaos_t1dual", ("fat", "liver", "spleen", "fluid")),
        ("msd_prostate", ("fluid", "peripheral_zone", "transition_zone", "prostate_cancer", "muscle")),
    ],
)
def test_contrast(scanner, order):
    signals = [signal(scanner, tissue) for tissue in order]
    assert all(brighter > 1.04 * darker for brighter, darker in pairwise(signals)), signals


def test_csf_is_brightest_in_the_head_in_t2():
    for scanner in ("crossmoda_ldn_hrt2", "crossmoda_etz_hrt2", "crossmoda_ukm_hrt2"):
        signals = {tissue: signal(scanner, tissue) for tissue in BODIES["head"].TISSUES}
        assert max(signals, key=signals.get) == "csf"


def test_fat_cancels_water_out_of_phase():
    fatty = {"liver": 0.7, "fat": 0.3}
    out, within = (signal("chaos_t1dual", fatty, channel) for channel in (0, 1))
    assert SCANNERS["chaos_t1dual"].channels == ("out_of_phase", "in_phase")
    assert out < 0.6 * within
    assert signal("chaos_t1dual", "spleen", 0) >= signal("chaos_t1dual", "spleen", 1)


def test_diffusion_map_is_in_units_of_the_table_and_has_noise():
    rng = np.random.default_rng(1)
    prostate = BODIES["prostate"].sample(rng)
    scanner = replace(SCANNERS["msd_prostate"], field_of_view=(80.0, 80.0, 48.0))
    scan = simulate(prostate, scanner, rng, (50, 50, 10))
    adc = scan.images[1]
    for tissue in ("peripheral_zone", "transition_zone"):
        values = adc[scan.anatomy.fraction(tissue) > 0.85]
        assert np.median(values) == pytest.approx(TISSUES[tissue].adc, rel=0.1)
        assert np.std(values) > 20
    assert np.all(adc[scan.anatomy.fraction("fat") > 0.999] < 4001)
    assert np.median(adc[scan.anatomy.fraction("fat") > 0.999]) == 0


@pytest.mark.parametrize("body", PARTS)
def test_subjects_vary(body):
    subjects = [BODIES[body].sample(np.random.default_rng(seed)) for seed in range(20)]
    names = [name for name in vars(subjects[0]) if name != "deviations"]
    for name in names:
        assert len({getattr(subject, name) for subject in subjects}) >= 2, name
    sides = [subject.side for subject in subjects] if hasattr(subjects[0], "side") else []
    assert set(sides) in (set(), {-1, 1})


def test_every_scanner_takes_a_body_part_that_exists():
    assert {scanner.body for scanner in SCANNERS.values()} == set(BODIES)
