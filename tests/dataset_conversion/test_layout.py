import pytest

from nnunet_da.dataset_conversion._layout import Layout, find_files, natural
from nnunet_da.errors import UserError
from nnunet_da.scans import read_scan

RELEASE = Layout("Release 1", {"image": "MR/case{n}.{nii}", "label": "Mask/case{n}_seg.{nii}"}, also=(r"extra/.*",))
OTHER = Layout("Release 2", {"image": "r2/case{n}.{nii}", "label": "r2/case{n}_seg.{nii}"})
FILES = [f"{folder}/case{n}{end}" for n in (1, 2, 10) for folder, end in (("MR", ".nii.gz"), ("Mask", "_seg.nii"))]


@pytest.fixture
def release(tmp_path):
    """``release(paths)`` makes empty files below tmp_path/raw; names are all that matters here."""

    def make(paths=FILES, raw=tmp_path / "raw"):
        for path in paths:
            (raw / path).parent.mkdir(parents=True, exist_ok=True)
            (raw / path).touch()
        return raw

    return make


def find(raw, *layouts):
    return find_files(raw, layouts or (RELEASE, OTHER), "sample")


def message(raw, *layouts):
    with pytest.raises(UserError) as caught:
        find(raw, *layouts)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_files_are_found_by_case_in_the_order_of_their_numbers(release):
    raw = release([*FILES, "MR/._case1.nii.gz", "__MACOSX/MR/case1.nii.gz", "README.txt", "extra/other.nii"])
    found = find(raw)
    assert list(found.cases) == [("1",), ("2",), ("10",)]
    assert found.cases["2",] == {"image": raw / "MR/case2.nii.gz", "label": raw / "Mask/case2_seg.nii"}
    assert found.require(("10",), ["label", "image"]) == [raw / "Mask/case10_seg.nii", raw / "MR/case10.nii.gz"]


def test_a_repeated_field_must_repeat(release):
    layout = Layout("twice", {"image": "{n}/{n}_a.{nii}"})
    assert layout.match("01/01_a.nii") == ("image", {"n": "01", "nii": "nii"})
    assert layout.match("01/02_a.nii") is None


def test_numbers_sort_as_numbers_and_letters_beside_them():
    assert sorted([("10",), ("9",), ("a2",), ("a10",)], key=natural) == [("9",), ("10",), ("a2",), ("a10",)]


def test_a_folder_too_high_and_one_too_low(release, tmp_path):
    raw = release()
    assert message(tmp_path) == f"{tmp_path}: holds sample in a folder further down; give {raw}"
    assert message(raw / "MR") == f"{raw / 'MR'}: is a part of sample; give the folder {raw}"


def test_a_download_that_has_not_ended(release):
    raw = release([*FILES, "MR/case11.nii.gz.part"])
    assert message(raw) == f"{raw}/MR/case11.nii.gz.part: is a download that has not ended; get the file again"


def test_archives(release, tmp_path):
    raw = release(["sample.zip"])
    assert "the archive sample.zip; unpack it first" in message(raw)
    assert message(raw / "sample.zip") == f"{raw}/sample.zip: is an archive; unpack it and give the folder"
    assert message(tmp_path / "none") == f"{tmp_path}/none: no such folder"


def test_two_releases_in_one_folder(release):
    raw = release([*FILES, "r2/case3.nii.gz"])
    assert "mixes two releases: MR/case1.nii.gz is of 'Release 1', r2/case3.nii.gz of 'Release 2'" in message(raw)


def test_a_scan_that_the_release_does_not_have(release):
    raw = release([*FILES, "MR/mine.nii.gz"])
    text = message(raw)
    assert text.startswith(f"{raw}/MR/mine.nii.gz: no file of sample has such a name (expected: MR/caseN.nii.gz)")


def test_a_file_in_both_formats(release):
    raw = release([*FILES, "MR/case1.nii"])
    assert message(raw).endswith("MR/case1.nii.gz: is there twice, also as MR/case1.nii; remove one of them")


def test_another_public_dataset_is_named(release):
    raw = release(["images/1_t1.mha", "masks/1_t1.mha"])
    assert message(raw).endswith("; it looks like spider: nnunet-da convert spider")


def test_what_is_missing_of_a_case_or_of_all(release):
    raw = release([*FILES, "MR/case11.nii.gz"])
    found = find(raw)
    image, label = found.require(("11",), ["image", "label"])
    assert image == raw / "MR/case11.nii.gz"
    expected = r"Mask/case11_seg\.nii\.gz: no such file, but MR/case11\.nii\.gz is there; get it again, or leave"
    with pytest.raises(UserError, match=expected):
        read_scan(label)
    with pytest.raises(UserError, match=r"case11_seg\.nii\.gz: no such file.* --cases, or take the scans as --unlab"):
        read_scan(found.label(("11",)))
    assert found.label(("1",)) == raw / "Mask/case1_seg.nii"
    found.require_role("label", "label")
    found = find(release(["MR/case1.nii"], raw.parent / "half"))
    with pytest.raises(
        UserError, match=r"half: holds no label \(Mask/caseN_seg\.nii\.gz\); the download is incomplete"
    ):
        found.require_role("label", "label")
