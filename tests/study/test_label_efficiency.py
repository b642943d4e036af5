"""Label efficiency: which subjects are drawn, what is run on them, and what becomes of it.

No command is run: what it would leave behind is written in its place.
"""

import csv
import itertools
import json
from itertools import pairwise
from pathlib import Path

import pandas
import pytest

from nnunet_da.errors import UserError
from nnunet_da.study import label_efficiency_data, label_efficiency_report
from nnunet_da.study.label_efficiency import Design, collect, draw_all, draw_subjects, run_label_efficiency
from nnunet_da.study.label_efficiency_data import TestScans, find_test_scans, link
from nnunet_da.workplace import Workplace

DATASET = "Dataset601_Tiny"
# Subject e has two scans; fold 0 holds out subject z.
SUBJECTS = {name: [f"{name}1", f"{name}2"] if name == "e" else [f"{name}1"] for name in "abcde"}
LABELLED = [*itertools.chain.from_iterable(SUBJECTS.values()), "z1"]
UNLABELLED = ["u1", "u2"]
TEST = ["t1", "t2"]
# Of the fake evaluation: by initialisation and number of training cases.
DICE = {"scratch": 0.5, "regression": 0.6, "contrastive": 0.7}
SETTINGS = ("num_epochs=2", "plan.patch_size=64,64")


def plans():
    """Plans as nnU-Net makes them, as far as they are read here."""
    architecture = {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": 4,
            "features_per_stage": [32, 64, 128, 256],
            "kernel_sizes": [[3, 3]] * 4,
            "strides": [[1, 1]] + [[2, 2]] * 3,
            "n_conv_per_stage": [2] * 4,
            "n_conv_per_stage_decoder": [2] * 3,
            "conv_op": "torch.nn.modules.conv.Conv2d",
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d",
        },
    }
    planned = {"data_identifier": "nnUNetPlans_2d", "patch_size": [128, 128], "batch_size": 12}
    cascade = {"data_identifier": "nnUNetPlans_2d", "previous_stage": "3d_lowres"}
    configurations = {"2d": planned | {"architecture": architecture}, "3d_cascade_fullres": cascade}
    return {"plans_name": "nnUNetPlans", "configurations": configurations}


