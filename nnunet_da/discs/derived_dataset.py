"""Datasets for the networks of the disc pipeline, made of one with annotated discs (ivd_dense_aspp, 2.2 and 2.3)."""

from collections import defaultdict
from pathlib import Path

from nnunet_da import splits
from nnunet_da.discs.derived_labels import UNKNOWN, DiscsInRegion, NumberedDiscs, SpineRegion
from nnunet_da.discs.ground_truth import MARGIN_MM
from nnunet_da.discs.localisation import N_DISCS
from nnunet_da.domains import BACKGROUND, IGNORE, label_values
from nnunet_da.errors import UserError
from nnunet_da.paths import PREPROCESSED, RAW, dataset_folder
from nnunet_da.phantom.spine import DISCS
from nnunet_da.raw_dataset import Case, Conversion, write_dataset
from nnunet_da.raw_folder import RawFolder, new_folder
from nnunet_da.scan_folder import scans_by_stem

REGION, NUMBERED, WITHIN = "spine-region", "discs-numbered", "discs-in-region"
KINDS = (REGION, NUMBERED, WITHIN)


def write_disc_dataset(
    dataset,
    dataset_id,
    name,
    kind,
    *,
    margin=MARGIN_MM,
    n_discs=N_DISCS,
    regions=(),
    link=False,
    overwrite=False,
    n_processes=None,
) -> Path:
    """Writes ``nnUNet_raw/DatasetXXX_Name`` with the cases of a raw dataset and other labels; returns the folder.

    Cases, subjects, domains and splits stay; unlabelled cases stay unlabelled. All structures of the dataset count as
    discs, which must not touch one another but for 'discs-in-region'.

    Parameters
    ----------
    dataset : str or int
        Id or name of the raw dataset.
    dataset_id, name
        Of the new one.
    kind : str
        'spine-region': one structure, the convex hull of what lies within `margin` mm of a disc. 'discs-numbered': a
        structure per disc, from the lowest to the `n_discs`-th; higher ones are background. 'discs-in-region': the
        labels as they are inside the `regions`, and `ignore` outside.
    regions : sequence of path
        Folders with the predicted region of every labelled case, ``CASE.nii.gz``: out-of-fold predictions, such as
        nnU-Net leaves them in ``fold_X/validation``. Each case in one of them.
    link, overwrite, n_processes
        As in `write_dataset`.

    Raises UserError, before anything is written, where the dataset has no labelled case, a label map no disc, a case
    no region or several, or a region another grid.
    """
    raw = RawFolder.read(dataset_folder(RAW, dataset))
    if raw.domains is None:
        raise UserError(f"{raw.json_path}: has no domains; `nnunet-da convert` and `add-domain` make such datasets")
    if not raw.domains.labelled_cases:
        raise UserError(f"{raw.json_path}: has no labelled case, of which labels could be made")
    folder = new_folder(dataset_id, name)
    if folder == raw.folder:
        raise UserError(f"--as {dataset_id}: is the dataset that is read; choose another id")
    if (kind == WITHIN) != bool(regions):
        raise UserError(f"--regions: are needed for {WITHIN}, and for nothing else")
    if kind == REGION and margin < 0:
        raise UserError(f"--margin {margin:g}: must not be negative")
    if not 1 <= n_discs <= len(DISCS):
        raise UserError(f"--n-discs {n_discs}: must be from 1 to {len(DISCS)}")
    labels, order = _labels(raw, kind, n_discs)
    region_of = _regions(regions, raw.domains.labelled_cases) if regions else {}
    ignore = RawFolder.new(folder, raw.channel_names, labels, order, {}).ignore
    values = {value: value for value in label_values(labels)} | {UNKNOWN: ignore}
    images = raw.images_on_disk()

    def label_of(case):
        path = raw.label_path(case)
        if not path.is_file():
            raise UserError(f"{path}: no such file")
        if kind == REGION:
            return SpineRegion(path, raw.ignore, margin)
        if kind == NUMBERED:
            return NumberedDiscs(path, raw.ignore, n_discs, lowest_alone=True)
        return DiscsInRegion(path, raw.ignore, region=region_of[case])

    def case_of(case, domain):
        if case not in images:
            raise UserError(f"{raw.folder / 'imagesTr'}: holds no image of case '{case}', which dataset.json names")
        subject = raw.domains.subject_of(case)
        label = (label_of(case), values) if case in domain.labelled else (None, None)
        return Case(case, domain.name, None if subject == case else subject, tuple(images[case]), *label)

    conversion = Conversion(
        cases=[case_of(case, domain) for domain in raw.domains for case in domain.cases],
        channel_names=raw.channel_names,
        labels=labels,
        domain_labels={domain.name: domain.labels for domain in raw.domains} if kind == WITHIN else {},
        regions_class_order=order,
        extra=raw.extra,
    )
    return write_dataset(
        conversion,
        dataset_id,
        name,
        overwrite=overwrite,
        link=link,
        n_processes=n_processes,
        make_splits=lambda domains: _splits_of(raw, domains),
    )


def _labels(raw, kind, n_discs):
    """Structure → value of the new dataset, and its order of regions (None: there are none)."""
    if kind == REGION:
        return {"spine": 1}, None
    if kind == NUMBERED:
        return {level: number for number, level in enumerate(DISCS[:n_discs], start=1)}, None
    labels = {label: value for label, value in raw.labels.items() if label not in (BACKGROUND, IGNORE)}
    return labels, raw.content.get("regions_class_order")


def _regions(folders, cases):
    """Case → file of its region. Raises UserError where a case has none, or several."""
    found = defaultdict(list)
    for folder in folders:
        for case, path in scans_by_stem(folder).items():
            found[case].append(path)
    for case in cases:
        if not found[case]:
            raise UserError(f"--regions: none of the folders holds the region of case '{case}'; train every fold")
        if len(found[case]) > 1:
            raise UserError(
                f"{found[case][1]}: {found[case][0]} is of this case too; a case has one out-of-fold prediction"
            )
    return {case: found[case][0] for case in cases}


def _splits_of(raw, domains):
    """The splits of the dataset that was read, so that networks may be combined out of fold."""
    earlier = splits.read_splits(dataset_folder(PREPROCESSED, raw.folder.name) / splits.FILE_NAME)
    return earlier or splits.make_splits(domains)
