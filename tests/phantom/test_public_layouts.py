"""The folders that `nnunet-da phantom` writes: names, formats, grids, label values, side files, and what is refused."""

import csv
import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from nnunet_da.dataset_conversion.manifest import read_table
from nnunet_da.errors import UserError
from nnunet_da.phantom import public
from nnunet_da.phantom.abdomen import Abdomen
from nnunet_da.phantom.public import RELEASES, find_release, write_release
from nnunet_da.phantom.public.abdomen import GREYS, T1DUAL
from nnunet_da.phantom.public.head import koos_grade
from nnunet_da.phantom.public.release import Case, scaled, voxels
from nnunet_da.phantom.public.spine import alkhalil_patient
from nnunet_da.phantom.scanner import Scanner
from nnunet_da.phantom.sequences import SpinEcho

ROOT = Path(__file__).resolve().parents[2]
LAYOUTS = Path(os.environ.get("NNUNET_DA_REAL_DATA", ROOT / "../shared/data")).parent / "layouts"
# Thick slices along the axis that each is sliced along in the release.
AXIAL = ("crossmoda2021", "crossmoda2022", "crossmoda2023", "msd", "chaos")
SEED = 3


def size_of(name):
    return (56, 52, 14) if name in AXIAL else (14, 52, 56)


@pytest.fixture(scope="module", autouse=True)
def _coarse_drawing(draw_coarsely):
    """Few samples per voxel: these tests look at files, not at shapes."""
    with pytest.MonkeyPatch.context() as patch:
        draw_coarsely(patch, 5.0)
        yield


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """``written(name)``: the folder of a release and what lies aside, written once.

    A case per part; of SPIDER patients 4 and 5, who have all series between them.
    """
    folders = {}

    def write(name):
        if name not in folders:
            place = tmp_path_factory.mktemp(name)
            release, aside = RELEASES[name], place / "aside"
            options = {"aside": aside} if release.aside else {}
            n = 1
            if name == "spider":
                n, release = 2, replace(release, parts=(replace(release.parts[0], first=4),))
            write_release(release, place / "raw", n, SEED, size=size_of(name), n_processes=1, **options)
            folders[name] = SimpleNamespace(raw=place / "raw", aside=aside)
        return folders[name]

    return write


def names(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def pattern(name):
    return re.sub(r"\d+", "#", name)


def read(path):
    """Voxels (X, Y, Z[, channels]) and affine to RAS mm of a file."""
    if path.name.endswith((".nii", ".nii.gz")):
        image = nibabel.load(path)
        return np.asarray(image.dataobj), image.affine
    return from_itk(sitk.ReadImage(str(path)))


def from_itk(image):
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image).T, np.diag([-1, -1, 1, 1]) @ affine


def read_series(folder):
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return from_itk(reader.Execute())


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


# ---- names of files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in RELEASES if name != "manifest"])
def test_names_are_those_of_the_release(written, name):
    listing = LAYOUTS / f"{'msd_task05' if name == 'msd' else name}.txt"
    if not listing.exists():
        pytest.skip(f"no listing of the release at {listing}; set NNUNET_DA_REAL_DATA to the folder of data beside it")
    lines = [line.strip() for line in listing.read_text(encoding="utf-8").splitlines()]
    listed = {pattern(line) for line in lines if line and not line.startswith("#")}
    assert {pattern(file) for file in names(written(name).raw)} == listed


