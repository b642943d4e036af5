"""The one module that nnU-Net imports when it searches this folder for a trainer.

nnU-Net asks ``hasattr(module, trainer_name)``. The class is imported then, from the module of its own name in
`nnunet_da.trainers`: it pickles under spawn, since that module stays importable after nnU-Net has forgotten this one,
and a broken file breaks no other trainer.

The variable that leads here is inherited by child processes, which may belong to an environment without this package:
every name is then unknown, and nnU-Net goes on to the next folder.
"""

import importlib
import importlib.util


def __getattr__(name):
    module_name = f"nnunet_da.trainers.{name}"
    if not name.startswith("_") and _exists(module_name):
        return getattr(importlib.import_module(module_name), name)
    raise AttributeError(f"nnunet_da has no trainer {name}")


def _exists(module_name):
    try:
        return importlib.util.find_spec(module_name) is not None
    except ModuleNotFoundError:
        # A package around it is absent, or merely a folder of that name: what an uninstallation left, or a clone.
        return False
