import json

import nibabel
import numpy as np
import pytest

from nnunet_da.dataset_conversion import msd

TRAINING, TESTS = ("prostate_00", "prostate_01", "prostate_04"), ("prostate_03",)
PATHS = [
    *("dataset.json", "._dataset.json", "imagesTr/._prostate_00.nii.gz"),
    *(f"imagesTr/{case}.nii.gz" for case in TRAINING),
    *(f"labelsTr/{case}.nii.gz" for case in TRAINING),
    *(f"imagesTs/{case}.nii.gz" for case in TESTS),
]


def content(training=TRAINING, tests=TESTS, **changes):
    """A dataset.json as the Decathlon writes it."""
    return json.dumps(
        {
            "name": "PROSTATE",
            "tensorImageSize": "4D",
            "modality": {"0": "T2", "1": "ADC"},
            "labels": {"0": "background", "1": "PZ", "2": "TZ"},
            "numTraining": len(training),
            "training": [{"image": f"./imagesTr/{c}.nii.gz", "label": f"./labelsTr/{c}.nii.gz"} for c in training],
            "test": [f"./imagesTs/{case}.nii.gz" for case in tests],
            **changes,
        }
    )


@pytest.fixture
def prostate(release, tmp_path):
    """``prostate(**changes)``: the task's folder, `changes` in its dataset.json."""

    def make(volumes=2, values=(1, 2), **changes):
        texts = {"dataset.json": content(**changes)}
        labels = {"labelsTr": values}
        return release(PATHS, labels, folder=tmp_path / "Task05_Prostate", volumes=volumes, texts=texts)

    return make


def test_every_file_of_the_release_is_used_but_hidden_ones(listing, names, read, tmp_path):
    paths = listing("msd_task05")
    (layout,) = msd.LAYOUTS
    below = [path.removeprefix("Task05_Prostate/") for path in paths]
    unread = [path for path in below if not layout.match(path)]
    assert all(layout.knows(path) for path in unread if not path.rsplit("/")[-1].startswith("."))
    assert [path for path in unread if "._" not in path] == ["dataset.json"]
    training = [path[len("imagesTr/") : -len(".nii.gz")] for path in below if path.startswith("imagesTr/p")]
    tests = [path[len("imagesTs/") : -len(".nii.gz")] for path in below if path.startswith("imagesTs/p")]
    names(paths, {"Task05_Prostate/dataset.json": content(training, tests)}, folder=tmp_path)
    folder = tmp_path / "Task05_Prostate"
    conversion = read("msd", folder)
    assert [case.id for case in conversion.cases] == training
    assert [case.id for case in conversion.test_cases] == tests
    assert conversion.name == "MSD_Prostate"
    cases = [*conversion.cases, *conversion.test_cases]
    assert {case.domain for case in cases} == {"prostate"}
    used = {image.path for case in cases for image in case.images} | {case.label for case in conversion.cases}
    assert used == {folder / path for path in below if path not in unread}


def test_channels_become_files(prostate, convert, verified):
    task = prostate()
    written = convert("msd", task.folder)
    assert written.folder.name == "Dataset007_MSD_Prostate"
    assert written.json["channel_names"] == {"0": "T2", "1": "ADC"}
    assert written.json["labels"] == {"background": 0, "PZ": 1, "TZ": 2, "ignore": 3}
    assert written.json["licence"] == "CC BY-SA 4.0"
    assert written.files("imagesTs") == ["prostate_03_0000", "prostate_03_0001"]
    for case in TRAINING:
        np.testing.assert_array_equal(written.voxels("labelsTr", case), task.voxels[f"labelsTr/{case}.nii.gz"])
        for channel in range(2):
            voxels = written.voxels("imagesTr", f"{case}_{channel:04d}")
            np.testing.assert_array_equal(voxels, task.voxels[f"imagesTr/{case}.nii.gz"][..., channel])
    before = written.snapshot()
    convert("msd", task.folder, "--overwrite")
    assert written.snapshot() == before
    assert verified(written)


