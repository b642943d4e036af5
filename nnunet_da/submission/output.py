"""Where a submission is written: new unless replaced on purpose, and an error in one line where it cannot be."""

import contextlib
from pathlib import Path

from nnunet_da.errors import UserError


def check_new(output, overwrite) -> None:
    """Raises UserError where a file, or a folder that is not empty, stands at `output`, unless `overwrite`."""
    output = Path(output)
    if output.exists() and not overwrite and not (output.is_dir() and not any(output.iterdir())):
        raise UserError(f"-o {output}: exists already; choose another place, or --overwrite")


@contextlib.contextmanager
def writing_to(output):
    """A block in which an error of the file system (no permission, a full disk) is one of `output`, in one line."""
    try:
        yield
    except OSError as error:
        raise UserError(f"-o {output}: cannot be written ({error.strerror or error})") from error
