"""The build context of a container that segments as a challenge asks: script, weights, pinned packages, settings."""

import importlib.resources
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from nnunet_da import postprocessing
from nnunet_da.errors import UserError, nearest
from nnunet_da.files import atomic_folder, read_json, require_free_space, write_json
from nnunet_da.prediction.model import Model, open_model
from nnunet_da.submission.challenges import Challenge
from nnunet_da.submission.label_values import label_values
from nnunet_da.submission.output import check_new, writing_to
from nnunet_da.submission.requirements import add_plugin_wheel, pinned
from nnunet_da.training.export import NEEDS, export

SETTINGS = "settings.json"
_FILES = importlib.resources.files("nnunet_da.submission.container")
# File of the package → its name in the context; what is between @ is filled in.
_COPIED = {"predict.py": "predict.py", "Dockerfile": "Dockerfile", "dockerignore": ".dockerignore"}
_SCRIPTS = ("build.sh", "test_run.sh")


def write_context(
    challenge: Challenge,
    models,
    output,
    *,
    checkpoint="checkpoint_final.pth",
    domain=None,
    mirroring=True,
    closing=None,
    region=None,
    localizer=None,
    n_discs=7,
    labels=(),
    plugin_wheel=None,
    overwrite=False,
) -> list[str]:
    """Writes the build context of a container for `challenge` into the folder `output`; returns notes for the user.

    Args:
        models: model folders, each with the folds to take: ``FOLDER`` (all that are trained) or ``FOLDER:0,1``.
        domain: of models with weights of each domain's own, whose to take.
        mirroring: average over mirrored copies.
        closing: None: no post-processing; else that of `nnunet-da postprocess`, closing with a ball of this radius
            (0: the largest connected sets alone).
        region: a model, given as one of `models`, outside whose structures everything is background.
        localizer: likewise, one that numbers discs: what belongs to none of the lowest `n_discs` is background.
        labels: words ``LABEL=VALUE`` that go before the names in the models' dataset.json.
        plugin_wheel: of this package, where a network needs it; None: built from the clone that is installed.
        overwrite: replace a context that stands at `output`.

    The weights are those of `nnunet-da export`, so nothing in the context names a case, a host or a path. Raises
    UserError, and leaves nothing, where a model is none, does not fit the challenge, or is unlike the others.
    """
    output = Path(output)
    if challenge.container is None:
        raise UserError(f"{challenge.name}: takes no containers, but a zip of label maps")
    if closing is not None and closing < 0:
        raise UserError(f"--radius {closing}: must not be negative")
    check_new(output, overwrite)
    if output.is_dir() and any(output.iterdir()) and not (output / SETTINGS).is_file():
        raise UserError(f"-o {output}: is no context of a container, so it is not replaced; choose another place")
    members = [open_model(*parse_model(word), checkpoint) for word in models]
    _check_alike(members)
    helpers = {
        name: open_model(*parse_model(word), checkpoint)
        for name, word in (("region", region), ("localizer", localizer))
        if word is not None
    }
    for helper in helpers.values():
        _check_reads_alike(helper, members[0])
    inputs = _inputs(challenge, members[0])
    values, notes = _values(challenge, members[0], labels)
    sizes = [
        (member.folder / f"fold_{fold}" / checkpoint).stat().st_size
        for member in (*members, *helpers.values())
        for fold in member.folds
    ]
    require_free_space(output.parent, sum(sizes), "the context")
    with writing_to(output), atomic_folder(output) as folder:
        exported = [
            _export(member, folder / "models" / f"{index}_{member.configuration}", domain, folder)
            for index, member in enumerate(members)
        ]
        if domain is not None and not any(model.of_domain for model in exported):
            raise UserError(f"--domain {domain}: no model has weights of each domain's own")
        helping = {
            name: _export(helper, folder / "models" / f"{name}_{helper.configuration}", domain, folder)
            for name, helper in helpers.items()
        }
        settings = {
            "inputs": inputs,
            "output": challenge.container.output,
            "members": [
                {"folder": model.folder.relative_to(folder).as_posix(), "folds": list(member.folds)}
                for model, member in zip(exported, members, strict=True)
            ],
            "mirroring": mirroring,
            "closing": closing,
            "values": values,
        }
        for name, model in helping.items():
            folds = list(helpers[name].folds)
            settings[name] = [{"folder": model.folder.relative_to(folder).as_posix(), "folds": folds}]
        if localizer is not None:
            settings["n_discs"] = n_discs
        write_json(settings, folder / SETTINGS)
        needs_plugin = localizer is not None or any(model.needs_plugin for model in (*exported, *helping.values()))
        _write_requirements(folder / "requirements", needs_plugin, plugin_wheel)
        _copy_files(folder, name=challenge.name, python=f"{sys.version_info.major}.{sys.version_info.minor}")
        if closing is not None:
            shutil.copyfile(postprocessing.__file__, folder / "postprocessing.py")
    return notes