@pytest.mark.parametrize("option", ["--channels", "--channel"])
def test_one_channel_and_another_domain(option, prostate, convert, verified):
    task = prostate()
    written = convert("msd", task.folder, option, "ADC", "--domain", "nijmegen")
    assert written.json["channel_names"] == {"0": "ADC"}
    assert list(written.json["domains"]) == ["nijmegen"]
    assert written.files("imagesTr") == [f"{case}_0000" for case in TRAINING]
    voxels = written.voxels("imagesTr", "prostate_04_0000")
    np.testing.assert_array_equal(voxels, task.voxels["imagesTr/prostate_04.nii.gz"][..., 1])
    assert verified(written)


def test_channels_in_another_order(prostate, convert):
    task = prostate()
    written = convert("msd", task.folder, "--channels", "ADC", "T2")
    assert written.json["channel_names"] == {"0": "ADC", "1": "T2"}
    voxels = written.voxels("imagesTs", "prostate_03_0001")
    np.testing.assert_array_equal(voxels, task.voxels["imagesTs/prostate_03.nii.gz"][..., 0])


def test_a_task_of_one_channel_is_copied_as_it_is(prostate, convert):
    task = prostate(volumes=1, modality={"0": "CT"})
    written = convert("msd", task.folder)
    assert written.json["channel_names"] == {"0": "CT"}
    copied = (written.folder / "imagesTr/prostate_00_0000.nii.gz").read_bytes()
    assert copied == (task / "imagesTr/prostate_00.nii.gz").read_bytes()


@pytest.mark.parametrize(
    ("options", "labels", "lookup"),
    [
        ([], {"zone": 1, "other": 2}, {0: 0, 2: 1, 5: 2}),
        (["--labels", "zone=2,5"], {"zone": 1}, {0: 0, 2: 1, 5: 1}),
        (["--labels", "other=5"], {"other": 1}, {0: 0, 2: 0, 5: 1}),
    ],
)
def test_label_values_become_consecutive(options, labels, lookup, prostate, convert):
    task = prostate(values=(2, 5), labels={"5": "other", "0": "background", "2": "zone"})
    written = convert("msd", task.folder, *options)
    named = {name: value for name, value in written.json["labels"].items() if name not in ("background", "ignore")}
    assert named == labels
    expected = np.vectorize(lookup.get)(task.voxels["labelsTr/prostate_01.nii.gz"])
    np.testing.assert_array_equal(written.voxels("labelsTr", "prostate_01"), expected)


def test_two_labels_of_one_name_are_one(prostate, convert):
    task = prostate(labels={"0": "background", "1": "gland", "2": "gland"})
    written = convert("msd", task.folder)
    assert written.json["labels"] == {"background": 0, "gland": 1, "ignore": 2}
    expected = np.minimum(task.voxels["labelsTr/prostate_01.nii.gz"], 1)
    np.testing.assert_array_equal(written.voxels("labelsTr", "prostate_01"), expected)


def test_without_dataset_json(prostate, convert, refused):
    task = prostate()
    task.remove("dataset.json")
    line = refused("msd", task.folder)
    assert line.startswith(f"{task / 'dataset.json'}: no such file; get it, or give --channels")
    assert "dataset.json: no such file" in refused("msd", task.folder, "--labels", "PZ=1", "TZ=2")
    options = ["--labels", "PZ=1", "TZ=2", "--channels", "T2", "ADC"]
    written = convert("msd", task.folder, *options)
    assert written.json["channel_names"] == {"0": "T2", "1": "ADC"}
    assert written.json["labels"] == {"background": 0, "PZ": 1, "TZ": 2, "ignore": 3}
    assert "must be a 4-D scan of 1 volumes" not in refused("msd", task.folder, "--overwrite", *options[:-1])
    assert "which is no label of domain 'prostate'" in refused(
        "msd", task.folder, "--overwrite", "--labels", "PZ=1", "--channels", "T2", "ADC"
    )


def test_two_tasks_in_one_dataset(prostate, release, convert, tmp_path, verified):
    convert("msd", prostate().folder, "--channels", "T2", "--labels", "prostate=1,2")
    paths = ["imagesTr/gland_1.nii.gz", "labelsTr/gland_1.nii.gz"]
    other = release(paths, {"labelsTr": (7,)}, folder=tmp_path / "Task99_Gland")
    written = convert("msd", other.folder, "--channels", "T2", "--labels", "prostate=7", "--into")
    assert list(written.json["domains"]) == ["prostate", "gland"]
    label = other.voxels["labelsTr/gland_1.nii.gz"] // 7
    np.testing.assert_array_equal(written.voxels("labelsTr", "gland_1"), label)
    assert verified(written)


