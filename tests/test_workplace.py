"""Commands with logs and marks."""

import pytest

from nnunet_da.errors import UserError
from nnunet_da.workplace import Workplace


def test_a_failing_command_names_its_log(tmp_path):
    place = Workplace(tmp_path, "cpu")
    with pytest.raises(
        UserError, match=r"nnunet-da failed with exit code 1 \(log: .*00_nnunet-da.log\): .*absent.csv: no such file"
    ):
        place.run("nnunet-da", "convert", "manifest", "absent.csv", "-d", "77")


def test_a_step_is_done_once_and_only_marked_when_it_ended(tmp_path):
    place = Workplace(tmp_path, "cpu")
    calls = []

    def work():
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        place.step("one", "One", work)
    place.step("one", "One", work)
    place.step("one", "One", work)
    assert len(calls) == 2


def test_several_workplaces_share_the_folders_of_nnunet(tmp_path):
    place = Workplace(tmp_path / "one", "cpu", nnunet_folder=tmp_path / "shared", show=False, nnUNet_n_proc_DA="0")
    assert place.environment["nnUNet_raw"] == str(tmp_path / "shared" / "nnUNet_raw")
    assert place.environment["nnUNet_n_proc_DA"] == "0"
    assert (tmp_path / "shared" / "nnUNet_results").is_dir()
    assert not (tmp_path / "one" / "nnUNet_raw").exists()


def test_a_command_may_be_ended_when_its_work_is_done(tmp_path, monkeypatch):
    script = tmp_path / "forever"
    script.write_text("#!/bin/sh\necho begun\necho done\nsleep 600\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    place = Workplace(tmp_path / "place", "cpu", show=False)
    place.run("forever", until="^done$")
    assert (tmp_path / "place" / "logs" / "00_forever.log").read_text() == "begun\ndone\n"
