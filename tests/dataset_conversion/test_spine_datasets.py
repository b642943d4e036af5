"""The spine datasets, each alone and all in one dataset with one structure."""

import json
import re
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from nnunet_da.cli import main

AFFINES = (np.diag([2.0, 1.25, 1.25, 1.0]), np.array([[0, 0, 4.0, 0], [-1, 0, 0, 9], [0, -1, 0, 9], [0, 0, 0, 1.0]]))
SHAPE = (6, 8, 40)


def image(path, *, seed, affine=AFFINES[0]):
    """Noise of its own per dataset and file name."""
    voxels = np.random.default_rng([seed, *path.name.encode()]).integers(1, 999, SHAPE).astype(np.int16)
    return save(path, voxels, affine)


def save(path, voxels, affine=AFFINES[0]):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".mha":
        itk = sitk.GetImageFromArray(voxels.T)
        itk.SetSpacing(np.linalg.norm(affine[:3, :3], axis=0).tolist())
        sitk.WriteImage(itk, str(path))
    else:
        nibabel.save(nibabel.Nifti1Image(voxels, affine), path)
    return path


def levels(*values, dtype=np.uint8):
    """A label map with a slab per value, the first lowest."""
    label = np.zeros(SHAPE, dtype)
    for index, value in enumerate(values):
        label[2:5, 2:6, 1 + 3 * index : 3 + 3 * index] = value
    return label


@pytest.fixture
def raw(tmp_path):
    """A folder per spine dataset, two cases each, every structure of the release once."""
    for n in (1, 12):
        image(tmp_path / f"mrspineseg/train/MR/Case{n}.nii.gz", seed=1, affine=AFFINES[1])
        save(tmp_path / f"mrspineseg/train/Mask/mask_case{n}.nii.gz", levels(1, 2, 10, 11, 12, 19), AFFINES[1])
    for n in ("01", "23"):
        image(tmp_path / f"zenodo22304/Img_{n}.nii", seed=2)
        save(tmp_path / f"zenodo22304/Img_{n}_Labels.nii", levels(1, 1))
        save(tmp_path / f"discs/Img_{n}_Discs.nii", levels(0, 1))
    for n in ("01", "02"):
        folder = tmp_path / f"alkhalil_lumbar/Volume_{n}"
        image(folder / "T2.nii.gz", seed=3 + int(n))
        names = ("L5", "L4", "L3", "L2", "L1", "L4-L5", "L3-L4", "L2-L3", "L1-L2")
        for index, name in enumerate(names):
            save(folder / f"{name}.nii.gz", levels(*[0] * index, 1))
    for name in ("1_t1", "1_t2", "4_t2_SPACE"):
        image(tmp_path / f"spider/images/{name}.mha", seed=6)
        save(tmp_path / f"spider/masks/{name}.mha", levels(201, 202, 215, 1, 12, 102, 100, dtype=np.uint16))
    (tmp_path / "spider/overview.csv").write_text("new_file_name,sex\n1_t1,F\n")
    for n in ("01", "02", "03"):
        for contrast in ("fat", "inn", "opp", "wat"):
            image(tmp_path / f"ivdm3seg/{n}/{n}_{contrast}.nii", seed=7)
        save(tmp_path / f"ivdm3seg/{n}/{n}_Labels.nii", levels(*[1] * 7))
    return tmp_path


@pytest.fixture
def convert(raw, nnunet_folders, capsys):
    """``convert(name, *arguments)``: converts, exit code 0; returns the dataset's folder and its dataset.json."""

    def run(name, *arguments, dataset_id=7):
        assert main(["convert", name, str(raw / name), "-d", str(dataset_id), "-np", "1", *map(str, arguments)]) == 0, (
            capsys.readouterr().err
        )
        folder = next(nnunet_folders.raw.glob(f"Dataset{dataset_id:03d}_*"))
        return folder, json.loads((folder / "dataset.json").read_text())

    return run


