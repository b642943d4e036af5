"""Pictures of translated slices, to see what a training does."""

from nnunet_da.files import atomic_file

COLOURS = ("tab:red", "tab:green", "tab:blue", "tab:orange", "tab:purple", "tab:cyan")


def draw(columns, outlines, path):
    """Writes slices side by side as an image: a row per sample, a column per kind.

    Parameters
    ----------
    columns : dict of str to array, (samples, rows, columns)
        Images in [0, 1] by title.
    outlines : dict of str to array of bool, (samples, structures, rows, columns)
        What is outlined in the column of that title, a colour per structure.
    path : Path
    """
    from matplotlib.figure import Figure

    n_samples, height, width = next(iter(columns.values())).shape
    inches = 1.7
    figure = Figure(figsize=(inches * len(columns), inches * n_samples * height / width + 0.3), layout="constrained")
    axes = figure.subplots(n_samples, len(columns), squeeze=False)
    for column, (title, images) in enumerate(columns.items()):
        axes[0, column].set_title(title, fontsize=8)
        for row, image in enumerate(images):
            axis = axes[row, column]
            axis.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axis.set_axis_off()
            for index, mask in enumerate(outlines[title][row] if title in outlines else ()):
                if mask.any() and not mask.all():
                    axis.contour(mask, [0.5], colors=COLOURS[index % len(COLOURS)], linewidths=0.8)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=100)
