"""The probe as it is used: a script in a process of its own."""

import json
import subprocess
import sys

import pytest

from nnunet_da.doctor import entry_probe


@pytest.fixture
def probe(tmp_path):
    """``probe({path: source, …})``: exit code and reports (module, error) for a folder with these modules."""

    def run(sources):
        for name, source in sources.items():
            path = tmp_path / f"{name}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(source)
        process = subprocess.run(
            [sys.executable, entry_probe.__file__, str(tmp_path)], capture_output=True, text=True, encoding="utf-8"
        )
        lines = [line for line in process.stdout.splitlines() if line.startswith(entry_probe.MARK)]
        reports = [json.loads(line.removeprefix(entry_probe.MARK)) for line in lines]
        return process.returncode, [(report["module"], report["error"]) for report in reports]

    return run


def test_modules_come_before_packages_and_the_end_is_marked(probe):
    code, reports = probe(
        {"b": "print('loud')", "a": "", "pack/__init__": "", "pack/inner": "", "not_a_package/module": "1 / 0"}
    )
    assert code == 0
    assert reports == [("a", ""), ("b", ""), ("pack.inner", ""), (entry_probe.DONE, "")]


def test_the_first_failure_is_the_last_report(probe):
    code, reports = probe({"a": "", "b": "raise ValueError('no')", "c": ""})
    assert code == 1
    assert reports == [("a", ""), ("b", ""), ("b", "ValueError: no")]


def test_a_module_that_ends_the_process_leaves_no_mark(probe):
    code, reports = probe({"a": "import os; os._exit(0)", "b": ""})
    assert code == 0
    assert reports == [("a", "")]


def test_a_missing_dependency_is_a_failure_but_a_module_not_found_is_passed_over(probe):
    code, reports = probe({"a": "import absent_dependency"})
    assert (code, reports[-1]) == (1, ("a", "ModuleNotFoundError: No module named 'absent_dependency'"))


def test_the_folder_comes_first_and_ours_is_not_searched(probe):
    code, reports = probe({"a": "import b; import entry_probe", "b": ""})
    assert (code, reports[-1]) == (1, ("a", "ModuleNotFoundError: No module named 'entry_probe'"))