@pytest.fixture
def refuse(raw, nnunet_folders, capsys):
    """``refuse(name, *arguments)``: the one line with which the converter refuses, having written nothing."""

    def run(name, *arguments):
        before = nnunet_folders.snapshot()
        capsys.readouterr()
        assert main(["convert", name, str(raw / name), "-d", "7", "-np", "1", "--overwrite", *map(str, arguments)]) == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert nnunet_folders.snapshot() == before
        return error.replace(str(raw), "RAW").removeprefix("nnunet-da convert: error: ").strip()

    return run


def label(folder, case):
    return np.asarray(nibabel.load(folder / f"labelsTr/{case}.nii.gz").dataobj)


def names_in(folder, content, case):
    """Names of what a label map holds, the lowest slab first."""
    names = {value: name for name, value in content["labels"].items()}
    column = label(folder, case)[3, 3]
    return [names[value] for value in column[1::3] if value]


def test_mrspineseg(convert):
    folder, content = convert("mrspineseg")
    assert content["labels"] == {"background": 0, "disc": 1, "ignore": 2}
    assert content["domains"] == {
        "philips_3t": {"labels": ["disc"], "labelled": ["mrss_001", "mrss_012"], "unlabelled": []}
    }
    np.testing.assert_array_equal(label(folder, "mrss_012"), levels(0, 0, 0, 1, 1, 1))
    np.testing.assert_array_equal(nibabel.load(folder / "imagesTr/mrss_001_0000.nii.gz").affine, AFFINES[1])
    folder, content = convert("mrspineseg", "--structures", "discs-numbered", "vertebrae", "sacrum", "--overwrite")
    assert names_in(folder, content, "mrss_001") == ["sacrum", "vertebra", "vertebra", "L5-S1", "L4-L5", "T9-T10"]


def test_zenodo22304_with_its_own_masks_and_with_masks_of_discs(convert, raw, refuse):
    folder, content = convert("zenodo22304")
    assert content["labels"] == {"background": 0, "vertebra": 1, "ignore": 2}
    np.testing.assert_array_equal(label(folder, "chu_01"), levels(1, 1))
    folder, content = convert("zenodo22304", "--structures", "discs", "--disc-masks", raw / "discs", "--overwrite")
    assert content["domains"]["siemens_1p5t"]["labelled"] == ["chu_01", "chu_23"]
    np.testing.assert_array_equal(label(folder, "chu_23"), levels(0, 1))
    assert "has masks of vertebral bodies only; give disc masks with --disc-masks" in refuse(
        "zenodo22304", "--structures", "discs"
    )
    (raw / "discs/Img_01_Discs.nii").unlink()
    error = refuse("zenodo22304", "--structures", "discs", "--disc-masks", raw / "discs")
    assert error.startswith("RAW/discs/Img_01_Discs.nii: no such file, but Img_01.nii is there; get it, leave the case")


def test_alkhalil_joins_masks(convert, raw, tmp_path, refuse):
    folder, content = convert("alkhalil_lumbar", "--structures", "discs", "vertebrae")
    assert content["domains"]["multivendor"]["labelled"] == ["alkhalil_01", "alkhalil_02"]
    np.testing.assert_array_equal(label(folder, "alkhalil_01"), levels(2, 2, 2, 2, 2, 1, 1, 1, 1))
    folder, content = convert("alkhalil_lumbar", "--structures", "vertebrae-numbered", "--overwrite")
    assert names_in(folder, content, "alkhalil_02") == ["L5", "L4", "L3", "L2", "L1"]

    (tmp_path / "list.txt").write_text("alkhalil_02\n")
    (tmp_path / "subjects.csv").write_text("case,subject\nalkhalil_01,anna\nalkhalil_02,anna\n")
    _, content = convert(
        *("alkhalil_lumbar", "--overwrite", "--cases", tmp_path / "list.txt", "--subjects", tmp_path / "subjects.csv")
    )
    assert content["subjects"] == {"alkhalil_02": "anna"}
    (tmp_path / "list.txt").write_text("alkhalil_03")
    error = refuse("alkhalil_lumbar", "--cases", tmp_path / "list.txt")
    assert error.startswith("--cases: there is no case 'alkhalil_03'; did you mean")