VOLUME = ["T2", "L1", "L2", "L3", "L4", "L5", "L1-L2", "L2-L3", "L3-L4", "L4-L5"]
FIRST_FILES = {
    "ivdm3seg": [f"{i}/{i}_{kind}.nii" for i in ("01", "02") for kind in ("fat", "inn", "opp", "wat", "Labels")],
    "mrspineseg": ["train/MR/Case1.nii.gz", "train/Mask/mask_case1.nii.gz"],
    "zenodo22304": ["Img_01.nii", "Img_01_Labels.nii"],
    "alkhalil_lumbar": [f"Volume_01/{structure}.nii.gz" for structure in VOLUME],
    "spider": [
        *("overview.csv", "radiological_gradings.csv"),
        *(
            f"{kind}/{series}.mha"
            for kind in ("images", "masks")
            for series in ("4_t1", "4_t2", "4_t2_SPACE", "5_t2_SPACE")
        ),
    ],
    "ski10": ["image-001.mhd", "image-001.raw", "labels-001.mhd", "labels-001.raw"],
    "oaizib_cm": [
        *("dataset.json", "imagesTr/oaizib_001_0000.nii.gz", "labelsTr/oaizib_001.nii.gz"),
        *("imagesTs/oaizib_405_0000.nii.gz", "labelsTs/oaizib_405.nii.gz"),
    ],
    "crossmoda2021": [
        *(f"crossmoda_training/source_training/crossmoda_1_{kind}.nii.gz" for kind in ("ceT1", "Label")),
        "crossmoda_training/target_training/crossmoda_106_hrT2.nii.gz",
        "crossmoda_validation/target_validation/crossmoda_211_hrT2.nii.gz",
    ],
    "crossmoda2022": [
        "crossmoda2022_training/infos_source_training.csv",
        *(
            f"crossmoda2022_training/training_source/{case}_{kind}.nii.gz"
            for case in ("crossmoda2021_ldn_1", "crossmoda2022_etz_0")
            for kind in ("ceT1", "Label")
        ),
        "crossmoda2022_training/training_target/crossmoda2021_ldn_106_hrT2.nii.gz",
        "crossmoda2022_training/training_target/crossmoda2022_etz_105_hrT2.nii.gz",
        "crossmoda2022_validation/crossmoda2021_ldn_211_hrT2.nii.gz",
        "crossmoda2022_validation/crossmoda2022_etz_210_hrT2.nii.gz",
    ],
    "crossmoda2023": [
        name
        for centre in ("ldn", "etz", "ukm")
        for name in (
            f"crossmoda23_training/TrainingSource/crossmoda2023_{centre}_1_ceT1.nii.gz",
            f"crossmoda23_training/TrainingSource/crossmoda2023_{centre}_1_Label.nii.gz",
            f"crossmoda23_training/TrainingTarget/crossmoda2023_{centre}_101_T2.nii.gz",
            f"crossmoda23_validation/crossmoda2023_{centre}_201_T2.nii.gz",
        )
    ],
    "msd": [
        f"Task05_Prostate/{name}"
        for name in (
            *("dataset.json", "._dataset.json", "imagesTr/prostate_00.nii.gz", "imagesTr/._prostate_00.nii.gz"),
            *("labelsTr/prostate_00.nii.gz", "imagesTs/prostate_02.nii.gz"),
        )
    ],
    "chaos": [
        f"Train_Sets/MR/1/{name}"
        for k in range(1, 15)
        for name in (
            f"T1DUAL/DICOM_anon/InPhase/IMG-0004-{2 * k:05d}.dcm",
            f"T1DUAL/DICOM_anon/OutPhase/IMG-0004-{2 * k - 1:05d}.dcm",
            f"T1DUAL/Ground/IMG-0004-{2 * k:05d}.png",
            f"T2SPIR/DICOM_anon/IMG-0002-{k:05d}.dcm",
            f"T2SPIR/Ground/IMG-0002-{k:05d}.png",
        )
    ],
    "manifest": [
        "cases.csv",
        *(f"{domain}/images/{domain}_001_0000.nii.gz" for domain in ("ankle", "shoulder")),
        *(f"{domain}/labels/{domain}_001.nii.gz" for domain in ("ankle", "shoulder")),
    ],
}


@pytest.mark.parametrize("name", RELEASES)
def test_the_first_cases_have_these_files(written, name):
    assert names(written(name).raw) == set(FIRST_FILES[name])


