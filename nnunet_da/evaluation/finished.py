"""Results of finished cases on disk, so that an evaluation that was interrupted goes on where it stopped."""

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from nnunet_da import __version__
from nnunet_da.evaluation.label_map import files_of
from nnunet_da.files import read_json, write_json


@dataclass(frozen=True)
class FinishedCases:
    """A folder with a file per finished case, named by a `fingerprint` of what the result depends on."""

    folder: Path

    @classmethod
    def beside(cls, output):
        """The hidden folder ``.NAME.unfinished`` beside the folder `output`."""
        output = Path(output).resolve()
        return cls(output.with_name(f".{output.name}.unfinished"))

    def load(self, fingerprint):
        """The result that was saved under a fingerprint, or None."""
        path = self._path(fingerprint)
        return read_json(path) if fingerprint and path.exists() else None

    def save(self, fingerprint, result):
        """Keeps `result` (what JSON holds, and NaN), complete or not at all. Nothing is kept without a fingerprint."""
        if fingerprint:
            write_json(result, self._path(fingerprint))

    def clear(self):
        """Removes the folder, if it is there."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, fingerprint):
        return self.folder / f"{fingerprint}.json"


def fingerprint(paths, settings):
    """A word for label maps at `paths` (None for an absent one) and `settings` (what JSON holds), 64 characters.

    It changes with the path, size or time of change of any file, with the settings, and with the version of this
    package. None where it is unknown which files belong to a label map, or one cannot be read.
    """
    try:
        files = [[] if path is None else files_of(path) for path in paths]
        if None in files:
            return None
        files = [[_state(each) for each in several] for several in files]
    except OSError:
        # The one who reads the label map says what is wrong with it.
        return None
    content = json.dumps([__version__, files, settings], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _state(path):
    status = os.stat(path)
    return [str(Path(path).resolve()), status.st_size, status.st_mtime_ns]