def test_alkhalil_with_other_names(convert, raw, refuse):
    for folder in (raw / "alkhalil_lumbar").iterdir():
        (folder / "T2.nii.gz").rename(folder / "img.nii.gz")
    assert "img.nii.gz: no file of alkhalil_lumbar has such a name (expected: VOLUME/T2.nii.gz)" in refuse(
        "alkhalil_lumbar"
    )
    convert("alkhalil_lumbar", "--names", "image=img")
    assert "must be STRUCTURE=NAME" in refuse("alkhalil_lumbar", "--names", "image")
    assert "no structure 'L9'" in refuse("alkhalil_lumbar", "--names", "L9=x")
    (raw / "alkhalil_lumbar/Volume_02/L4-L5.nii.gz").unlink()
    error = refuse("alkhalil_lumbar", "--names", "image=img")
    assert error.startswith("RAW/alkhalil_lumbar/Volume_02/L4-L5.nii.gz: no such file")
    (raw / "list.txt").write_text("alkhalil_01")
    convert("alkhalil_lumbar", "--names", "image=img", "--overwrite", "--cases", raw / "list.txt")


def test_spider_has_a_domain_per_sequence_and_a_subject_per_patient(convert, refuse, raw):
    folder, content = convert("spider")
    assert {name: domain["labelled"] for name, domain in content["domains"].items()} == {
        "t1": ["spider_001_t1"],
        "t2": ["spider_001_t2"],
        "t2_SPACE": ["spider_004_t2_SPACE"],
    }
    assert content["subjects"] == {
        "spider_001_t1": "spider_001",
        "spider_001_t2": "spider_001",
        "spider_004_t2_SPACE": "spider_004",
    }
    np.testing.assert_array_equal(label(folder, "spider_001_t1"), levels(1, 1, 1))
    folder, content = convert(
        "spider", "--structures", "discs-numbered", "vertebrae", "canal", "--sequences", "t1", "--overwrite"
    )
    expected = ["L5-S1", "L4-L5", "ignore", "vertebra", "vertebra", "vertebra", "canal"]
    assert names_in(folder, content, "spider_001_t1") == expected
    for folder in ("images", "masks"):
        (raw / f"spider/{folder}/4_t2_SPACE.mha").unlink()
    assert refuse("spider", "--sequences", "t2_SPACE") == "RAW/spider: holds no series of t2_SPACE"


def test_ivdm3seg_channels_and_time_points(convert, raw, capsys):
    folder, content = convert("ivdm3seg")
    assert "does not say which two sets are of one subject" in capsys.readouterr().out
    assert content["channel_names"] == {"0": "fat", "1": "inn", "2": "opp", "3": "wat"}
    assert content["subjects"] == {
        "ivdm3seg_01": "ivdm3seg_s1",
        "ivdm3seg_02": "ivdm3seg_s1",
        "ivdm3seg_03": "ivdm3seg_s2",
    }
    source = np.asarray(nibabel.load(raw / "ivdm3seg/02/02_opp.nii").dataobj)
    np.testing.assert_array_equal(nibabel.load(folder / "imagesTr/ivdm3seg_02_0002.nii.gz").dataobj, source)
    (raw / "subjects.csv").write_text("case,subject\nivdm3seg_01,s1\nivdm3seg_02,s2\nivdm3seg_03,s1\n")
    _, content = convert("ivdm3seg", "--contrasts", "opp", "--subjects", raw / "subjects.csv", "--overwrite")
    assert content["channel_names"] == {"0": "opp"}
    assert content["subjects"]["ivdm3seg_03"] == "s1"
    assert "does not say" not in capsys.readouterr().out