@pytest.fixture
def dataset(nnunet_folders):
    """A planned dataset with a domain of labelled and unlabelled cases, and test scans in imagesTs."""
    folder = nnunet_folders.preprocessed / DATASET
    (folder / "nnUNetPlans_2d").mkdir(parents=True)
    (folder / "gt_segmentations").mkdir()
    for case in (*LABELLED, *UNLABELLED):
        for ending in (".b2nd", "_seg.b2nd", ".pkl"):
            (folder / "nnUNetPlans_2d" / f"{case}{ending}").write_text(case)
        (folder / "gt_segmentations" / f"{case}.nii.gz").write_text(case)
    domain = {"labels": ["liver", "spleen"], "labelled": LABELLED, "unlabelled": UNLABELLED}
    content = {
        "labels": {"background": 0, "liver": 1, "spleen": 2, "ignore": 3},
        "channel_names": {"0": "T2"},
        "file_ending": ".nii.gz",
        "domains": {"mr": domain},
        "subjects": {"e1": "e", "e2": "e"},
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    (folder / "nnUNetPlans.json").write_text(json.dumps(plans()))
    (folder / "dataset_fingerprint.json").write_text("{}")
    splits = [{"train": LABELLED[:-1], "val": ["z1"]}]
    (folder / "splits_final.json").write_text(json.dumps(splits))
    raw = nnunet_folders.raw / DATASET
    for case in TEST:
        for kind, ending in (("imagesTs", "_0000.nii.gz"), ("labelsTs", ".nii.gz")):
            (raw / kind).mkdir(parents=True, exist_ok=True)
            (raw / kind / f"{case}{ending}").write_text(case)
    return folder


class Commands:
    """Stands in for the commands: writes what the runner reads of theirs, and keeps the words of each."""

    def __init__(self):
        self.given = []
        self.failing = None

    def run(self, place, *words, until=None, **_):
        words = [str(word) for word in words]
        self.given.append(words)
        flags = dict(pairwise(words))
        if words[0] == "nnUNetv2_train":
            model = f"{flags['-tr']}__nnUNetPlans__{words[2]}"
            folder = place.nnunet_folder / "nnUNet_results" / DATASET / model / f"fold_{words[3]}"
            folder.mkdir(parents=True, exist_ok=True)
            if self.failing and self.failing in words[2]:
                raise UserError(f"{words[2]} failed")
            if words[3] == "all":
                # Its weights are written after "Training done.".
                assert until is None
                (folder / "pretrained.pth").touch()
            (folder / "checkpoint_final.pth").touch()
        if words[:2] == ["nnunet-da", "evaluate"]:
            self.evaluate(flags)

    @staticmethod
    def evaluate(flags):
        """Dice of liver as in DICE for the first test case and 0.1 more for the second; of spleen 0.2 less."""
        model = flags["--pred"].split("=")[0]
        lines = ["model,domain,case,structure,dsc,missed,false"]
        with open(flags["--cases"], newline="") as stream:
            for index, row in enumerate(csv.DictReader(stream)):
                for structure, less in (("liver", 0), ("spleen", 0.2)):
                    dsc = DICE[model] + 0.1 * index - less
                    lines.append(f"{model},{row['domain']},{row['case']},{structure},{dsc},0,0")
        Path(flags["-o"]).mkdir(parents=True)
        Path(flags["-o"], "cases.csv").write_text("\n".join(lines) + "\n")

    @property
    def trained(self):
        """(configuration, fold, file of weights or None) of each training."""
        words = [words for words in self.given if words[0] == "nnUNetv2_train"]
        return [(each[2], each[3], dict(pairwise(each)).get("-pretrained_weights")) for each in words]


@pytest.fixture
def commands(monkeypatch):
    stand_in = Commands()
    monkeypatch.setattr(Workplace, "run", lambda place, *words, **others: stand_in.run(place, *words, **others))
    # Drawing takes longer than all else.
    monkeypatch.setattr(label_efficiency_report, "draw", lambda *_, paths: [path.touch() for path in paths])
    return stand_in


def study(work, numbers=(1, 2), name="test", **changes):
    design = Design("601", "2d", numbers=numbers, **{"settings": SETTINGS, "n_draws": 2} | changes)
    return run_label_efficiency(design, find_test_scans("601", name=name), work)


# Draws


def test_draws_of_one_number_are_disjoint_as_far_as_there_are_subjects_and_never_equal():
    names = [f"s{n}" for n in range(6)]
    ones, pairs, fours = (draw_subjects(names, n, 3, seed=1) for n in (1, 2, 4))
    assert len({name for (name,) in ones}) == 3
    assert sorted(itertools.chain.from_iterable(pairs)) == names
    assert len(set(fours)) == 3
    assert all(len(draw) == 4 == len(set(draw)) for draw in fours)


def test_draws_end_where_there_are_no_more_sets():
    names = ["a", "b", "c"]
    assert sorted(draw_subjects(names, 2, 10, seed=1)) == [("a", "b"), ("a", "c"), ("b", "c")]
    assert draw_subjects(names, 3, 10, seed=1) == [("a", "b", "c")]


def test_draws_depend_on_the_seed_alone():
    names = [f"s{n}" for n in range(9)]
    assert draw_subjects(names, 2, 8, seed=5)[:3] == draw_subjects(names, 2, 3, seed=5)
    assert draw_subjects(names, 2, 3, seed=5) != draw_subjects(names, 2, 3, seed=6)


def test_further_draws_keep_the_places_of_the_earlier_ones():
    before = draw_all([], SUBJECTS, ["z1"], [1, 2], 2, seed=1)
    assert [(draw["subjects"], draw["draw"]) for draw in before] == [(1, 0), (1, 1), (2, 0), (2, 1), (5, 0)]
    after = draw_all(before, SUBJECTS, ["z1"], [1, 4], 3, seed=1)
    assert after[: len(before)] == before
    assert [(draw["subjects"], draw["draw"]) for draw in after[5:]] == [(1, 2), (4, 0), (4, 1), (4, 2)]
    for draw in after:
        assert draw["train"] == sorted(case for name in draw["names"] for case in SUBJECTS[name])
        assert draw["val"] == ["z1"]


# Runs


def test_each_method_is_pretrained_once_and_each_draw_is_fine_tuned_from_it(dataset, commands, tmp_path):
    study(tmp_path / "work")
    assert [configuration for configuration, fold, _ in commands.trained if fold == "all"] == [
        "2d_pretrain-regression_s1_fall",
        "2d_pretrain-contrastive_s1_fall",
    ]
    fine_tuned = commands.trained[2:]
    expected = [
        f"2d_{name}_s{seed}_f{fold}"
        for fold, seed in ((0, 1), (1, 2), (2, 1), (3, 2))
        for name in ("scratch", "regression", "contrastive")
    ]
    assert [configuration for configuration, _, _ in fine_tuned] == [*expected, "2d_scratch_s1_f4"]
    for configuration, _, weights in fine_tuned:
        name = configuration.split("_")[1]
        assert (weights is None) == (name == "scratch")
        if weights:
            assert Path(weights).exists()
            assert f"2d_pretrain-{name}_s1_fall/fold_all/pretrained.pth" in weights
    # Nothing is predicted with what segments nothing.
    predicted = [words[words.index("-c") + 1] for words in commands.given if words[0] == "nnUNetv2_predict"]
    assert predicted == [configuration for configuration, _, _ in fine_tuned]


def test_nothing_of_the_dataset_is_changed_and_nothing_of_it_is_copied(
    dataset, commands, tmp_path, nnunet_folders, monkeypatch
):
    before = nnunet_folders.snapshot()
    study(tmp_path / "work")
    assert nnunet_folders.snapshot() == before
    own = tmp_path / "work" / "nnUNet_preprocessed" / DATASET
    for path in (*(dataset / "nnUNetPlans_2d").iterdir(), *(dataset / "gt_segmentations").iterdir()):
        assert (own / path.relative_to(dataset)).resolve() == path.resolve()
    configurations = json.loads((own / "nnUNetPlans.json").read_text(encoding="utf-8"))["configurations"]
    assert configurations["2d_scratch_s2_f1"]["nnunet_da"] == {"num_epochs": 2, "seed": 2}
    assert not (own / "nnUNetPlans.json").is_symlink()
    splits = json.loads((own / "splits_final.json").read_text(encoding="utf-8"))
    assert splits[4] == {"train": LABELLED[:-1], "val": ["z1"]}
    scans = tmp_path / "work" / "data" / "test"
    assert (scans / "images" / "t1_0000.nii.gz").read_text(encoding="utf-8") == "t1"
    assert (scans / "cases.csv").read_text(encoding="utf-8") == "case,domain\nt1,mr\nt2,mr\n"


def test_settings_of_pretraining_alone(dataset, commands, tmp_path):
    study(
        tmp_path / "work", pretraining_settings=("num_epochs=7", "plan.batch_size=4"), initialisations=("regression",)
    )
    own = tmp_path / "work" / "nnUNet_preprocessed" / DATASET
    configurations = json.loads((own / "nnUNetPlans.json").read_text(encoding="utf-8"))["configurations"]
    pretraining, fine_tuning = configurations["2d_pretrain-regression_s1_fall"], configurations["2d_regression_s1_f0"]
    assert (pretraining["batch_size"], pretraining["nnunet_da"]["num_epochs"]) == (4, 7)
    assert ("batch_size" in fine_tuning, fine_tuning["nnunet_da"]["num_epochs"]) == (False, 2)
    assert pretraining["patch_size"] == fine_tuning["patch_size"] == [64, 64]
    # The supervised line is trained all the same.
    assert [name for name, _, _ in commands.trained if "scratch" in name] == ["2d_scratch_s1_f4"]


def test_the_supervised_line_can_be_left_out_and_added_later(dataset, commands, tmp_path):
    study(tmp_path / "work", numbers=(1,), n_draws=1, initialisations=("regression",), supervised=False)
    assert [name for name, _, _ in commands.trained] == ["2d_pretrain-regression_s1_fall", "2d_regression_s1_f0"]
    commands.given.clear()
    study(tmp_path / "work", numbers=(1,), n_draws=1, initialisations=("regression",))
    assert [name for name, _, _ in commands.trained] == ["2d_scratch_s1_f1"]


def test_the_paper_s_schedules(dataset, commands, tmp_path):
    study(tmp_path / "work", preset="paper", settings=(), numbers=(1,), n_draws=1)
    own = tmp_path / "work" / "nnUNet_preprocessed" / DATASET
    configurations = json.loads((own / "nnUNetPlans.json").read_text(encoding="utf-8"))["configurations"]
    assert configurations["2d_pretrain-contrastive_s1_fall"]["nnunet_da"]["num_epochs"] == 1000
    assert configurations["2d_contrastive_s1_f0"]["nnunet_da"]["num_epochs"] == 500
    assert configurations["2d_contrastive_s1_f0"]["nnunet_da"]["num_iterations_per_epoch"] is None


def test_a_study_goes_on_with_what_is_new(dataset, commands, tmp_path):
    study(tmp_path / "work", numbers=(1,), initialisations=("scratch",))
    commands.given.clear()
    text = study(tmp_path / "work", numbers=(1,), n_draws=2)
    assert [name for name, _, _ in commands.trained] == [
        *("2d_pretrain-regression_s1_fall", "2d_pretrain-contrastive_s1_fall"),
        *("2d_regression_s1_f0", "2d_contrastive_s1_f0", "2d_regression_s2_f1", "2d_contrastive_s2_f1"),
    ]
    commands.given.clear()
    assert study(tmp_path / "work", numbers=(1,), n_draws=2) == text
    assert commands.given == []
    # The same models on other scans.
    study(tmp_path / "work", numbers=(1,), name="other")
    assert {words[0] for words in commands.given} == {"nnUNetv2_predict", "nnunet-da"}
    assert (tmp_path / "work" / "report" / "other" / "results.csv").exists()


def test_a_training_killed_before_its_first_checkpoint_starts_from_the_weights_again(dataset, commands, tmp_path):
    commands.failing = "2d_contrastive_s1_f0"
    with pytest.raises(UserError, match="2d_contrastive_s1_f0 failed"):
        study(tmp_path / "work", numbers=(1,))
    # The others were done.
    assert len(commands.trained) == 2 + 6 + 1
    commands.failing = None
    commands.given.clear()
    study(tmp_path / "work", numbers=(1,))
    ((name, _, weights),) = commands.trained
    assert name == "2d_contrastive_s1_f0"
    assert weights is not None
    assert "--c" not in commands.given[0]


def test_a_training_killed_later_goes_on_at_its_checkpoint(dataset, commands, tmp_path):
    study(tmp_path / "work", numbers=(1,))
    (tmp_path / "work" / "runs" / "contrastive_s1_f0" / "done" / "train.json").unlink()
    commands.given.clear()
    study(tmp_path / "work", numbers=(1,))
    assert "--c" in commands.given[0]
    assert "-pretrained_weights" not in commands.given[0]


def test_without_its_pretraining_no_training_starts(dataset, commands, tmp_path):
    commands.failing = "2d_pretrain-regression"
    with pytest.raises(UserError, match="2d_pretrain-regression_s1_fall failed"):
        study(tmp_path / "work", numbers=(1,), initialisations=("regression",))
    assert [name for name, _, _ in commands.trained] == ["2d_pretrain-regression_s1_fall", "2d_scratch_s1_f2"]


def test_a_dataset_without_domains_has_a_subject_per_case(dataset, commands, tmp_path):
    content = json.loads((dataset / "dataset.json").read_text(encoding="utf-8"))
    for key in ("domains", "subjects"):
        del content[key]
    (dataset / "dataset.json").write_text(json.dumps(content))
    (dataset / "splits_final.json").unlink()
    study(tmp_path / "work", numbers=None, n_draws=1, initialisations=("scratch",))
    draws = json.loads((tmp_path / "work" / "splits.json").read_text(encoding="utf-8"))
    # nnU-Net's first split of nine cases holds out two of them.
    assert [draw["subjects"] for draw in draws] == [1, 2, 4, 7]
    assert all(draw["names"] == draw["train"] and len(draw["val"]) == 2 for draw in draws)
    assert (tmp_path / "work" / "data" / "test" / "cases.csv").read_text(
        encoding="utf-8"
    ) == "case,domain\nt1,all\nt2,all\n"


def test_files_are_copied_where_there_are_no_links(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError

    (tmp_path / "scan").write_text("voxels")
    monkeypatch.setattr(label_efficiency_data.os, "symlink", refuse)
    link(tmp_path / "scan", tmp_path / "hard")
    assert (tmp_path / "hard").samefile(tmp_path / "scan")
    monkeypatch.setattr(label_efficiency_data.os, "link", refuse)
    link(tmp_path / "scan", tmp_path / "copy")
    assert not (tmp_path / "copy").samefile(tmp_path / "scan")
    assert (tmp_path / "copy").read_text(encoding="utf-8") == "voxels"


# What becomes of it


def test_results_tables_and_figures(dataset, commands, tmp_path):
    text = study(tmp_path / "work")
    folder = tmp_path / "work" / "report" / "test"
    results = pandas.read_csv(folder / "results.csv")
    keys = ["initialisation", "subjects", "draw", "case", "structure"]
    assert list(results.columns[:3]) == keys[:3]
    assert not results.duplicated(keys).any()
    # Four draws of three initialisations and the supervised line, two cases of two structures each.
    assert len(results) == (4 * 3 + 1) * 2 * 2
    assert {path.name for path in folder.iterdir()} == {"results.csv", "table.md"} | {
        f"label_efficiency{name}.{ending}" for name in ("", "_liver", "_spleen") for ending in ("svg", "png")
    }
    assert (folder / "table.md").read_text(encoding="utf-8") == text
    # Means over two cases (0.5 and 0.6 of the liver, 0.3 and 0.4 of the spleen), and over structures.
    assert "| 1 | 0.450 ± 0.000 [2] | 0.550 ± 0.000 [2] | **0.650 ± 0.000** [2] |" in text
    assert "| 5 (all) | 0.550 [1] | – | – |" in text
    assert "| 2 | contrastive − scratch | 2 | 2 | +0.200 | +0.200 to +0.200 | +0.200, +0.200 |" in text
    assert collect(tmp_path / "work") == text


def rows(**dice):
    """Results: ``rows(scratch={1: [[draw 0, case by case], [draw 1]]})``."""
    return pandas.DataFrame(
        {
            "initialisation": name,
            "subjects": n,
            "draw": draw,
            "case": f"c{case}",
            "structure": "liver",
            "dsc": value,
        }
        for name, by_number in dice.items()
        for n, draws in by_number.items()
        for draw, values in enumerate(draws)
        for case, value in enumerate(values)
    )


def test_a_mean_is_over_cases_first_and_its_deviation_over_draws():
    (table,) = label_efficiency_report.mean_tables(rows(scratch={1: [[0.2, 0.4], [0.5, 0.9]]}), n_all=4)
    # The draws' means are 0.3 and 0.7.
    assert "| 1 | 0.500 ± 0.283 [2] |" in table.markdown()


def test_differences_are_paired_by_case_and_draw():
    results = rows(scratch={1: [[0.2, 0.4], [0.5, 0.9]]}, contrastive={1: [[0.3, 0.7]], 2: [[0.9, 0.9]]})
    (table,) = label_efficiency_report.difference_tables(results)
    # Of the first draw alone, +0.1 and +0.3; of two subjects there is nothing to compare with.
    assert [labels for labels, _ in table.rows] == [("1", "contrastive − scratch")]
    assert "| 2 | 1 | +0.200 | +0.100 to +0.300 | +0.200 |" in table.markdown()
    assert label_efficiency_report.difference_tables(rows(scratch={1: [[0.2]]})) == []


def test_the_figure_has_both_panels_and_the_supervised_line(tmp_path):
    draws = {1: [[0.5, 0.6], [0.4, 0.5]], 2: [[0.7, 0.8]]}
    results = rows(scratch=draws | {8: [[0.9, 0.9]]}, regression=draws, contrastive=draws)
    paths = [tmp_path / "figure.svg", tmp_path / "figure.png"]
    label_efficiency_report.draw(results, 8, "liver", paths=paths)
    svg = paths[0].read_text(encoding="utf-8")
    for words in (
        ">A<",
        ">B<",
        ">random initialisation<",
        ">regression<",
        ">liver, 2 test cases; bars: range over draws<",
    ):
        assert svg.count(words) == 1
    assert svg.count(">contrastive<") == svg.count(">supervised, all 8 subjects<") == 2
    assert paths[1].read_bytes().startswith(b"\x89PNG")


def test_a_figure_of_one_initialisation_has_one_panel(tmp_path):
    path = tmp_path / "figure.svg"
    label_efficiency_report.draw(rows(regression={1: [[0.5]], 2: [[0.7]]}), 8, "liver", paths=[path])
    svg = path.read_text(encoding="utf-8")
    assert ">A<" in svg
    assert ">B<" not in svg
    assert "supervised" not in svg


# What is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"numbers": (1, 6)}, "-n 6: must be from 1 to 5, the labelled subjects of Dataset601_Tiny"),
        ({"numbers": (0,)}, "-n 0: must be from 1"),
        ({"trainer": "nnUNetTrainerJoint"}, "-tr nnUNetTrainerJoint: must be a trainer of this package that segments"),
        ({"trainer": "nnUNetTrainerSSLFinetun"}, "did you mean 'nnUNetTrainerSSLFinetune'"),
        ({"trainer": "nnUNetTrainerUNet", "preset": "paper"}, "--preset paper: nnUNetTrainerUNet has none"),
        ({"settings": ("num_epoch=2",)}, "setting num_epoch: unknown; did you mean 'num_epochs'"),
        ({"settings": ("num_epochs",)}, "--set num_epochs: must be written as name=value"),
        ({"pretraining_settings": ("plan.norm=batch",)}, "--pretraining-set plan.norm=batch: pretraining and"),
        ({"settings": ("plan.patch_size=60,60",)}, "plan.patch_size"),
    ],
)
def test_refused_before_anything_is_written(changes, message, dataset, commands, tmp_path):
    with pytest.raises(UserError) as raised:
        study(tmp_path / "work", **changes)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert commands.given == []
    assert not (tmp_path / "work").exists()


