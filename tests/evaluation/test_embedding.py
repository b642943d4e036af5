import csv

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.spatial.distance import cdist

from nnunet_da.errors import UserError
from nnunet_da.evaluation import embedding
from nnunet_da.evaluation.embedding import ALL, Embedding


def clouds(n, separation, channels=12, n_domains=2, seed=0):
    """n points around each of `n_domains` centres on a line, and their domains."""
    generator = np.random.default_rng(seed)
    points = np.concatenate([generator.normal(separation * k, 1, (n, channels)) for k in range(n_domains)])
    return points, [f"d{k}" for k in range(n_domains) for _ in range(n)]


def table(domains, role="training"):
    return pd.DataFrame({"domain": domains, "case": "c", "role": role, "patch": range(len(domains))})


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 3, 4, 5, 6)])
def test_global_max_pooling_keeps_the_largest_value_of_each_channel(shape):
    features = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    features[1, 2].flat[7] = 50
    pooled = embedding.global_max_pool(features)
    expected = torch.nn.functional.adaptive_max_pool3d(
        torch.from_numpy(features).reshape(2, 3, 1, shape[2], -1), 1
    ).flatten(1)
    np.testing.assert_array_equal(pooled, expected)
    assert pooled[1, 2] == 50
    assert torch.equal(embedding.global_max_pool(torch.from_numpy(features)), expected)


