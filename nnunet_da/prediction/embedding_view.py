"""The embedding view of a trained model: features of patches of every domain, laid out per checkpoint."""

from nnunet_da.errors import UserError, nearest
from nnunet_da.evaluation.embedding import PERPLEXITY, embed, silhouette_table, write_embedding
from nnunet_da.evaluation.membership import read_cases
from nnunet_da.parallel import run_parallel
from nnunet_da.prediction.features import NEW, Source, dataset_sources, extract
from nnunet_da.prediction.inputs import check_scan, list_scans
from nnunet_da.prediction.model import choose_device


def embed_domains(
    models, preprocessed, output, *, scans_folder=None, cases_file=None, n_patches=8, seed=0, device=None
):
    """Writes the embedding of each of `models` (one model's checkpoints, as `Model`) to `output`.

    Args:
        preprocessed: the dataset's folder in nnUNet_preprocessed.
        scans_folder: further scans to show; `cases_file` (CSV: case, domain) says of which domains, else 'new'.
        n_patches: patches per case.
        device: 'cuda', 'cpu', 'mps', or None: the GPU where there is one.

    Returns the silhouettes (DataFrame of `silhouette_table`). Raises UserError, before anything is written, where data
    are missing or a scan cannot be read.
    """
    import pandas as pd

    device = choose_device(device)
    sources = dataset_sources(models[0], preprocessed)
    if scans_folder is not None:
        sources += _new_sources(models[0], scans_folder, cases_file)
    features = {
        model.checkpoint: extract(model, sources, preprocessed, n_patches=n_patches, seed=seed, device=device)
        for model in models
    }
    embeddings = {checkpoint: embed(values, seed) for checkpoint, values in features.items()}
    n_samples = len(sources) * n_patches
    perplexity = embeddings[models[0].checkpoint].perplexity
    if perplexity < PERPLEXITY:
        print(f"note: t-SNE with a perplexity of {perplexity:g} rather than {PERPLEXITY}: only {n_samples} patches")
    patches = pd.DataFrame(
        [(source.domain, source.case, source.role, patch) for source in sources for patch in range(n_patches)],
        columns=["domain", "case", "role", "patch"],
    )
    write_embedding(output, patches, embeddings)
    return silhouette_table(patches["domain"], embeddings)


def _new_sources(model, scans_folder, cases_file):
    """A `Source` for every scan in the folder. Raises UserError where the table leaves out or invents one."""
    files = list_scans(scans_folder, model.scales)
    domain_of_case = read_cases(cases_file) if cases_file else {scan.name: NEW for scan in files}
    names = {scan.name for scan in files}
    for case in domain_of_case:
        if case not in names:
            raise UserError(f"{cases_file}: there is no scan '{case}' in {scans_folder}{nearest(case, names)}")
    for name in names:
        if name not in domain_of_case:
            raise UserError(f"{cases_file}: scan '{name}' of {scans_folder} is not listed")
    checked = run_parallel(check_scan, files, 1, "Reading scans")
    return [Source(scan.files.name, domain_of_case[scan.files.name], NEW, scan) for scan in checked]