def test_ivdm3seg_numbered_discs_and_spine_region(convert, raw, refuse):
    folder, content = convert("ivdm3seg", "--structures", "discs-numbered")
    expected = ["L5-S1", "L4-L5", "L3-L4", "L2-L3", "L1-L2", "T12-L1", "T11-T12"]
    assert names_in(folder, content, "ivdm3seg_01") == expected
    folder, content = convert("ivdm3seg", "--structures", "spine-region", "--overwrite")
    assert content["labels"] == {"background": 0, "spine": 1, "ignore": 2}
    region = label(folder, "ivdm3seg_01")
    assert region[levels(*[1] * 7) > 0].all()
    assert 0 < region.mean() <= 1
    save(raw / "ivdm3seg/02/02_Labels.nii", levels())
    assert refuse("ivdm3seg", "--structures", "discs-numbered") == "RAW/ivdm3seg/02/02_Labels.nii: the mask is empty"


def test_a_displaced_label_is_resampled_onto_its_image(convert, raw, capsys):
    moved = AFFINES[0].copy()
    moved[2, 3] = 5.0  # four voxels
    save(raw / "ivdm3seg/03/03_Labels.nii", levels(*[1] * 7), moved)
    folder, _ = convert("ivdm3seg")
    assert "03_Labels.nii: lay on another grid than its image and was resampled" in capsys.readouterr().out
    expected = np.zeros(SHAPE, np.uint8)
    expected[:, :, 4:] = levels(*[1] * 7)[:, :, :-4]
    np.testing.assert_array_equal(label(folder, "ivdm3seg_03"), expected)


def test_ivdm3seg_as_it_circulates(convert, raw, capsys):
    for n, part in (("01", "train"), ("02", "train"), ("03", "valid")):
        for path in sorted((raw / f"ivdm3seg/{n}").iterdir()):
            folder = f"{part}/labels" if "Labels" in path.name else f"{part}/{n}"
            (raw / "ivdm3seg" / folder).mkdir(parents=True, exist_ok=True)
            path.rename(raw / "ivdm3seg" / folder / path.name)
        (raw / f"ivdm3seg/{n}").rmdir()
    (raw / "ivdm3seg/valid/labels/03_Labels.nii").unlink()
    folder, content = convert("ivdm3seg")
    assert content["domains"]["dixon_1p5t"]["labelled"] == ["ivdm3seg_01", "ivdm3seg_02"]
    assert sorted(path.name for path in (folder / "imagesTs").iterdir()) == [
        f"ivdm3seg_03_{c:04d}.nii.gz" for c in range(4)
    ]
    assert (folder / "test_cases.csv").read_text().splitlines()[1] == "ivdm3seg_03,dixon_1p5t,ivdm3seg_s2"
    assert not (folder / "labelsTs").exists()


def test_source_and_both_targets_of_the_intensity_paper_in_one_dataset(convert, raw):
    convert("mrspineseg")
    convert("zenodo22304", "--into", "--structures", "discs", "--disc-masks", raw / "discs")
    folder, content = convert("alkhalil_lumbar", "--into", "--unlabelled")
    assert content["labels"] == {"background": 0, "disc": 1, "ignore": 2}
    assert {name: (len(d["labelled"]), len(d["unlabelled"])) for name, d in content["domains"].items()} == {
        "philips_3t": (2, 0),
        "siemens_1p5t": (2, 0),
        "multivendor": (0, 2),
    }
    assert (label(folder, "alkhalil_01") == 2).all()
    np.testing.assert_array_equal(label(folder, "chu_01"), levels(0, 1))


def test_numbered_discs_of_five_datasets_share_their_labels(convert):
    convert("mrspineseg", "--structures", "discs-numbered")
    convert("alkhalil_lumbar", "--into", "--structures", "discs-numbered")
    convert("spider", "--into", "--structures", "discs-numbered")
    folder, content = convert("ivdm3seg", "--into", "--structures", "discs-numbered", "--contrasts", "opp")
    assert names_in(folder, content, "alkhalil_01") == ["L4-L5", "L3-L4", "L2-L3", "L1-L2"]
    assert names_in(folder, content, "spider_001_t2") == ["L5-S1", "L4-L5", "ignore"]
    assert names_in(folder, content, "ivdm3seg_01")[:2] == ["L5-S1", "L4-L5"]
    assert content["domains"]["multivendor"]["labels"] == ["L4-L5", "L3-L4", "L2-L3", "L1-L2"]