def parse_model(word):
    """``FOLDER`` or ``FOLDER:0,1`` → the folder (Path), and its folds (list of str) or None."""
    match = re.fullmatch(r"(.+):((?:\d+|all)(?:,(?:\d+|all))*)", str(word))
    if not match or Path(word).is_dir():
        return Path(word), None
    folds = match[2].split(",")
    if len(set(folds)) != len(folds):
        raise UserError(f"-m {word}: names a fold twice")
    return Path(match[1]), folds


def _check_alike(members):
    """Raises UserError unless the probabilities of all members can be averaged, voxel by voxel and label by label."""
    first = members[0]
    for member in members[1:]:
        for what, of_member, of_first in (
            ("channels", _channels(member), _channels(first)),
            ("labels", member.dataset_json["labels"], first.dataset_json["labels"]),
            ("regions_class_order", *(model.dataset_json.get("regions_class_order") for model in (member, first))),
            ("image_reader_writer", *(model.plans["image_reader_writer"] for model in (member, first))),
        ):
            if of_member != of_first:
                raise UserError(f"{member.folder}: has other {what} ({of_member}) than {first.folder} ({of_first})")


def _check_reads_alike(helper, first):
    """Raises UserError unless a model that helps reads the scans of the first that segments."""
    for what, of_helper, of_first in (
        ("channels", _channels(helper), _channels(first)),
        ("image_reader_writer", *(model.plans["image_reader_writer"] for model in (helper, first))),
    ):
        if of_helper != of_first:
            raise UserError(f"{helper.folder}: has other {what} ({of_helper}) than {first.folder} ({of_first})")


def _channels(model: Model):
    """The names of the channels, in their order."""
    return [name for _, name in sorted(model.dataset_json["channel_names"].items(), key=lambda item: int(item[0]))]


def _inputs(challenge, model):
    """The template of each of the model's channels, in their order."""
    container, channels = challenge.container, _channels(model)
    if not container.channels:
        if len(channels) != len(container.inputs):
            raise UserError(
                f"{model.folder}: takes {len(channels)} channels ({', '.join(channels)}), but the container gets "
                f"{len(container.inputs)} ({', '.join(container.inputs)})"
            )
        return list(container.inputs.values())
    for name in channels:
        if name not in container.inputs:
            raise UserError(
                f"{model.folder}: takes the channel '{name}', but {challenge.name} has "
                f"{', '.join(container.inputs)}{nearest(name, container.inputs)}"
            )
    return [container.inputs[name] for name in channels]


def _values(challenge, model, given):
    """The model's value (as JSON's keys are) → the challenge's, or None where they are taken as they are; notes."""
    source = model.folder / "dataset.json"
    if not challenge.labels:
        if given:
            raise UserError(f"--labels: {challenge.name} has no labels of its own; the model's are written")
        if _largest_value(model) > 255:
            raise UserError(f"{source}: has label values above 255, which unsigned 8-bit does not hold")
        return None, []
    found = label_values(challenge.labels, model.dataset_json, source, given, challenge.name)
    unknown = [name for value, name in found.names.items() if value not in found.to_challenge]
    if unknown:
        raise UserError(f"{source}: the label '{unknown[0]}' is none of {challenge.name}; say what it is with --labels")
    return {str(value): target for value, target in sorted(found.to_challenge.items())}, list(found.notes)


def _largest_value(model):
    values = model.dataset_json["labels"].values()
    return max(int(value) for entry in values for value in (entry if isinstance(entry, list) else [entry]))


@dataclass(frozen=True)
class _Exported:
    """A stock model in the context; `of_domain`: its weights are one domain's; `needs_plugin`: as is this package."""

    folder: Path
    of_domain: bool
    needs_plugin: bool


def _export(model, target, domain, folder):
    """Writes `model` for nnU-Net alone as the folder `target`, where that can be done."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".export.") as place:
        written = export(model.folder, place, model.folds, model.checkpoint, allow_plugin=True)
        base = model.plans["plans_name"]
        names = {path.name.split("__")[1].removeprefix(f"{base}_"): path for path in written}
        of_domain = base not in names
        if of_domain and domain not in names:
            raise UserError(
                f"{model.folder}: has weights of each domain's own; choose one with --domain ({', '.join(names)})"
                f"{nearest(domain, names) if domain else ''}"
            )
        target.parent.mkdir(exist_ok=True)
        shutil.move(names[domain if of_domain else base], target)
    return _Exported(target, of_domain, NEEDS in read_json(target / "plans.json"))


def _write_requirements(folder, needs_plugin, wheel):
    folder.mkdir()
    lines = pinned(needs_plugin)
    if needs_plugin:
        lines.append(f"./{folder.name}/{add_plugin_wheel(folder, wheel).name}")
    (folder / "requirements.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _copy_files(folder, **filled_in):
    for source, target in (*_COPIED.items(), *((name, name) for name in _SCRIPTS)):
        text = _FILES.joinpath(source).read_text(encoding="utf-8")
        for name, value in filled_in.items():
            text = text.replace(f"@{name}@", value)
        (folder / target).write_text(text, encoding="utf-8")
    for name in _SCRIPTS:
        (folder / name).chmod(0o755)