def test_without_labels_on_demand(prostate, convert):
    task = prostate()
    task.remove(*[path for path in PATHS if "labelsTr" in path])
    written = convert("msd", task.folder, "--unlabelled")
    assert written.json["domains"]["prostate"]["unlabelled"] == list(TRAINING)


def test_a_download_gone_wrong(general_defect, prostate, refused):
    given, words = general_defect(prostate())
    assert words in refused("msd", given)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            lambda t: t.remove("imagesTr/prostate_01.nii.gz"),
            "imagesTr/prostate_01.nii.gz: no such file, but dataset.json",
        ),
        (
            lambda t: t.remove("imagesTs/prostate_03.nii.gz"),
            "imagesTs/prostate_03.nii.gz: no such file, but dataset.json",
        ),
        (lambda t: t.remove("labelsTr/prostate_01.nii.gz"), "labelsTr/prostate_01.nii.gz: no such file, but imagesTr/"),
        (
            lambda t: t.remove(*[p for p in PATHS if p[:8] == "labelsTr"]),
            "labelsTr/prostate_00.nii.gz: no such file, but",
        ),
        (lambda t: t.add("labelsTr/prostate_05.nii.gz"), "imagesTr/prostate_05.nii.gz: no such file, but labelsTr/"),
        (
            lambda t: t.cut("imagesTr/prostate_04.nii.gz"),
            "imagesTr/prostate_04.nii.gz: not a readable NIfTI file, perhaps",
        ),
        (
            lambda t: t.cut("labelsTr/prostate_04.nii.gz"),
            "labelsTr/prostate_04.nii.gz: not a readable NIfTI file, perhaps",
        ),
        (lambda t: t.cut("dataset.json"), "dataset.json: not a JSON file"),
        (lambda t: (t / "dataset.json").write_text("[]"), "dataset.json: not a dataset.json of the Decathlon"),
        (
            lambda t: t.add("imagesTr/prostate_00_0000.nii.gz"),
            "prostate_00_0000.nii.gz: no file of msd has such a name",
        ),
        (lambda t: t.add("image-001.mhd"), "image-001.mhd: no file of msd has such a name"),
    ],
)
def test_files_that_are_missing_damaged_or_of_another_release(spoil, words, prostate, refused):
    task = prostate()
    spoil(task)
    assert words in refused("msd", task.folder)


def test_a_missing_channel(prostate, refused):
    task = prostate(volumes=1)
    assert "imagesTr/prostate_00.nii.gz: must be a 4-D scan of 2 volumes" in refused("msd", task.folder)


def test_a_part_of_the_folder(prostate, refused):
    task = prostate()
    assert f"is a part of msd; give the folder {task.folder}" in refused("msd", task / "imagesTr")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--channels", "T1"], "has no such channel; did you mean 'T2'? (channels: T2, ADC)"),
        (["--labels", "whole=3"], "has no label of this value"),
        (["--labels", "whole"], "must be NAME=VALUE"),
    ],
)
def test_options_that_name_nothing(options, words, prostate, refused):
    assert words in refused("msd", prostate().folder, *options)


def test_real_scans_of_the_hippocampus(real_data, convert, refused, verified):
    folder = real_data("Task04_Hippocampus")
    assert "Task04_Hippocampus/dataset.json: no such file; get it" in refused("msd", folder)
    options = ["--labels", "anterior=1", "posterior=2", "--channels", "MR"]
    written = convert("msd", folder, *options)
    labels = sorted((folder / "labelsTr").glob("*.nii.gz"))
    assert written.json["domains"]["hippocampus"]["labelled"] == [path.name[: -len(".nii.gz")] for path in labels]
    for path in labels[:3]:
        stored = np.asarray(nibabel.load(path).dataobj)
        np.testing.assert_array_equal(written.voxels("labelsTr", path.name[: -len(".nii.gz")]), stored)
    assert verified(written)
