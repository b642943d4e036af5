import gzip
import json
import shutil

import nibabel
import numpy as np
import pytest

from nnunet_da.cli import main

COLUMNS = ["case", "domain", "subject", "image_0000", "label"]
ROWS = [
    ["a1", "philips", "anna", "a1.nii.gz", "a1_label.nii.gz"],
    ["a2", "philips", "bert", "a2.nii.gz", "a2_label.nii.gz"],
    ["u1", "siemens", "", "u1.nii.gz", ""],
]


@pytest.fixture
def table(tmp_path, write_scan, box_label):
    """A folder with three scans, and a table of them that tests change before they write it."""
    return Table(tmp_path / "scans", write_scan, box_label)


class Table:
    def __init__(self, folder, write_scan, box_label):
        self.folder, self.write_scan, self.box_label = folder, write_scan, box_label
        self.columns, self.rows = list(COLUMNS), [list(row) for row in ROWS]
        self.arguments = ["--labels", "disc=1", "--name", "Spine"]
        for case in ("a1", "a2", "u1"):
            write_scan(folder / f"{case}.nii.gz")
        for case in ("a1", "a2"):
            write_scan(folder / f"{case}_label.nii.gz", box_label())

    def __truediv__(self, name):
        return self.folder / name

    def cell(self, row, column, text):
        self.rows[row][self.columns.index(column)] = text

    def voxels(self, name):
        return np.asarray(nibabel.load(self / name).dataobj)

    def write(self):
        path = self / "cases.csv"
        if not path.exists():
            path.write_text("\n".join(",".join(row) for row in [self.columns, *self.rows]) + "\n")
        return path

    def convert(self, *arguments, dataset_id=7):
        base = ["convert", "manifest", str(self.write()), "-d", str(dataset_id), "-np", "1", *self.arguments]
        return main([*base, *arguments])


def test_a_table_becomes_a_dataset(nnunet_folders, table, capsys):
    assert table.convert() == 0
    out = capsys.readouterr().out
    assert "Dataset007_Spine: 2 labelled and 1 unlabelled cases" in out
    assert "next (first run): nnUNetv2_plan_and_preprocess -d 7" in out
    content = json.loads((nnunet_folders.raw / "Dataset007_Spine/dataset.json").read_text())
    assert content["domains"]["siemens"] == {"labels": ["disc"], "labelled": [], "unlabelled": ["u1"]}
    assert content["subjects"] == {"a1": "anna", "a2": "bert"}
    assert len(json.loads((nnunet_folders.preprocessed / "Dataset007_Spine/splits_final.json").read_text())) == 2


def test_the_list_names_every_converter(capsys):
    assert main(["convert", "--list"]) == 0
    out = capsys.readouterr().out
    assert "manifest" in out
    assert "licence:" in out


def test_a_dataset_grows_with_into_and_is_replaced_with_overwrite(nnunet_folders, table, write_scan):
    assert table.convert() == 0
    write_scan(table / "u2.nii.gz")
    table.rows = [["u2", "ge", "", "u2.nii.gz", ""]]
    (table / "cases.csv").unlink()
    table.arguments = ["--labels", "disc=1"]
    assert table.convert("--into") == 0
    path = nnunet_folders.raw / "Dataset007_Spine/dataset.json"
    assert list(json.loads(path.read_text())["domains"]) == ["philips", "siemens", "ge"]
    assert table.convert("--overwrite", "--name", "Spine") == 0
    assert list(json.loads(path.read_text())["domains"]) == ["ge"]
    assert sorted(file.name for file in path.parent.glob("imagesTr/*")) == ["u2_0000.nii.gz"]


# ---- bad input: what is broken, and what the message must name ------------------------------------------------------


def no_such_table(table):
    table.write().unlink()
    shutil.move(table.folder, table.folder.with_name("elsewhere"))
    table.write = lambda: table / "cases.csv"


def table_is_a_folder(table):
    (table / "cases.csv").mkdir()


def table_without_rows(table):
    table.rows = []


def missing_column(table):
    table.columns[1] = "domian"


def misspelt_column(table):
    table.columns[2] = "subjct"


