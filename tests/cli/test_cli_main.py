import json
import os
import pkgutil
import subprocess
import sys

import pytest

from nnunet_da import __version__, cli
from nnunet_da.errors import UserError

VERBS = sorted(info.name.replace("_", "-") for info in pkgutil.iter_modules(cli.__path__) if info.name[0] != "_")


def help_of(verb, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([verb, "-h"])
    assert stop.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_every_verb_has_an_example_and_the_common_flag(verb, capsys):
    text = help_of(verb, capsys)
    assert f"example:\n  nnunet-da {verb} " in text or f"example:\n  nnunet-da {verb}\n" in text
    assert "--debug" in text


def test_list_of_verbs(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["-h"])
    assert stop.value.code == 0
    listed = capsys.readouterr().out
    assert {"doctor", "configure", "export"} <= set(VERBS)
    assert all(f"\n    {verb}" in listed for verb in VERBS)


def test_help_imports_nothing_heavy():
    code = """
import contextlib, io, json, sys
from nnunet_da.cli import main
loaded = {}
for verb in sys.argv[1:]:
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
        main([verb, "-h"])
    loaded[verb] = [name for name in ("torch", "nnunetv2", "pandas", "matplotlib", "scipy") if name in sys.modules]
print(json.dumps(loaded))
"""
    child = subprocess.run(
        [sys.executable, "-c", code, *VERBS], capture_output=True, text=True, encoding="utf-8", check=True
    )
    assert json.loads(child.stdout) == {verb: [] for verb in VERBS}


@pytest.mark.parametrize("argv", [["unknown"], [], ["doctor", "--unknown"], ["doctor", "extra"]])
def test_wrong_usage_exits_with_2(argv, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(argv)
    assert stop.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "usage: nnunet-da" in captured.err


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"nnunet-da {__version__}\n"


@pytest.fixture
def doctor(monkeypatch):
    """Replaces what the verb `doctor` does."""
    from nnunet_da.cli import doctor

    def replace(run):
        monkeypatch.setattr(doctor, "run", run)

    return replace


def raising(error):
    def run(arguments):
        raise error

    return run


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (1, 1)])
def test_exit_code_is_what_the_verb_returns(doctor, returned, code):
    doctor(lambda arguments: returned)
    assert cli.main(["doctor"]) == code


def test_user_error_is_one_line_and_exit_code_1(doctor, capsys):
    doctor(raising(UserError("a.json: the rule")))
    assert cli.main(["doctor"]) == 1
    assert capsys.readouterr() == ("", "nnunet-da doctor: error: a.json: the rule\n")


def test_debug_shows_the_traceback_of_a_user_error():
    code = """
import sys
from nnunet_da import cli
from nnunet_da.cli import doctor
from nnunet_da.errors import UserError
def run(arguments):
    raise UserError("a.json: the rule")
doctor.run = run
sys.exit(cli.main(["doctor", *sys.argv[1:]]))
"""
    plain, debug = (
        subprocess.run(
            [sys.executable, "-c", code, *more], capture_output=True, text=True, encoding="utf-8", check=False
        )
        for more in ([], ["--debug"])
    )
    assert plain.returncode == debug.returncode == 1
    assert plain.stderr == "nnunet-da doctor: error: a.json: the rule\n"
    assert debug.stderr.startswith("Traceback")
    assert debug.stderr.endswith("UserError: a.json: the rule\n")


def test_other_errors_are_not_hidden(doctor):
    doctor(raising(ZeroDivisionError("a fault of ours")))
    with pytest.raises(ZeroDivisionError):
        cli.main(["doctor"])


def test_interruption(doctor, capsys):
    doctor(raising(KeyboardInterrupt()))
    assert cli.main(["doctor"]) == 130
    assert capsys.readouterr().err == "nnunet-da doctor: interrupted\n"


def test_reader_of_the_output_that_goes_away():
    """`nnunet-da configure --list | head -1`, with more output than a pipe holds."""
    code = """
import sys
from nnunet_da import cli
from nnunet_da.cli import doctor
doctor.run = lambda arguments: [print("line " * 20, flush=True) for _ in range(10_000)]
sys.exit(cli.main(["doctor"]))
"""
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    )
    child.stdout.readline()
    child.stdout.close()
    assert child.stderr.read() == ""
    assert child.wait() == 1
    child.stderr.close()


def test_termination_is_taken_as_an_interruption():
    """A scheduler's SIGTERM must let blocks remove what is half written."""
    code = """
import sys, time
from nnunet_da import cli
from nnunet_da.cli import doctor
def run(arguments):
    try:
        print("started", flush=True)
        time.sleep(60)
    finally:
        print("cleaned up", flush=True)
doctor.run = run
sys.argv = ["nnunet-da", "doctor"]
sys.exit(cli.entry())
"""
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    )
    assert child.stdout.readline() == "started\n"
    child.terminate()
    assert child.communicate() == ("cleaned up\n", "nnunet-da doctor: interrupted\n")
    assert child.returncode == 130


def test_what_the_terminal_cannot_show_ends_nothing():
    """As where the locale is neither UTF-8 nor C."""
    code = """
import contextlib, sys
from nnunet_da.cli import entry
with contextlib.suppress(SystemExit):
    entry()
print("0.91 ± 0.02")
"""
    child = subprocess.run(
        [sys.executable, "-c", code, "--version"],
        env={**os.environ, "PYTHONIOENCODING": "ascii:strict"},
        capture_output=True,
        encoding="ascii",
    )
    assert (child.returncode, child.stdout.splitlines()[-1]) == (0, "0.91 ? 0.02"), child.stderr