def test_columns_are_standardised_and_constant_ones_are_zero():
    features = np.random.default_rng(0).normal(5, [1, 100, 1e-3], (40, 3))
    features = np.column_stack([features, np.full(40, 0.1)])
    result = embedding.standardise(features)
    np.testing.assert_allclose(result[:, :3].mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(result[:, :3].std(axis=0), 1)
    assert (result[:, 3] == 0).all()


def test_principal_components_keep_distances_and_order_variance():
    generator = np.random.default_rng(0)
    # Points of a 3-dimensional subspace: three components lose nothing.
    features = generator.normal(size=(30, 3)) @ generator.normal(size=(3, 70)) + 4
    components = embedding.principal_components(features, 3)
    np.testing.assert_allclose(cdist(components, components), cdist(features, features), atol=1e-9)
    assert (np.diff(components.var(axis=0)) <= 0).all()


@pytest.mark.parametrize(("n", "channels", "expected"), [(80, 70, 50), (20, 70, 19), (80, 8, 8)])
def test_fifty_components_or_as_many_as_there_are(n, channels, expected):
    features = np.random.default_rng(0).normal(size=(n, channels))
    assert embedding.principal_components(features).shape == (n, expected)


def test_perplexity_is_lowered_where_points_are_few():
    assert embedding.perplexity_for(91) == 30
    assert embedding.perplexity_for(90) < 30
    assert embedding.perplexity_for(31) == 10
    assert embedding.perplexity_for(4) == 1


def test_silhouette_of_points_on_a_line():
    # a: 0 and 1, b: 10. For 0: a = 1, b = 10; for 1: a = 1, b = 9; a point alone counts 0.
    values = embedding.silhouettes(np.array([[0.0], [1.0], [10.0]]), ["a", "a", "b"])
    of_a = (0.9 + 8 / 9) / 2
    assert values["a"] == pytest.approx(of_a)
    assert values["b"] == 0
    assert values[ALL] == pytest.approx(of_a * 2 / 3)


def test_silhouette_against_its_definition():
    points, domains = clouds(15, 1.5, n_domains=3)
    domains = np.array(domains)
    distances = cdist(points, points)
    expected = []
    for i, domain in enumerate(domains):
        inside = distances[i, domains == domain].sum() / ((domains == domain).sum() - 1)
        nearest = min(distances[i, domains == other].mean() for other in set(domains) - {domain})
        expected.append((nearest - inside) / max(nearest, inside))
    values = embedding.silhouettes(points, domains)
    assert values[ALL] == pytest.approx(np.mean(expected))
    assert values["d1"] == pytest.approx(np.mean(expected[15:30]))


@pytest.mark.parametrize("domains", [["a", "a", "a"], ["a", "b", "c"]])
def test_silhouette_is_undefined_for_one_domain_and_for_single_points(domains):
    assert all(np.isnan(value) for value in embedding.silhouettes(np.eye(3), domains).values())


def test_separate_domains_stay_apart_in_the_plane_and_mixed_ones_do_not():
    apart, domains = clouds(25, 8)
    mixed, _ = clouds(25, 0)
    one, other = embedding.embed(apart), embedding.embed(mixed)
    assert one.plane.shape == (50, 2)
    assert one.perplexity == pytest.approx(49 / 3)
    assert embedding.silhouettes(one.plane, domains)[ALL] > 0.6
    assert embedding.silhouettes(one.components, domains)[ALL] > 0.5
    assert abs(embedding.silhouettes(other.plane, domains)[ALL]) < 0.1
    np.testing.assert_array_equal(embedding.embed(apart).plane, one.plane)


def test_too_few_points_and_infinite_features_are_refused():
    with pytest.raises(UserError, match="3 patches are too few"):
        embedding.embed(np.ones((3, 5)))
    with pytest.raises(UserError, match="not finite"):
        embedding.embed(np.full((5, 5), np.nan))


def test_what_is_written_holds_every_checkpoint(tmp_path):
    points, domains = clouds(6, 8)
    embeddings = {("a", name): embedding.embed(points + i) for i, name in enumerate(("best.pth", "final.pth"))}
    patches = table(domains)
    patches.loc[8:, "role"] = "validation"
    embedding.write_embedding(tmp_path / "out", patches, embeddings)
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(embedding.OUTPUTS)

    written = pd.read_csv(tmp_path / "out" / "embedding.csv")
    assert list(written.columns) == ["checkpoint", "domain", "case", "role", "patch", "x", "y"]
    assert list(written["checkpoint"]) == ["best.pth"] * 12 + ["final.pth"] * 12
    np.testing.assert_allclose(written.loc[12:, ["x", "y"]], embeddings["a", "final.pth"].plane, rtol=1e-4)

    with open(tmp_path / "out" / "silhouette.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["checkpoint"], row["domain"], row["patches"]) for row in rows] == [
        (name, domain, n) for name in ("best.pth", "final.pth") for domain, n in ((ALL, "12"), ("d0", "6"), ("d1", "6"))
    ]
    expected = embedding.silhouettes(embeddings["a", "best.pth"].components, domains)
    assert float(rows[1]["silhouette_pca"]) == pytest.approx(expected["d0"], rel=1e-5)
    svg = (tmp_path / "out" / "embedding.svg").read_text()
    assert svg.count("<svg") == 1


def test_domains_have_shapes_of_their_own_and_hollow_ones_where_not_trained_on(tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    drawn = []
    monkeypatch.setattr(Axes, "scatter", lambda axis, x, y, **style: drawn.append((len(x), style)))
    patches = table(["a", "a", "b", "b", "c"])
    patches.loc[3, "role"] = "validation"
    embedding.plot(patches, {("a", "final"): Embedding(np.eye(5), np.eye(5)[:, :2], 1.0)}, [tmp_path / "plot.png"])
    assert [n for n, _ in drawn] == [2, 1, 1, 1]
    a, b, b_validation, c = (style for _, style in drawn)
    assert len({a["marker"], b["marker"], c["marker"]}) == 3
    assert len({a["facecolors"], b["facecolors"], c["facecolors"]}) == 3
    assert b_validation["marker"] == b["marker"]
    assert b_validation["facecolors"] == "none"
    assert b_validation["edgecolors"] == b["facecolors"]


def test_several_models_are_rows_of_panels_and_a_column_of_the_tables(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **options: figures.append(figure))
    _, domains = clouds(4, 8)
    planes = np.random.default_rng(0).normal(size=(6, 8, 2))
    keys = [(model, checkpoint) for model in ("with", "without") for checkpoint in ("epoch_1", "epoch_2", "epoch_3")]
    embeddings = {key: Embedding(plane, plane, 1.0) for key, plane in zip(keys, planes, strict=True)}
    embedding.write_embedding(tmp_path / "out", table(domains), embeddings)

    written = pd.read_csv(tmp_path / "out" / "embedding.csv")
    assert list(written.columns) == ["model", "checkpoint", "domain", "case", "role", "patch", "x", "y"]
    assert list(zip(written["model"], written["checkpoint"], strict=True)) == [key for key in keys for _ in range(8)]
    scores = pd.read_csv(tmp_path / "out" / "silhouette.csv").set_index(["model", "checkpoint", "domain"])
    expected = embedding.silhouettes(planes[4], domains)["d1"]
    assert scores.loc[("without", "epoch_2", "d1"), "silhouette_pca"] == pytest.approx(expected, rel=1e-5)

    axes = figures[0].axes
    assert [axis.get_title().splitlines()[0] for axis in axes] == ["epoch_1", "epoch_2", "epoch_3"] * 2
    assert [axis.get_ylabel() for axis in axes] == ["with", "", "", "without", "", ""]
    assert {axis.get_subplotspec().get_topmost_subplotspec().get_geometry()[:2] for axis in axes} == {(2, 3)}
    for axis, plane in zip(axes, planes, strict=True):
        np.testing.assert_array_equal(np.concatenate([dots.get_offsets() for dots in axis.collections]), plane)


def test_a_folder_with_other_files_is_refused(tmp_path):
    embedding.require_output(tmp_path / "absent", False)
    (tmp_path / "embedding.csv").touch()
    embedding.require_output(tmp_path, False)
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UserError, match=r"holds other files \(thesis\.tex\)"):
        embedding.require_output(tmp_path, False)
    embedding.require_output(tmp_path, True)
    with pytest.raises(UserError, match="is a file"):
        embedding.require_output(tmp_path / "thesis.tex", True)