def test_what_lies_aside(written):
    assert names(written("zenodo22304").aside) == {"Img_01_Discs.nii"}
    assert names(written("msd").aside) == {"prostate_02.nii.gz"}
    assert names(written("crossmoda2021").aside) == {f"crossmoda_{i}_Label.nii.gz" for i in (106, 211)}
    assert rows_of(written("alkhalil_lumbar").aside) == [{"case": "alkhalil_01", "subject": "patient_01"}]


# ---- images and labels ----------------------------------------------------------------------------------------------


def image_and_label(name, raw):
    """(image, label) of every labelled image of a folder but CHAOS's."""
    place = {
        "ivdm3seg": ("*/*_inn.nii", lambda path: path.with_name(path.name.replace("_inn", "_Labels"))),
        "mrspineseg": ("train/MR/*", lambda path: raw / "train/Mask" / path.name.replace("Case", "mask_case")),
        "zenodo22304": ("Img_??.nii", lambda path: path.with_name(f"{path.stem}_Labels.nii")),
        "alkhalil_lumbar": ("*/T2.nii.gz", lambda path: path.with_name("L4-L5.nii.gz")),
        "spider": ("images/*", lambda path: raw / "masks" / path.name),
        "ski10": ("image-*.mhd", lambda path: path.with_name(path.name.replace("image", "labels"))),
        "oaizib_cm": (
            "images*/*",
            lambda path: raw / path.parent.name.replace("images", "labels") / path.name.replace("_0000", ""),
        ),
        "msd": ("*/imagesTr/prostate*", lambda path: raw / "Task05_Prostate/labelsTr" / path.name),
        "manifest": (
            "*/images/*",
            lambda path: raw / path.parts[-3] / "labels" / path.name.replace("_0000", ""),
        ),
    }
    images, label_of = place.get(
        name, ("**/*_ceT1.nii.gz", lambda path: path.with_name(path.name.replace("ceT1", "Label")))
    )
    return [(path, label_of(path)) for path in sorted(raw.glob(images))]


VALUES = {
    "ivdm3seg": {1},
    "mrspineseg": set(range(1, 20)),
    "zenodo22304": {1},
    "alkhalil_lumbar": {1},
    "spider": {*range(1, 11), 100, *range(201, 211)},
    "ski10": {1, 2, 3, 4},
    "oaizib_cm": {1, 2, 3, 4, 5},
    "crossmoda2021": {1, 2},
    "crossmoda2022": {1, 2},
    "crossmoda2023": {1, 2, 3},
    "msd": {1, 2},
    "manifest": {1, 2, 3, 4, 5},
}
# Those that lie outside some fields of view, or are too small for the coarse voxels of these tests.
SOMETIMES_UNSEEN = {
    "mrspineseg": {8, 9, 10, 17, 18, 19},
    "spider": {7, 8, 9, 10, 207, 208, 209, 210},
    "ski10": {2, 4},
    "oaizib_cm": {2, 4, 5},
    "crossmoda2021": {1, 2},
    "crossmoda2022": {1, 2},
    "crossmoda2023": {1, 2, 3},
}


@pytest.mark.parametrize("name", VALUES)
def test_labels_lie_on_the_images_and_hold_the_values_stated(written, name):
    raw = written(name).raw
    found = set()
    pairs = image_and_label(name, raw)
    assert pairs
    for image_path, label_path in pairs:
        (image, affine), (label, label_affine) = read(image_path), read(label_path)
        assert image.dtype == np.int16
        assert label.dtype == np.uint8
        assert image.shape[:3] == label.shape
        assert sorted(label.shape) == sorted(size_of(name))
        np.testing.assert_allclose(label_affine, affine, atol=1e-4)
        assert image.std() > 0
        found |= set(np.unique(label).tolist())
    assert found <= VALUES[name] | {0}
    assert found >= VALUES[name] - SOMETIMES_UNSEEN.get(name, set())


