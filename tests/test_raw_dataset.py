import json
import os
import shutil
from dataclasses import replace

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from nnunet_da import raw_cases, raw_dataset
from nnunet_da.errors import UserError
from nnunet_da.raw_dataset import Case, Conversion, add_domain, next_steps, read_case_list, write_dataset

AXES = {"a1": "RAS", "a2": "LPS", "b1": "IPR", "b2": "ASL"}


@pytest.fixture
def scans_of(tmp_path, write_scan, box_label):
    """``scans_of("a1", …)``: cases in different orientations; ids that begin with u are unlabelled, domain = letter."""

    def make(*ids, domain=None, channels=1, ending=".nii.gz", subject=None):
        cases = []
        for id in ids:
            affine = affine_of(AXES.get(id, "RAS"))
            images = tuple(
                write_scan(tmp_path / "scans" / f"{id}_{channel}{ending}", affine=affine) for channel in range(channels)
            )
            label = None
            if not id.startswith("u"):
                label = write_scan(tmp_path / "labels" / f"{id}{ending}", box_label(), affine)
            cases.append(Case(id, domain or id[0], subject, images, label))
        return cases

    return make


def affine_of(codes):
    """2 × 1.5 × 1 mm in the orientation `codes`, off the origin."""
    affine = np.eye(4)
    for column, (code, size) in enumerate(zip(codes, (2.0, 1.5, 1.0), strict=True)):
        row = next(i for i, pair in enumerate(("RL", "AP", "SI")) if code in pair)
        affine[row, row] = 0
        affine[row, column] = size if code in "RAS" else -size
    affine[:3, 3] = (-30, 10, 5)
    return affine


def write(cases, **changes):
    """Writes Dataset007_Spine; `changes` are fields of the Conversion, or arguments of `write_dataset`."""
    fields = {"channel_names": ["T2"], "labels": {"disc": 1}}
    fields |= {name: changes.pop(name) for name in list(changes) if name in Conversion.__dataclass_fields__}
    return write_dataset(Conversion(cases, **fields), 7, "Spine", **{"n_processes": 1} | changes)


def read(folder):
    return json.loads((folder / "dataset.json").read_text())


def voxels_of(path):
    return np.asarray(nibabel.load(path).dataobj)


def test_dataset_json_says_what_nnunet_and_the_trainers_need(nnunet_folders, scans_of):
    folder = write(scans_of("a1", "a2", "b1", "u1"), extra={"licence": "CC0"})
    assert folder == nnunet_folders.raw / "Dataset007_Spine"
    content = read(folder)
    assert content == {
        "channel_names": {"0": "T2"},
        "labels": {"background": 0, "disc": 1, "ignore": 2},
        "numTraining": 4,
        "file_ending": ".nii.gz",
        "overwrite_image_reader_writer": "NibabelIOWithReorient",
        "name": "Dataset007_Spine",
        "licence": "CC0",
        "domains": {
            "a": {"labels": ["disc"], "labelled": ["a1", "a2"], "unlabelled": []},
            "b": {"labels": ["disc"], "labelled": ["b1"], "unlabelled": []},
            "u": {"labels": ["disc"], "labelled": [], "unlabelled": ["u1"]},
        },
        "subjects": {},
    }
    assert list(content["domains"]) == ["a", "b", "u"]
    splits = json.loads((nnunet_folders.preprocessed / "Dataset007_Spine" / "splits_final.json").read_text())
    assert sorted(case for split in splits for case in split["val"]) == ["a1", "a2", "b1"]


def test_bytes_are_copied_where_nothing_changes_and_unlabelled_is_ignore_everywhere(nnunet_folders, scans_of):
    cases = scans_of("a1", "u1")
    folder = write(cases)
    assert (folder / "imagesTr/a1_0000.nii.gz").read_bytes() == cases[0].images[0].read_bytes()
    assert (folder / "labelsTr/a1.nii.gz").read_bytes() == cases[0].label.read_bytes()
    unlabelled = nibabel.load(folder / "labelsTr/u1.nii.gz")
    assert unlabelled.get_data_dtype() == np.uint8
    assert np.unique(unlabelled.dataobj).tolist() == [2]
    np.testing.assert_array_equal(unlabelled.affine, nibabel.load(cases[1].images[0]).affine)


