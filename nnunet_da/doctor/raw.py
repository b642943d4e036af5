"""The raw cases of a dataset, and the dataset.json that names them."""

from nnunet_da.doctor.findings import ok, problem, shortened, warning
from nnunet_da.domains import read_domains
from nnunet_da.errors import UserError
from nnunet_da.files import read_json
from nnunet_da.raw_folder import RawFolder

WRITE_AGAIN = "run again the `nnunet-da convert … --into` or `nnunet-da add-domain …` that wrote its scans"


def read_object(path, kind, *keys):
    """The JSON object (dict) in the file `path`. Raises UserError where it is none, or lacks one of `keys`."""
    content = read_json(path)
    for key in keys:
        if not isinstance(content, dict) or key not in content:
            raise UserError(f"{path}: '{key}' is missing; this is no {kind} of nnU-Net v2")
    return content


def read_raw(folder):
    """The dataset.json in `folder`: a RawFolder, or None where it cannot be used, and the findings (list)."""
    path = folder / "dataset.json"
    try:
        content = read_object(path, "dataset.json", "labels", "file_ending")
        content.setdefault("channel_names", content.get("modality", {}))
        if not isinstance(content["channel_names"], dict) or not content["channel_names"]:
            raise UserError(f"{path}: 'channel_names' must map the channels' numbers to their names")
        domains = read_domains(content, path) if "domains" in content else None
    except UserError as error:
        return None, [problem(str(error), "correct it, or convert the dataset again")]
    raw = RawFolder(folder, content, domains)
    if domains is None:
        remedy = "nnunet-da add-domain adds scans of another domain"
        return raw, [warning(f"{path}: has no domains, so only nnU-Net's own way of training is possible", remedy)]
    counted = ", ".join(f"{len(d.labelled)} + {len(d.unlabelled)} of {d.name}" for d in domains)
    return raw, [ok(f"{path}: {len(domains)} domains (labelled + unlabelled cases: {counted})")]


def case_ids(raw):
    """The ids of the cases that dataset.json names, or where it has no domains those in imagesTr."""
    return raw.domains.cases if raw.domains is not None else tuple(raw.images_on_disk())


def check_files(raw):
    """Whether every case has an image per channel and a label map, and no others lie beside them."""
    if "dataset" in raw.content:
        yield ok(f"{raw.json_path}: lists its files under 'dataset'; they are not examined")
        return
    images_folder = raw.folder / "imagesTr"
    cases = case_ids(raw)
    channels = range(len(raw.content["channel_names"]))
    images = [images_folder / f"{case}_{channel:04d}{raw.ending}" for case in cases for channel in channels]
    missing = [path for path in [*images, *map(raw.label_path, cases)] if not path.is_file()]
    if missing:
        yield problem(f"{len(missing)} files are missing: {shortened(missing)}", f"put them back, or {WRITE_AGAIN}")
    unknown = sorted(set(raw.images_on_disk()) - set(cases))
    if unknown:
        yield problem(
            f"{images_folder}: holds cases that belong to no domain, and nnU-Net plans with them: {shortened(unknown)}",
            "nnunet-da add-domain, or remove their files from imagesTr and labelsTr",
        )
    counted = raw.content.get("numTraining")
    if counted != len(cases):
        yield problem(f"{raw.json_path}: numTraining is {counted}, but there are {len(cases)} cases", "correct it")
    if not missing and not unknown:
        yield ok(f"{raw.folder}: the files of all {len(cases)} cases are there")
