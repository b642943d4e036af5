"""What a trained model makes of patches of scans: its bottleneck features, per checkpoint."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from tqdm import tqdm

from nnunet_da.domains import read_domains
from nnunet_da.errors import UserError
from nnunet_da.evaluation.embedding import global_max_pool
from nnunet_da.files import read_json
from nnunet_da.parallel import BAR_AFTER_SECONDS
from nnunet_da.prediction.inputs import CheckedScan, stage
from nnunet_da.prediction.model import Model, quietly
from nnunet_da.splits import FILE_NAME as SPLITS

# What a case is to the fold: the last two were not seen with labels.
TRAINING, VALIDATION, UNLABELLED, NEW = "training", "validation", "unlabelled", "new"


@dataclass(frozen=True)
class Source:
    """A case to take patches of: its domain, its role in the fold, and where its voxels come from.

    `scan` None: the preprocessed data of the dataset; else a scan from elsewhere, preprocessed when it is read.
    """

    case: str
    domain: str
    role: str
    scan: CheckedScan | None = None


def dataset_sources(model: Model, preprocessed) -> list[Source]:
    """The cases of every domain that are preprocessed for the model's configuration, domain by domain.

    Args:
        preprocessed: the dataset's folder in nnUNet_preprocessed.

    Raises UserError where the data, or a domain's, are missing.
    """
    folder = _data_folder(model, preprocessed)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; run nnUNetv2_plan_and_preprocess -c {model.configuration}")
    present = set(infer_dataset_class(str(folder)).get_identifiers(str(folder)))
    domains = read_domains(model.dataset_json, model.folder / "dataset.json")
    role_of_case = dict.fromkeys(domains.unlabelled_cases, UNLABELLED) | _roles(model, Path(preprocessed))
    sources = []
    for domain in domains:
        cases = [case for case in domain.cases if case in present]
        if not cases:
            raise UserError(f"{folder}: holds no case of domain '{domain.name}'; run nnUNetv2_preprocess again")
        sources += [Source(case, domain.name, role_of_case.get(case, TRAINING)) for case in cases]
    return sources


def extract(model: Model, sources, preprocessed, *, n_patches, seed, device):
    """Features of patches: array (len(sources) · n_patches, channels), a source's patches one after the other.

    A patch has the configuration's size and lies anywhere within its scan with equal chance; it is padded with 0 where
    the scan is smaller. Equal `seed` and sources give equal patches for every checkpoint. Raises UserError where the
    network has no encoder.
    """
    predictor = model.predictor(device, mirroring=False)
    network = getattr(predictor.network, "_orig_mod", predictor.network).to(device).eval()
    if not hasattr(network, "encoder"):
        raise UserError(f"{model.folder}: {type(network).__name__} has no encoder, whose last features would be shown")
    patch_size = predictor.configuration_manager.patch_size
    folder = _data_folder(model, preprocessed)
    features = []
    bar = tqdm(sources, desc=f"Features of {model.checkpoint}", unit="case", leave=False, delay=BAR_AFTER_SECONDS)
    for index, source in enumerate(bar):
        data = _read(source, folder, predictor)
        patches = random_patches(data, patch_size, n_patches, np.random.default_rng([seed, index]))
        with torch.inference_mode():
            for patch in patches:
                bottleneck = network.encoder(torch.from_numpy(patch[None]).to(device))[-1]
                features.append(global_max_pool(bottleneck)[0].float().cpu().numpy())
    return np.stack(features)


def random_patches(data, patch_size, n_patches, generator):
    """`n_patches` patches (channels, *patch_size), float32, of `data` (channels, Z, Y, X), anywhere within it.

    A patch of two dimensions is part of one slice. What lies beyond the scan is 0.
    """
    size = np.array([1, *patch_size] if len(patch_size) == 2 else patch_size)
    shape = np.array(data.shape[1:])
    for _ in range(n_patches):
        start = generator.integers(0, np.maximum(shape - size, 0) + 1)
        stop = np.minimum(start + size, shape)
        part = np.asarray(data[(slice(None), *map(slice, start, stop))], dtype=np.float32)
        missing = size - part.shape[1:]
        padded = np.pad(part, [(0, 0), *zip(missing // 2, missing - missing // 2, strict=True)])
        yield padded.reshape(data.shape[0], *patch_size)


def _data_folder(model, preprocessed):
    return Path(preprocessed) / model.configuration_manager.data_identifier


def _roles(model, preprocessed):
    """Case → training or validation, by the splits of the model's fold; empty where there are none (fold all)."""
    fold, path = model.folds[0], preprocessed / SPLITS
    if fold == "all" or not path.is_file():
        return {}
    splits = read_json(path)
    if int(fold) >= len(splits):
        return {}
    split = splits[int(fold)]
    return dict.fromkeys(split["train"], TRAINING) | dict.fromkeys(split["val"], VALIDATION)


def _read(source, folder, predictor):
    """The preprocessed voxels of a source (channels, Z, Y, X); those of the dataset are read where they are used."""
    if source.scan is None:
        return infer_dataset_class(str(folder))(str(folder), [source.case]).load_case(source.case)[0]
    preprocessor = predictor.configuration_manager.preprocessor_class(verbose=False)
    with tempfile.TemporaryDirectory(prefix="nnunet_da.embed.") as name, quietly():
        paths = stage(source.scan, name, "scan", predictor.dataset_json["file_ending"])
        manager, configuration = predictor.plans_manager, predictor.configuration_manager
        return preprocessor.run_case(list(map(str, paths)), None, manager, configuration, predictor.dataset_json)[0]
