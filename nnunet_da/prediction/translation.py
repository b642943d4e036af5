"""From scans of one domain to scans in the look of another, with a trained translation."""

import itertools
from pathlib import Path

import numpy as np
import torch
from nnunetv2.inference.sliding_window_prediction import compute_gaussian, compute_steps_for_sliding_window
from tqdm import tqdm

from nnunet_da.domains import read_domains
from nnunet_da.errors import UserError
from nnunet_da.files import write_json
from nnunet_da.parallel import BAR_AFTER_SECONDS, run_parallel
from nnunet_da.prediction.inputs import CheckedScan, ScanFiles, check_scan
from nnunet_da.prediction.model import Model, choose_device, model_folder, open_model
from nnunet_da.prediction.outputs import open_output, write_like
from nnunet_da.prediction.preprocessing import preprocess, restore
from nnunet_da.prediction.workflow import record_of
from nnunet_da.scans import ending_of
from nnunet_da.training.configured_trainer import read_settings, unwrap
from nnunet_da.training.translation_trainer import TranslationTrainer
from nnunet_da.training.unpaired import OUTSIDE
from nnunet_da.translation.direction import source_and_target
from nnunet_da.translation.intensities import ScanRange

RECORD = "translation.json"
TRAINER = "nnUNetTrainerCycleGAN"
TILE_STEP = 0.5  # of the tile, as nnU-Net's sliding window


def open_translation(dataset, configuration, plans, fold, checkpoint) -> Model:
    """The trained translation; `fold` None: the only one that is trained, or fold_all.

    Raises UserError where it is not trained, or several folds are.
    """
    folder = model_folder(dataset, configuration, TRAINER, plans)
    if fold is None:
        trained = sorted(path.parent.name.removeprefix("fold_") for path in folder.glob(f"fold_*/{checkpoint}"))
        if len(trained) > 1 and "all" not in trained:
            raise UserError(f"{folder}: folds {', '.join(trained)} are trained; choose one with -f")
        fold = "all" if "all" in trained else next(iter(trained), None)
    return open_model(folder, fold and [fold], checkpoint)