def test_links_share_the_file(nnunet_folders, scans_of):
    cases = scans_of("a1")
    folder = write(cases, link=True)
    assert os.path.samefile(folder / "imagesTr/a1_0000.nii.gz", cases[0].images[0])
    assert os.path.samefile(folder / "labelsTr/a1.nii.gz", cases[0].label)


def test_a_link_that_the_disk_refuses_is_a_copy(nnunet_folders, scans_of, monkeypatch):
    def refuse(*_):
        raise OSError("Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    cases = scans_of("a1")
    folder = write(cases, link=True)
    assert (folder / "imagesTr/a1_0000.nii.gz").read_bytes() == cases[0].images[0].read_bytes()


def test_nnunet_accepts_scans_of_all_orientations_and_formats(nnunet_folders, scans_of, tmp_path, verify_dataset):
    cases = scans_of("a1", "b1", "u1", channels=2) + scans_of("a2", "b2", channels=2, ending=".nii")
    image = sitk.GetImageFromArray(np.random.default_rng(5).normal(size=(9, 8, 7)).astype(np.float32))
    image.SetSpacing((1.1, 2.2, 3.3))
    image.SetDirection((0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0))
    paths = tmp_path / "m_0.mha", tmp_path / "m_1.nrrd"
    sitk.WriteImage(image, str(paths[0]))
    sitk.WriteImage(image * 2, str(paths[1]))
    folder = write([*cases, Case("m1", "m", None, paths, None)], channel_names=["in", "opp"])

    out = verify_dataset(folder)
    assert "verify_dataset_integrity Done" in out
    assert "mismatch" not in out
    assert "WARNING" not in out


def test_a_prediction_comes_back_on_the_scans_own_grid(nnunet_folders, scans_of, tmp_path):
    """nnU-Net reads images and labels of all orientations alike, and writes what it read back as it was."""
    from nnunetv2.imageio.nibabel_reader_writer import NibabelIOWithReorient

    cases = scans_of(*AXES)
    folder = write(cases)
    reader = NibabelIOWithReorient()
    for case in cases:
        image, properties = reader.read_images([str(folder / f"imagesTr/{case.id}_0000.nii.gz")])
        label, label_properties = reader.read_seg(str(folder / f"labelsTr/{case.id}.nii.gz"))
        assert image.shape == label.shape
        assert properties["spacing"] == pytest.approx(label_properties["spacing"])
        reoriented = properties["nibabel_stuff"]["reoriented_affine"]
        assert nibabel.aff2axcodes(reoriented) == ("R", "A", "S")
        # The voxels that the label marks hold the same intensities as before.
        original = voxels_of(case.images[0])[voxels_of(case.label) == 1]
        assert sorted(image[label == 1]) == sorted(original)
        reader.write_seg(label[0], str(tmp_path / "prediction.nii.gz"), properties)
        np.testing.assert_array_equal(voxels_of(tmp_path / "prediction.nii.gz"), voxels_of(case.label))
        np.testing.assert_allclose(
            nibabel.load(tmp_path / "prediction.nii.gz").affine, nibabel.load(case.images[0]).affine
        )


def test_a_label_on_another_grid_is_resampled_and_said_so(nnunet_folders, scans_of, write_scan, box_label, capsys):
    (case,) = scans_of("a1")
    flip = np.diag([-1.0, 1, 1, 1])
    flip[0, 3] = 7  # voxel i becomes voxel 7 - i
    affine = nibabel.load(case.images[0]).affine
    write_scan(case.label, box_label()[::-1], affine @ flip)
    folder = write([case])
    np.testing.assert_array_equal(voxels_of(folder / "labelsTr/a1.nii.gz"), box_label())
    out = capsys.readouterr().out.splitlines()
    assert (
        sum(str(case.label) in line and "resampled (0.108 ml labelled before, 0.108 ml after)" in line for line in out)
        == 1
    )


def test_a_label_with_a_rounded_header_takes_the_images(nnunet_folders, scans_of, write_scan, box_label, capsys):
    (case,) = scans_of("a1")
    affine = nibabel.load(case.images[0]).affine.copy()
    affine[0, 3] += 0.04
    affine[0, 0] *= 1.0005
    write_scan(case.label, box_label(), affine)
    folder = write([case])
    label = nibabel.load(folder / "labelsTr/a1.nii.gz")
    np.testing.assert_array_equal(np.asarray(label.dataobj), box_label())
    np.testing.assert_array_equal(label.affine, nibabel.load(case.images[0]).affine)
    assert "resampled" not in capsys.readouterr().out


@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.float64])
def test_label_values_are_mapped_and_stored_in_8_bits(nnunet_folders, scans_of, write_scan, box_label, dtype):
    (case,) = scans_of("a1")
    label = box_label(201, dtype=dtype) + np.roll(box_label(100, dtype=dtype), 3, axis=0)
    write_scan(case.label, label, nibabel.load(case.images[0]).affine)
    case = Case(case.id, case.domain, None, case.images, case.label, {201: 1, 100: 2})
    folder = write([case], labels={"disc": 1})  # 2 is ignore: a part that nobody annotated
    written = nibabel.load(folder / "labelsTr/a1.nii.gz")
    assert written.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(written.dataobj), (label == 201) + 2 * (label == 100))


