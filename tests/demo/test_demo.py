"""The demo, most of it through its real commands, as small as it can be: interrupted, resumed, cleaned up."""

import pytest

from nnunet_da.demo.pipeline import TRAINERS, run_demo
from nnunet_da.errors import UserError
from nnunet_da.workplace import Workplace

SMALL = {"n_cases": 4, "n_test": 2, "epochs": 1, "iterations": 2, "size": (8, 64, 64)}


def test_demo_is_interrupted_resumed_and_cleans_up(tmp_path, monkeypatch, capfd, run_in_process):
    output = tmp_path / "demo"
    original = Workplace.run

    def run(self, *command, **keywords):
        # Two models are trained and predict by the same commands: those of one are run as a user would, and what is
        # nnU-Net's alone, which draws 10⁸ voxels of foreground however few there are, is not.
        in_process = TRAINERS["U-Net"] in command or command[0] == "nnUNetv2_plan_and_preprocess"
        return (run_in_process if in_process else original)(self, *command, **keywords)

    def interrupted(self, *command, **keywords):
        if command[0] == "nnUNetv2_train":
            raise KeyboardInterrupt
        return run(self, *command, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(Workplace, "run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_demo(output, **SMALL)
    assert (output / "work" / "done" / "plan.json").is_file()

    monkeypatch.setattr(Workplace, "run", run)
    run_demo(output, **SMALL)
    printed = capfd.readouterr().out
    assert "Planning and preprocessing (done before)" in printed
    assert "| philips_3t | U-Net | 2 |" in printed
    assert {path.name for path in output.iterdir()} == {"overview.html", "table.md", "table.csv", "cases.csv"}
    page = (output / "overview.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 2
    assert page.count("<td>t1t2s-int</td>") == 3
    assert "http" not in page.replace("http-equiv", "")

    with pytest.raises(UserError, match="exists already; choose another folder"):
        run_demo(output, **SMALL)
