"""Settings: declared as dataclasses beside their method, checked, and read from a configuration of the plans.

A method declares a frozen dataclass; its fields' names, types and defaults are the settings, and `__post_init__` states
the rules (`require`). A trainer declares one dataclass that holds those of its methods as fields. A run changes them
through the block ``nnunet_da`` of its configuration in plans.json, for instance::

    "3d_fullres_t1int": {"inherits_from": "3d_fullres", "nnunet_da": {"seed": 1, "pretext": {"domains": ["t1"]}}}

which ``nnunet-da configure … --set seed=1 --set pretext.domains=t1`` writes.
"""

import dataclasses
import json
import types
import typing

from nnunet_da.errors import UserError, nearest

BLOCK = "nnunet_da"
# Written by training beside the settings: the domains that the network was trained on (names -> labels), in order.
TRAINED_DOMAINS = "trained_domains"


def require(condition, setting, rule):
    """Raises UserError ``setting: rule`` where `condition` is false. For `__post_init__` of settings."""
    if not condition:
        raise UserError(f"setting {setting}: {rule}")


def build(settings_class, block, *, prefix="", ignore=()):
    """The dataclass `settings_class` with the values of `block` (dict), nested dataclasses included.

    Raises UserError for an unknown key (naming the nearest known one), a value of another type, or a broken rule.
    Keys in `ignore` are passed over.
    """
    if not isinstance(block, dict):
        raise UserError(f"setting {prefix.rstrip('.') or BLOCK}: expected a group of settings, got {block!r}")
    field_types = typing.get_type_hints(settings_class)
    known = [field.name for field in dataclasses.fields(settings_class)]
    values = {}
    for key, value in block.items():
        if key in ignore:
            continue
        if key not in known:
            raise UserError(f"setting {prefix}{key}: unknown{nearest(key, known)} (known: {', '.join(known)})")
        values[key] = _convert(value, field_types[key], f"{prefix}{key}")
    return settings_class(**values)


def _convert(value, wanted, name):
    """`value`, as JSON or the command line gave it, as the type `wanted` of the setting `name`."""
    if dataclasses.is_dataclass(wanted):
        return build(wanted, value, prefix=f"{name}.")
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        (wanted,) = (argument for argument in arguments if argument is not type(None))
        return _convert(value, wanted, name)
    if origin is typing.Literal:
        require(value in arguments, name, f"must be one of {', '.join(map(str, arguments))}; got {value!r}")
        return value
    if origin is tuple:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            value = str(value)  # A list of one on the command line, which was read as a number.
        if isinstance(value, str):
            value = [part.strip() for part in value.split(",") if part.strip()]
            value = [_parse(part) if arguments[0] is not str else part for part in value]
        require(isinstance(value, (list, tuple)), name, f"must be a list; got {value!r}")
        if arguments[-1] is Ellipsis:
            return tuple(_convert(item, arguments[0], name) for item in value)
        require(len(value) == len(arguments), name, f"must have {len(arguments)} values; got {value!r}")
        return tuple(_convert(item, argument, name) for item, argument in zip(value, arguments, strict=True))
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    right_type = isinstance(value, wanted) and (wanted is bool or not isinstance(value, bool))
    require(right_type, name, f"must be of type {wanted.__name__}; got {value!r}")
    return value


def _parse(text):
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def parse_assignments(assignments):
    """``["pretext.domains=t1", "seed=1"]`` as the block ``{"pretext": {"domains": "t1"}, "seed": 1}``.

    Values are read as JSON where they are JSON, else as text. Raises UserError for an assignment without ``=``.
    """
    block = {}
    for assignment in assignments:
        key, separator, text = assignment.partition("=")
        if not separator or not key:
            raise UserError(f"--set {assignment}: must be written as name=value")
        *groups, name = key.split(".")
        inner = block
        for group in groups:
            inner = inner.setdefault(group, {})
            if not isinstance(inner, dict):
                raise UserError(f"--set {assignment}: {group} is a setting, not a group of settings")
        inner[name] = _parse(text)
    return block


def merge(base, update):
    """`base` with `update` laid over it, group by group. Both are nested dicts; neither is changed."""
    merged = dict(base)
    for key, value in update.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def to_block(settings):
    """The settings as a dict that JSON can hold, every default written out."""
    return json.loads(json.dumps(dataclasses.asdict(settings)))


def union(settings_classes):
    """One dataclass with the fields and rules of all `settings_classes`: what a configuration for any of them may set.

    Raises TypeError where two of them declare one name with different types or defaults.
    """
    fields = {}
    for settings_class in settings_classes:
        hints = typing.get_type_hints(settings_class)
        for field in dataclasses.fields(settings_class):
            declared = (hints[field.name], field.default, field.default_factory)
            if fields.setdefault(field.name, declared) != declared:
                raise TypeError(
                    f"the setting {field.name} of {settings_class.__name__} is declared otherwise elsewhere"
                )

    def check(everything):
        for settings_class in settings_classes:
            settings_class(
                **{field.name: getattr(everything, field.name) for field in dataclasses.fields(settings_class)}
            )

    return dataclasses.make_dataclass(
        "AllSettings",
        [
            (name, hint, dataclasses.field(default_factory=factory))
            if default is dataclasses.MISSING
            else (name, hint, dataclasses.field(default=default))
            for name, (hint, default, factory) in fields.items()
        ],
        frozen=True,
        namespace={"__post_init__": check},
    )
