"""How a network sees domains: bottleneck features of patches, in a plane, and how far the domains stand apart in them.

After Boutillon et al., "Multi-task, multi-domain deep segmentation with shared representations and contrastive
regularization for sparse pediatric datasets", arXiv:2105.10310 (2021), section 4.2 and Fig. 4: global max pooling of
the encoder's last features, PCA to 50 components, t-SNE with a perplexity of 30 and a learning rate of 200. The
features are standardised first, so that none counts more than another.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunet_da.errors import UserError
from nnunet_da.files import atomic_folder

N_COMPONENTS = 50
PERPLEXITY = 30
LEARNING_RATE = 200
# Stands for every domain together; no name of a domain has a space.
ALL = "all domains"
OUTPUTS = ("embedding.csv", "silhouette.csv", "embedding.png", "embedding.svg")

# Shapes tell the domains in black and white, and with any colour vision; the colours are those of Okabe and Ito.
_MARKERS = "os^Dv<>pPX*h"
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000", "#F0E442")
_KEYS = ["model", "checkpoint"]


@dataclass(frozen=True)
class Embedding:
    """Patches as a checkpoint sees them: `components` (n, k) of the PCA, `plane` (n, 2) of the t-SNE, perplexity."""

    components: np.ndarray
    plane: np.ndarray
    perplexity: float


def global_max_pool(features):
    """(batch, channels, *space) → (batch, channels): the largest value of each channel. NumPy array or torch tensor."""
    flat = features.reshape(*features.shape[:2], -1)
    return flat.max(-1) if isinstance(flat, np.ndarray) else flat.amax(-1)


def standardise(features):
    """Each column of `features` (n, channels) with mean 0 and variance 1; a constant column is 0."""
    deviation = features - features.mean(axis=0)
    scale = features.std(axis=0)
    constant = scale <= 1e-6 * np.abs(features).max(axis=0)
    return np.where(constant, 0, deviation / np.where(constant, 1, scale))


def principal_components(features, n_components=N_COMPONENTS):
    """The first principal components (n, k) of `features` (n, channels); k ≤ n - 1, since n points span no more."""
    from sklearn.decomposition import PCA

    n, channels = features.shape
    return PCA(min(n_components, n - 1, channels), svd_solver="full").fit_transform(features)


def perplexity_for(n_samples, perplexity=PERPLEXITY):
    """`perplexity`, or a third of the neighbours that each of `n_samples` points has, where that is less."""
    return min(float(perplexity), (n_samples - 1) / 3)


def embed(features, seed=0) -> Embedding:
    """Standardised, reduced by PCA, laid out by t-SNE: `features` (n, channels), n ≥ 4. Raises UserError for fewer."""
    from sklearn.manifold import TSNE

    features = np.asarray(features, dtype=np.float64)
    if len(features) < 4:
        raise UserError(f"{len(features)} patches are too few to embed; take at least 4 (more cases, or --patches)")
    if not np.isfinite(features).all():
        raise UserError("the network gives features that are not finite; its training has diverged")
    components = principal_components(standardise(features))
    perplexity = perplexity_for(len(features))
    tsne = TSNE(2, perplexity=perplexity, learning_rate=LEARNING_RATE, init="pca", random_state=seed)
    return Embedding(components, tsne.fit_transform(components).astype(np.float64), perplexity)


def silhouettes(points, domains):
    """Mean silhouette (Rousseeuw, J. Comput. Appl. Math. 20, 53-65, 1987) by domain, and over all points as `ALL`.

    (b - a) / max(a, b) of a point: a, its mean distance to the others of its domain, b, to those of the nearest other
    domain. 1: domains stand apart; 0: they are mixed; a point alone in its domain counts 0. NaN where there is one
    domain only, or as many as points. `points` (n, k), `domains` (n,).
    """
    from sklearn.metrics import silhouette_samples

    domains = np.asarray(domains)
    names = list(dict.fromkeys(domains.tolist()))
    if not 1 < len(names) < len(domains):
        return dict.fromkeys([ALL, *names], float("nan"))
    values = silhouette_samples(points, domains)
    return {ALL: float(values.mean()), **{name: float(values[domains == name].mean()) for name in names}}


def require_output(folder, overwrite):
    """Raises UserError where `folder` is a file, or holds other files and they may not be replaced (`overwrite`)."""
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"-o {folder}: is a file; choose a folder")
    others = {path.name for path in folder.iterdir()} - set(OUTPUTS) if folder.exists() else set()
    if others and not overwrite:
        raise UserError(f"-o {folder}: holds other files ({min(others)}); choose another, or --overwrite (all goes)")


def write_embedding(folder, patches, embeddings) -> None:
    """Writes embedding.csv, silhouette.csv, embedding.png and embedding.svg; the folder is replaced as a whole.

    Args:
        patches: DataFrame with a row per patch and the columns domain, case, role, patch.
        embeddings: (model, checkpoint) → `Embedding` of these patches; models are shown with the same checkpoints.
    """
    import pandas as pd

    points = {
        key: patches.assign(x=embedding.plane[:, 0], y=embedding.plane[:, 1]) for key, embedding in embeddings.items()
    }
    with atomic_folder(folder) as temporary:
        table = pd.concat(points, names=_KEYS).reset_index(level=_KEYS)
        _without_one_model(table).to_csv(temporary / "embedding.csv", index=False, float_format="%.6g")
        silhouette_table(patches["domain"], embeddings).to_csv(
            temporary / "silhouette.csv", index=False, float_format="%.6g"
        )
        plot(patches, embeddings, [temporary / "embedding.png", temporary / "embedding.svg"])


def silhouette_table(domains, embeddings):
    """DataFrame: model (where there are several), checkpoint, domain (`ALL` first), patches, and the silhouette in PCA
    space and in the plane. `embeddings` as in `write_embedding`."""
    import pandas as pd

    rows = []
    for key, embedding in embeddings.items():
        in_components = silhouettes(embedding.components, domains)
        in_plane = silhouettes(embedding.plane, domains)
        for domain in in_components:
            n_patches = len(domains) if domain == ALL else int((domains == domain).sum())
            rows.append((*key, domain, n_patches, in_components[domain], in_plane[domain]))
    columns = [*_KEYS, "domain", "patches", "silhouette_pca", "silhouette_plane"]
    return _without_one_model(pd.DataFrame(rows, columns=columns))


def _without_one_model(table):
    """`table`, less its column of models where all rows are of one."""
    return table if table["model"].nunique() > 1 else table.drop(columns="model")


def plot(patches, embeddings, paths) -> None:
    """Draws a row of panels per model and a column per checkpoint into each of `paths`.

    Colour and shape are by domain; patches of cases that the network was not trained on are hollow.

    Arguments as in `write_embedding`; `role` is training, unlabelled, validation or new, the last two hollow.
    """
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D

    names = list(dict.fromkeys(patches["domain"]))
    styles = {
        name: (_MARKERS[index % len(_MARKERS)], _COLOURS[index % len(_COLOURS)]) for index, name in enumerate(names)
    }
    models, checkpoints = (list(dict.fromkeys(values)) for values in zip(*embeddings, strict=True))
    shape = len(models), len(checkpoints)
    figure, axes = plt.subplots(
        *shape, figsize=(4.2 * shape[1] + 0.6, 4.2 * shape[0] + 0.6), squeeze=False, layout="constrained"
    )
    for (model, checkpoint), embedding in embeddings.items():
        axis = axes[models.index(model), checkpoints.index(checkpoint)]
        for (domain, role), rows in patches.reset_index(drop=True).groupby(["domain", "role"], sort=False):
            marker, colour = styles[domain]
            hollow = role in ("validation", "new")
            axis.scatter(
                *embedding.plane[rows.index].T,
                s=26,
                marker=marker,
                facecolors="none" if hollow else colour,
                edgecolors=colour if hollow else "black",
                linewidths=1.1 if hollow else 0.4,
            )
        score = silhouettes(embedding.components, patches["domain"])[ALL]
        axis.set(title=f"{checkpoint}\nsilhouette by domain {score:.2f}", xticks=[], yticks=[], aspect="equal")
    if len(models) > 1:
        for row, model in zip(axes, models, strict=True):
            row[0].set_ylabel(model)
            for axis in row:
                # Panels of equal size, so that rows and columns line up.
                axis.set_adjustable("datalim")
    shown = {name: {"marker": marker, "color": colour} for name, (marker, colour) in styles.items()}
    if set(patches["role"]) & {"validation", "new"}:
        shown["hollow: not trained on"] = {"marker": "o", "color": "none"}
    handles = [
        Line2D([], [], linestyle="none", markeredgecolor="black", label=label, **style)
        for label, style in shown.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 5), frameon=False)
    for path in paths:
        figure.savefig(path, dpi=200)
    plt.close(figure)