def gap_in_image_columns(table):
    table.columns.append("image_0002")
    table.rows = [[*row, row[3]] for row in table.rows]


def column_twice(table):
    table.columns[2] = "case"


def too_few_cells(table):
    table.rows[1].pop()


def duplicate_row(table):
    table.rows.append(table.rows[0])


def empty_domain_cell(table):
    table.cell(1, "domain", "")


def channel_empty_in_a_row(table):
    table.columns.append("image_0001")
    table.rows = [[*row, ""] for row in table.rows]


def bad_domain_name(table):
    table.cell(1, "domain", "ge 3t")


def bad_case_id(table):
    table.cell(1, "case", "a/2")


def case_id_like_a_channel(table):
    table.cell(1, "case", "a_0000")


def no_such_image(table):
    (table / "a2.nii.gz").unlink()


def truncated_image(table):
    path = table / "a2.nii.gz"
    path.write_bytes(path.read_bytes()[:-300])


def truncated_uncompressed_label(table):
    (table / "a2_label.nii").write_bytes(gzip.decompress((table / "a2_label.nii.gz").read_bytes())[:-5])
    table.cell(1, "label", "a2_label.nii")


def no_nifti_inside(table):
    (table / "a2.nii.gz").write_bytes(b"this is text, whatever its name says" * 30)


def unknown_format(table):
    shutil.move(table / "a2.nii.gz", table / "a2.png")
    table.cell(1, "image_0000", "a2.png")


def broken_mha(table):
    (table / "a2.mha").write_text("ObjectType = Image\n")
    table.cell(1, "image_0000", "a2.mha")


def two_dimensional(table):
    table.write_scan(table / "a2.nii.gz", np.arange(72, dtype=np.int16).reshape(8, 9), np.eye(4))


def four_dimensional(table):
    table.write_scan(table / "a2.nii.gz", shape=(8, 9, 10, 2))


def set_affine(table, affine):
    image = nibabel.load(table / "a2.nii.gz")
    voxels = np.asarray(image.dataobj)
    header = image.header.copy()
    header["srow_x"], header["srow_y"], header["srow_z"] = affine[:3]
    header["sform_code"], header["qform_code"] = 1, 0
    content = header.binaryblock + b"\0" * 4 + voxels.tobytes(order="F")
    (table / "a2.nii.gz").write_bytes(gzip.compress(content))


def singular_affine(table):
    set_affine(table, np.array([[2.0, 1.5, 0, 0], [0, 0, 0, 0], [0, 0, 1.0, 0]]))


def nan_affine(table):
    set_affine(table, np.array([[np.nan, 0, 0, 0], [0, 1.5, 0, 0], [0, 0, 1.0, 0]]))


def zero_spacing(table):
    set_affine(table, np.array([[2.0, 0, 0, 0], [0, 1.5, 0, 0], [0, 0, 0, 0]]))


def voxel_size_contradicts_itself(table):
    set_affine(table, np.diag([4.0, 1.5, 1.0, 1.0]))


def nan_voxels(table):
    voxels = table.voxels("a2.nii.gz").astype(np.float32)
    voxels[3, 3, 3] = np.nan
    table.write_scan(table / "a2.nii.gz", voxels)


def infinite_voxels(table):
    voxels = table.voxels("a2.nii.gz").astype(np.float64)
    voxels[3, 3, 3] = 1e60  # infinite in single precision
    table.write_scan(table / "a2.nii.gz", voxels)


def constant_image(table):
    table.write_scan(table / "a2.nii.gz", np.full((8, 9, 10), 5, np.int16))


def channels_of_different_shape(table):
    two_channels(table, lambda path: table.write_scan(path, shape=(8, 9, 11)))


def channels_apart(table):
    affine = np.diag([2.0, 1.5, 1.0, 1.0])
    affine[2, 3] = 0.5
    two_channels(table, lambda path: table.write_scan(path, affine=affine))


def two_channels(table, write_second):
    table.columns.append("image_0001")
    for row in table.rows:
        row.append(f"{row[0]}_opp.nii.gz")
        table.write_scan(table / row[-1])
    write_second(table / "a2_opp.nii.gz")


def channel_names_do_not_fit(table):
    table.arguments += ["--channels", "T1", "T2"]


