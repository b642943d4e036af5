import pytest

from nnunet_da import doctor
from nnunet_da.cli import main
from nnunet_da.doctor import discovery, environment
from nnunet_da.doctor.findings import ok, problem, warning


@pytest.mark.parametrize(
    ("findings", "code", "summary"),
    [
        ([ok("a")], 0, "0 problem(s), 0 warning(s)"),
        ([ok("a"), warning("b", "c")], 0, "0 problem(s), 1 warning(s)"),
        ([problem("b", "c"), ok("a"), problem("d", "e")], 1, "2 problem(s), 0 warning(s)"),
    ],
)
def test_exit_code_is_0_only_without_problems(monkeypatch, capsys, findings, code, summary):
    asked = []
    monkeypatch.setattr(doctor, "examine", lambda *arguments: asked.append(arguments) or findings)
    assert main(["doctor", "-d", "101", "-p", "nnUNetResEncUNetMPlans"]) == code
    assert asked == [("101", "nnUNetResEncUNetMPlans")]
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [*map(str, findings), summary]
    assert captured.err == ""


def test_everything_is_examined_with_nothing_set(monkeypatch, capsys):
    """On a machine where nothing is set up, each thing has its line, and none a traceback."""
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(discovery, "check_lookup", lambda names: [ok(f"nnU-Net finds {len(names)} trainers")])
    monkeypatch.setattr(environment, "check_devices", lambda: [ok("GPU")])
    assert main(["doctor", "-d", "101"]) == 1
    lines = capsys.readouterr().out.splitlines()
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        assert f"problem  the environment variable {variable} is not set" in "\n".join(lines)
    assert any(line.startswith("ok       Python 3") for line in lines)
    assert any("GPU" in line for line in lines)
    assert lines[-2].startswith("problem  -d 101: ")
    assert lines[-1].endswith("warning(s)")
    assert all(line.split()[0] in ("ok", "warning", "problem") for line in lines[:-1])
