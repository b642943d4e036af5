"""Lets nnU-Net find the trainers of this package, with nothing for the user to set.

nnU-Net (2.8 and later) looks for trainers in each folder of the environment variable ``nnUNet_extTrainer``. A ``.pth``
file installed beside the package calls `activate` whenever the interpreter starts, which adds this folder to that
variable. nnU-Net then imports the modules of the folder: `nnunet_da_trainers` alone, which hands out the classes of
`nnunet_da.trainers` by name. A user's own entries in the variable stay first.

Where ``.pth`` files are not read (``pip install --target``, ``python -S``, a bare ``PYTHONPATH``), set
``nnUNet_extTrainer`` to the folder that ``nnunet-da doctor`` prints.
"""

import os

ENVIRONMENT_VARIABLE = "nnUNet_extTrainer"
OPT_OUT_VARIABLE = "NNUNET_DA_NO_DISCOVERY"
FOLDER = os.path.dirname(os.path.abspath(__file__))


def activate():
    """Appends this folder to ``nnUNet_extTrainer``, unless it is there or ``NNUNET_DA_NO_DISCOVERY`` is set."""
    if is_switched_off():
        return
    entries = [entry for entry in os.environ.get(ENVIRONMENT_VARIABLE, "").split(os.pathsep) if entry]
    if FOLDER not in entries:
        os.environ[ENVIRONMENT_VARIABLE] = os.pathsep.join([*entries, FOLDER])


def is_switched_off():
    """Whether the user has set ``NNUNET_DA_NO_DISCOVERY`` to anything but 0 or false."""
    return os.environ.get(OPT_OUT_VARIABLE, "").lower() not in ("", "0", "false")