def label_of_fractions(table):
    table.write_scan(table / "a2_label.nii.gz", table.box_label(dtype=np.float32) * 0.5)


def unknown_label_value(table):
    table.write_scan(table / "a2_label.nii.gz", table.box_label(7))


def ignore_in_a_label(table):
    table.write_scan(table / "a2_label.nii.gz", table.box_label(2))


def label_elsewhere(table):
    affine = np.diag([2.0, 1.5, 1.0, 1.0])
    affine[:3, 3] = 500
    table.write_scan(table / "a2_label.nii.gz", table.box_label(), affine)


def label_of_two_dimensions(table):
    table.write_scan(table / "a2_label.nii.gz", table.box_label()[0], np.eye(4))


def no_such_label(table):
    (table / "a2_label.nii.gz").unlink()


def the_same_scan_twice(table):
    shutil.copy(table / "a1.nii.gz", table / "copy.nii.gz")
    table.cell(2, "image_0000", "copy.nii.gz")


def the_same_scan_in_another_format(table):
    nibabel.save(nibabel.Nifti1Image(table.voxels("a1.nii.gz").astype(np.float64), np.eye(4)), table / "copy.nii")
    table.cell(2, "image_0000", "copy.nii")


def label_without_value(table):
    table.arguments = ["--labels", "disc", "--name", "Spine"]


def two_labels_of_one_value(table):
    table.arguments = ["--labels", "disc=1", "disk=1", "--name", "Spine"]


def labels_of_an_unknown_domain(table):
    table.arguments += ["--domain-labels", "phillips=disc"]


def unknown_label_of_a_domain(table):
    table.arguments += ["--domain-labels", "philips=disk"]


def nothing_to_name_labels_after(table):
    table.arguments = []
    table.rows = table.rows[2:]


def id_out_of_range(table):
    table.arguments += ["-d", "1000"]


def bad_dataset_name(table):
    table.arguments += ["--name", "my spine"]


def into_a_dataset_that_is_none(table):
    table.arguments += ["--into"]


def no_processes(table):
    table.arguments += ["-np", "0"]