def test_a_study_goes_on_as_it_was_begun_or_not_at_all(dataset, commands, tmp_path):
    work = tmp_path / "work"
    study(work, numbers=(1,), initialisations=("scratch",))
    with pytest.raises(UserError, match="the study was begun with other settings; choose another folder"):
        study(work, numbers=(1,), settings=("num_epochs=3",))
    with pytest.raises(UserError, match="begun with other seed"):
        study(work, numbers=(1,), seed=2)
    splits = [{"train": ["a1", "b1"], "val": ["c1"]}]
    (dataset / "splits_final.json").write_text(json.dumps(splits))
    with pytest.raises(UserError, match="begun with other subjects"):
        study(work, numbers=(1,))
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").touch()
    with pytest.raises(UserError, match="thesis: holds other files"):
        study(tmp_path / "thesis", numbers=(1,))


def test_other_scans_need_another_name(dataset, commands, tmp_path, nnunet_folders):
    study(tmp_path / "work", numbers=(1,), initialisations=("scratch",))
    (nnunet_folders.raw / DATASET / "labelsTs" / "t2.nii.gz").unlink()
    with pytest.raises(UserError, match="holds other scans, or of other domains; name this set with --tested"):
        study(tmp_path / "work", numbers=(1,), initialisations=("scratch",))


