"""Files and folders that are complete or absent: written beside their place, then renamed."""

import contextlib
import json
import os
import re
import shutil
import stat
import tempfile
from pathlib import Path

from nnunet_da.errors import UserError


@contextlib.contextmanager
def atomic_file(path):
    """Yields a temporary path beside `path`; renamed onto `path` when the block ends, removed when it raises."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays, since writers choose the format by it.
    handle, name = tempfile.mkstemp(
        prefix=f".{path.name.split('.')[0]}.", suffix="".join(path.suffixes), dir=path.parent
    )
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes files private; give the mode that a plain open() would have given, or left.
        temporary.chmod(stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o666 & ~_umask())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path):
    """Yields an empty temporary folder beside `path`; renamed to `path` when the block ends, removed when it raises.

    A folder that stands at `path` is replaced as a whole, and only then. Where `path` is a link to a folder, perhaps on
    another disk, that folder is replaced, and the link stays.
    """
    path = Path(path).resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        if path.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", dir=path.parent))
            os.replace(path, old)
            try:
                os.replace(temporary, path)
            except BaseException:
                os.replace(old, path)
                raise
            shutil.rmtree(old)
        else:
            os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_leftovers(path):
    """Removes what a killed `atomic_file` or `atomic_folder` left beside `path`, which nothing else may be writing."""
    path = Path(path).resolve()
    stem, suffixes = path.name.split(".")[0], "".join(path.suffixes)
    # The random part is that of the module tempfile.
    folder, file = (rf"\.{re.escape(start)}\.(old\.)?[a-z0-9_]{{8}}" for start in (path.name, stem))
    names = re.compile(rf"{folder}|{file}{re.escape(suffixes)}")
    for found in path.parent.glob(".*"):
        if not names.fullmatch(found.name):
            continue
        if found.is_dir() and not found.is_symlink():
            shutil.rmtree(found)
        else:
            found.unlink(missing_ok=True)


def _umask():
    umask = os.umask(0)
    os.umask(umask)
    return umask


def read_json(path):
    """The content of a JSON file. Raises UserError, naming the file, where it is missing or not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a JSON file ({error})") from None


def write_json(content, path):
    """Writes `content` as JSON, complete or not at all. The order of keys is kept: it is the order of the domains."""
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")


def require_free_space(folder, n_bytes, purpose):
    """Raises UserError where the file system of `folder` (which need not exist yet) has less than `n_bytes` free."""
    folder = Path(folder).absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if n_bytes > free:
        raise UserError(
            f"{folder}: {purpose} needs {n_bytes / 1e6:.0f} MB, but only {free / 1e6:.0f} MB are free on this disk"
        )
