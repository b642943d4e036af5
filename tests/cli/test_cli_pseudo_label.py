"""`nnunet-da pseudo-label` and `choose-folds` on folders of predictions laid out as nnU-Net writes them."""

import dataclasses
import json
import pickle
import zipfile

import nibabel
import numpy as np
import pytest
from nnunetv2.imageio.nibabel_reader_writer import NibabelIOWithReorient

from nnunet_da.cli import main
from nnunet_da.domains import read_domains
from nnunet_da.raw_dataset import Case, Conversion, write_dataset

SHAPE = (8, 9, 10)
LABELS = {"disc": 1, "vertebra": 2}
# One orientation per unlabelled scan.
AFFINES = {
    "t1": np.array([[0, 0, -2.0, 5], [1.5, 0, 0, -3], [0, -1.0, 0, 8], [0, 0, 0, 1]]),
    "t2": np.array([[-2.0, 0, 0, 9], [0, -1.5, 0, 4], [0, 0, 1.0, -7], [0, 0, 0, 1]]),
    "t3": np.diag([2.0, 1.5, 1.0, 1.0]),
    "t4": np.array([[0, 1.5, 0, 0], [0, 0, -1.0, 6], [2.0, 0, 0, 1], [0, 0, 0, 1]]),
}
TARGETS = tuple(AFFINES)


def anatomy(shift=0):
    """A label map (X, Y, Z) that no flip and no exchange of axes leaves as it is."""
    label = np.zeros(SHAPE, np.uint8)
    label[1:4, 2:6, 1 + shift : 6 + shift] = 1
    label[5, 2:4, 1 + shift : 6 + shift] = 2
    return label


@pytest.fixture
def dataset(nnunet_folders, tmp_path, write_scan):
    """Dataset101_Spine: a1, a2, a3 of philips with labels; t1 … t4 of siemens, in other orientations, without."""
    source = tmp_path / "source"
    cases = [
        Case(
            name,
            "philips",
            None,
            (write_scan(source / f"{name}.nii.gz", shape=SHAPE),),
            write_scan(source / f"{name}_label.nii.gz", anatomy()),
        )
        for name in ("a1", "a2", "a3")
    ]
    for index, (name, affine) in enumerate(AFFINES.items()):
        image = write_scan(source / f"{name}.nii.gz", shape=SHAPE, affine=affine)
        cases.append(Case(name, "siemens", f"s{index // 2}", (image,), None))
    write_dataset(Conversion(cases, ["T2"], LABELS, extra={"licence": "none"}), 101, "Spine", n_processes=1)
    return nnunet_folders.raw / "Dataset101_Spine"


@pytest.fixture
def predict(dataset, tmp_path):
    """``predict(name, label_maps, sureness, soft)``: a folder of predictions of the scans, as nnU-Net writes it."""

    def write(name, label_maps=None, sureness=0.9, soft=True):
        folder = tmp_path / "predicted" / name
        folder.mkdir(parents=True)
        content = json.loads((dataset / "dataset.json").read_text())
        (folder / "dataset.json").write_text(json.dumps(content))
        (folder / "plans.json").write_text(json.dumps({"image_reader_writer": "NibabelIOWithReorient"}))
        reader = NibabelIOWithReorient()
        for case in TARGETS:
            label_map = (label_maps or {}).get(case, anatomy())
            unoriented = folder / "unoriented.nii.gz"
            nibabel.save(nibabel.Nifti1Image(label_map, AFFINES[case]), unoriented)
            voxels, properties = reader.read_seg(unoriented)
            unoriented.unlink()
            one_hot = np.stack([voxels[0] == value for value in range(3)])
            probabilities = np.where(one_hot, sureness, (1 - sureness) / 2).astype(np.float32)
            reader.write_seg(voxels[0].astype(np.uint8), folder / f"{case}.nii.gz", properties)
            if soft:
                np.savez_compressed(folder / f"{case}.npz", probabilities=probabilities)
                (folder / f"{case}.pkl").write_bytes(pickle.dumps(Explosive()))
        return folder

    return write