@pytest.mark.parametrize(
    ("break_it", "messages"),
    [
        (no_such_table, ["cases.csv", "no such file"]),
        (table_is_a_folder, ["cases.csv", "must be a readable CSV file"]),
        (table_without_rows, ["cases.csv", "has no rows"]),
        (missing_column, ["line 1", "'domain' is missing; did you mean 'domian'?"]),
        (misspelt_column, ["line 1", "unknown column 'subjct'; did you mean 'subject'?"]),
        (gap_in_image_columns, ["line 1", "'image_0001' is missing"]),
        (column_twice, ["line 1", "'case' stands twice"]),
        (too_few_cells, ["line 3", "more or fewer cells"]),
        (duplicate_row, ["line 5", "case 'a1' stands in line 2 already"]),
        (empty_domain_cell, ["line 3", "'domain' is empty"]),
        (channel_empty_in_a_row, ["line 2", "'image_0001' is empty"]),
        (bad_domain_name, ["domain 'ge 3t'", "use letters"]),
        (bad_case_id, ["case id 'a/2'", "use letters"]),
        (case_id_like_a_channel, ["case 'a_0000'", "must not end like a channel"]),
        (no_such_image, ["a2.nii.gz", "no such file"]),
        (truncated_image, ["a2.nii.gz", "cut short"]),
        (truncated_uncompressed_label, ["a2_label.nii", "cut short"]),
        (no_nifti_inside, ["a2.nii.gz", "not a readable NIfTI"]),
        (unknown_format, ["a2.png", "cannot read this format"]),
        (broken_mha, ["a2.mha", "cannot be read"]),
        (two_dimensional, ["a2.nii.gz", "must be a 3-D scan", "(8, 9)"]),
        (four_dimensional, ["a2.nii.gz", "must be a 3-D scan", "(8, 9, 10, 2)"]),
        (singular_affine, ["a2.nii.gz", "singular"]),
        (nan_affine, ["a2.nii.gz", "not finite"]),
        (zero_spacing, ["a2.nii.gz", "voxel size must be positive"]),
        (voxel_size_contradicts_itself, ["a2.nii.gz", "contradicts itself", "4 × 1.5 × 1 mm"]),
        (nan_voxels, ["a2.nii.gz", "NaN or infinite"]),
        (infinite_voxels, ["a2.nii.gz", "NaN or infinite"]),
        (constant_image, ["a2.nii.gz", "every voxel is 5"]),
        (channels_of_different_shape, ["a2_opp.nii.gz", "shape (8, 9, 11)", "a2.nii.gz has (8, 9, 10)"]),
        (channels_apart, ["a2_opp.nii.gz", "0.50 mm off", "a2.nii.gz"]),
        (channel_names_do_not_fit, ["cases.csv", "1 image columns", "--channels names 2"]),
        (label_of_fractions, ["a2_label.nii.gz", "must be integers", "0.5"]),
        (unknown_label_value, ["a2_label.nii.gz", "the value 7", "domain 'philips' (1 disc)"]),
        (ignore_in_a_label, ["a2_label.nii.gz", "the value 2", "'ignore'"]),
        (label_elsewhere, ["a2_label.nii.gz", "inside its image", "a2.nii.gz"]),
        (label_of_two_dimensions, ["a2_label.nii.gz", "must be a 3-D scan"]),
        (no_such_label, ["a2_label.nii.gz", "no such file"]),
        (the_same_scan_twice, ["copy.nii.gz", "same scan as", "a1.nii.gz", "'u1' and 'a1'"]),
        (the_same_scan_in_another_format, ["copy.nii", "same scan as", "a1.nii.gz"]),
        (label_without_value, ["--labels disc", "NAME=VALUE"]),
        (two_labels_of_one_value, ["--labels disk=1", "'disc' already"]),
        (labels_of_an_unknown_domain, ["'phillips'", "did you mean 'philips'?"]),
        (unknown_label_of_a_domain, ["unknown label 'disk'", "did you mean 'disc'?"]),
        (nothing_to_name_labels_after, ["cases.csv", "--labels NAME=VALUE"]),
        (id_out_of_range, ["-d 1000", "1 and 999"]),
        (bad_dataset_name, ["--name", "'my spine'"]),
        (into_a_dataset_that_is_none, ["-d 7", "no such dataset"]),
        (no_processes, ["-np 0"]),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(nnunet_folders, table, capfd, break_it, messages):
    break_it(table)
    before = nnunet_folders.snapshot()
    assert_refused(table.convert, messages, nnunet_folders, before, capfd)


def assert_refused(convert, messages, nnunet_folders, before, capfd):
    assert convert() == 1
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("nnunet-da convert: error: ")
    for message in messages:
        assert message in lines[0]
    assert nnunet_folders.snapshot() == before


def test_a_dataset_that_exists_is_left_without_into_or_overwrite(nnunet_folders, table, capfd):
    assert table.convert() == 0
    before = nnunet_folders.snapshot()
    capfd.readouterr()
    assert_refused(table.convert, ["Dataset007_Spine", "--into", "--overwrite"], nnunet_folders, before, capfd)


def test_an_id_taken_by_another_name_is_refused(nnunet_folders, table, capfd):
    (nnunet_folders.preprocessed / "Dataset007_Other").mkdir()
    before = nnunet_folders.snapshot()
    assert_refused(table.convert, ["Dataset007_Other", "has the id 7 already"], nnunet_folders, before, capfd)


@pytest.mark.parametrize("variable", ["nnUNet_raw", "nnUNet_preprocessed"])
def test_a_variable_that_is_not_set_is_named(nnunet_folders, table, capfd, monkeypatch, variable):
    monkeypatch.delenv(variable)
    assert_refused(table.convert, [f"variable {variable} is not set"], nnunet_folders, nnunet_folders.snapshot(), capfd)


def test_a_dataset_to_convert_must_be_named(capfd):
    assert main(["convert"]) == 1
    assert "which DATASET? One of alkhalil_lumbar, " in capfd.readouterr().err


def test_debug_behind_the_dataset_shows_the_traceback(nnunet_folders, table):
    from nnunet_da.errors import UserError

    (table / "a1.nii.gz").unlink()
    with pytest.raises(UserError):
        table.convert("--debug")
