"""Public datasets, one file each: a folder as downloaded becomes a list of cases.

A converter is a module of this folder with

- ``ABOUT``: an `About`, for ``nnunet-da convert --list``,
- ``add_arguments(parser)``: options of its own,
- ``cases(raw, arguments)``: the folder `raw` (Path) as a `nnunet_da.raw_dataset.Conversion`.

Its name on the command line is the module's. Files that begin with an underscore are shared parts.
"""

import importlib
import pkgutil
from dataclasses import dataclass


@dataclass(frozen=True)
class About:
    """What ``convert --list`` says of a dataset, one short line each."""

    anatomy: str
    cases: str
    domains: str
    licence: str
    source: str

    @property
    def entries(self):
        """What dataset.json keeps of it."""
        return {"licence": self.licence, "reference": self.source}


def converters():
    """Name → module of every converter, by name."""
    names = sorted(info.name for info in pkgutil.iter_modules(__path__) if not info.name.startswith("_"))
    return {name: importlib.import_module(f"{__name__}.{name}") for name in names}