def test_test_scans_that_cannot_serve(dataset, commands, tmp_path, nnunet_folders):
    labels = nnunet_folders.raw / DATASET / "labelsTs"
    (labels / "t3.nii.gz").touch()
    with pytest.raises(UserError, match=r"t3_0000\.nii\.gz: no such file, but case 't3' has a label map"):
        study(tmp_path / "work")
    (labels / "t3.nii.gz").rename(labels / "u1.nii.gz")
    with pytest.raises(UserError, match="case 'u1' is one of Dataset601_Tiny, which is trained on"):
        study(tmp_path / "work")
    for path in labels.iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"holds no label map with the dataset's ending \.nii\.gz"):
        study(tmp_path / "work")


def test_domains_of_test_cases(dataset, nnunet_folders, capsys):
    (nnunet_folders.raw / DATASET / "test_cases.csv").write_text("case,domain\nt2,elsewhere\n")
    scans = find_test_scans("601")
    assert scans.domains == {"t2": "elsewhere"}
    prepared = label_efficiency_data.find_prepared("601", "nnUNetPlans", "2d")
    domains_of = label_efficiency_data.domains_of_test_cases
    assert domains_of(scans, prepared, ["z1"]) == {"t1": "mr", "t2": "elsewhere"}
    assert domains_of(TestScans(scans.images, scans.labels, {}), prepared, ["z1"]) == {"t1": "mr", "t2": "mr"}
    assert capsys.readouterr().out == ""
    # What fold 0 holds out may guide decisions.
    for kind, ending in (("imagesTs", "_0000.nii.gz"), ("labelsTs", ".nii.gz")):
        (nnunet_folders.raw / DATASET / kind / f"z1{ending}").touch()
    assert domains_of(scans, prepared, ["z1"])["z1"] == "mr"
    assert capsys.readouterr().out.startswith("note: pretraining sees 1 of the 3 test cases, without labels")