def test_an_empty_label_map_is_allowed_and_mentioned(nnunet_folders, scans_of, write_scan, box_label, capsys):
    (case,) = scans_of("a1")
    write_scan(case.label, box_label(0), nibabel.load(case.images[0]).affine)
    write([case])
    assert "the label map is empty" in capsys.readouterr().out


def test_a_header_without_orientation_is_mentioned(nnunet_folders, tmp_path, capsys):
    image = nibabel.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), None)
    nibabel.save(image, tmp_path / "scan.nii.gz")
    write([Case("u1", "u", None, (tmp_path / "scan.nii.gz",), None)])
    assert "nnU-Net takes it for LAS" in capsys.readouterr().out


def test_channels_that_differ_by_rounding_get_one_grid(nnunet_folders, scans_of, write_scan):
    (case,) = scans_of("u1", channels=2)
    affine = nibabel.load(case.images[0]).affine.copy()
    affine[1, 3] += 0.05
    voxels = voxels_of(case.images[1])
    write_scan(case.images[1], voxels, affine)
    folder = write([case], channel_names=["in", "opp"])
    second = nibabel.load(folder / "imagesTr/u1_0001.nii.gz")
    np.testing.assert_array_equal(second.affine, nibabel.load(case.images[0]).affine)
    np.testing.assert_array_equal(np.asarray(second.dataobj), voxels)


def test_domains_may_have_labels_of_their_own(nnunet_folders, scans_of):
    labels = {"disc": 1, "vertebra": 2}
    folder = write(scans_of("a1", "b1"), labels=labels, domain_labels={"a": ["disc"]})
    assert read(folder)["domains"]["a"]["labels"] == ["disc"]
    assert read(folder)["domains"]["b"]["labels"] == ["disc", "vertebra"]
    with pytest.raises(
        UserError, match=r"a1\.nii\.gz: holds the value 1, which is no label of domain 'a' \(2 vertebra\)"
    ):
        write(scans_of("a1"), labels=labels, domain_labels={"a": ["vertebra"]}, overwrite=True)


