import itertools

import numpy as np
import pandas
import pytest
from scipy.stats import entropy, median_abs_deviation

from nnunet_da.errors import UserError
from nnunet_da.evaluation.membership import parse_labels
from nnunet_da.evaluation.report.doubt import (
    MIN_VOLUMES,
    PredictedCase,
    indicators,
    mean_pairwise_dice,
    rank_cases,
    robust_z,
    segment_entropy,
)

STRUCTURES = parse_labels({"background": 0, "disc": 1, "canal": 2, "ignore": 3})
SPACING = (2.0, 1.5, 1.0)


def box(shape=(8, 9, 10), **corners):
    """A label map with, by value given as ``v1=…``, a box from the corner (0, 0, 0) of that many voxels along x."""
    label = np.zeros(shape, np.uint8)
    for (name, length), y in zip(corners.items(), (0, 4), strict=False):
        label[:length, y : y + 2, :3] = int(name[1:])
    return label


def predicted(name, paths, domain="t1", **more):
    return PredictedCase(name, domain, STRUCTURES.values, paths, **more)


@pytest.fixture
def write(tmp_path, write_scan):
    """``write(model, case, label)`` → path."""
    return lambda model, case, label: write_scan(tmp_path / model / f"{case}.nii.gz", label)


def test_mean_pairwise_dice_of_nested_boxes():
    masks = [np.arange(12) < length for length in (4, 6, 12)]
    by_hand = [2 * min(a, b) / (a + b) for a, b in itertools.combinations((4, 6, 12), 2)]
    assert mean_pairwise_dice(masks) == pytest.approx(np.mean(by_hand))


def test_mean_pairwise_dice_leaves_pairs_of_empty_masks_out():
    empty, full = np.zeros(5, bool), np.ones(5, bool)
    assert mean_pairwise_dice([empty, full, full]) == pytest.approx(1 / 3)
    assert mean_pairwise_dice([empty, empty, full]) == 0
    assert np.isnan(mean_pairwise_dice([empty, empty]))
    assert np.isnan(mean_pairwise_dice([full]))


def test_segment_entropy_is_that_of_scipy_and_ignores_what_lies_outside():
    p = np.array([0.5, 0.9, 0.0, 1.0, 0.3])
    segment = np.array([True, True, True, True, False])
    expected = np.mean([entropy([q, 1 - q], base=2) for q in p[:4]])
    assert segment_entropy(p.astype(np.float32), segment) == pytest.approx(expected, abs=1e-6)
    assert segment_entropy(np.full(3, 0.5), np.ones(3, bool)) == pytest.approx(1)
    assert np.isnan(segment_entropy(p, np.zeros(5, bool)))


def test_robust_z_is_that_of_iglewicz_and_hoaglin():
    reference = np.random.default_rng(0).normal(size=20)
    values = np.array([-3.0, 0.0, 7.0])
    expected = 0.6745 * (values - np.median(reference)) / median_abs_deviation(reference)
    assert robust_z(values, reference) == pytest.approx(expected)
    assert np.isnan(robust_z(values, reference[: MIN_VOLUMES - 1])).all()
    assert np.isnan(robust_z(values, np.ones(9))).all()


def test_size_and_empty_and_agreement_of_files(write):
    one, other = box(v1=4), box(v1=6, v2=2)
    paths = {"a": write("a", "case", one), "b": write("b", "case", other)}
    table = indicators([predicted("case", paths)], STRUCTURES, [], 1).set_index(["model", "structure"])
    voxel = np.prod(SPACING)
    assert table["size"].to_dict() == pytest.approx(
        {("a", "disc"): 24 * voxel, ("a", "canal"): 0, ("b", "disc"): 36 * voxel, ("b", "canal"): 12 * voxel}
    )
    assert table["empty"].to_dict()["a", "canal"]
    assert table["agreement"]["a", "disc"] == table["agreement"]["b", "disc"] == pytest.approx(2 * 24 / 60)
    assert table["agreement"]["a", "canal"] == 0


def test_folds_go_before_models(write):
    paths = {"a": write("a", "case", box(v1=4)), "b": write("b", "case", box(v1=8))}
    folds = {"a": [write("fold_0", "case", box(v1=4)), write("fold_1", "case", box(v1=2))]}
    table = indicators([predicted("case", paths, folds=folds)], STRUCTURES, [], 1).set_index(["model", "structure"])
    assert table["agreement"]["a", "disc"] == pytest.approx(2 * 2 / 6)
    assert table["agreement"]["b", "disc"] == pytest.approx(2 * 4 / 12)


