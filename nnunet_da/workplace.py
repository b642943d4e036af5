"""Commands run as a user would type them, with a progress bar and a log; an interrupted one can be run again."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
from pathlib import Path

from tqdm import tqdm

from nnunet_da.errors import UserError
from nnunet_da.files import write_json


class Workplace:
    """A folder with the log of each command and a mark for each step that is done, and nnU-Net's three folders.

    Parameters
    ----------
    folder : Path
    device : str
        'cpu', 'cuda' or 'mps'; for the commands that take ``-device``.
    nnunet_folder : Path, optional
        Where nnUNet_raw, nnUNet_preprocessed and nnUNet_results are; default: `folder`.
    show : bool
        Whether commands are printed and show a progress bar.
    environment : str
        Further variables of the commands.
    """

    def __init__(self, folder, device, *, nnunet_folder=None, show=True, **environment):
        self.folder = Path(folder)
        self.device = device
        self.show = show
        self.nnunet_folder = Path(nnunet_folder or folder)
        paths = {name: self.nnunet_folder / name for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
        self.environment = {
            **os.environ,
            **{name: str(path) for name, path in paths.items()},
            # Few processes: for scans this small, starting one costs more than the work.
            "nnUNet_def_n_proc": "1",
            "nnUNet_n_proc_DA": "1",
            "PYTHONWARNINGS": "ignore",
            # Lines are read as they come.
            "PYTHONUNBUFFERED": "1",
            **environment,
        }
        for path in (*paths.values(), self.folder / "logs", self.folder / "done"):
            path.mkdir(parents=True, exist_ok=True)

    def step(self, name, title, work):
        """Calls `work` unless it was done before; `title` is shown in any case."""
        mark = self.folder / "done" / f"{name}.json"
        tqdm.write(f"• {title}" + (" (done before)" if mark.exists() else ""))
        sys.stdout.flush()
        if not mark.exists():
            work()
            write_json({"step": name}, mark)

    def run(self, *command, count=None, total=None, until=None, **environment):
        """Runs a command installed with this package's environment; its output goes to a log.

        `count`: regular expression whose matching lines move a progress bar of `total`. `until`: one whose first
        matching line says that the work is done; the command is ended then. Further keywords are environment
        variables. Raises UserError, naming the log, where the command fails.
        """
        command = [str(part) for part in command]
        if self.show:
            print(f"    {shlex.join(command)}", flush=True)
        log = self.folder / "logs" / f"{len(list((self.folder / 'logs').iterdir())):02d}_{command[0]}.log"
        # On a terminal alone: a line a second is nothing for a log file.
        hidden = None if self.show else True
        with (
            open(log, "w", encoding="utf-8") as stream,
            tqdm(total=total, leave=False, bar_format=_bar(total), disable=hidden) as bar,
        ):
            process = subprocess.Popen(
                [find_command(command[0]), *command[1:]],
                env={**self.environment, **environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                encoding="utf-8",
                errors="replace",
                # A group of its own, so that an interrupt ends its worker processes with it.
                start_new_session=True,
            )
            ended = threading.Event()
            ticker = threading.Thread(target=_tick, args=(bar, ended), daemon=True)
            ticker.start()
            try:
                for line in process.stdout:
                    stream.write(line)
                    stream.flush()
                    if count and re.search(count, line):
                        bar.update()
                    if until and re.search(until, line):
                        return
                code = process.wait()
            finally:
                ended.set()
                ticker.join()
                _end(process)
        if code != 0:
            last = next((line for line in reversed(log.read_text(encoding="utf-8").splitlines()) if line.strip()), "")
            raise UserError(f"{command[0]} failed with exit code {code} (log: {log}): {last.strip()}")


def _end(process):
    """Ends a process that still runs, and those that it started."""
    if process.poll() is None:
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGTERM)
        else:
            process.terminate()
        process.wait()


def _bar(total):
    return "    {elapsed}" if total is None else "    {percentage:3.0f}% |{bar:30}| {n_fmt}/{total_fmt} {elapsed}"


def _tick(bar, ended):
    """Keeps the elapsed time moving until `ended` is set."""
    while not ended.wait(1):
        bar.refresh()


def find_command(name):
    """The command `name` of the environment that runs us, whether or not it is on the path."""
    folder = sysconfig.get_path("scripts")
    path = shutil.which(
        name, path=os.pathsep.join([folder, str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    )
    if path is None:
        raise UserError(f"{name}: not installed beside {sys.executable}")
    return path
