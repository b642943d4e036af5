"""Finding the files of a public dataset by the names that its release gives them.

A converter declares its `Layout`s: for each role (an image, a label) the path below the downloaded folder, with fields
in braces. `find_files` tells which layout a folder has, or in one line what went wrong with the download.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from nnunet_da.errors import UserError

_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".7z", ".rar")
_UNFINISHED = (".part", ".crdownload", ".download", ".partial", ".aria2", ".tmp")
# Fields that every layout may use: how a release writes numbers, and NIfTI with or without compression.
_FIELDS = {"n": r"\d+", "nii": r"nii(?:\.gz)?"}
_SHOWN = {"n": "N", "nii": "nii.gz"}
# How far below the given folder a dataset is looked for, to say where it is.
_DEPTH = 4


@dataclass(frozen=True)
class Layout:
    """How a release names its files.

    `files` maps roles to paths below the dataset's folder, such as ``{n}/{n}_fat.{nii}``; `fields` maps names in braces
    to regular expressions (``n``: digits, ``nii``: .nii or .nii.gz). A path that ends in ``/*.dcm`` makes the folder of
    such files the role. `key` names the fields that tell cases apart. `shown`: what stands for a field in messages.
    `also`: regular expressions of further files that belong to the release but are not read.
    """

    name: str
    files: Mapping[str, str]
    key: tuple[str, ...] = ("n",)
    fields: Mapping[str, str] = field(default_factory=dict)
    shown: Mapping[str, str] = field(default_factory=dict)
    also: Sequence[str] = ()

    @cached_property
    def _patterns(self):
        return {role: re.compile(self._expression(path)) for role, path in self.files.items()}

    def _expression(self, path):
        fields = {**_FIELDS, **self.fields}
        parts, seen = [], set()
        for literal, name in re.findall(r"([^{}]*)(?:\{(\w+)\})?", path):
            parts.append(re.escape(literal).replace(re.escape("*"), "[^/]+"))
            if name:
                parts.append(f"(?P={name})" if name in seen else f"(?P<{name}>{fields[name]})")
                seen.add(name)
        return "".join(parts)

    def match(self, path):
        """(role, fields) of a path (posix) below the dataset's folder, or None."""
        for role, pattern in self._patterns.items():
            if found := pattern.fullmatch(path):
                return role, found.groupdict()
        return None

    def place(self, path, role):
        """What a role consists of where one of its files is at `path`: that file, or its folder."""
        return path.parent if "*" in self.files[role] else path

    def knows(self, path):
        return any(re.fullmatch(pattern, path) for pattern in self.also)

    def example(self, role=None, **values):
        """The path of a role (default: of the first) for the given fields; of others, with what is shown for them."""
        path = self.files[role or next(iter(self.files))]
        for name, value in {**_SHOWN, **self.shown, **values}.items():
            path = path.replace(f"{{{name}}}", value)
        return path


@dataclass(frozen=True)
class Found:
    """The files of a release: `cases` maps the key of a case to its roles' paths, `fields` to its fields."""

    raw: Path
    layout: Layout
    cases: Mapping[tuple[str, ...], Mapping[str, Path]]
    fields: Mapping[tuple[str, ...], Mapping[str, str]]

    def require(self, key, roles, advice="get it again, or leave the case out with --cases"):
        """The paths of `roles` of a case; `Missing` for a file that is not there, an error once the case is used."""
        return [self.cases[key].get(role) or self._missing(role, key, self, advice) for role in roles]

    def label(self, key, images=None, role="label"):
        """The label map (`role`) of a case whose images are in `images` (default: here), or `Missing`."""
        advice = "get it, leave the case out with --cases, or take the scans as --unlabelled"
        return self.cases.get(key, {}).get(role) or self._missing(role, key, images or self, advice)

    def single_scans(self, name, domain, label_values, unlabelled, labels=None):
        """The cases of a release that has one scan per subject: an image, and its label map here or in `labels`.

        `name(number)` is the id of a case; `unlabelled`: without label maps.
        """
        from nnunet_da.raw_dataset import Case

        labels = labels or self
        return [
            Case(
                id=name(key[0]),
                domain=domain,
                subject=None,
                images=tuple(self.require(key, ["image"])),
                label=None if unlabelled else labels.label(key, self),
                label_values=label_values,
            )
            for key in self.cases
        ]

    def _missing(self, role, key, others, advice):
        from nnunet_da.scan_sources import Missing

        there = next(iter(others.cases[key].values())).relative_to(others.raw)
        return Missing(self.raw / self.layout.example(role, **others.fields[key]), f"but {there} is there; {advice}")

    def with_role(self, *roles):
        """The keys of the cases that have a file of one of `roles`, numbers in their order."""
        return [key for key, paths in self.cases.items() if not paths.keys().isdisjoint(roles)]

    def require_role(self, role, what, advice="the download is incomplete"):
        """Raises UserError where no case has a file of `role`."""
        if not self.with_role(role):
            raise UserError(f"{self.raw}: holds no {what} ({self.layout.example(role)}); {advice}")


def natural(key):
    """A key for sorting that takes digits for numbers."""
    return [
        [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", str(text)) if part]
        for text in key
    ]


def find_files(raw, layouts: Sequence[Layout], dataset: str, *, endings=()) -> Found:
    """The files of `dataset` below the folder `raw`, which has one of `layouts`.

    Hidden files are passed over; `endings`: of further files that must be known, besides those of scans. Raises
    UserError where no layout fits, two do, or a scan has a name that the layout does not know.
    """
    from nnunet_da.scans import ending_of  # nibabel, which the command line's help should not wait for

    raw = Path(raw)
    paths = _files_below(raw)
    matches = {layout.name: _matches(paths, layout) for layout in layouts}
    fitting = [layout for layout in layouts if matches[layout.name]]
    if not fitting:
        raise UserError(_diagnosis(raw, paths, layouts, dataset))
    fitting.sort(key=lambda layout: -len(matches[layout.name]))
    layout, found = fitting[0], matches[fitting[0].name]
    for other in fitting[1:]:
        extra = [path for path in matches[other.name] if path not in found]
        if extra:
            raise UserError(
                f"{raw}: mixes two releases: {next(iter(found))} is of '{layout.name}', {extra[0]} of '{other.name}'; "
                f"keep one of them"
            )
    for path in paths:
        is_scan = ending_of(path) is not None or path.lower().endswith(tuple(endings))
        if is_scan and path not in found and not layout.knows(path):
            raise UserError(
                f"{raw / path}: no file of {dataset} has such a name (expected: {_examples([layout])}); "
                f"if it is of another release or your own, move it elsewhere{_other_converter([path], dataset)}"
            )
    cases, fields = {}, {}
    for path, (role, values) in found.items():
        key = tuple(values[name] for name in layout.key)
        place = layout.place(raw / path, role)
        other = cases.setdefault(key, {}).setdefault(role, place)
        if other != place:
            raise UserError(f"{raw / path}: is there twice, also as {other.relative_to(raw)}; remove one of them")
        fields.setdefault(key, {}).update(values)
    keys = sorted(cases, key=natural)
    return Found(raw, layout, {key: cases[key] for key in keys}, {key: fields[key] for key in keys})


def _files_below(raw):
    """Paths (posix) of the files below `raw`, sorted, without hidden ones. Raises UserError where it is no folder."""
    if raw.is_file() and raw.name.lower().endswith(_ARCHIVES):
        raise UserError(f"{raw}: is an archive; unpack it and give the folder")
    if not raw.is_dir():
        raise UserError(f"{raw}: no such folder")
    paths = sorted(path.relative_to(raw) for path in raw.rglob("*") if path.is_file())
    paths = [path.as_posix() for path in paths if not any(part.startswith((".", "__MACOSX")) for part in path.parts)]
    for path in paths:
        if path.lower().endswith(_UNFINISHED):
            raise UserError(f"{raw / path}: is a download that has not ended; get the file again")
    return paths


def _matches(paths, layout):
    """Path → (role, fields) of the files that `layout` names."""
    return {path: match for path in paths if (match := layout.match(path))}


def _diagnosis(raw, paths, layouts, dataset):
    """Why no file of `raw` fits, and what to do."""
    for depth in range(1, _DEPTH + 1):
        for path in paths:
            folders = path.split("/")
            if len(folders) > depth and any(layout.match("/".join(folders[depth:])) for layout in layouts):
                inner = "/".join(folders[:depth])
                return f"{raw}: holds {dataset} in a folder further down; give {raw / inner}"
    above = raw.absolute()
    for depth in range(1, _DEPTH):
        prefix = "/".join(above.parts[-depth:])
        if any(layout.match(f"{prefix}/{path}") for path in paths for layout in layouts):
            return f"{raw}: is a part of {dataset}; give the folder {above.parents[depth - 1]}"
    archives = [path for path in paths if path.lower().endswith(_ARCHIVES)]
    if archives:
        return f"{raw}: holds no file of {dataset}, but the archive {archives[0]}; unpack it first"
    hint = _other_converter(paths, dataset)
    return f"{raw}: no file is named as in {dataset} (expected: {_examples(layouts)}){hint}"


def _examples(layouts):
    return " or ".join(layout.example() for layout in layouts)


def _other_converter(paths, dataset):
    """A hint where the files are those of another public dataset."""
    from nnunet_da.dataset_conversion import converters

    for name, module in converters().items():
        layouts = getattr(module, "LAYOUTS", ())
        if name != dataset and any(layout.match(path) for layout in layouts for path in paths):
            return f"; it looks like {name}: nnunet-da convert {name}"
    return ""
