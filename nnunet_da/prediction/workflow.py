"""From a folder of scans to a folder of predictions, through nnU-Net's own predictor."""

import datetime
import importlib.metadata
import platform
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from nnunetv2.inference.data_iterators import preprocessing_iterator_fromfiles
from tqdm import tqdm

from nnunet_da.errors import UserError
from nnunet_da.files import require_free_space, write_json
from nnunet_da.parallel import run_parallel
from nnunet_da.prediction import profiles
from nnunet_da.prediction.inputs import check_scan, list_scans, stage
from nnunet_da.prediction.model import Model, choose_device, quietly
from nnunet_da.prediction.outputs import RECORD, open_output, read_result, write_result
from nnunet_da.prediction.training_scans import training_profiles

_PACKAGES = ("nnunet-da", "nnunetv2", "torch", "numpy", "SimpleITK", "nibabel")
# Scans per start of nnU-Net's worker processes: seconds each, and a kill (not an interrupt) loses one batch.
_BATCH = 16


def predict(
    scans_folder,
    output,
    model: Model,
    *,
    device=None,
    mirroring=True,
    n_preprocessing=3,
    n_saving=3,
    overwrite=False,
    test_time=None,
):
    """Predicts the scans in `scans_folder` with `model` and writes the results, and prediction.json, into `output`.

    Args:
        device: 'cuda', 'cpu', 'mps', or None: the GPU where there is one.
        mirroring: average over mirrored copies, along the axes that the trainer allows.
        n_preprocessing, n_saving: nnU-Net's worker processes; 0 of either: everything in this process.
        overwrite: predict again what is there, and write into a folder that holds other files.
        test_time: TestTimeSettings, by which the network is adapted to each scan; None: it is not.

    Returns prediction.json's content. Scans that an earlier run of the same model finished are left as they are, if
    they have not changed. Raises UserError, before anything is written, where a scan cannot be read or does not fit
    the model, or the output folder holds other files.
    """
    device = choose_device(device)
    files = list_scans(scans_folder, model.scales)
    how = {} if test_time is None else {"adapted_to_each_scan": asdict(test_time)}
    record = record_of("predict", model, device, mirroring=mirroring, postprocessing="none", **how)
    finished = open_output(output, scans_folder, record, [scan.result for scan in files], overwrite)
    checked = run_parallel(check_scan, files, max(1, n_preprocessing), "Reading scans")
    to_do = [scan for scan in checked if finished.get(scan.files.name, {}).get("digest") != scan.digest]
    domains, notes = training_profiles(model, max(1, n_preprocessing))
    for note in notes:
        print(f"note: {note}")
    entries = {scan.files.name: _entry(scan, domains, model.reorients) for scan in checked}
    for name, entry in entries.items():
        for warning in entry["warnings"]:
            print(f"warning: {name}: {warning}", file=sys.stderr)

    outdated = {scan.files.name for scan in to_do}
    record["compared_with"] = [domain.name for domain in domains]
    record["scans"] = {name: entry for name, entry in finished.items() if name not in outdated}
    record["scans"] |= {name: entry for name, entry in entries.items() if name not in outdated}
    if to_do:
        predictor = model.predictor(device, mirroring, test_time)
        try:
            _predict(to_do, predictor, Path(output), record, entries, n_preprocessing, n_saving)
        except OSError as error:
            raise UserError(f"-o {output}: cannot be written ({error.strerror or error})") from error
    return record


def record_of(verb, model, device, **how):
    """What the record of results says beside the scans: nothing of the machine but its kind of device.

    `how`: entries of the verb.
    """
    return {
        "written_by": f"nnunet-da {verb}",
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "versions": {
            **{name: importlib.metadata.version(name) for name in _PACKAGES},
            "python": platform.python_version(),
        },
        "model": model.identity(),
        "device": device.type,
        **how,
    }


def _entry(scan, domains, reorients):
    """What prediction.json says of a scan."""
    entry = {
        "files": [path.name for path in scan.files.images],
        "result": scan.files.result,
        "digest": scan.digest,
        "warnings": [],
    }
    if not scan.grid.has_orientation:
        entry["warnings"].append("the header does not say how the scan lies in space; it is taken for LAS")
    if domains:
        comparison = profiles.compare(scan.look, domains, reorients)
        entry["most_like"] = comparison.domain
        entry["deviation"] = round(comparison.deviation, 2)
        if comparison.reasons:
            entry["warnings"].append(
                f"unlike every training domain; most like {comparison.domain}, but {'; '.join(comparison.reasons)}"
            )
    return entry


def _predict(scans, predictor, output, record, entries, n_preprocessing, n_saving):
    """Predicts `scans` batch by batch; each result enters `output` and prediction.json as soon as it is complete."""
    in_process = n_preprocessing < 1 or n_saving < 1
    batch_size = 1 if in_process else _BATCH
    batches = [scans[start : start + batch_size] for start in range(0, len(scans), batch_size)]
    largest = max(sum(scan.n_bytes for scan in batch) for batch in batches)
    require_free_space(tempfile.gettempdir(), largest, "staging the scans")
    ending = predictor.dataset_json["file_ending"]
    output.mkdir(parents=True, exist_ok=True)
    write_json(record, output / RECORD)
    for number, batch in enumerate(batches):
        first = number * batch_size
        titles = [f"{scan.files.name} ({first + i} of {len(scans)})" for i, scan in enumerate(batch, 1)]
        with tempfile.TemporaryDirectory(prefix="nnunet_da.predict.") as name:
            inputs = [stage(scan, name, f"scan{index:04d}", ending) for index, scan in enumerate(batch)]
            results = [Path(name) / f"result{index:04d}" for index in range(len(batch))]
            try:
                with quietly():
                    if in_process:
                        _announce(titles[0])
                        predictor.predict_from_files_sequential([list(map(str, inputs[0]))], [str(results[0])])
                    else:
                        _run_nnunet(predictor, inputs, results, titles, n_preprocessing, n_saving)
            except RuntimeError as error:
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                raise UserError(f"nnU-Net stopped while predicting: {reason}") from error
            finally:
                # After an interrupt too: what is complete stays.
                for scan, result in zip(batch, results, strict=True):
                    prediction = read_result(f"{result}{ending}")
                    if prediction is not None:
                        write_result(prediction, scan, output)
                        record["scans"][scan.files.name] = entries[scan.files.name]
                write_json(record, output / RECORD)
        for scan in batch:
            if scan.files.name not in record["scans"]:
                raise UserError(f"{scan.files.images[0]}: nnU-Net left no complete prediction of it")


def _run_nnunet(predictor, inputs, results, titles, n_preprocessing, n_saving):
    iterator = preprocessing_iterator_fromfiles(
        [list(map(str, paths)) for paths in inputs],
        None,
        [str(result) for result in results],
        predictor.plans_manager,
        predictor.dataset_json,
        predictor.configuration_manager,
        n_preprocessing,
        predictor.device.type == "cuda",
    )
    predictor.predict_from_data_iterator(_announced(iterator, titles), False, n_saving)


def _announced(iterator, titles):
    for title, item in zip(titles, iterator, strict=True):
        _announce(title)
        yield item


def _announce(title):
    tqdm.write(title, file=sys.stderr)