def test_volumes_are_compared_with_labelled_domains_or_all(write):
    lengths = {"source": [3, 3, 4, 4, 5], "target": [8, 2]}
    cases = [
        predicted(f"{domain}{number}", {"a": write("a", f"{domain}{number}", box(v1=length))}, domain)
        for domain, several in lengths.items()
        for number, length in enumerate(several)
    ]
    logs = np.log(lengths["source"] + lengths["target"])
    for labelled, compared in ((["source"], logs[:5]), (["target"], logs), ([], logs)):
        table = indicators(cases, STRUCTURES, labelled, 1)
        disc = table[table["structure"] == "disc"]
        expected = 0.6745 * (logs - np.median(compared)) / median_abs_deviation(compared)
        assert disc["volume_z"].to_numpy() == pytest.approx(expected)
        assert table[table["structure"] == "canal"]["volume_z"].isna().all()


def probabilities(path, array):
    np.savez_compressed(path, probabilities=array.astype(np.float32))
    return path


def test_entropy_needs_no_common_frame_with_the_label_map(write, tmp_path):
    """nnU-Net saves (classes, z, y, x) in the frame of its reader; the label map may lie otherwise."""
    rng = np.random.default_rng(1)
    p = rng.dirichlet(np.ones(3), size=(7, 6, 5)).transpose(3, 0, 1, 2)
    path = write("a", "case", box(v1=4))
    case = predicted("case", {"a": path}, probabilities={"a": probabilities(tmp_path / "case.npz", p)})
    table = indicators([case], STRUCTURES, [], 1).set_index("structure")["entropy"]
    for value, name in ((1, "disc"), (2, "canal")):
        inside = p[value][p.argmax(0) == value]
        expected = np.mean([entropy([q, 1 - q], base=2) for q in inside])
        assert table[name] == pytest.approx(expected, abs=1e-5)


def test_entropy_of_regions(write, tmp_path):
    regions = parse_labels({"background": 0, "whole": [1, 2], "canal": 2})
    p = np.random.default_rng(2).random((2, 4, 5, 6))
    file = probabilities(tmp_path / "case.npz", p)
    case = PredictedCase("case", "t1", regions.values, {"a": write("a", "case", box(v1=4))}, probabilities={"a": file})
    table = indicators([case], regions, [], 1).set_index("structure")["entropy"]
    for name, channel in zip(("whole", "canal"), p, strict=True):
        expected = np.mean([entropy([q, 1 - q], base=2) for q in channel[channel > 0.5]])
        assert table[name] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_bytes(b"PK\x03\x04 cut short"), "not a file of probabilities"),
        (lambda path: np.savez(path, softmax=np.zeros((3, 2, 2))), "not a file of probabilities"),
        (lambda path: probabilities(path, np.zeros((4, 2, 2, 2))), "must have 3 channels"),
    ],
)
def test_bad_probabilities_are_named(write, tmp_path, spoil, message):
    path = tmp_path / "case.npz"
    spoil(path)
    case = predicted("case", {"a": write("a", "case", box(v1=4))}, probabilities={"a": path})
    with pytest.raises(UserError, match=f"case.npz: {message}"):
        indicators([case], STRUCTURES, [], 1)


def test_predictions_of_one_case_must_lie_on_one_grid(write):
    paths = {"a": write("a", "case", box(v1=4)), "b": write("b", "case", box((8, 9, 11), v1=4))}
    with pytest.raises(UserError, match=r"b/case.nii.gz: not on the grid of .*a/case.nii.gz"):
        indicators([predicted("case", paths)], STRUCTURES, [], 1)


def signs(*rows):
    columns = ["model", "case", "structure", "empty", "volume_z", "agreement", "entropy"]
    return pandas.DataFrame(rows, columns=columns).assign(domain="t1")


def test_cases_are_ranked_by_their_worst_structures():
    nan = np.nan
    ranked = rank_cases(
        signs(
            ("a", "sure", "disc", False, 0.1, 0.9, 0.1),
            ("a", "sure", "canal", False, 0.2, 0.95, 0.0),
            ("a", "between", "disc", False, -0.2, 0.8, 0.2),
            ("a", "between", "canal", False, -0.3, 0.9, 0.1),
            ("a", "doubtful", "disc", False, 0.0, 0.9, 0.1),
            ("a", "doubtful", "canal", False, -4.0, 0.3, 0.7),
            ("a", "empty", "disc", True, nan, nan, nan),
            ("a", "empty", "canal", False, 0.0, 0.99, 0.0),
        )
    )
    assert ranked["case"].tolist() == ["empty", "doubtful", "between", "sure"]
    assert ranked["doubt"].to_numpy() == pytest.approx([1, 1, 2 / 3, 1 / 3])
    assert ranked["empty"].tolist() == [["disc"], [], [], []]
    worst = ranked.set_index("case").loc["doubtful"]
    assert (worst["volume_z"], worst["agreement"], worst["entropy"]) == (-4.0, 0.3, 0.7)


def test_doubt_is_unknown_for_a_single_case_and_without_signs():
    nan = np.nan
    assert np.isnan(rank_cases(signs(("a", "only", "disc", False, 0.1, 0.9, 0.1)))["doubt"]).all()
    rows = [("a", name, "disc", False, nan, nan, nan) for name in ("one", "two")]
    assert np.isnan(rank_cases(signs(*rows))["doubt"]).all()
