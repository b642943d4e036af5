import json
import shutil

import nibabel
import numpy as np
import pytest

from nnunet_da.cli import main
from nnunet_da.raw_dataset import Case, Conversion, write_dataset


@pytest.fixture
def dataset(nnunet_folders, tmp_path, write_scan, box_label):
    """Dataset007_Spine with the labelled cases a1, a2 of the domain philips."""
    cases = [
        Case(
            name,
            "philips",
            None,
            (write_scan(tmp_path / "source" / f"{name}.nii.gz"),),
            write_scan(tmp_path / "source" / f"{name}_label.nii.gz", box_label()),
        )
        for name in ("a1", "a2")
    ]
    return write_dataset(Conversion(cases, ["T2"], {"disc": 1}), 7, "Spine", n_processes=1)


@pytest.fixture
def scans(tmp_path, write_scan):
    """A folder with the scans t1 and t2."""
    for name in ("t1", "t2"):
        write_scan(tmp_path / "scans" / f"{name}.nii.gz")
    return tmp_path / "scans"


def add(scans, *arguments, dataset="7", domain="siemens"):
    return main(["add-domain", "-d", dataset, "--domain", domain, "-i", str(scans), "-np", "1", *map(str, arguments)])


def domains(folder):
    return json.loads((folder / "dataset.json").read_text())["domains"]


def test_unlabelled_scans_become_a_domain_once(nnunet_folders, dataset, scans, capsys):
    assert add(scans) == 0
    out = capsys.readouterr().out
    assert "2 of 2 scans added to domain 'siemens'" in out
    assert "nnUNetv2_plan_and_preprocess -d 7" in out
    assert domains(dataset)["siemens"] == {"labels": ["disc"], "labelled": [], "unlabelled": ["t1", "t2"]}
    before = nnunet_folders.snapshot()
    assert add(scans) == 0
    assert "nothing has changed" in capsys.readouterr().out
    assert nnunet_folders.snapshot() == before


def test_labelled_scans_join_with_their_subjects(
    nnunet_folders, dataset, scans, tmp_path, write_scan, box_label, capsys
):
    write_scan(tmp_path / "labels/t1.nii.gz", box_label())
    (tmp_path / "subjects.csv").write_text("case,subject\nt1,anna\nt2,anna\n")
    assert add(scans, "-l", tmp_path / "labels", "--subjects", tmp_path / "subjects.csv", "--prefix", "si_") == 0
    assert "1 of 2 scans have no file in" in capsys.readouterr().out
    assert domains(dataset)["siemens"] == {"labels": ["disc"], "labelled": ["si_t1"], "unlabelled": ["si_t2"]}
    content = json.loads((dataset / "dataset.json").read_text())
    assert content["subjects"] == {"si_t1": "anna", "si_t2": "anna"}
    splits = json.loads((nnunet_folders.preprocessed / dataset.name / "splits_final.json").read_text())
    assert sum("si_t1" in split["val"] for split in splits) == 1
    assert not any("si_t2" in split["val"] + split["train"] for split in splits)


def test_scans_named_by_channel_are_one_case(nnunet_folders, tmp_path, write_scan):
    images = tuple(write_scan(tmp_path / f"source_{channel}.nii.gz") for channel in "ab")
    conversion = Conversion([Case("a1", "philips", None, images, None)], ["in", "opp"], {"disc": 1})
    folder = write_dataset(conversion, 7, "Spine", n_processes=1)
    for name in ("t1_0000.nii.gz", "t1_0001.nii.gz", "t2_0000.nii.gz", "t2_0001.nii"):
        write_scan(tmp_path / "scans" / name)
    (tmp_path / "scans/._t1_0000.nii.gz").write_bytes(b"left by a Mac")
    (tmp_path / "scans/README.txt").write_text("notes")
    assert add(tmp_path / "scans") == 0
    assert domains(folder)["siemens"]["unlabelled"] == ["t1", "t2"]
    np.testing.assert_array_equal(
        nibabel.load(folder / "imagesTr/t2_0001.nii.gz").dataobj, nibabel.load(tmp_path / "scans/t2_0001.nii").dataobj
    )


# ---- bad input ------------------------------------------------------------------------------------------------------


@pytest.fixture
def broken(scans, tmp_path, write_scan, box_label):
    """What the breakers below need."""

    class Broken:
        folder, labels, subjects = scans, tmp_path / "labels", tmp_path / "subjects.csv"
        source = tmp_path / "source"
        arguments, dataset, domain = [], "7", "siemens"

        def write(self, path, *arguments, **keywords):
            return write_scan(path, *arguments, **keywords)

        def label(self, name, *arguments):
            self.arguments = ["-l", self.labels]
            return write_scan(self.labels / name, box_label(*arguments))

        def table(self, text):
            self.subjects.write_text(text)
            self.arguments = ["--subjects", self.subjects]

    return Broken()