def test_regions_are_written_for_nnunet(nnunet_folders, scans_of):
    labels = {"whole": (1, 2), "core": 2}
    with pytest.raises(UserError, match="regions_class_order"):
        write(scans_of("a1"), labels=labels)
    folder = write(scans_of("a1", "u1"), labels=labels, regions_class_order=(1, 2))
    content = read(folder)
    assert content["labels"] == {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    manager = LabelManager(content["labels"], content["regions_class_order"])
    assert manager.has_regions
    assert manager.ignore_label == 3


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"disc": 2}, "without gaps"),
        ({"disc": 1, "vertebra": 1}, "two labels have the value 1"),
        ({"disc": "1"}, "label 'disc' must be an integer"),
        ({}, "name no structure"),
        ({"background": 1, "disc": 2}, "'background' must have the value 0"),
        ({"disc": 1, "ignore": 2}, "added by itself"),
        ({f"s{value}": value for value in range(1, 256)}, "do not fit into 8 bits"),
    ],
)
def test_labels_that_nnunet_cannot_use_are_refused(nnunet_folders, scans_of, labels, message):
    before = nnunet_folders.snapshot()
    with pytest.raises(UserError, match=message):
        write(scans_of("a1"), labels=labels)
    assert nnunet_folders.snapshot() == before


def test_worker_processes_give_the_same_dataset(nnunet_folders, scans_of):
    cases = scans_of("a1", "a2", "b1", "u1", "u2", ending=".nii")
    write(cases)
    serial = nnunet_folders.snapshot()
    write(cases, overwrite=True, n_processes=2)
    assert nnunet_folders.snapshot() == serial


def test_worker_processes_report_the_first_error_and_how_many_more(nnunet_folders, scans_of):
    cases = scans_of("a1", "a2", "b1")
    cases[1].images[0].write_bytes(b"no scan")
    cases[2].label.unlink()
    messages = []
    for n_processes in (1, 2):
        with pytest.raises(UserError) as raised:
            write(cases, n_processes=n_processes)
        messages.append(str(raised.value))
    assert messages[0] == messages[1]
    assert messages[0].startswith(str(cases[1].images[0]))
    assert "and 1 more" in messages[0]


def fail_at(monkeypatch, n):
    """Lets the writing of the `n`-th case fail as a full disk does."""
    written = []
    write_case = raw_cases.write_case

    def fail(task):
        written.append(task)
        if len(written) == n:
            raise OSError(28, "No space left on device")
        write_case(task)

    monkeypatch.setattr(raw_cases, "write_case", fail)


def test_a_write_that_fails_leaves_nothing(nnunet_folders, scans_of, monkeypatch):
    before = nnunet_folders.snapshot()
    fail_at(monkeypatch, 2)
    with pytest.raises(UserError, match=r"cannot be written \(No space"):
        write(scans_of("a1", "a2"))
    assert nnunet_folders.snapshot() == before


def test_a_write_that_fails_leaves_the_old_dataset(nnunet_folders, scans_of, monkeypatch):
    write(scans_of("a1"))
    before = nnunet_folders.snapshot()
    fail_at(monkeypatch, 2)
    with pytest.raises(UserError, match=r"cannot be written \(No space"):
        write(scans_of("a2", "b1", "u1"), overwrite=True)
    assert nnunet_folders.snapshot() == before
    fail_at(monkeypatch, 1)
    with pytest.raises(UserError, match=r"cannot be written \(No space"):
        add_domain(7, scans_of("b1", "u1"), n_processes=1)
    assert nnunet_folders.snapshot() == before


@pytest.mark.parametrize("plain", [False, True])
def test_moving_in_that_fails_is_undone(nnunet_folders, scans_of, monkeypatch, plain):
    folder = write(scans_of("a1", "a2"))
    if plain:
        make_plain(folder)
    before = nnunet_folders.snapshot()
    write_json = raw_dataset.write_json

    def fail(content, path):
        if path.name == "dataset.json" and "b" in content["domains"]:
            raise OSError(28, "No space left on device")
        write_json(content, path)

    monkeypatch.setattr(raw_dataset, "write_json", fail)
    with pytest.raises(UserError, match=r"cannot be written \(No space"):
        add_domain(7, scans_of("b1", "u1", domain="b"), n_processes=1)
    assert nnunet_folders.snapshot() == before


