import pytest

from nnunet_da import cli


def error(capsys, *words):
    """The one line that the command prints when it refuses."""
    assert cli.main(["label-efficiency", *map(str, words)]) == 1
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1
    assert "Traceback" not in captured.err
    return lines[0]


def test_bad_input_is_answered_with_one_line(nnunet_folders, tmp_path, capsys):
    words = ("-d", 101, "-c", "2d", "-o", tmp_path / "study")
    assert "--draws 0: must be at least 1" in error(capsys, *words, "--draws", 0)
    assert "--jobs 0: must be at least 1" in error(capsys, *words, "--jobs", 0)
    assert "--seed -1: must not be negative" in error(capsys, *words, "--seed", -1)
    assert "-d 101: no such dataset" in error(capsys, *words)
    assert "study.json: no such file" in error(capsys, *words, "--collect")
    assert "give both, or neither" in error(capsys, *words, "--images", tmp_path)
    (nnunet_folders.preprocessed / "Dataset101_Spine").mkdir()
    assert "labelsTs: no such folder; name test scans with --images and --labels" in error(capsys, *words)
    given = (*words, "--images", tmp_path, "--labels", tmp_path)
    assert "nnUNetPlans.json: no such file; run nnUNetv2_plan_and_preprocess -d 101" in error(capsys, *given)
    assert "no such folder" in error(capsys, *words, "--images", tmp_path, "--labels", tmp_path / "absent")
    assert "set of test scans 'a b'" in error(capsys, *given, "--tested", "a b")
    assert not (tmp_path / "study").exists()


def test_an_unknown_initialisation_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        cli.main(["label-efficiency", "-d", "1", "-c", "2d", "-o", str(tmp_path), "--initialisations", "imagenet"])
    assert "imagenet" in capsys.readouterr().err


def test_help_shows_an_example(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["label-efficiency", "-h"])
    assert stopped.value.code == 0
    assert "nnunet-da label-efficiency" in capsys.readouterr().out.split("example:")[1]
