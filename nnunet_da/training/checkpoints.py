"""nnU-Net's checkpoints: read without running code from them, and bound to the domains that they were trained on."""

import _codecs
import pickle
from pathlib import Path

import numpy as np
import torch

from nnunet_da.errors import UserError

# All that nnU-Net's checkpoints hold beside tensors and plain Python: numpy scalars, in the log and in the plans.
SAFE_GLOBALS = [
    np._core.multiarray.scalar,
    np.dtype,
    _codecs.encode,
    *(type(np.dtype(name)) for name in ("bool", "int32", "int64", "uint8", "float16", "float32", "float64")),
]


def read_checkpoint(path, device="cpu"):
    """The content of a checkpoint (dict), tensors on `device`.

    Raises UserError for a file that is missing, cut short, no checkpoint of nnU-Net, or holds objects other than
    tensors, numbers and plain Python (it is read with ``weights_only=True``: nothing in it is executed).
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint")
    try:
        with torch.serialization.safe_globals(SAFE_GLOBALS):
            checkpoint = torch.load(path, map_location=device, weights_only=True)
    except pickle.UnpicklingError as error:
        reason = _first_line(error)
        raise UserError(
            f"{path}: refused, since a checkpoint must hold weights and plain values only ({reason})"
        ) from None
    except (RuntimeError, EOFError, OSError) as error:
        raise UserError(f"{path}: truncated or not a checkpoint ({_first_line(error)})") from None
    if not isinstance(checkpoint, dict) or not {"network_weights", "init_args", "trainer_name"} <= checkpoint.keys():
        raise UserError(
            f"{path}: not a checkpoint of nnU-Net (network_weights, init_args and trainer_name are missing)"
        )
    return checkpoint


def _first_line(error):
    return (str(error).strip() or type(error).__name__).splitlines()[0]