def test_every_vertebra_and_disc_of_al_khalil_is_a_mask_of_its_own(written):
    masks = [read(path)[0] for path in written("alkhalil_lumbar").raw.glob("*/L*.nii.gz")]
    assert len(masks) == 9
    for mask in masks:
        assert np.unique(mask).tolist() == [0, 1]
    assert sum(masks).max() == 1


def test_disc_masks_are_not_those_of_the_bodies(written):
    discs, affine = read(written("zenodo22304").aside / "Img_01_Discs.nii")
    bodies, same_affine = read(written("zenodo22304").raw / "Img_01_Labels.nii")
    np.testing.assert_array_equal(affine, same_affine)
    assert discs.any()
    assert not (discs & bodies).any()


def test_numbered_structures_ascend_along_the_spine(written):
    label, affine = read(written("mrspineseg").raw / "train/Mask/mask_case1.nii.gz")
    height = {
        value: (affine @ [*np.argwhere(label == value).mean(axis=0), 1])[2] for value in (1, 2, 3, 4, 11, 12, 13, 14)
    }
    # Sacrum, disc L5-S1, L5, disc L4-L5, L4, …
    assert sorted(height, key=height.get) == [1, 11, 2, 12, 3, 13, 4, 14]


# ---- IVDM3Seg -------------------------------------------------------------------------------------------------------


def test_the_last_set_has_displaced_labels(tmp_path):
    case = Case("ivdm3seg", "subjects", 8, SEED, tmp_path, size=(18, 64, 64))
    RELEASES["ivdm3seg"].write(case)
    labels, centroids = {}, {}
    for number in (15, 16):
        for kind in ("inn", "Labels"):
            labels[number, kind] = read(tmp_path / f"{number}/{number}_{kind}.nii")
        label, affine = labels[number, "Labels"]
        centroids[number] = affine[:3] @ [*np.argwhere(label).mean(axis=0), 1]
        shift = np.linalg.norm(affine[:3, 3] - labels[number, "inn"][1][:3, 3])
        assert shift == pytest.approx(0 if number == 15 else 8, abs=1e-3)
        np.testing.assert_allclose(affine[:3, :3], labels[number, "inn"][1][:3, :3], atol=1e-6)
    # In space the discs are where they are: both sets show the same subject.
    assert np.linalg.norm(centroids[15] - centroids[16]) < 4


def test_two_time_points_are_two_scans(written):
    first, second = (read(written("ivdm3seg").raw / f"{i}/{i}_inn.nii")[0] for i in ("01", "02"))
    assert (first != second).any()


# ---- side files -----------------------------------------------------------------------------------------------------


def test_spiders_tables_speak_of_its_files(written):
    raw = written("spider").raw
    overview = rows_of(raw / "overview.csv")
    assert [row["new_file_name"] for row in overview] == [*("4_t1", "4_t2", "4_t2_SPACE", "5_t2_SPACE")]
    for row in overview:
        values = np.unique(read(raw / "masks" / f"{row['new_file_name']}.mha")[0])
        assert int(row["num_vertebrae"]) == ((values > 0) & (values < 100)).sum()
        assert int(row["num_discs"]) == (values > 200).sum()
        assert row["subset"] == ("validation" if row["new_file_name"].startswith("5") else "training")
    gradings = rows_of(raw / "radiological_gradings.csv")
    assert {row["Patient"] for row in gradings} == {"4", "5"}
    assert all(1 <= int(row["Pfirrman grade"]) <= 5 for row in gradings)
    discs = np.unique(read(raw / "masks/5_t2_SPACE.mha")[0])
    graded = {200 + int(row["IVD label"]) for row in gradings if row["Patient"] == "5"}
    assert graded == set(discs[discs > 200].tolist())