def test_a_killed_run_can_be_repeated(nnunet_folders, scans_of):
    """As after SIGKILL: files moved in and staged, dataset.json without them."""
    folder = write(scans_of("a1"))
    json_before = (folder / "dataset.json").read_bytes()
    cases = scans_of("b1", "u1", domain="b")
    add_domain(7, cases, n_processes=1)
    complete = nnunet_folders.snapshot()
    (folder / "dataset.json").write_bytes(json_before)
    (folder / "imagesTr/u1_0000.nii.gz").unlink()
    (folder / ".adding.old").mkdir()
    assert add_domain(7, cases, n_processes=1) == ("b1", "u1")
    assert nnunet_folders.snapshot() == complete


def test_an_image_that_no_domain_knows_is_refused(nnunet_folders, scans_of):
    folder = write(scans_of("a1"))
    shutil.copy(folder / "imagesTr/a1_0000.nii.gz", folder / "imagesTr/stray_0000.nii.gz")
    with pytest.raises(UserError, match=r"stray_0000\.nii\.gz: belongs to no domain"):
        add_domain(7, scans_of("b1"), n_processes=1)


def make_plain(folder, **changes):
    """Turns a dataset into one as nnU-Net's own users have it."""
    content = read(folder)
    for key in ("domains", "subjects", "overwrite_image_reader_writer"):
        content.pop(key)
    content["labels"].pop("ignore")
    content |= changes
    (folder / "dataset.json").write_text(json.dumps(content))


def test_a_plain_dataset_gets_domains(nnunet_folders, scans_of, capsys):
    folder = write(scans_of("a1", "a2"))
    make_plain(folder, release="1.0")
    added = add_domain("Dataset007_Spine", scans_of("u1", "u2"), source_domain="philips", n_processes=1)
    assert added == ("u1", "u2")
    content = read(folder)
    assert content["labels"] == {"background": 0, "disc": 1, "ignore": 2}
    assert content["numTraining"] == 4
    assert content["release"] == "1.0"
    assert content["overwrite_image_reader_writer"] == "NibabelIOWithReorient"
    assert content["domains"] == {
        "philips": {"labels": ["disc"], "labelled": ["a1", "a2"], "unlabelled": []},
        "u": {"labels": ["disc"], "labelled": [], "unlabelled": ["u1", "u2"]},
    }
    assert np.unique(voxels_of(folder / "labelsTr/u1.nii.gz")).tolist() == [2]


def test_a_plain_dataset_of_uncompressed_files_keeps_its_ending(nnunet_folders, scans_of, verify_dataset):
    folder = write(scans_of("a1"))
    for path in [*folder.glob("*/*.nii.gz")]:
        nibabel.save(nibabel.load(path), path.with_suffix(""))
        path.unlink()
    make_plain(folder, file_ending=".nii")
    add_domain(7, scans_of("b1", "u1", domain="b"), n_processes=1)
    assert sorted(path.name for path in folder.glob("*/*")) == sorted(
        ["a1_0000.nii", "a1.nii", "b1_0000.nii", "b1.nii", "u1_0000.nii", "u1.nii"]
    )
    verify_dataset(folder)


def test_a_plain_dataset_with_regions_keeps_their_order(nnunet_folders, scans_of):
    folder = write(scans_of("a1"), labels={"whole": [1, 2], "core": 2}, regions_class_order=[1, 2])
    make_plain(folder)
    add_domain(7, scans_of("u1"), n_processes=1)
    assert read(folder)["labels"] == {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}
    assert read(folder)["regions_class_order"] == [1, 2]


