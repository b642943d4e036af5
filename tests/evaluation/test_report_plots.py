import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from nnunet_da.errors import UserError
from nnunet_da.evaluation.report import learning
from nnunet_da.evaluation.report.plots import box_plot, curves

XLINK = "{http://www.w3.org/1999/xlink}"


def elements(svg, name):
    return list(ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}" + name))


def box_values():
    rng = np.random.default_rng(0)
    return {(group, model): rng.random(7) for group in ("t1", "t2 <&$^") for model in ("u-net", "in$t$")}


@pytest.fixture(scope="module")
def plot():
    return box_plot(box_values(), ["u-net", "in$t$"], "DSC", 3, "higher")


def test_the_numbers_of_a_box_plot_stand_beside_it(plot):
    assert [row[:3] for row in plot.rows] == [[group, model, "7"] for group, model in box_values()]
    for row, values in zip(plot.rows, box_values().values(), strict=True):
        assert row[3:] == [f"{number:.3f}" for number in np.percentile(values, [0, 25, 50, 75, 100])]
    median = np.median(box_values()["t1", "u-net"])
    assert f"t1, u-net: median {median:.3f}, quartiles" in plot.caption


def test_a_plot_is_well_formed_labelled_and_free_of_references(plot):
    root = ET.fromstring(plot.svg)
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"] == plot.caption
    assert "metadata" not in plot.svg
    assert "<!DOCTYPE" not in plot.svg
    assert "currentColor" in plot.svg
    ids = re.findall(r'\bid="([^"]+)"', plot.svg)
    assert len(ids) == len(set(ids))
    referred = set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', plot.svg))
    assert referred
    assert {one or other for one, other in referred} <= set(ids)


def test_names_are_drawn_as_they_are(plot):
    texts = ["".join(element.itertext()) for element in elements(plot.svg, "text")]
    assert {"t1", "t2 <&$^", "u-net", "in$t$"} <= {text.strip() for text in texts}


def test_models_differ_without_colour(plot):
    """The second model's boxes are hatched, and its points have another shape, of their own definition."""
    assert plot.svg.count("<pattern") == 1
    markers = {element.attrib.get("href") or element.attrib[XLINK + "href"] for element in elements(plot.svg, "use")}
    assert len(markers) >= 2


def test_two_plots_of_one_page_share_no_ids(plot):
    other = box_plot({("t1", "u-net"): [0.1, 0.4]}, ["u-net"], "ASSD", 2)
    assert not set(re.findall(r'\bid="([^"]+)"', plot.svg)) & set(re.findall(r'\bid="([^"]+)"', other.svg))


def test_undefined_values_are_left_out_and_said():
    plot = box_plot({("t1", "a"): [0.5, np.nan, 0.7], ("t1", "b"): [np.nan]}, ["a", "b"], "HD95", 2)
    assert plot.rows == [["t1", "a", "2", "0.50", "0.55", "0.60", "0.65", "0.70"], ["t1", "b", "0", *["–"] * 5]]


def test_curves_say_their_ends():
    plot = curves({"Loss": {"training": [3.0, float("nan"), 1.0], "validation": [2.5, 0.5, 2.0]}})
    assert plot.rows == [
        ["Loss", "training", "3", "3.000", "1.000", "3.000", "1.000"],
        ["Loss", "validation", "3", "2.500", "0.500", "2.500", "2.000"],
    ]
    assert "Loss, validation: first 2.500, last 2.000, over 3 epochs" in plot.caption
    ET.fromstring(plot.svg)
    # The second curve is dashed.
    assert "stroke-dasharray" in plot.svg


LOG = {
    "train_losses": [np.float32(1), np.float32(0.5)],
    "val_losses": [0.9, 0.6],
    "mean_fg_dice": [0.1, 0.5],
    "ema_fg_dice": [0.1, 0.14],
    "dice_per_class_or_region": [[np.float32(0.1), np.float32(0.2)], [0.3, 0.4]],
    "lrs": [0.01, 0.005],
    "epoch_start_timestamps": [1.0, 2.0],
    "epoch_end_timestamps": [2.0, 3.0],
    "pretext_train_loss": [1.4, 1.2],
    "pretext_val_loss": [1.3, 1.1],
    "pretext_score/intensity/t1": [0.25, 0.5],
    "pretext_score/intensity/t2": [0.3, 0.4],
    "never_logged": [],
}


def test_panels_hold_all_curves_of_a_log():
    panels = learning.panels(LOG, ["disc", "canal"])
    assert panels == {
        "Loss": {"training": [1.0, 0.5], "validation": [0.9, 0.6]},
        "Pseudo Dice": {"mean": [0.1, 0.5], "moving average": [0.1, 0.14]},
        "Pseudo Dice by structure": {
            "disc": pytest.approx([0.1, 0.3]),
            "canal": pytest.approx([0.2, 0.4]),
        },
        "Pretext loss": {"training": [1.4, 1.2], "validation": [1.3, 1.1]},
        "Pretext score: intensity": {"t1": [0.25, 0.5], "t2": [0.3, 0.4]},
    }
    assert learning.panels({}) == {}


def write_checkpoint(path, log=LOG):
    import torch

    path.parent.mkdir(parents=True, exist_ok=True)
    init_args = {"configuration": "2d", "fold": 0, "dataset_json": {"labels": {"background": 0, "disc": 1, "canal": 2}}}
    content = {"network_weights": {}, "init_args": init_args, "trainer_name": "nnUNetTrainer", "logging": log}
    torch.save(content, path)


def test_runs_are_read_from_checkpoints(tmp_path):
    write_checkpoint(tmp_path / "model" / "fold_0" / "checkpoint_final.pth")
    write_checkpoint(tmp_path / "model" / "fold_1" / "checkpoint_latest.pth")
    (tmp_path / "model" / "fold_2").mkdir()
    folds = learning.find_folds([tmp_path / "model"])
    assert folds == [tmp_path / "model" / "fold_0", tmp_path / "model" / "fold_1"]
    assert learning.find_folds(folds[:1]) == folds[:1]
    title, is_finished, panels = learning.read_run(folds[0])
    assert title == "nnUNetTrainer · 2d · fold 0"
    assert is_finished
    assert panels == learning.panels(LOG, ["disc", "canal"])
    assert not learning.read_run(folds[1])[1]
    with pytest.raises(UserError, match="fold_2: neither this folder nor a fold_"):
        learning.find_folds([tmp_path / "model" / "fold_2"])
