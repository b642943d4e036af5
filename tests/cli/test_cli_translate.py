import pytest

from nnunet_da import cli


def error(capsys, *words):
    """The one line that the command prints when it refuses."""
    assert cli.main(["translate", *map(str, words)]) == 1
    captured = capsys.readouterr()
    (line,) = captured.err.strip().splitlines()
    return line


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("-i", "SCANS"),
        ("-o", "OUT"),
        ("--as", "102"),
        ("--name", "Fake"),
        ("-i", "SCANS", "-o", "OUT", "--as", "102", "--name", "Fake"),
        ("-i", "SCANS", "--as", "102", "--name", "Fake"),
    ],
)
def test_it_writes_scans_or_a_dataset(words, nnunet_folders, capsys):
    assert "Give either -i and -o, or --as and --name" in error(capsys, "-d", 101, "-c", "2d", *words)
    assert nnunet_folders.snapshot() == {}


def test_labels_go_one_way(nnunet_folders, capsys):
    words = ("-d", 101, "-c", "2d", "--as", 102, "--name", "Fake", "--reverse")
    assert "--reverse: the labels are those of the source" in error(capsys, *words)


def test_scans_keep_no_source(nnunet_folders, capsys):
    words = ("-d", 101, "-c", "2d", "-i", "SCANS", "-o", "OUT", "--keep-source")
    assert "--keep-source: is of the dataset that --as and --name write" in error(capsys, *words)


def test_a_model_must_exist(nnunet_folders, tmp_path, capsys):
    words = ("-c", "2d", "-i", tmp_path, "-o", tmp_path / "out")
    assert "-d 102: no such dataset" in error(capsys, "-d", 102, *words)
    folder = nnunet_folders.results / "Dataset101_Spine"
    folder.mkdir()
    assert "nnUNetTrainerCycleGAN__nnUNetPlans__2d: no such trained model" in error(capsys, "-d", 101, *words)
    (folder / "nnUNetTrainerCycleGAN__nnUNetPlans__2d").mkdir()
    assert "plans.json: no such file" in error(capsys, "-d", 101, *words)
    assert not (tmp_path / "out").exists()


def test_help_shows_an_example(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["translate", "-h"])
    assert stopped.value.code == 0
    assert "nnunet-da translate" in capsys.readouterr().out.split("example:")[1]