def test_a_plain_dataset_whose_label_would_turn_otherwise_is_refused(nnunet_folders, scans_of, write_scan, box_label):
    folder = write(scans_of("a1"))
    make_plain(folder)
    write_scan(folder / "labelsTr/a1.nii.gz", box_label(), affine_of("LPS"))
    with pytest.raises(UserError, match=r"labelsTr/a1\.nii\.gz: does not lie on the grid of its image"):
        add_domain(7, scans_of("u1"), n_processes=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": {}}, "lists its files under 'dataset'"),
        ({"file_ending": ".png"}, "only .nii.gz and .nii"),
        ({"overwrite_image_reader_writer": "OwnReader"}, "reads its images with 'OwnReader'"),
        ({"labels": {"0": "background", "1": "disc"}}, "must map names to values"),
        ({"labels": {"background": 0, "disc": 1, "ignore": 5}}, "'ignore' is 5, but must follow"),
        ({"channel_names": {"0": "T1", "1": "T2"}}, "case 'a1' has 1 images, but the dataset 2 channels"),
    ],
)
def test_a_dataset_that_cannot_grow_is_named(nnunet_folders, scans_of, changes, message):
    make_plain(write(scans_of("a1")), **changes)
    before = nnunet_folders.snapshot()
    with pytest.raises(UserError) as raised:
        add_domain(7, scans_of("u1"), n_processes=1)
    assert message in str(raised.value)
    assert nnunet_folders.snapshot() == before


def test_adding_again_changes_nothing(nnunet_folders, scans_of):
    write(scans_of("a1", "a2"))
    cases = scans_of("b1", "u1", domain="b")
    assert add_domain(7, cases, n_processes=1) == ("b1", "u1")
    before = nnunet_folders.snapshot()
    assert add_domain(7, cases, n_processes=1) == ()
    assert nnunet_folders.snapshot() == before
    # The same scans as other files are the same scans.
    assert add_domain(7, scans_of("b1", "u1", domain="b"), n_processes=1) == ()
    assert nnunet_folders.snapshot() == before


def test_more_scans_join_a_domain_and_its_splits(nnunet_folders, scans_of):
    folder = write(scans_of("a1", "a2", "a3", "a4", "a5"))
    path = nnunet_folders.preprocessed / folder.name / "splits_final.json"
    old = json.loads(path.read_text())
    assert add_domain(7, scans_of("a5", "a6", "u1", domain="a"), n_processes=1) == ("a6", "u1")
    assert read(folder)["domains"]["a"]["labelled"] == ["a1", "a2", "a3", "a4", "a5", "a6"]
    new = json.loads(path.read_text())
    assert [set(split["val"]) - set(old_split["val"]) for split, old_split in zip(new, old, strict=True)].count(
        {"a6"}
    ) == 1
    for split, old_split in zip(new, old, strict=True):
        assert set(old_split["val"]) <= set(split["val"])
        assert set(old_split["train"]) <= set(split["train"])


def test_splits_in_the_raw_folder_stay_in_step(nnunet_folders, scans_of):
    folder = write(scans_of("a1", "a2"))
    path = nnunet_folders.preprocessed / folder.name / "splits_final.json"
    shutil.move(path, folder / path.name)
    add_domain(7, scans_of("b1"), n_processes=1)
    assert path.read_bytes() == (folder / path.name).read_bytes()
    assert "b1" in path.read_text()


def test_a_case_that_gets_its_label_later_becomes_labelled(nnunet_folders, scans_of, write_scan, box_label, tmp_path):
    folder = write(scans_of("a1", "u1", domain="a"))
    (case,) = scans_of("u1", domain="a")
    label = write_scan(tmp_path / "later.nii.gz", box_label())
    labelled = [Case("u1", "a", None, case.images, write_scan(label, box_label(), affine_of("RAS")))]
    assert add_domain(7, labelled, n_processes=1) == ("u1",)
    assert read(folder)["domains"]["a"] == {"labels": ["disc"], "labelled": ["a1", "u1"], "unlabelled": []}
    np.testing.assert_array_equal(voxels_of(folder / "labelsTr/u1.nii.gz"), box_label())
    # Without its label it stays what it is.
    assert add_domain(7, [case], n_processes=1) == ()
    assert read(folder)["domains"]["a"]["labelled"] == ["a1", "u1"]