class Explosive:
    """Unpickling it raises."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('unpickled')",))


def run(*arguments):
    words = ["pseudo-label", "-d", "101", "--as", "102", "--leave-out", "0", *map(str, arguments)]
    return main([*words, *([] if "-np" in words else ["-np", "1"])])


def made(nnunet_folders, name="Dataset102_Spine"):
    folder = nnunet_folders.raw / name
    return folder, json.loads((folder / "dataset.json").read_text())


def voxels(path):
    return np.asarray(nibabel.load(path).dataobj)


@pytest.mark.parametrize("soft", [True, False])
def test_predictions_become_labels_on_the_scans_own_grids(dataset, predict, nnunet_folders, soft, capsys):
    folders = [predict("one", soft=soft), predict("two", {"t2": anatomy(2)}, soft=soft)]
    source = {path: path.read_bytes() for path in dataset.rglob("*") if path.is_file()}
    assert run("--predictions", *folders, "--max-uncertainty", 0.3) == 0
    out = capsys.readouterr().out
    assert "Dataset102_Spine: 4 cases with pseudo-labels; left out: 0 as among the least certain, 0 for their" in out
    assert "nnUNetv2_plan_and_preprocess -d 102" in out
    folder, content = made(nnunet_folders)
    for case in TARGETS:
        label = nibabel.load(folder / "labelsTr" / f"{case}.nii.gz")
        np.testing.assert_allclose(label.affine, AFFINES[case])
        expected = anatomy()
        if case == "t2":
            # Half of the votes each: doubtful wherever the two differ, and nowhere else.
            expected[anatomy() != anatomy(2)] = 3
        np.testing.assert_array_equal(label.dataobj, expected)
        assert voxels(folder / "imagesTr" / f"{case}_0000.nii.gz").shape == SHAPE
    for case in ("a1", "a2", "a3"):
        for part in ("imagesTr", "labelsTr"):
            name = f"{case}_0000.nii.gz" if part == "imagesTr" else f"{case}.nii.gz"
            assert (folder / part / name).read_bytes() == (dataset / part / name).read_bytes()
    assert content["domains"]["siemens"] == {"labels": list(LABELS), "labelled": list(TARGETS), "unlabelled": []}
    assert content["pseudo_labels"] == dict.fromkeys(TARGETS, 1.0)
    assert content["licence"] == "none"
    assert content["name"] == "Dataset102_Spine"
    assert {path: path.read_bytes() for path in dataset.rglob("*") if path.is_file()} == source
    assert not list(nnunet_folders.raw.glob(".*"))

    record = json.loads((folder / "pseudo_labels.json").read_text())
    assert [member["name"] for member in record["members"]] == ["one", "two"]
    assert record["members"][0]["predictions"] == ("probabilities" if soft else "label maps")
    assert record["cases"]["t1"]["uncertainty"] == 0 < record["cases"]["t2"]["uncertainty"] < 1
    assert record["cases"]["t2"]["ignored"] == pytest.approx(np.mean(anatomy() != anatomy(2)))
    assert record["cases"]["t1"]["volumes_mm3"] == {"disc": 180.0, "vertebra": 30.0}
    assert str(nnunet_folders.raw.parent) not in json.dumps(record)


def test_folds_keep_true_cases_and_never_part_a_subject(dataset, predict, nnunet_folders):
    folder = predict("one")
    before = json.loads((nnunet_folders.preprocessed / dataset.name / "splits_final.json").read_text())
    assert run("--predictions", folder) == 0
    domains = read_domains(made(nnunet_folders)[1])
    splits = json.loads((nnunet_folders.preprocessed / "Dataset102_Spine" / "splits_final.json").read_text())
    assert sorted(case for split in splits for case in split["val"]) == sorted(domains.labelled_cases)
    for earlier, split in zip(before, splits, strict=True):
        assert set(earlier["val"]) <= set(split["val"])
        sides = [{domains.subject_of(case) for case in split[side]} for side in ("train", "val")]
        assert not sides[0] & sides[1]

    assert run("--predictions", folder, "--as", 103, "--cross-validate", "true") == 0
    splits = json.loads((nnunet_folders.preprocessed / "Dataset103_Spine" / "splits_final.json").read_text())
    assert [split["val"] for split in splits] == [earlier["val"] for earlier in before]
    assert all(set(TARGETS) < set(split["train"]) for split in splits)


def test_cases_are_left_out_by_volume_then_by_uncertainty(dataset, predict, nnunet_folders, capsys):
    tiny = np.zeros(SHAPE, np.uint8)
    tiny[2, 2, 2] = 1
    folders = [predict("one", {"t1": tiny}), predict("two", {"t1": tiny, "t3": anatomy(2)})]
    assert run("--predictions", *folders, "--leave-out", 0.5, "--case-weight", "confidence") == 0
    assert "left out: 1 as among the least certain, 1 for their volumes" in capsys.readouterr().out
    folder, content = made(nnunet_folders)
    assert content["domains"]["siemens"]["unlabelled"] == ["t1", "t3"]
    assert content["pseudo_labels"] == {"t2": 1.0, "t4": 1.0}
    assert np.all(voxels(folder / "labelsTr" / "t1.nii.gz") == 3)
    record = json.loads((folder / "pseudo_labels.json").read_text())
    assert record["cases"]["t1"]["left_out"] == "volume of disc: 3 mm³, not within 90 to 270"
    assert record["cases"]["t3"]["left_out"] == "among the least certain"
    assert record["cases"]["t2"]["left_out"] is None

    # Given ranges replace those of the true labels; confidence is 1 - the disagreement.
    options = ("--no-volume-rule", "--volume-range", "disc=0:1000", "--case-weight", "confidence")
    assert run("--predictions", *folders, *options, "--as", 103) == 0
    _, content = made(nnunet_folders, "Dataset103_Spine")
    # Of 5 layers each, 3 are marked by both: Dice 6 / 10.
    assert content["pseudo_labels"]["t3"] == pytest.approx(0.6)
    assert content["pseudo_labels"]["t1"] == 1.0


def test_islands_go(dataset, predict, nnunet_folders):
    with_island = anatomy()
    with_island[7, 8, 9] = 1
    with_island[7, 0, 0] = 2
    folder = predict("one", {"t1": with_island})
    assert run("--predictions", folder, "--largest-component", "disc") == 0
    expected = anatomy()
    expected[7, 0, 0] = 2
    np.testing.assert_array_equal(voxels(made(nnunet_folders)[0] / "labelsTr" / "t1.nii.gz"), expected)


def test_a_further_round_replaces_pseudo_labels_and_nothing_else(dataset, predict, nnunet_folders, capsys):
    # Which scan the two differ in changes from round to round.
    first = [predict("one"), predict("two", {"t1": anatomy(2)})]
    assert run("--predictions", *first, "--leave-out", 0.25) == 0
    _, content = made(nnunet_folders)
    assert content["domains"]["siemens"]["unlabelled"] == ["t1"]
    second = [predict("three", {"t2": anatomy(1)}), predict("four", {"t2": anatomy(3)})]
    words = ("-d", "102", "--as", "103", "--predictions", *second, "--leave-out", 0.25)
    assert main(["pseudo-label", *map(str, words), "-np", "1"]) == 0
    folder, content = made(nnunet_folders, "Dataset103_Spine")
    assert sorted(content["domains"]["siemens"]["labelled"]) == ["t1", "t3", "t4"]
    assert content["domains"]["siemens"]["unlabelled"] == ["t2"]
    assert set(content["pseudo_labels"]) == {"t1", "t3", "t4"}
    np.testing.assert_array_equal(voxels(folder / "labelsTr" / "t1.nii.gz"), anatomy())
    assert (folder / "labelsTr/a1.nii.gz").read_bytes() == (dataset / "labelsTr/a1.nii.gz").read_bytes()
    assert json.loads((folder / "pseudo_labels.json").read_text())["round"] == 2


def test_one_folder(dataset, predict, nnunet_folders, capsys):
    # Of one network, confidence is what it says itself.
    folder = predict("soft", sureness=0.9)
    assert run("--predictions", folder, "--leave-out", 0.25, "--case-weight", "confidence") == 0
    _, content = made(nnunet_folders)
    n_voxels, n_marked = np.prod(SHAPE), np.count_nonzero(anatomy())
    foreground = n_marked * 0.95 + (n_voxels - n_marked) * 0.1
    expected = 1 - 0.1 * n_voxels / foreground
    assert list(content["pseudo_labels"].values()) == pytest.approx([expected] * 3, abs=1e-4)
    assert run("--predictions", predict("hard", soft=False), "--leave-out", 0.25, "--as", 103) == 0
    assert "one folder of label maps says nothing of uncertainty, so no case is left out" in capsys.readouterr().out
    assert len(made(nnunet_folders, "Dataset103_Spine")[1]["pseudo_labels"]) == 4


def test_an_interrupted_run_goes_on_and_leaves_nothing_half_done(dataset, predict, nnunet_folders, monkeypatch):
    from nnunet_da.self_training.members import Member

    folders = [predict("one"), predict("two")]
    read, count = Member.read, {}

    def counting(member, case, *arguments):
        count[case] = count.get(case, 0) + 1
        if case == "t3" and "stop" in count:
            raise KeyboardInterrupt
        return read(member, case, *arguments)

    monkeypatch.setattr(Member, "read", counting)
    count["stop"] = 0
    assert run("--predictions", *folders) == 130
    assert not (nnunet_folders.raw / "Dataset102_Spine").exists()
    assert not (nnunet_folders.preprocessed / "Dataset102_Spine").exists()
    del count["stop"]
    assert run("--predictions", *folders) == 0
    assert count == {"t1": 2, "t2": 2, "t3": 3, "t4": 2}
    assert not list(nnunet_folders.raw.glob(".*"))
    assert run("--predictions", *folders) == 1
    assert run("--predictions", *folders, "--overwrite") == 0
    # Other predictions are read anew.
    assert count["t1"] == 4


def _npz(path, **arrays):
    np.savez_compressed(path, **arrays)


def _cut_short(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _other_grid(path):
    nibabel.save(nibabel.Nifti1Image(anatomy(), AFFINES["t2"]), path)


def _other_labels(path):
    content = json.loads(path.read_text())
    content["labels"] = {"background": 0, "vertebra": 1, "disc": 2, "ignore": 3}
    path.write_text(json.dumps(content))


def _flipped(path):
    _npz(path, probabilities=np.load(path)["probabilities"][:, ::-1])


def _pickled(path):
    with zipfile.ZipFile(path, "w") as archive, archive.open("probabilities.npy", "w") as file:
        np.lib.format.write_array(file, np.array([Explosive()], object), allow_pickle=True)


BROKEN_FILES = {
    "missing label": ("t1.nii.gz", lambda path: path.unlink(), "t1.nii.gz: no such file, but every folder must have"),
    "missing npz": ("t1.npz", lambda path: path.unlink(), "t1.npz: no such file; predict with --save_probabilities"),
    "npz cut short": ("t1.npz", _cut_short, "t1.npz: not a readable npz file, perhaps cut short"),
    "npz of something else": (
        "t1.npz",
        lambda path: _npz(path, softmax=np.ones(3)),
        "t1.npz: holds no 'probabilities'",
    ),
    "npz with objects": ("t1.npz", _pickled, "t1.npz: not a readable npz file, perhaps cut short (Object arrays"),
    "no probabilities": ("t1.npz", lambda path: _npz(path, probabilities=np.full((3, 8, 10, 9), 7.0)), "t1.npz: "),
    "integers": (
        "t1.npz",
        lambda path: _npz(path, probabilities=np.ones((3, 8, 10, 9), int)),
        "not values of the type",
    ),
    "classes": ("t3.npz", lambda path: _npz(path, probabilities=np.ones((2, 10, 9, 8))), "t3.npz: has the shape (2, 8"),
    "flipped": ("t3.npz", _flipped, "t3.npz: contradicts the label map t3.nii.gz beside it"),
    "label cut short": ("t1.nii.gz", _cut_short, "t1.nii.gz: not a readable NIfTI file, perhaps cut short"),
    "grid": ("t1.nii.gz", _other_grid, "t1.nii.gz: does not lie on the grid of the scan of case 't1'"),
    "labels": ("dataset.json", _other_labels, "are not those of the dataset"),
    "reader": (
        "plans.json",
        lambda path: path.write_text('{"image_reader_writer": "Tiff3DIO"}'),
        "predicted with the reader Tiff3DIO",
    ),
}


@pytest.mark.parametrize("wrong", BROKEN_FILES)
def test_predictions_that_are_refused(dataset, predict, nnunet_folders, capsys, wrong):
    folders = [predict("one"), predict("two")]
    name, break_it, message = BROKEN_FILES[wrong]
    break_it(folders[1] / name)
    before = nnunet_folders.snapshot()
    assert run("--predictions", *folders) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    after = nnunet_folders.snapshot()
    assert {path for path in after if ".unfinished" not in path} == set(before)


REFUSED = {
    "value": (
        ("--predictions", "BAD"),
        "hard/t1.nii.gz: holds the value 9, which is no label of the dataset (0, 1, 2)",
    ),
    "folder": (("--predictions", "nowhere"), "nowhere: no such folder"),
    "twice": (("--predictions", "ONE", "ONE"), "--predictions: a folder is given twice"),
    "one name twice": (("--predictions", "a=ONE", "a=TWO"), "the name 'a' is given twice"),
    "itself": (("--as", 101, "--predictions", "ONE"), "--as 101: is the dataset itself"),
    "domain": (("--domain", "siemans", "--predictions", "ONE"), "no domain 'siemans'; did you mean 'siemens'?"),
    "labelled": (("--domain", "philips", "--predictions", "ONE"), "every case of 'philips' has a true label"),
    "share": (("--leave-out", 1, "--predictions", "ONE"), "--leave-out 1.0: must be a share from 0 to below 1"),
    "threshold": (("--max-uncertainty", 0, "--predictions", "ONE"), "--max-uncertainty 0.0: must be above 0"),
    "margin": (("--volume-margin", -1, "--predictions", "ONE"), "--volume-margin -1.0: must be 0 or more"),
    "range": (("--predictions", "ONE", "--volume-range", "disc=5"), "--volume-range disc=5: must be STRUCTURE=MIN:MAX"),
    "order": (("--predictions", "ONE", "--volume-range", "disc=5:1"), "must be two volumes, the smaller first"),
    "structure": (("--predictions", "ONE", "--largest-component", "dics"), "no structure 'dics'; did you mean 'disc'?"),
    "information": (("--predictions", "ONE", "--voxel-uncertainty", "mutual_information"), "disagree with itself"),
    "hard alone": (
        ("--predictions", "HARD", "--case-weight", "confidence"),
        "says nothing of uncertainty; predict with",
    ),
    "hard voxels": (
        ("--predictions", "HARD", "--case-uncertainty", "voxels"),
        "says nothing of uncertainty; predict with",
    ),
    "nothing left": (
        ("--predictions", "ONE", "--volume-range", "disc=1:2"),
        "no pseudo-label is left: of 4 cases each",
    ),
}


@pytest.mark.parametrize("wrong", REFUSED)
def test_what_is_refused(dataset, predict, nnunet_folders, capsys, wrong):
    words, message = REFUSED[wrong]
    bad = anatomy()
    bad[0, 0, 0] = 9
    folders = {"ONE": predict("one"), "TWO": predict("two"), "HARD": predict("hard", {"t1": bad}, soft=False)}
    folders["BAD"] = folders["HARD"]
    words = [str(word) for word in words]
    for key, folder in folders.items():
        words = [str(folder) if word == key else word.replace(f"={key}", f"={folder}") for word in words]
    assert run(*words) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (nnunet_folders.raw / "Dataset102_Spine").exists()


def test_a_structure_that_the_domain_lacks_is_refused(dataset, predict, nnunet_folders, capsys):
    content = json.loads((dataset / "dataset.json").read_text())
    content["domains"]["siemens"]["labels"] = ["disc"]
    (dataset / "dataset.json").write_text(json.dumps(content))
    assert run("--predictions", predict("one")) == 1
    assert (
        "case 't1': the value 2 is predicted, which is no label of its domain 'siemens' (disc)"
        in capsys.readouterr().err
    )


def test_regions(nnunet_folders, tmp_path, write_scan):
    cases = [Case("a1", "philips", None, (write_scan(tmp_path / "a1.nii.gz", shape=SHAPE),), None)]
    cases[0] = dataclasses.replace(cases[0], label=write_scan(tmp_path / "a1_label.nii.gz", anatomy()))
    cases.append(Case("t2", "siemens", None, (write_scan(tmp_path / "t2.nii.gz", shape=SHAPE),), None))
    regions = {"whole": [1, 2], "core": [2]}
    conversion = Conversion(cases, ["T2"], regions, regions_class_order=[1, 2])
    write_dataset(conversion, 101, "Spine", n_processes=1)
    folder = tmp_path / "predicted"
    folder.mkdir()
    affine = np.diag([2.0, 1.5, 1.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(anatomy(), affine), folder / "t2.nii.gz")
    # Sigmoids, as nnU-Net's reader lays them out: the core is less certain than the whole.
    whole, core = (np.where(marked, sure, 1 - sure) for marked, sure in ((anatomy() > 0, 0.9), (anatomy() == 2, 0.7)))
    np.savez(folder / "t2.npz", probabilities=np.stack([whole, core]).transpose(0, 3, 2, 1))
    assert run("--predictions", folder, "--max-uncertainty", 0.35) == 0
    made_folder, content = made(nnunet_folders)
    np.testing.assert_array_equal(voxels(made_folder / "labelsTr" / "t2.nii.gz"), anatomy())
    assert content["labels"] == {"background": 0, **regions, "ignore": 3}
    assert content["regions_class_order"] == [1, 2]
    assert run("--predictions", folder, "--max-uncertainty", 0.25, "--as", 103) == 0
    masked = voxels(made(nnunet_folders, "Dataset103_Spine")[0] / "labelsTr" / "t2.nii.gz")
    assert np.all(masked == 3)
    assert run("--predictions", folder, "--largest-component", "core", "--as", 104) == 1


def test_folders_of_one_name_are_told_apart(dataset, predict, nnunet_folders):
    folders = [predict("2d/0"), predict("3d/0"), predict("named")]
    assert run("--predictions", *folders[:2], f"by hand={folders[2]}") == 0
    record = json.loads((made(nnunet_folders)[0] / "pseudo_labels.json").read_text())
    assert [member["name"] for member in record["members"]] == ["2d/0", "3d/0", "by hand"]


def choose(folders, *arguments):
    words = [f"{name}={folder}" for name, folder in folders.items()]
    return main(["choose-folds", "-d", "101", "-np", "1", "--predictions", *words, *map(str, arguments)])


def test_folds_are_ranked_without_labels(dataset, predict, tmp_path, capsys):
    folders = {
        "2d/0": predict("a", {case: anatomy(3) for case in TARGETS}),
        "2d/1": predict("b", sureness=0.95),
        "3d/0": predict("c"),
        "3d/1": predict("d", {"t1": np.zeros(SHAPE, np.uint8)}),
    }
    assert choose(folders, "--pick", "2d=1", "3d=1", "-o", tmp_path / "choice.json") == 0
    out = capsys.readouterr().out
    assert "2d: folds 1\n3d: folds 0\n" in out
    assert "note:" not in out
    content = json.loads((tmp_path / "choice.json").read_text())
    assert content["chosen"] == {"2d": ["1"], "3d": ["0"]}
    assert content["by"] == "agreement"
    ranking = [(entry["configuration"], entry["fold"], entry["agreement"]) for entry in content["ranking"]]
    assert [entry[:2] for entry in ranking] == [("2d", "1"), ("3d", "0"), ("3d", "1"), ("2d", "0")]
    # The decision of all is that of the majority; 2 of 5 layers of both structures lie within it.
    assert [entry[2] for entry in ranking] == pytest.approx([1, 1, 0.75, 0.4])
    plausible = {entry["fold"]: entry["plausibility"] for entry in content["ranking"] if entry["configuration"] == "3d"}
    assert plausible == {"0": 1.0, "1": 0.75}
    assert choose(folders, "--by", "confidence", "--pick", "3d=1", "-o", tmp_path / "sure.json") == 0
    ranking = json.loads((tmp_path / "sure.json").read_text())["ranking"]
    assert (ranking[0]["configuration"], ranking[0]["fold"]) == ("2d", "1")


def test_folds_are_ranked_with_labels(dataset, predict, tmp_path, write_scan, capsys):
    folders = {"2d/0": predict("a", {"t1": anatomy(1)}, soft=False), "2d/1": predict("b", soft=False)}
    (folders["2d/1"] / "t2.nii.gz").unlink()
    for case in ("t1", "t2"):
        label = anatomy()
        label[:, :, 6] = 3  # not annotated: what a shifted prediction has there does not count
        write_scan(tmp_path / f"labels/{case}.nii.gz", label, AFFINES[case])
    assert choose(folders, "--labels", tmp_path / "labels", "--pick", "2d=1", "-o", tmp_path / "choice.json") == 0
    assert "scored on different numbers of cases" in capsys.readouterr().out
    content = json.loads((tmp_path / "choice.json").read_text())
    assert content["chosen"] == {"2d": ["1"]}
    # t1: 4 layers of 5, and of those predicted the fifth lies where nothing is known.
    assert [entry["dice"] for entry in content["ranking"]] == pytest.approx([1, (8 / 9 + 1) / 2])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--pick", "3d=1"), "--pick: no model of configuration '3d'; did you mean '2d'?"),
        (("--pick", "2d=3"), "--pick 2d=3: there are 2 models to choose from"),
        (("--pick", "2d"), "--pick 2d: must be CONFIGURATION=N"),
        (("--by", "confidence"), "--by confidence: needs probabilities"),
        (("--labels", "nowhere"), "nowhere: has no label map (.nii.gz) of a case predicted in"),
    ],
)
def test_choices_that_are_refused(dataset, predict, capsys, words, message):
    assert choose({"2d/0": predict("a", soft=False), "2d/1": predict("b", soft=False)}, *words) == 1
    assert message in capsys.readouterr().err


def test_models_to_choose_from(dataset, predict, capsys):
    folder = predict("a", soft=False)
    assert choose({"2d": folder}) == 1
    assert "must be CONFIGURATION/FOLD=DIR, such as 2d/0=" in capsys.readouterr().err
    assert choose({"2d/0": folder}) == 1
    assert "to be ranked without labels takes two models" in capsys.readouterr().err
    other = predict("b", soft=False)
    (other / "t1.nii.gz").unlink()
    assert choose({"2d/0": folder, "2d/1": other}) == 1
    assert "case 't1' is predicted here or in" in capsys.readouterr().err


def test_in_reverse_the_pseudo_labels_are_the_only_ones(dataset, predict, nnunet_folders):
    one = predict("one")
    assert run("--predictions", one, predict("two"), "--reverse") == 0
    folder, content = made(nnunet_folders)
    # nnU-Net asks for a label map of every case.
    assert all(
        (voxels(folder / "labelsTr" / f"{case}.nii.gz") == content["labels"]["ignore"]).all()
        for case in ("a1", "a2", "a3")
    )
    assert np.array_equal(voxels(folder / "labelsTr" / "t2.nii.gz"), anatomy())
    domains = read_domains(content)
    assert domains.labelled_cases == TARGETS
    assert set(domains.cases) == {"a1", "a2", "a3", *TARGETS}
    splits = json.loads((nnunet_folders.preprocessed / "Dataset102_Spine" / "splits_final.json").read_text())
    # The scans are of two subjects.
    assert [sorted(split["val"]) for split in splits] in ([["t1", "t2"], ["t3", "t4"]], [["t3", "t4"], ["t1", "t2"]])
    assert all(set(split["train"]) | set(split["val"]) == set(TARGETS) for split in splits)
    assert json.loads((folder / "pseudo_labels.json").read_text())["reverse"] is True