def test_crossmoda_2022_grades_its_source(written):
    rows = rows_of(written("crossmoda2022").raw / "crossmoda2022_training/infos_source_training.csv")
    assert [(row["crossmoda_name"], row["center"]) for row in rows] == [
        *(("crossmoda2021_ldn_1", "London"), ("crossmoda2022_etz_0", "Tilburg"))
    ]
    assert all(row["koos"] in ("1", "2", "3", "4") for row in rows)


@pytest.mark.parametrize(("diameter", "grade"), [(0, 1), (5, 2), (19, 2), (22, 3), (29, 3), (33, 4)])
def test_koos_grade_by_the_size_outside_the_meatus(diameter, grade):
    distance = np.linalg.norm(np.indices((40, 40, 40)) - 20, axis=0)

    def label_map(values):
        assert values == {"extra-meatal tumour": 1}
        return (distance < diameter / 2).astype(np.uint8)

    assert koos_grade(SimpleNamespace(anatomy=SimpleNamespace(label_map=label_map), affine=np.eye(4))) == grade


def test_the_decathlons_json_names_its_files(written):
    folder = written("msd").raw / "Task05_Prostate"
    content = json.loads((folder / "dataset.json").read_text())
    assert content["tensorImageSize"] == "4D"
    assert content["modality"] == {"0": "T2", "1": "ADC"}
    assert content["training"] == [{"image": "./imagesTr/prostate_00.nii.gz", "label": "./labelsTr/prostate_00.nii.gz"}]
    assert content["test"] == ["./imagesTs/prostate_02.nii.gz"]
    assert (content["numTraining"], content["numTest"]) == (1, 1)
    image = nibabel.load(folder / "imagesTr/prostate_00.nii.gz")
    assert image.shape == (56, 52, 14, 2)
    # AppleDouble, not an image.
    hidden = (folder / "imagesTr/._prostate_00.nii.gz").read_bytes()
    assert hidden[:8] == bytes.fromhex("0005160700020000")


def test_decathlon_numbers_mix_training_and_test(tmp_path):
    write_release(RELEASES["msd"], tmp_path / "raw", 4, SEED, size=(12, 12, 6), n_processes=1)
    content = json.loads((tmp_path / "raw/Task05_Prostate/dataset.json").read_text())
    assert [case["image"][-9:-7] for case in content["training"]] == ["00", "01", "03", "04"]
    assert [image[-9:-7] for image in content["test"]] == ["02", "05"]


def test_oaizibs_json_is_nnunets(written):
    content = json.loads((written("oaizib_cm").raw / "dataset.json").read_text())
    assert content["numTraining"] == 1
    assert content["labels"]["lateral tibial cartilage"] == 5


def test_the_converter_reads_the_table_of_the_manifest(written):
    raw = written("manifest").raw
    channels, rows = read_table(raw / "cases.csv")
    assert channels == ["image_0000"]
    assert [row["domain"] for _, row in rows] == ["ankle", "shoulder"]
    for _, row in rows:
        label, _affine = read(raw / row["label"])
        assert set(np.unique(label)) == ({0, 1, 2, 3} if row["domain"] == "ankle" else {0, 4, 5})


# ---- CHAOS ----------------------------------------------------------------------------------------------------------


def test_dicom_series_have_the_geometry_of_the_anatomy(written, tmp_path):
    patient = written("chaos").raw / "Train_Sets/MR/1"
    case = Case("chaos", "Train_Sets", 1, SEED, tmp_path, size=size_of("chaos"))
    scan = case.scan(case.subject(Abdomen), T1DUAL)
    for phase, image in zip(("OutPhase", "InPhase"), scan.images, strict=True):
        voxels, affine = read_series(patient / "T1DUAL/DICOM_anon" / phase)
        # Readers sort slices by position, upwards; they are stored from head to foot.
        np.testing.assert_array_equal(voxels[:, :, ::-1], image)
        flip = np.diag([1.0, 1.0, -1.0, 1.0])
        flip[2, 3] = image.shape[2] - 1
        np.testing.assert_allclose(affine @ flip, scan.affine, atol=1e-3)
    label = scan.anatomy.label_map(GREYS)
    pictures = [sitk.ReadImage(str(path)) for path in sorted((patient / "T1DUAL/Ground").glob("*.png"))]
    np.testing.assert_array_equal(np.stack([sitk.GetArrayFromImage(p).T for p in pictures], axis=-1), label)
    assert set(np.unique(label)) == {0, 63, 126, 189, 252}


