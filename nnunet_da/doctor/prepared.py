"""What nnU-Net's planning and preprocessing made of a dataset, and whether it still fits the raw cases."""

from pathlib import Path

from nnunet_da import settings
from nnunet_da.doctor.findings import ok, problem, shortened, warning
from nnunet_da.doctor.raw import case_ids, read_object
from nnunet_da.errors import UserError
from nnunet_da.raw_folder import READER


def prepare(raw):
    """The command that plans and preprocesses the dataset of `raw` (RawFolder) for the first time."""
    return f"nnUNetv2_plan_and_preprocess -d {_number(raw)}"


def prepare_again(raw):
    """The same command where a fingerprint stands already, which nnU-Net would keep."""
    return f"{prepare(raw)} --clean"


def _number(raw):
    return int(raw.folder.name[len("Dataset") :][:3])


def check_copy(raw, copy_path):
    """Whether the copy of dataset.json that training reads says what the raw one says."""
    if not copy_path.exists():
        # Said where the plans are examined.
        return
    try:
        copy = read_object(copy_path, "dataset.json", "labels")
    except UserError as error:
        yield problem(str(error), prepare_again(raw))
        return
    copy.setdefault("channel_names", copy.get("modality"))
    keys = ("channel_names", "labels", "regions_class_order", "file_ending", "domains", "subjects")
    differing = [key for key in keys if raw.content.get(key) != copy.get(key)]
    # The order of the domains is their index.
    if "domains" not in differing and list(raw.content.get("domains", ())) != list(copy.get("domains", ())):
        differing.append("order of the domains")
    if differing:
        yield problem(
            f"{copy_path}: is older than {raw.json_path}; different: {', '.join(differing)}", prepare_again(raw)
        )
    else:
        yield ok(f"{copy_path}: agrees with the raw dataset")


def check_fingerprint(raw, path):
    """Whether the fingerprint that the plans rest on was taken of these cases."""
    if not path.exists():
        return
    try:
        n_cases = len(read_object(path, "fingerprint", "shapes_after_crop")["shapes_after_crop"])
    except UserError as error:
        yield problem(str(error), prepare_again(raw))
        return
    n_raw = len(case_ids(raw))
    if n_cases != n_raw:
        yield problem(f"{path}: was taken of {n_cases} cases, but the dataset has {n_raw}", prepare_again(raw))
        return
    newer = _newer_than(path, (image for images in raw.images_on_disk().values() for image in images))
    if newer:
        yield warning(f"{path}: is older than {shortened(newer)}", prepare_again(raw))
    else:
        yield ok(f"{path}: taken of all {n_cases} cases")


def examine_plans(raw, plans_file):
    """The plans in `plans_file`, their configurations, and the data that are preprocessed for them."""
    if not plans_file.exists():
        yield warning(f"{plans_file}: no such file; the dataset is not planned yet", prepare(raw))
        return
    try:
        plans = read_object(plans_file, "plans file", "configurations", "image_reader_writer")
    except UserError as error:
        yield problem(str(error), prepare_again(raw))
        return
    yield from check_reader(raw, plans, plans_file)
    yield from check_configurations(plans["configurations"], plans_file)
    for identifier, names in _data_identifiers(plans["configurations"]).items():
        yield from check_preprocessed(raw, plans_file.parent / identifier, names, plans_file.stem)


def check_reader(raw, plans, plans_file):
    """Whether plans and dataset.json name one reader, and it brings the domains into one orientation."""
    planned, wanted = plans["image_reader_writer"], raw.content.get("overwrite_image_reader_writer")
    if wanted not in (None, "None") and planned != wanted:
        yield problem(
            f"{plans_file}: reads images with {planned}, but {raw.json_path} says {wanted}", prepare_again(raw)
        )
    elif raw.domains is not None and planned != READER:
        yield warning(
            f"{plans_file}: reads images with {planned}, so domains in different orientations look transposed",
            f'set "overwrite_image_reader_writer": "{READER}" in {raw.json_path}, then {prepare_again(raw)}',
        )
    else:
        yield ok(f"{plans_file}: reads images with {planned}")


def check_configurations(configurations, plans_file):
    """Whether each custom configuration has its base, and settings that some trainer knows."""
    from nnunet_da.training.configurations import all_settings

    known = all_settings()
    for name, configuration in configurations.items():
        if "inherits_from" not in configuration and settings.BLOCK not in configuration:
            continue
        base = configuration.get("inherits_from")
        if resolve(name, configurations) is None:
            yield problem(
                f"{plans_file}: configuration {name} rests on {base}, which the plans have not, or on itself",
                f"plan it again, or delete {name} from the plans",
            )
            continue
        try:
            settings.build(known, configuration.get(settings.BLOCK, {}), ignore={settings.TRAINED_DOMAINS})
        except UserError as error:
            yield problem(
                f"{plans_file}: configuration {name}: {error}",
                f"delete {name} from the plans, and write it anew with nnunet-da configure",
            )
        else:
            yield ok(f"configuration {name}" + (f", on {base}" if base else ""))


def resolve(name, configurations, visited=()):
    """The configuration `name` with what it inherits (dict); None where a base is missing, or rests on itself."""
    if name not in configurations or name in visited:
        return None
    base = configurations[name].get("inherits_from")
    inherited = {} if base is None else resolve(base, configurations, (*visited, name))
    return None if inherited is None else {**inherited, **configurations[name]}


def _data_identifiers(configurations):
    """Folder of preprocessed data → the configurations that read it."""
    identifiers = {}
    for name in configurations:
        identifier = (resolve(name, configurations) or {}).get("data_identifier")
        if identifier is not None:
            identifiers.setdefault(identifier, []).append(name)
    return identifiers


def check_preprocessed(raw, folder, configurations, plans_name):
    """Whether every case is preprocessed in `folder`, none besides, and after the last change of its files."""
    of = f"{folder} (of {', '.join(configurations)})"
    if not folder.is_dir():
        yield warning(
            f"{of} does not exist: the dataset is not preprocessed for it",
            f"nnUNetv2_preprocess -d {_number(raw)} -plans_name {plans_name} -c {configurations[0]}",
        )
        return
    # Of a case's files nnU-Net writes the properties last.
    done = {path.stem: path for path in folder.glob("*.pkl")}
    missing = [case for case in case_ids(raw) if case not in done]
    if missing:
        yield problem(f"{of}: {len(missing)} cases are not preprocessed: {shortened(missing)}", prepare_again(raw))
        return
    surplus = sorted(set(done) - set(case_ids(raw)))
    if raw.domains is not None and surplus:
        yield warning(
            f"{of}: holds cases that the dataset has not: {shortened(surplus)}", f"delete {folder}, then {prepare(raw)}"
        )
    images = raw.images_on_disk()
    changed = [case for case in case_ids(raw) if _newer_than(done[case], [*images.get(case, ()), raw.label_path(case)])]
    if changed:
        yield warning(f"{of}: files of cases changed since: {shortened(changed)}", prepare_again(raw))
    elif not surplus:
        yield ok(f"{of}: {len(done)} cases are preprocessed")


def _newer_than(path, others):
    """The files among `others` that were changed after `path`."""
    time = path.stat().st_mtime
    return [other for other in others if Path(other).is_file() and Path(other).stat().st_mtime > time]
