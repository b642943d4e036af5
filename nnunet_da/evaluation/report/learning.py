"""The learning curves of trained models, from the log that nnU-Net keeps in its checkpoints."""

from pathlib import Path

import numpy as np

from nnunet_da.errors import UserError
from nnunet_da.training.checkpoints import read_checkpoint

CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_latest.pth")
OWN = {
    "Loss": {"training": "train_losses", "validation": "val_losses"},
    "Pseudo Dice": {"mean": "mean_fg_dice", "moving average": "ema_fg_dice"},
}
UNPLOTTED = {"dice_per_class_or_region", "lrs", "epoch_start_timestamps", "epoch_end_timestamps"}


def find_folds(folders):
    """The fold folders among `folders`: each itself if it holds a checkpoint, else its ``fold_*`` that do.

    Raises UserError where there is none.
    """
    folds = []
    for folder in map(Path, folders):
        candidates = [folder, *sorted(folder.glob("fold_*"))]
        found = [one for one in candidates if any((one / name).is_file() for name in CHECKPOINTS)]
        if not found:
            raise UserError(f"{folder}: neither this folder nor a fold_* in it holds {' or '.join(CHECKPOINTS)}")
        folds += found
    return folds


def read_run(fold):
    """Title, whether the training is finished, and panels (title → curve → values) of one fold folder."""
    path = next(Path(fold) / name for name in CHECKPOINTS if (Path(fold) / name).is_file())
    checkpoint = read_checkpoint(path)
    arguments = checkpoint["init_args"]
    parts = [checkpoint["trainer_name"], arguments.get("configuration"), f"fold {arguments.get('fold')}"]
    structures = list(arguments.get("dataset_json", {}).get("labels", {}))
    names = [name for name in structures if name not in ("background", "ignore")]
    return " · ".join(map(str, parts)), path.name == CHECKPOINTS[0], panels(checkpoint.get("logging") or {}, names)


def panels(log, structures=()):
    """Panels (title → curve → values) of nnU-Net's log: losses, pseudo Dice (by structure), and all further curves.

    A further key ``a/b/c`` is the curve c of the panel "A: b"; ``x_train_y`` and ``x_val_y`` are two curves of the
    panel "X y". Underscores become spaces.
    """
    result = {
        title: {name: _floats(log[key]) for name, key in lines.items() if log.get(key)} for title, lines in OWN.items()
    }
    per_class = np.array(log.get("dice_per_class_or_region") or [], dtype=float)
    if per_class.ndim == 2 and per_class.shape[1] > 1:
        fitting = structures if len(structures) == per_class.shape[1] else range(1, per_class.shape[1] + 1)
        result["Pseudo Dice by structure"] = {
            str(name): values.tolist() for name, values in zip(fitting, per_class.T, strict=True)
        }
    own = UNPLOTTED.union(*(lines.values() for lines in OWN.values()))
    for key, values in log.items():
        if key not in own and values and all(np.ndim(value) == 0 for value in values):
            title, name = _placed(key)
            result.setdefault(title, {})[name] = _floats(values)
    return {title: lines for title, lines in result.items() if lines}


def _placed(key):
    """Panel and curve of a further key of the log."""
    head, *rest = key.split("/")
    if rest:
        title, name = ": ".join([head, *rest[:-1]]), rest[-1]
    else:
        words = head.split("_")
        part = next((word for word in ("train", "val") if word in words), None)
        title = " ".join(word for word in words if word != part)
        name = {"train": "training", "val": "validation", None: title}[part]
    title = title.replace("_", " ")
    return title[:1].upper() + title[1:], name


def _floats(values):
    return [float(value) for value in values]
