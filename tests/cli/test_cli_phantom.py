import pytest

from nnunet_da.cli import main

SMALL = ["-n", "1", "--size", "8", "8", "4", "-np", "1"]


@pytest.fixture(autouse=True)
def _coarse_drawing(monkeypatch):
    """Few samples per voxel: these tests look at the command, not at shapes."""
    monkeypatch.setattr("nnunet_da.phantom.prostate.Prostate.WIDEST", 8.0)


def phantom(*arguments):
    return main(["phantom", *map(str, arguments)])


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_folder_and_what_lies_aside_are_written(tmp_path, capsys):
    assert phantom("msd", tmp_path / "raw", *SMALL, "--hidden-labels", tmp_path / "hidden") == 0
    out = capsys.readouterr().out
    assert "msd, simulated, -n 1" in out
    assert f"next: nnunet-da convert msd {tmp_path / 'raw'}/Task05_Prostate -d ID" in out
    assert "Task05_Prostate/dataset.json" in files(tmp_path / "raw")
    assert files(tmp_path / "hidden") == ["prostate_02.nii.gz"]


def test_a_seed_is_another_subject(tmp_path):
    for seed in (0, 1):
        assert phantom("msd", tmp_path / str(seed), *SMALL, "--seed", seed) == 0
    first, second = ((tmp_path / seed / "Task05_Prostate/imagesTr/prostate_00.nii.gz").read_bytes() for seed in "01")
    assert first != second


def test_the_list_names_every_dataset_with_its_numbers(capsys):
    from nnunet_da.phantom.public import RELEASES

    assert phantom("--list") == 0
    out = capsys.readouterr().out
    for release in RELEASES.values():
        assert f"{release.name}\n    {release.anatomy}\n    -n: {release.n}\n" in out
        assert release.aside is None or release.aside.option in out
    assert "ivdm3seg 36 × 256 × 256\n" in out
    assert "15 × 352 × 352 (with --scale 1: 15 × 880 × 880)" in out


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        ([], ["which NAME? One of ivdm3seg, mrspineseg"]),
        (["spidre", "DIR", *SMALL], ["spidre: no such dataset", "did you mean 'spider'?"]),
        (["spider"], ["spider: needs a folder DIR and -n N (patients"]),
        (["spider", "DIR"], ["spider: needs a folder DIR and -n N"]),
        (["spider", "DIR", "-n", "0"], ["-n 0: spider takes 1 or more"]),
        (["spider", "DIR", *SMALL, "--disc-masks", "DISCS"], ["--disc-masks: spider has nothing of this kind"]),
        (["zenodo22304", "DIR", *SMALL, "--subjects", "subjects.csv"], ["--subjects: zenodo22304 has nothing"]),
        (["chaos", "DIR", "-n", "1", "--scale", "2"], ["--scale 2", "at most 1"]),
        (["chaos", "DIR", *SMALL[:-1], "0"], ["-np 0"]),
        (["chaos", "FULL", *SMALL], ["FULL: exists already"]),
    ],
)
def test_bad_requests_are_one_line_and_write_nothing(tmp_path, monkeypatch, capfd, arguments, messages):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FULL").mkdir()
    (tmp_path / "FULL/mine.txt").write_text("mine")
    assert phantom(*arguments) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("nnunet-da phantom: error: ")
    for message in messages:
        assert message in line
    assert [path.name for path in tmp_path.iterdir()] == ["FULL"]
    assert files(tmp_path) == ["FULL/mine.txt"]


def test_size_and_scale_exclude_each_other(capsys):
    with pytest.raises(SystemExit):
        phantom("chaos", "DIR", *SMALL, "--scale", "0.5")
    assert "not allowed with" in capsys.readouterr().err
