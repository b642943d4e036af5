import pytest

from nnunet_da import cli


def error(capsys, *words):
    """The one line that a command prints when it refuses."""
    assert cli.main(list(map(str, words))) == 1
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1
    assert "Traceback" not in captured.err
    return lines[0]


def test_a_model_must_be_named_and_exist(nnunet_folders, tmp_path, capsys):
    words = ("predict", "-i", tmp_path, "-o", tmp_path / "out")
    assert "which model? Give -d and -c, or -m MODEL_FOLDER" in error(capsys, *words)
    assert "-npp -1: must be 0 or more" in error(capsys, *words, "-npp", -1)
    assert "no such trained model" in error(capsys, *words, "-m", tmp_path / "absent")
    (nnunet_folders.results / "Dataset101_Spine").mkdir()
    assert "no such trained model" in error(capsys, *words, "-d", 101, "-c", "2d")
    assert "-d 102: no such dataset" in error(capsys, *words, "-d", 102, "-c", "2d")
    assert not (tmp_path / "out").exists()


def test_embed_refuses_what_it_cannot_do(nnunet_folders, tmp_path, capsys):
    words = ("embed", "-d", 101, "-c", "2d", "-o", tmp_path / "out")
    assert "--patches 0: must be 1 or more" in error(capsys, *words, "--patches", 0)
    assert "--cases: names the domains of new scans" in error(capsys, *words, "--cases", "cases.csv")
    assert "no such dataset" in error(capsys, *words)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").touch()
    assert "holds other files" in error(capsys, *words)


@pytest.mark.parametrize("verb", ["predict", "embed"])
def test_help_shows_an_example(verb, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main([verb, "-h"])
    assert stopped.value.code == 0
    assert f"nnunet-da {verb}" in capsys.readouterr().out.split("example:")[1]
