from nnunet_da import cli


def test_the_template_is_written_and_understood(nnunet_folders, tmp_path, capsys):
    path = tmp_path / "run.yaml"
    assert cli.main(["ivd", str(path), "--init"]) == 0
    assert f"then run nnunet-da ivd {path}" in capsys.readouterr().out
    (tmp_path / "RAW").mkdir()
    assert cli.main(["ivd", str(path), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "nnUNetv2_train 132 2d 4 -tr nnUNetTrainerDenseASPP" in printed
    assert "nnunet-da localize-discs -i" in printed
    path.write_text("work: W\ndata: {dataset: 130}\nregion: {margins: 3}\n", encoding="utf-8")
    assert cli.main(["ivd", str(path), "--dry-run"]) == 1
    assert "setting region.margins: unknown; did you mean 'margin'" in capsys.readouterr().err
    assert not (tmp_path / "W").exists()
