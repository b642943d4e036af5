"""New scans through the whole disc pipeline: segmented, restricted to the spine, told apart and numbered."""

import shutil
from pathlib import Path

from nnunet_da.discs.folder import localise_folder
from nnunet_da.discs.localisation import N_DISCS
from nnunet_da.discs.restriction import restrict_folder
from nnunet_da.errors import UserError
from nnunet_da.files import read_json
from nnunet_da.prediction.outputs import RECORD
from nnunet_da.prediction.workflow import predict

SEGMENTED, REGION, LOCALIZER = "segmented", "region", "localizer"
MASKS, NUMBERED = "masks", "numbered"


def predict_discs(
    scans,
    output,
    discs,
    *,
    region=None,
    localizer=None,
    n_discs=N_DISCS,
    expected=None,
    reference=None,
    n_processes=None,
    **options,
):
    """Predicts the folder of `scans` with up to three models, and numbers the discs that they find.

    Writes to `output`, each in a folder of its name: what the models predict (``segmented``, ``region``,
    ``localizer``), the masks of discs inside the region (``masks``), and what `localise_folder` makes of them
    (``numbered``: label maps, discs.csv, cases.csv, pictures). Interrupted, it goes on where it stopped; done again, it
    predicts only scans that are new or have changed.

    Parameters
    ----------
    scans, output : path
    discs : Model
        Segments discs.
    region, localizer : Model, optional
        Segment the spine region, and tell discs apart.
    n_discs, expected, reference
        As in `localise_folder`.
    options
        Of `nnunet_da.prediction.workflow.predict`.

    Returns the rows of cases.csv. Raises UserError as `predict` and `localise_folder` do, and, before anything is
    written, where `output` holds something else.
    """
    output = Path(output)
    models = {SEGMENTED: discs, REGION: region, LOCALIZER: localizer}
    known = {*models, MASKS, NUMBERED}
    if output.exists() and (not output.is_dir() or any(_own_name(path) not in known for path in output.iterdir())):
        raise UserError(f"-o {output}: holds other files; choose a new folder")
    for name in (MASKS, NUMBERED):
        if (output / name).exists() and not (output / SEGMENTED / RECORD).is_file():
            raise UserError(f"-o {output}: holds other files; choose a new folder")
    for name, model in models.items():
        if model is not None:
            predict(scans, output / name, model, **options)
    # Quick, and never of earlier predictions.
    for name in (MASKS, NUMBERED):
        shutil.rmtree(output / name, ignore_errors=True)
    masks = _label_maps(output / SEGMENTED, output)
    if region is not None:
        empty, _ = restrict_folder(masks, _label_maps(output / REGION, output), output / MASKS, n_processes=n_processes)
        for case in empty:
            print(f"warning: {case}: no spine region was found, so no disc is left")
        masks = output / MASKS
    return localise_folder(
        masks,
        output / NUMBERED,
        localiser=_label_maps(output / LOCALIZER, output) if localizer is not None else None,
        reference=reference,
        n_discs=n_discs,
        expected=expected,
        n_processes=n_processes,
    )


def _own_name(path):
    """The name of an entry of `output`, without what marks it as unfinished."""
    return path.name.lstrip(".").split(".")[0]


def _label_maps(folder, output):
    """`folder`, in which `predict` has left a label map per scan, every one of them finished."""
    record = read_json(folder / RECORD)
    for name, entry in record["scans"].items():
        if not (folder / entry["result"]).is_file():
            raise UserError(f"-o {output}: the prediction of {name} is gone from {folder.name}; start again elsewhere")
    return folder