class Translator:
    """Translates whole scans, slice by slice.

    Every scan has one scale, that of `ScanRange` in training. In plane, tiles of the patch size overlap by half and are
    averaged with nnU-Net's Gaussian weights; a slice is translated without regard to its neighbours.

    Parameters
    ----------
    model : Model
    reverse : bool
        From the target to the source.
    device : torch.device
    """

    def __init__(self, model, reverse, device):
        self.model = model
        self.to = "to_source" if reverse else "to_target"
        self.device = device
        self.settings = read_settings(model.configuration_manager, TranslationTrainer.settings_class).translation
        self.network = unwrap(model.predictor(device, mirroring=False).network).to(device).eval()

    def __call__(self, scan: CheckedScan):
        """The translated scan on its own grid, (channels, X, Y, Z), float32 in [0, 1]."""
        voxels, labels, properties = preprocess(scan, self.model)
        outside = labels == OUTSIDE
        images = ScanRange.of(voxels, outside[0], self.settings.percentiles).to_unit(voxels, outside)
        translated = self.translate_slices(images)
        translated[np.broadcast_to(outside, translated.shape)] = 0
        # Interpolation overshoots.
        return restore(translated, properties, self.model).clip(0, 1)

    def translate_slices(self, images):
        """Images in [0, 1], (channels, slices, rows, columns), translated; of the same shape."""
        tile = self.model.configuration_manager.patch_size
        free = [max(0, size - length) for size, length in zip(tile, images.shape[2:], strict=True)]
        before = [n // 2 for n in free]
        padded = np.pad(images, [(0, 0), (0, 0), *((b, n - b) for b, n in zip(before, free, strict=True))])
        size = padded.shape[2:]
        weight = compute_gaussian(tuple(tile), 1 / 8, dtype=torch.float32, device=torch.device("cpu"))
        total, weights = torch.zeros(padded.shape), torch.zeros(size)
        corners = list(itertools.product(*compute_steps_for_sliding_window(size, tile, TILE_STEP)))
        for row, column in corners:
            weights[row : row + tile[0], column : column + tile[1]] += weight
        n_slices = self.model.configuration_manager.batch_size if self.device.type == "cuda" else 1
        for first in range(0, padded.shape[1], n_slices):
            slices = slice(first, first + n_slices)
            for row, column in corners:
                place = (slice(None), slices, slice(row, row + tile[0]), slice(column, column + tile[1]))
                total[place] += weight * self._translate_tiles(padded[place])
        window = (slice(b, b + length) for b, length in zip(before, images.shape[2:], strict=True))
        return (total / weights)[(..., *window)].numpy()

    @torch.inference_mode()
    def _translate_tiles(self, tiles):
        """`tiles` (channels, slices, rows, columns) translated."""
        images = torch.from_numpy(np.ascontiguousarray(tiles.swapaxes(0, 1), np.float32)).to(self.device)
        return self.network(images, "translate", to=self.to).float().cpu().transpose(0, 1)


def translate(files, scans_folder, output, model, *, reverse=False, device=None, n_processes=None, overwrite=False):
    """Writes the translated `files` (list of ScanFiles) and translation.json into `output`; returns what that says.

    The results have the names and grids of the scans, NIfTI for a DICOM series; float32 in [0, 1]. Scans that an
    earlier run of the same model finished are left as they are, if they have not changed.

    Args:
        scans_folder: where the scans lie.
        reverse: from the target to the source.
        device: 'cuda', 'cpu', 'mps', or None: the GPU where there is one.
        n_processes: processes that read, as in `run_parallel`.
        overwrite: translate again what is there, and write into a folder that holds other files.

    Raises UserError, before anything is written, where a scan cannot be read or does not fit the model, or the output
    folder holds other files.
    """
    device, output = choose_device(device), Path(output)
    record = record_of("translate", model, device, reverse=reverse)
    results = [name for scan in files for name in _results(scan)]
    finished = open_output(output, scans_folder, record, results, overwrite, RECORD)
    checked = run_parallel(check_scan, files, n_processes, "Reading scans")
    to_do = [scan for scan in checked if finished.get(scan.files.name, {}).get("digest") != scan.digest]
    outdated = {scan.files.name for scan in to_do}
    record["scans"] = {name: entry for name, entry in finished.items() if name not in outdated}
    if not to_do:
        return record
    translator = Translator(model, reverse, device)
    try:
        output.mkdir(parents=True, exist_ok=True)
        write_json(record, output / RECORD)
        for scan in tqdm(to_do, desc="Translating", unit="scan", delay=BAR_AFTER_SECONDS):
            _write(translator(scan), scan, output)
            names = _results(scan.files)
            record["scans"][scan.files.name] = {"result": names[0], "files": names, "digest": scan.digest}
            write_json(record, output / RECORD)
    except OSError as error:
        raise UserError(f"{output}: cannot be written ({error.strerror or error})") from error
    return record


def _results(files: ScanFiles):
    """The names of the files of a translated scan, one per channel: those of its own, NIfTI for a DICOM series."""
    return [path.name if ending_of(path) else f"{path.name}.nii.gz" for path in files.images]


def _write(translated, scan, folder):
    # The first channel last: it tells that the scan is complete.
    channels = list(zip(translated, scan.files.images, _results(scan.files), strict=True))
    for voxels, image, name in reversed(channels):
        write_like(voxels, image, scan.grid, folder / name)


def trained_domains(model: Model):
    """The names of source and target that a translation was trained on."""
    settings = read_settings(model.configuration_manager, TranslationTrainer.settings_class).translation
    domains = read_domains(model.dataset_json, model.folder / "dataset.json")
    return tuple(domain.name for domain in source_and_target(domains, settings))
