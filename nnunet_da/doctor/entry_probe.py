"""Run as a script: imports all modules of a folder in nnU-Net's order, and reports on each as a line of JSON.

In a process of its own, since a module that hangs, exits or crashes would take `nnunet-da doctor` with it. It imports
nothing of this package, so that the modules find Python as nnU-Net would leave it.
"""

import importlib
import json
import pkgutil
import sys
from pathlib import Path

# Modules may print, too.
MARK = "nnunet-da probe "
DONE = ""


def probe(folder, package=""):
    """Imports modules first, then those of packages. Ends with the first that fails, as nnU-Net's search does."""
    infos = list(pkgutil.iter_modules([str(folder)]))
    for info in infos:
        if not info.ispkg:
            name = f"{package}{info.name}"
            # A process that dies has said what it was trying.
            _report(name, "")
            try:
                importlib.import_module(name)
            except ModuleNotFoundError as error:
                # nnU-Net passes over a module that is not found under its own name.
                if error.name != name:
                    _fail(name, error)
            except BaseException as error:
                _fail(name, error)
    for info in infos:
        if info.ispkg:
            probe(Path(folder, info.name), f"{package}{info.name}.")


def _fail(module, error):
    _report(module, f"{type(error).__name__}: {error}")
    raise SystemExit(1) from None


def _report(module, error):
    print(f"\n{MARK}{json.dumps({'module': module, 'error': error})}", flush=True)


if __name__ == "__main__":
    own_folder = Path(__file__).resolve().parent
    sys.path[:] = [sys.argv[1], *(path for path in sys.path if Path(path).resolve() != own_folder)]
    probe(sys.argv[1])
    # A module may also end the process as if all were well.
    _report(DONE, "")
