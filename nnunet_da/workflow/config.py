"""The YAML file of a run, read into a recipe's dataclass and checked."""

import dataclasses
import json
import typing
from dataclasses import dataclass, field
from pathlib import Path

from nnunet_da import settings
from nnunet_da.errors import UserError, nearest
from nnunet_da.settings import require

INSTALL = 'pip install "nnunet-da[workflow]"'


@dataclass(frozen=True)
class WorkflowConfig:
    """What the config of every recipe holds.

    Attributes
    ----------
    work : str
        Folder of the run: what is done, logs, predictions, report.
    resources : dict
        Kind of step → what a cluster gives to one of them, such as ``{"train": {"runtime": 2880, "mem_mb": 32000}}``:
        runtime in minutes, memory in MB, and whatever else the executor of Snakemake knows.
    """

    work: str
    resources: dict = field(default_factory=dict)

    def __post_init__(self):
        for kind, values in self.resources.items():
            right = isinstance(values, dict) and all(isinstance(value, int | str) for value in values.values())
            require(right, f"resources.{kind}", f"must map names to numbers or text; got {values!r}")


def read_config(path, config_class):
    """The file `path` as `config_class`, and as the plain block (dict) that it holds.

    Raises UserError, naming the file, where it is missing, no YAML, names a key twice, or breaks a rule of the class.
    """
    block = _read_yaml(path)
    if not isinstance(block, dict):
        raise UserError(f"{path}: must hold settings, a name and a value each")
    missing = list(missing_fields(config_class, block))
    if missing:
        raise UserError(f"{path}: '{missing[0]}' is missing")
    return build_config(config_class, block, path), block


def build_config(config_class, block, source):
    """`block` as `config_class`; `source` names the file in messages."""
    try:
        return settings.build(config_class, block)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None


def missing_fields(config_class, block, prefix=""):
    """The fields without a default that `block` has not, dotted, those of its groups among them."""
    hints = typing.get_type_hints(config_class)
    for entry in dataclasses.fields(config_class):
        value = block.get(entry.name)
        if entry.name not in block:
            if entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING:
                yield f"{prefix}{entry.name}"
        elif isinstance(value, dict):
            for group in (hints[entry.name], *typing.get_args(hints[entry.name])):
                if dataclasses.is_dataclass(group):
                    yield from missing_fields(group, value, f"{prefix}{entry.name}.")


def require_known_keys(block, known, setting):
    """Raises UserError for a key of `block` that is not in `known`, with the nearest."""
    for key in block:
        require(key in known, f"{setting}.{key}", f"unknown{nearest(key, known)} (known: {', '.join(map(str, known))})")


def flatten(block, prefix=""):
    """``{"a": {"b": 1}}`` → ``{"a.b": 1}``; an empty group stays what it is."""
    flat = {}
    for key, value in block.items():
        inner = flatten(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
        flat |= inner
    return flat


def assignment(key, value):
    """``key=value`` as ``nnunet-da configure --set`` takes it."""
    return f"{key}={value if isinstance(value, str) else json.dumps(value)}"


def _read_yaml(path):
    try:
        import yaml
    except ImportError:
        raise UserError(f"{path}: reading it needs PyYAML; {INSTALL}") from None

    class Loader(yaml.SafeLoader):
        """YAML, in which no key may stand twice: the first of them would be lost without a word."""

    def construct(loader, node):
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise UserError(f"{path}, line {key.start_mark.line + 1}: '{key.value}' stands twice")
            seen.add(key.value)
        return yaml.SafeLoader.construct_mapping(loader, node, deep=True)

    Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, construct)
    try:
        return yaml.load(Path(path).read_text(encoding="utf-8"), Loader)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{path}{where}: not YAML ({getattr(error, 'problem', error)})") from None