def no_such_folder(b):
    shutil.rmtree(b.folder)


def empty_folder(b):
    for path in b.folder.iterdir():
        path.unlink()


def unknown_format(b):
    (b.folder / "t3.png").write_bytes(b"")


def same_name_twice(b):
    b.write(b.folder / "t1.nii")


def channel_missing(b):
    shutil.rmtree(b.folder)
    b.write(b.folder / "t1_0001.nii.gz")


def channel_too_many(b):
    shutil.rmtree(b.folder)
    b.write(b.folder / "t1_0000.nii.gz")
    b.write(b.folder / "t1_0001.nii.gz")


def label_without_scan(b):
    b.label("t9.nii.gz")


def no_such_label_folder(b):
    b.arguments = ["-l", b.labels]


def label_of_unknown_value(b):
    b.label("t1.nii.gz", 5)


def unknown_dataset(b):
    b.dataset = "8"


def dataset_that_is_no_id(b):
    b.dataset = "Spine"


def bad_domain_name(b):
    b.domain = "siemens 1.5T"


def case_of_another_domain(b):
    b.write(b.folder / "a1.nii.gz")


def other_scan_under_the_id(b):
    b.domain = "philips"
    b.write(b.folder / "a1.nii.gz", shape=(8, 9, 11))


def other_label_under_the_id(b):
    shutil.rmtree(b.folder)
    b.folder.mkdir()
    shutil.copy(b.source / "a1.nii.gz", b.folder)
    b.domain = "philips"
    label = b.label("a1.nii.gz", 1)
    b.write(label, np.ones((8, 9, 10), np.uint8))


def scan_that_the_dataset_has(b):
    shutil.copy(b.source / "a1.nii.gz", b.folder / "t3.nii.gz")


def unknown_structure(b):
    b.arguments = ["--structures", "disk"]


def subjects_without_column(b):
    b.table("case,patient\nt1,anna\n")


def subject_of_unknown_scan(b):
    b.table("case,subject\nt7,anna\n")


def two_subjects_of_one_scan(b):
    b.table("case,subject\nt1,anna\nt1,bert\n")


def no_such_subjects_table(b):
    b.arguments = ["--subjects", b.subjects]


def damaged_scan(b):
    (b.folder / "t2.nii.gz").write_bytes(b"")


@pytest.mark.parametrize(
    ("break_it", "messages"),
    [
        (no_such_folder, ["scans", "no such folder"]),
        (empty_folder, ["scans", "holds no scans"]),
        (unknown_format, ["t3.png", "cannot read this format"]),
        (same_name_twice, ["t1.nii", "same name as", "t1.nii.gz"]),
        (channel_missing, ["case 't1'", "_0000"]),
        (channel_too_many, ["case 't1'", "1 channels (T2)"]),
        (label_without_scan, ["t9.nii.gz", "no scan 't9'"]),
        (no_such_label_folder, ["labels", "no such folder"]),
        (label_of_unknown_value, ["labels", "t1.nii.gz", "the value 5"]),
        (unknown_dataset, ["-d 8", "no such dataset"]),
        (dataset_that_is_no_id, ["-d Spine", "must be a dataset id"]),
        (bad_domain_name, ["'siemens 1.5T'", "use letters"]),
        (case_of_another_domain, ["case 'a1'", "domain 'philips'", "--prefix siemens_"]),
        (other_scan_under_the_id, ["scans/a1.nii.gz", "another scan"]),
        (other_label_under_the_id, ["labels/a1.nii.gz", "another label map"]),
        (scan_that_the_dataset_has, ["t3.nii.gz", "same scan as", "a1_0000.nii.gz"]),
        (unknown_structure, ["unknown label 'disk'", "did you mean 'disc'?"]),
        (subjects_without_column, ["subjects.csv", "line 1", "'subject' is missing"]),
        (subject_of_unknown_scan, ["subjects.csv", "line 2", "no scan 't7'"]),
        (two_subjects_of_one_scan, ["subjects.csv", "line 3", "'anna' already"]),
        (no_such_subjects_table, ["subjects.csv", "no such file"]),
        (damaged_scan, ["t2.nii.gz", "not a readable NIfTI"]),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(nnunet_folders, dataset, broken, capfd, break_it, messages):
    break_it(broken)
    before = nnunet_folders.snapshot()
    capfd.readouterr()
    assert add(broken.folder, *broken.arguments, dataset=broken.dataset, domain=broken.domain) == 1
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("nnunet-da add-domain: error: ")
    for message in messages:
        assert message in lines[0]
    assert nnunet_folders.snapshot() == before
