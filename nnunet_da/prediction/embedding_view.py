"""The embedding view of trained models: features of patches of every domain, laid out per model and checkpoint."""

import itertools

from nnunet_da.errors import UserError, nearest
from nnunet_da.evaluation.embedding import PERPLEXITY, embed, silhouette_table, write_embedding
from nnunet_da.evaluation.membership import read_cases
from nnunet_da.parallel import run_parallel
from nnunet_da.prediction.features import NEW, Source, dataset_sources, extract, load_encoder
from nnunet_da.prediction.inputs import check_scan, list_scans
from nnunet_da.prediction.model import choose_device


def models_to_compare(first, also) -> list[tuple[str, str, str]]:
    """Trainer, plans and configuration of `first` (tuple) and of every name in `also`, without repetition.

    Names are as nnU-Net's of folders, TRAINER__PLANS__CONFIGURATION; what one leaves out at its end is that of `first`.
    """
    parts = [tuple(name.split("__", len(first) - 1)) for name in also]
    return list(dict.fromkeys([first, *(named + first[len(named) :] for named in parts)]))


def embed_domains(
    models, preprocessed, output, *, scans_folder=None, cases_file=None, n_patches=8, seed=0, device=None
):
    """Writes the embedding of each of `models` to `output`; all show the same patches.

    Args:
        models: `Model`s of one dataset and fold, each of the networks with the same checkpoints.
        preprocessed: the dataset's folder in nnUNet_preprocessed.
        scans_folder: further scans to show; `cases_file` (CSV: case, domain) says of which domains, else 'new'.
        n_patches: patches per case.
        device: 'cuda', 'cpu', 'mps', or None: the GPU where there is one.

    Returns the silhouettes (DataFrame of `silhouette_table`). Raises UserError, before anything is written, where data
    are missing, a scan cannot be read, models take different patches, or one with domain-specific layers was not
    trained on the domain of a case.
    """
    import pandas as pd

    device = choose_device(device)
    _require_equal_patches(models)
    sources = dataset_sources(models[0], preprocessed)
    encoders = [load_encoder(model, device) for model in models]
    for encoder, source in itertools.product(encoders, sources):
        encoder.require(source.case, source.domain, models[0].folder / "dataset.json")
    if scans_folder is not None:
        sources += _new_sources(encoders, scans_folder, cases_file)
    features = extract(encoders, sources, preprocessed, n_patches=n_patches, seed=seed)
    keys = zip(_names(models), (model.checkpoint for model in models), strict=True)
    embeddings = {key: embed(values, seed) for key, values in zip(keys, features, strict=True)}
    n_samples = len(sources) * n_patches
    perplexity = next(iter(embeddings.values())).perplexity
    if perplexity < PERPLEXITY:
        print(f"note: t-SNE with a perplexity of {perplexity:g} rather than {PERPLEXITY}: only {n_samples} patches")
    patches = pd.DataFrame(
        [(source.domain, source.case, source.role, patch) for source in sources for patch in range(n_patches)],
        columns=["domain", "case", "role", "patch"],
    )
    write_embedding(output, patches, embeddings)
    return silhouette_table(patches["domain"], embeddings)


def _require_equal_patches(models):
    """Raises UserError where a model takes other patches than the first, or of other cases."""
    first = models[0]
    expected = _patches_of(first)
    for model in models[1:]:
        for what, value in _patches_of(model).items():
            if value != expected[what]:
                raise UserError(
                    f"{model.folder}: has another {what} than {first.folder.name}; all models of a figure must see the "
                    f"same patches"
                )


def _patches_of(model):
    """What decides on the patches that a model sees, each under its name in messages."""
    configuration = model.configuration_manager
    return {
        "set of domains and cases": model.dataset_json.get("domains"),
        "folder of preprocessed data": configuration.data_identifier,
        "voxel size": list(configuration.spacing),
        "intensity scale": model.scales,
        "patch size": list(configuration.patch_size),
    }


def _names(models):
    """Per model, what tells its network from the others: those of trainer, plans and configuration that differ."""
    identities = [(model.trainer, model.plans["plans_name"], model.configuration) for model in models]
    differs = [len(set(values)) > 1 for values in zip(*identities, strict=True)]
    return [" ".join(itertools.compress(identity, differs)) for identity in identities]


def _new_sources(encoders, scans_folder, cases_file):
    """A `Source` for every scan in the folder, of a domain that every encoder takes.

    Raises UserError where the table leaves out or invents a scan, or there must be one and is none.
    """
    files = list_scans(scans_folder, encoders[0].model.scales)
    names = {scan.name for scan in files}
    if cases_file:
        domain_of_case = read_cases(cases_file)
    else:
        domain_of_case = dict.fromkeys(names, NEW)
        for encoder in encoders:
            if encoder.domains:
                raise UserError(
                    f"-i {scans_folder}: {encoder.model.trainer} has layers of the domains "
                    f"{', '.join(encoder.domains)}; name that of each scan in a table, --cases"
                )
    for case, domain in domain_of_case.items():
        if case not in names:
            raise UserError(f"{cases_file}: there is no scan '{case}' in {scans_folder}{nearest(case, names)}")
        for encoder in encoders:
            encoder.require(case, domain, cases_file)
    for name in names:
        if name not in domain_of_case:
            raise UserError(f"{cases_file}: scan '{name}' of {scans_folder} is not listed")
    checked = run_parallel(check_scan, files, 1, "Reading scans")
    return [Source(scan.files.name, domain_of_case[scan.files.name], NEW, scan) for scan in checked]