def test_dicom_files_say_what_they_are(written):
    folder = written("chaos").raw / "Train_Sets/MR/1"
    files = sorted(folder.rglob("*.dcm"))
    read = [sitk.ReadImage(str(path)) for path in files]
    assert {image.GetMetaData("0008|0060").strip() for image in read} == {"MR"}
    assert {image.GetMetaData("0008|0016").strip("\0 ") for image in read} == {"1.2.840.10008.5.1.4.1.1.4"}
    # Implicit or explicit little endian: not compressed.
    size = os.path.getsize(files[0])
    assert size > 2 * np.prod(read[0].GetSize())
    assert len({image.GetMetaData("0008|0018") for image in read}) == len(files)
    series = {
        path.parent.relative_to(folder).as_posix(): image.GetMetaData("0020|000e")
        for path, image in zip(files, read, strict=True)
    }
    assert len(series) == len(set(series.values())) == 3
    assert len({image.GetMetaData("0020|000d") for image in read}) == 1


# ---- what a case depends on -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "part", "number"),
    [("spider", "patients", 5), ("ski10", "training", 1), ("chaos", "Train_Sets", 1), ("msd", "Ts", 1)],
)
def test_a_case_alone_has_the_same_bytes(written, tmp_path, name, part, number):
    RELEASES[name].write(Case(name, part, number, SEED, tmp_path, size=size_of(name)))
    assert names(tmp_path)
    for file in names(tmp_path):
        assert (tmp_path / file).read_bytes() == (written(name).raw / file).read_bytes(), file


def test_another_seed_number_or_part_gives_another_subject(tmp_path):
    case = Case("msd", "Tr", 1, SEED, tmp_path)
    draws = [
        other.rng("subject").uniform()
        for other in (
            case,
            replace(case, seed=4),
            replace(case, number=2),
            replace(case, part="Ts"),
            replace(case, release="chaos"),
        )
    ]
    assert len({*draws, case.rng("scan").uniform()}) == 6
    assert case.rng("subject").uniform() == draws[0]


def test_every_fourth_volume_of_al_khalil_is_of_the_patient_before():
    assert [alkhalil_patient(volume) for volume in range(1, 10)] == [1, 2, 3, 3, 5, 6, 7, 7, 9]


# ---- resolution -----------------------------------------------------------------------------------------------------


def test_scale_coarsens_the_finest_sides_and_leaves_slices():
    scanner = Scanner("a", 1.5, SpinEcho(tr=500, te=10), spacing=(4.0, 0.5, 1.0), field_of_view=(40, 100, 100))
    assert scaled(scanner, 1) == scanner
    assert scaled(scanner, 0.5).spacing == (4.0, 1.0, 1.0)
    assert scaled(scanner, 0.1).spacing == (5.0, 5.0, 5.0)
    assert voxels(scaled(scanner, 0.5)) == (10, 100, 100)


def test_scans_have_the_scaled_grid(tmp_path):
    write_release(RELEASES["msd"], tmp_path / "raw", 1, SEED, scale=0.1, n_processes=1)
    image = nibabel.load(tmp_path / "raw/Task05_Prostate/imagesTr/prostate_00.nii.gz")
    np.testing.assert_allclose(np.linalg.norm(image.affine[:3, :3], axis=0), 6.25, rtol=0.06)


