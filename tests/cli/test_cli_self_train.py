import pytest

from nnunet_da import cli


def error(capsys, *words):
    """The one line that the command prints when it refuses."""
    assert cli.main(["self-train", *map(str, words)]) == 1
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


@pytest.fixture
def config(nnunet_folders, tmp_path):
    """``config(text)`` writes run.yaml of a raw folder that is there, with `text` behind it."""
    (tmp_path / "RAW").mkdir()
    path = tmp_path / "run.yaml"

    def write(text=""):
        path.write_text(
            "work: W\npreset: cpu\ndata: {dataset: 100, convert: crossmoda2022, raw: RAW}\n" + text, encoding="utf-8"
        )
        return path

    return write


def test_the_template_is_written_and_understood(nnunet_folders, tmp_path, capsys):
    path = tmp_path / "run.yaml"
    assert cli.main(["self-train", str(path), "--init"]) == 0
    assert f"then run nnunet-da self-train {path}" in capsys.readouterr().out
    assert "is there already" in error(capsys, path, "--init")
    (tmp_path / "RAW").mkdir()
    assert cli.main(["self-train", str(path), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "nnUNetv2_train 102 3d_fullres_selftrain 4 -tr nnUNetTrainerSelfTraining" in printed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["RAW", "nnunet", "run.yaml"]


def test_bad_input_is_answered_with_one_line(config, tmp_path, capsys, monkeypatch):
    assert "absent.yaml: no such file" in error(capsys, tmp_path / "absent.yaml")
    assert "--jobs 0: must be at least 1" in error(capsys, config(), "--jobs", 0)
    assert "--gpus 0: must be at least 1" in error(capsys, config(), "--gpus", 0)
    assert "stage training: not in this plan" in error(capsys, config(), "--until", "training")
    assert "rests on stage data, which is not done" in error(capsys, config(), "--stages", "translation")
    assert "run.yaml: setting pseudo_label: unknown; did you mean" in error(capsys, config("pseudo_label: {}\n"))
    misspelt = error(capsys, config("pseudo_labels: {leave_oot: 0.1}\n"))
    assert "run.yaml: nnunet-da pseudo-label " in misspelt
    assert "unrecognized arguments: --leave-oot" in misspelt
    monkeypatch.delenv("nnUNet_raw")
    assert "nnUNet_raw is not set" in error(capsys, config())
    assert not (tmp_path / "W").exists()


def test_help_shows_an_example(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["self-train", "-h"])
    assert stopped.value.code == 0
    assert "nnunet-da self-train run.yaml --dry-run" in capsys.readouterr().out.split("example:")[1]
