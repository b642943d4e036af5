"""What trained networks make of patches of scans: their bottleneck features."""

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import nn
from tqdm import tqdm

from nnunet_da import settings
from nnunet_da.domains import read_domains
from nnunet_da.errors import UserError, nearest
from nnunet_da.evaluation.embedding import global_max_pool
from nnunet_da.files import read_json
from nnunet_da.multidomain.network import DomainNetwork
from nnunet_da.parallel import BAR_AFTER_SECONDS
from nnunet_da.prediction.inputs import CheckedScan
from nnunet_da.prediction.model import Model
from nnunet_da.prediction.preprocessing import preprocess
from nnunet_da.splits import FILE_NAME as SPLITS
from nnunet_da.training.checkpoints import read_checkpoint
from nnunet_da.training.configured_trainer import unwrap

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


@dataclass(frozen=True)
class Encoder:
    """The encoder of a checkpoint of `model`, on a device, for evaluation.

    `domains`: those that a network with domain-specific layers was trained on, in the order of its layers; empty where
    all layers are shared.
    """

    model: Model
    network: nn.Module
    domains: tuple[str, ...]
    device: torch.device

    @property
    def batch_size(self) -> int:
        """Patches per call: on a GPU those of a training step, which has room for them.

        Elsewhere more than one are no faster, and change the last bits.
        """
        return self.model.configuration_manager.batch_size if self.device.type == "cuda" else 1

    def require(self, case, domain, file):
        """Raises UserError unless `case` of `domain`, as `file` says, can pass through the network."""
        if self.domains and domain not in self.domains:
            raise UserError(
                f"{file}: case '{case}' is of domain '{domain}', but {self.model.trainer} has layers of "
                f"{', '.join(self.domains)} alone{nearest(domain, self.domains)}"
            )

    @torch.inference_mode()
    def features(self, patches, domain):
        """The globally max-pooled bottleneck of `patches` (n, channels, *patch) of a domain: array (n, features)."""
        if self.domains:
            self.network.choice.index = self.domains.index(domain)
        bottleneck = self.network.encoder(torch.from_numpy(patches).to(self.device))[-1]
        return global_max_pool(bottleneck).float().cpu().numpy()


def load_encoder(model: Model, device) -> Encoder:
    """The encoder of the model's first fold on `device` (torch.device). Raises UserError where it has none."""
    network = unwrap(model.predictor(device, mirroring=False).network).to(device).eval()
    if not hasattr(network, "encoder"):
        raise UserError(f"{model.folder}: {type(network).__name__} has no encoder, whose last features would be shown")
    domains = _trained_domains(model) if isinstance(network, DomainNetwork) else ()
    return Encoder(model, network, domains, device)


def extract(encoders, sources, preprocessed, *, n_patches, seed) -> list[np.ndarray]:
    """Features of the same patches by each of `encoders`, whose models take equal patches of equal data.

    A patch has the configuration's size and lies anywhere within its scan with equal chance; it is padded with 0 where
    the scan is smaller. Equal `seed` and sources give equal patches. Every scan is read once.

    Returns per encoder an array (len(sources) · n_patches, features), a source's patches one after the other.
    """
    model = encoders[0].model
    patch_size = model.configuration_manager.patch_size
    folder = _data_folder(model, preprocessed)
    batch_size = min(encoder.batch_size for encoder in encoders)
    features = [[] for _ in encoders]
    bar = tqdm(sources, desc="Features", unit="case", leave=False, delay=BAR_AFTER_SECONDS)
    for index, source in enumerate(bar):
        data = _read(source, folder, model)
        patches = random_patches(data, patch_size, n_patches, np.random.default_rng([seed, index]))
        while batch := list(itertools.islice(patches, batch_size)):
            images = np.stack(batch)
            for encoder, rows in zip(encoders, features, strict=True):
                rows.append(encoder.features(images, source.domain))
    return [np.concatenate(rows) for rows in features]


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


def _trained_domains(model):
    """The domains that the weights are of, in order: as their checkpoint says, since another fold may be of others."""
    checkpoint = read_checkpoint(model.folder / f"fold_{model.folds[0]}" / model.checkpoint)
    manager = PlansManager(checkpoint["init_args"]["plans"])
    return tuple(manager.get_configuration(model.configuration).configuration[settings.BLOCK][settings.TRAINED_DOMAINS])


def _read(source, folder, model):
    """The preprocessed voxels of a source (channels, Z, Y, X); those of the dataset are read where they are used."""
    if source.scan is None:
        return infer_dataset_class(str(folder))(str(folder), [source.case]).load_case(source.case)[0]
    return preprocess(source.scan, model)[0]