DATASETS = ("mrspineseg", "zenodo22304", "alkhalil_lumbar", "spider", "ivdm3seg")


@pytest.mark.parametrize("name", DATASETS)
def test_the_same_run_gives_the_same_bytes(convert, name):
    folder, _ = convert(name)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    convert(name, "--overwrite")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


FIRST_FILES = {
    "mrspineseg": ("train/MR/Case1.nii.gz", "train/Mask/mask_case1.nii.gz"),
    "zenodo22304": ("Img_01.nii", "Img_01_Labels.nii"),
    "alkhalil_lumbar": ("Volume_01/T2.nii.gz", "Volume_01/L4-L5.nii.gz"),
    "spider": ("images/1_t1.mha", "masks/1_t1.mha"),
    "ivdm3seg": ("01/01_fat.nii", "01/01_Labels.nii"),
}


@pytest.mark.parametrize("name", DATASETS)
@pytest.mark.parametrize("which", [0, 1], ids=["image", "label"])
def test_a_file_that_is_missing_or_cut_short(refuse, raw, name, which):
    path = raw / name / FIRST_FILES[name][which]
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    error = refuse(name)
    assert error.startswith(f"RAW/{name}/{FIRST_FILES[name][which]}: ")
    assert "cut short" in error or "cannot be read" in error
    path.unlink()
    assert refuse(name).startswith(f"RAW/{name}/{FIRST_FILES[name][which]}: no such file, but ")


@pytest.mark.parametrize("name", DATASETS)
def test_all_labels_absent(refuse, convert, raw, name):
    for path in sorted((raw / name).rglob("*")):
        if path.is_file() and any(word in str(path.relative_to(raw)) for word in ("Labels", "Mask", "masks/", "/L")):
            path.unlink()
    error = refuse(name)
    assert "--unlabelled" in error or "--cases" in error
    _, content = convert(name, "--unlabelled")
    assert not any(domain["labelled"] for domain in content["domains"].values())


@pytest.mark.parametrize("name", DATASETS)
def test_the_wrong_folder(refuse, raw, name):
    (raw / name).rename(raw / "inner")
    (raw / name).mkdir()
    (raw / "inner").rename(raw / name / "download")
    assert refuse(name) == f"RAW/{name}: holds {name} in a folder further down; give RAW/{name}/download"
    first = FIRST_FILES[name][0]
    stray = raw / name / "download" / f"half{first[first.rindex('/') if '/' in first else 0 :]}.part".replace("/", "_")
    stray.touch()
    assert refuse(name).endswith(": is a download that has not ended; get the file again")


LABELS = {"Mask/": range(1, 20), "Labels": (1,), "masks/": (*range(1, 4), 100, *range(201, 204)), r"/L\d": (1,)}


@pytest.mark.parametrize(
    ("listed", "name"),
    [
        *((name, name) for name in DATASETS),
        ("ivdm3seg_variant_letters", "ivdm3seg"),
        ("ivdm3seg_variant_split", "ivdm3seg"),
    ],
)
def test_a_release_as_listed(listing, release, nnunet_folders, verified, listed, name):
    paths = listing(listed)
    made = release(paths, LABELS)
    structures = ["--structures", "discs"] if name != "zenodo22304" else []
    assert main(["convert", name, str(made.folder), "-d", "7", "-np", "1", *structures]) == 0
    (folder,) = nnunet_folders.raw.iterdir()
    converted = {path.name.split(".")[0] for part in ("imagesTr", "imagesTs") for path in folder.glob(f"{part}/*")}
    images = [path for path in made.voxels if not any(re.search(pattern, path) for pattern in LABELS)]
    assert len(converted) == len(images)
    content = json.loads((folder / "dataset.json").read_text())
    for domain in content["domains"].values():
        assert domain["labelled"]
        assert not domain["unlabelled"]
    assert verified(SimpleNamespace(folder=folder))