def test_room_on_disk_counts_all_images_and_labels():
    # Two channels and labels of one training and one test case, 16 bits each.
    assert RELEASES["msd"].n_bytes(1, size=(10, 10, 10)) == 2 * 3 * 2 * 1000
    # Five images of each of two sets.
    assert RELEASES["ivdm3seg"].n_bytes(1, size=(10, 10, 10)) == 2 * 5 * 2 * 1000


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("msd", {"n": 0}, "-n 0: msd takes 1 or more"),
        ("crossmoda2021", {"n": 106}, "-n 106: crossmoda2021 takes 1 to 105"),
        ("crossmoda2023", {"n": 101}, "takes 1 to 100"),
        ("oaizib_cm", {"n": 405}, "takes 1 to 404"),
        ("msd", {"seed": -1}, "--seed -1"),
        ("msd", {"scale": 0.0, "size": None}, "--scale 0"),
        ("msd", {"scale": 1.5, "size": None}, "--scale 1.5"),
        ("msd", {"size": (4, 0, 4)}, "three numbers of voxels"),
        ("msd", {"n": 10**9, "size": None}, "msd with -n 1000000000 needs"),
        ("msd", {"aside": "raw/aside"}, "must lie outside"),
        ("msd", {"aside": "."}, "must lie outside"),
    ],
)
def test_bad_requests_are_refused_before_anything_is_written(tmp_path, name, options, message):
    options = {"n": 1, "size": (4, 4, 4), **options}
    if "aside" in options:
        options["aside"] = tmp_path / options["aside"]
    with pytest.raises(UserError, match=message):
        write_release(RELEASES[name], tmp_path / "raw", n_processes=1, **options)
    assert not any(tmp_path.iterdir())


def test_an_unknown_name_names_the_nearest():
    with pytest.raises(
        UserError, match=r"crossmoda2020: no such dataset, there are ivdm3seg.*did you mean 'crossmoda202"
    ):
        find_release("crossmoda2020")


@pytest.mark.parametrize("taken", ["raw", "aside"])
def test_folders_that_hold_something_are_left_alone(tmp_path, taken):
    (tmp_path / taken).mkdir()
    (tmp_path / taken / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match=f"{taken}: exists already"):
        write_release(RELEASES["msd"], tmp_path / "raw", 1, size=(4, 4, 4), aside=tmp_path / "aside", n_processes=1)
    assert names(tmp_path) == {f"{taken}/mine.txt"}


def test_a_file_is_not_replaced_by_a_table_of_subjects(tmp_path):
    (tmp_path / "subjects.csv").write_text("mine")
    release = RELEASES["alkhalil_lumbar"]
    with pytest.raises(UserError, match=r"subjects.csv: exists already"):
        write_release(release, tmp_path / "raw", 1, size=(4, 4, 4), aside=tmp_path / "subjects.csv", n_processes=1)
    assert names(tmp_path) == {"subjects.csv"}


def test_a_full_disk_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: SimpleNamespace(free=10))
    with pytest.raises(UserError, match="msd with -n 1 needs"):
        write_release(RELEASES["msd"], tmp_path / "raw", 1, size=(4, 4, 4), n_processes=1)
    assert not any(tmp_path.iterdir())


def test_interrupted_work_leaves_nothing(tmp_path, monkeypatch):
    def write(case):
        (case.folder / f"{case.number}.txt").write_text("half")
        (case.aside / f"{case.number}.txt").write_text("half")
        if case.number == 2:
            raise KeyboardInterrupt

    release = replace(RELEASES["msd"], write=write)
    monkeypatch.setitem(public.RELEASES, "msd", release)
    with pytest.raises(KeyboardInterrupt):
        write_release(release, tmp_path / "raw", 2, size=(4, 4, 4), aside=tmp_path / "aside", n_processes=1)
    assert not any(tmp_path.iterdir())