def test_into_matches_labels_by_name(nnunet_folders, scans_of):
    folder = write(scans_of("a1"), labels={"vertebra": 1, "disc": 2})
    write(scans_of("b1"), labels={"disc": 1}, into=True)
    assert np.unique(voxels_of(folder / "labelsTr/b1.nii.gz")).tolist() == [0, 2]
    assert read(folder)["domains"]["b"] == {"labels": ["disc"], "labelled": ["b1"], "unlabelled": []}
    with pytest.raises(UserError, match=r"has no label 'disk'; did you mean 'disc'\?"):
        write(scans_of("c1"), labels={"disk": 1}, into=True)


def test_a_dataset_changed_by_someone_else_meanwhile_is_left(nnunet_folders, scans_of, monkeypatch):
    folder = write(scans_of("a1"))
    write_case = raw_cases.write_case

    def change(task):
        write_case(task)
        (folder / "dataset.json").write_text(json.dumps(read(folder) | {"release": "2"}))

    monkeypatch.setattr(raw_cases, "write_case", change)
    with pytest.raises(UserError, match="was changed meanwhile"):
        add_domain(7, scans_of("b1"), n_processes=1)
    assert not (folder / "imagesTr/b1_0000.nii.gz").exists()


def test_a_full_disk_is_seen_before_anything_is_written(nnunet_folders, scans_of, monkeypatch):
    cases = scans_of("a1")
    before = nnunet_folders.snapshot()
    usage = shutil.disk_usage("/")._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(UserError, match="writing the scans needs"):
        write(cases)
    assert nnunet_folders.snapshot() == before


def test_next_steps_tell_a_first_run_from_a_later_one(nnunet_folders):
    assert next_steps("Dataset007_Spine").startswith("next (first run): nnUNetv2_plan_and_preprocess -d 7")
    preprocessed = nnunet_folders.preprocessed / "Dataset007_Spine"
    preprocessed.mkdir()
    (preprocessed / "splits_final.json").write_text("[]")
    assert "first run" in next_steps("Dataset007_Spine")
    (preprocessed / "nnUNetPlans.json").write_text("{}")
    assert "nnUNetv2_plan_and_preprocess -d 7 --clean" in next_steps("Dataset007_Spine")
    assert "train again" not in next_steps("Dataset007_Spine")
    (nnunet_folders.results / "Dataset007_Spine/nnUNetTrainer__nnUNetPlans__2d/fold_0").mkdir(parents=True)
    assert "train again" in next_steps("Dataset007_Spine")


def test_test_cases_and_side_tables_stand_beside_the_training_cases(nnunet_folders, scans_of):
    a1, a2, u1, b1 = scans_of("a1", "a2", "u1", "b1")
    folder = write([a1, a2], test_cases=[u1], tables={"koos.csv": {"a1": {"koos": "3"}}})
    assert sorted(path.name for path in (folder / "imagesTs").iterdir()) == ["u1_0000.nii.gz"]
    assert not (folder / "labelsTs").exists()
    assert (folder / "test_cases.csv").read_text() == "case,domain,subject\nu1,u,u1\n"
    assert (folder / "koos.csv").read_text() == "case,koos\na1,3\n"
    assert read(folder)["numTraining"] == 2
    assert "u" not in read(folder)["domains"]

    before = nnunet_folders.snapshot()
    write([a1, a2], test_cases=[u1], tables={"koos.csv": {"a1": {"koos": "3"}}}, into=True)
    assert nnunet_folders.snapshot() == before

    write([a1], test_cases=[b1], tables={"koos.csv": {"b1": {"koos": "1"}}}, into=True)
    np.testing.assert_array_equal(voxels_of(folder / "labelsTs/b1.nii.gz"), voxels_of(b1.label))
    assert (folder / "test_cases.csv").read_text() == "case,domain,subject\nu1,u,u1\nb1,b,b1\n"
    assert (folder / "koos.csv").read_text() == "case,koos\na1,3\nb1,1\n"
    assert not list(folder.glob(".adding*"))


