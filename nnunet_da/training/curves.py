"""Further curves: values per epoch in nnU-Net's own log (so that they survive in checkpoints) and a plot of them."""

from nnunet_da.files import atomic_file


def register(logger, keys):
    """Makes room for `keys` in nnU-Net's MetaLogger. Each must then be logged once in every epoch."""
    for key in keys:
        logger.local_logger.my_fantastic_logging.setdefault(key, [])


def plot(panels, path):
    """Draws curves over epochs, one panel below the other.

    Parameters
    ----------
    panels : list of (str, dict of str to sequence of float, float or None)
        Title, curves by name, and the level to mark (chance, for an accuracy). NaN leaves a gap.
    path : Path
        The image to write.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(len(panels), 1, figsize=(8, 3.2 * len(panels)), squeeze=False, layout="constrained")
    for axis, (title, curves, level) in zip(axes[:, 0], panels, strict=True):
        for name, values in curves.items():
            axis.plot(range(len(values)), values, label=name, marker="o" if len(values) == 1 else None)
        if level is not None:
            axis.axhline(level, color="grey", linestyle="--", linewidth=1, label="chance")
        axis.set(title=title, xlabel="epoch")
        axis.legend(fontsize="small")
    with atomic_file(path) as temporary:
        figure.savefig(temporary)
    plt.close(figure)