def test_a_dataset_that_cannot_serve(dataset, nnunet_folders):
    find = label_efficiency_data.find_prepared
    with pytest.raises(UserError, match=r"no configuration 2; did you mean '2d'|no configuration 2$"):
        find("601", "nnUNetPlans", "2")
    with pytest.raises(UserError, match="the second stage of a cascade cannot be pretrained"):
        find("601", "nnUNetPlans", "3d_cascade_fullres")
    with pytest.raises(UserError, match=r"Other\.json: no such file; run nnUNetv2_plan_and_preprocess -d 601"):
        find("601", "Other", "2d")
    for splits, message in (
        ([{"train": ["e1"], "val": ["e2"]}], "fold 0 trains on no labelled subject beside those that it holds out"),
        ([{"train": ["a1", "x1"], "val": ["e2"]}], "case x1 is not preprocessed"),
    ):
        (dataset / "splits_final.json").write_text(json.dumps(splits))
        with pytest.raises(UserError, match=message):
            label_efficiency_data.subjects_to_draw(find("601", "nnUNetPlans", "2d"))
    for path in (dataset / "nnUNetPlans_2d").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="no preprocessed cases; run nnUNetv2_preprocess -d 601"):
        find("601", "nnUNetPlans", "2d")


def test_nothing_is_evaluated_yet(dataset, commands, tmp_path):
    study(tmp_path / "work", numbers=(1,), initialisations=("scratch",))
    with pytest.raises(UserError, match="nothing is evaluated on 'other' yet"):
        collect(tmp_path / "work", "other")
    with pytest.raises(UserError, match=r"study\.json: no such file"):
        collect(tmp_path / "elsewhere")