def test_test_cases_keep_the_rules(nnunet_folders, scans_of, capsys):
    a1, a2, b1 = scans_of("a1", "a2", "b1")
    before = nnunet_folders.snapshot()
    with pytest.raises(UserError, match="case 'a1' is given twice, or for training and for test"):
        write([a1], test_cases=[a1])
    with pytest.raises(UserError, match=r"a1.*: holds the same scan as .*a1"):
        write([a1], test_cases=[replace(b1, images=a1.images, label=None)])
    with pytest.raises(UserError, match="must not end like a channel"):
        write([a1], test_cases=[replace(b1, id="b1_0000")])
    assert nnunet_folders.snapshot() == before

    folder = write([replace(a1, subject="anna")], test_cases=[replace(a2, subject="anna")])
    assert "test case 'a2' is of subject 'anna', as is the training case 'a1'" in capsys.readouterr().out
    before = nnunet_folders.snapshot()
    with pytest.raises(UserError, match="case 'a2' exists already, with another scan"):
        write([replace(a1, subject="anna")], test_cases=[replace(b1, id="a2", domain="a", subject="anna")], into=True)
    with pytest.raises(UserError, match=r"koos\.csv: case 'a1' stands there already"):
        (folder / "koos.csv").write_text("case,koos\na1,2\n")
        write([replace(a1, subject="anna")], tables={"koos.csv": {"a1": {"koos": "3"}}}, into=True)
    (folder / "koos.csv").unlink()
    assert nnunet_folders.snapshot() == before


def test_a_conversion_without_labels_and_with_some_cases_only(scans_of):
    a1, a2, u1 = scans_of("a1", "a2", "u1")
    conversion = Conversion([a1, a2, u1], ["T2"], {"disc": 1})
    assert all(case.label is None for case in conversion.without_labels().cases)
    assert [case.id for case in conversion.only(["u1", "a1"]).cases] == ["u1", "a1"]
    with pytest.raises(UserError, match="--cases: there is no case 'a3'; did you mean"):
        conversion.only(["a3"])


def test_a_list_of_cases(tmp_path):
    (tmp_path / "list.txt").write_text("a1\n\na2  \n")
    assert read_case_list(tmp_path / "list.txt") == ["a1", "a2"]
    (tmp_path / "empty.txt").touch()
    with pytest.raises(UserError, match=r"empty\.txt: names no case"):
        read_case_list(tmp_path / "empty.txt")
    with pytest.raises(UserError, match=r"none\.txt: cannot be read"):
        read_case_list(tmp_path / "none.txt")


def test_overwriting_leaves_no_row_of_the_old_side_tables(nnunet_folders, scans_of):
    a1, a2, b1 = scans_of("a1", "a2", "b1")
    write([a1], test_cases=[b1], tables={"koos.csv": {"a1": {"koos": "3"}}})
    folder = write([a1], test_cases=[a2], tables={"koos.csv": {"a1": {"koos": "2"}}}, overwrite=True)
    assert (folder / "test_cases.csv").read_text() == "case,domain,subject\na2,a,a2\n"
    assert (folder / "koos.csv").read_text() == "case,koos\na1,2\n"


def test_a_test_case_cannot_be_added_for_training(nnunet_folders, scans_of):
    a1, b1 = scans_of("a1", "b1")
    write([a1], test_cases=[b1])
    before = nnunet_folders.snapshot()
    with pytest.raises(UserError, match="imagesTs: case 'b1' is there for test; it cannot be trained on"):
        write([b1], into=True)
    assert nnunet_folders.snapshot() == before
