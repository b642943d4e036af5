"""The demo through its real commands, as small as it can be: interrupted, resumed, cleaned up."""

import pytest

from nnunet_da.demo.pipeline import run_demo
from nnunet_da.errors import UserError
from nnunet_da.workplace import Workplace

SMALL = {"n_cases": 4, "n_test": 2, "epochs": 1, "iterations": 2, "size": (8, 64, 64)}


def test_demo_is_interrupted_resumed_and_cleans_up(tmp_path, monkeypatch, capfd):
    output = tmp_path / "demo"
    original = Workplace.run

    def interrupted(self, *command, **keywords):
        if command[0] == "nnUNetv2_train":
            raise KeyboardInterrupt
        return original(self, *command, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(Workplace, "run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_demo(output, **SMALL)
    assert (output / "work" / "done" / "plan.json").is_file()

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
