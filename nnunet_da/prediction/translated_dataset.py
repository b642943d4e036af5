"""A dataset of translated scans with their true labels, beside the scans of the domain that they now look like."""

import shutil
from pathlib import Path

from nnunet_da.domains import IGNORE, label_values
from nnunet_da.errors import UserError
from nnunet_da.paths import RAW, dataset_folder
from nnunet_da.prediction.inputs import ScanFiles
from nnunet_da.prediction.model import Model
from nnunet_da.prediction.translation import trained_domains, translate
from nnunet_da.raw_dataset import Case, Conversion, write_dataset
from nnunet_da.raw_folder import RawFolder, new_folder

# Whose result depends on a scan's intensities only up to a linear change: translated scans are in [0, 1].
LINEAR_SCHEMES = ("ZScoreNormalization", "RescaleTo01Normalization")


def write_translated_dataset(
    model: Model,
    dataset,
    dataset_id,
    name,
    *,
    keep_source=False,
    device=None,
    n_processes=None,
    overwrite=False,
) -> Path:
    """Writes ``nnUNet_raw/DatasetXXX_Name`` from the raw dataset that `model` was trained on; returns the folder.

    It holds the labelled cases of the source, translated, as the domain SOURCE_as_TARGET, and the cases of the target
    as they are. Ids, subjects, labels and the structures of each domain stay. Scans are translated into a hidden folder
    beside it first, where an interrupted run goes on.

    Args:
        dataset: id or name of the raw dataset.
        dataset_id, name: of the new one.
        keep_source: the labelled cases of the source stay too, so that a model of it does not unlearn the source. Their
            translations are then named CASE_as_TARGET; both are of one subject, and so in one fold.
        device, n_processes: as in `translate`.
        overwrite: replace a dataset of that id and name.

    Raises UserError, before anything is written, where the dataset has no such domains or its channels are not
    normalised by the scan, or the new one exists.
    """
    raw = RawFolder.read(dataset_folder(RAW, dataset))
    if raw.domains is None:
        raise UserError(f"{raw.json_path}: has no domains to translate between")
    source, target = (raw.domains[domain] for domain in trained_domains(model))
    folder = new_folder(dataset_id, name)
    if folder == raw.folder:
        raise UserError(f"--as {dataset_id}: is the dataset that is translated; choose another id")
    if folder.exists() and not overwrite:
        raise UserError(f"{folder}: exists; replace it with --overwrite, or choose another --as")
    for channel, scheme in zip(raw.channel_names, model.configuration_manager.normalization_schemes, strict=True):
        if scheme not in LINEAR_SCHEMES:
            raise UserError(
                f"{raw.json_path}: channel {channel} is normalised by {scheme}; translated scans are in [0, 1], which "
                f"only a normalisation by the scan makes comparable to others"
            )
    labels = {label: value for label, value in raw.labels.items() if label != IGNORE}
    order = raw.content.get("regions_class_order")
    ignore = RawFolder.new(folder, raw.channel_names, labels, order, {}).ignore
    values = {value: value for value in label_values(labels)} | {raw.ignore: ignore}

    images = raw.images_on_disk()
    absent = [case for case in (*source.labelled, *target.cases) if case not in images]
    if absent:
        raise UserError(f"{raw.folder / 'imagesTr'}: holds no image of case '{absent[0]}', which dataset.json names")
    for case in (*source.labelled, *target.labelled):
        if not raw.label_path(case).is_file():
            raise UserError(f"{raw.label_path(case)}: no such file")
    scans = [ScanFiles(case, tuple(images[case]), model.scales) for case in source.labelled]
    for scan in scans:
        if len(scan.images) != model.n_channels:
            raise UserError(
                f"{scan.images[0]}: case '{scan.name}' has not the {model.n_channels} channels of the model"
            )
    staging = folder.with_name(f".{folder.name}.translated")
    options = {"device": device, "n_processes": n_processes, "overwrite": overwrite}
    translate(scans, raw.folder / "imagesTr", staging, model, **options)

    def case_of(id, domain, paths, labelled, ending=""):
        label = (raw.label_path(id), values, raw.domains.pseudo_labels.get(id)) if labelled else (None, None, None)
        return Case(f"{id}{ending}", domain, raw.domains.subject_of(id), tuple(paths), *label)

    translated = f"{source.name}_as_{target.name}"
    identity = model.identity()
    made_by = f"{identity['folder']}, fold {identity['folds'][0]}, {identity['checkpoint']}"
    ending = f"_as_{target.name}" if keep_source else ""
    kept = source.labelled if keep_source else ()
    conversion = Conversion(
        cases=[
            *(case_of(id, source.name, images[id], True) for id in kept),
            *(
                case_of(id, translated, [staging / path.name for path in images[id]], True, ending)
                for id in source.labelled
            ),
            *(case_of(id, target.name, images[id], id in target.labelled) for id in target.cases),
        ],
        channel_names=raw.channel_names,
        labels=labels,
        domain_labels=({source.name: source.labels} if keep_source else {})
        | {translated: source.labels, target.name: target.labels},
        regions_class_order=order,
        extra=raw.extra | {"translated_by": made_by},
    )
    write_dataset(conversion, dataset_id, name, overwrite=overwrite, n_processes=n_processes)
    shutil.rmtree(staging)
    return folder
