"""Box plots and learning curves as inline SVG that takes its ink from the page, each with its numbers as text.

Models and curves differ by hatch, marker or dash as well as by colour, so that a print in black and white can be read.
"""

import contextlib
import io
import itertools
import re
import zlib
from dataclasses import dataclass
from html import escape

import numpy as np

# Okabe and Ito's colours, which readers with colour blindness can tell apart, in an order of differing lightness.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
HATCHES = ("", "////", "....", "xxxx", "----", "++")
MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES = ("solid", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)), (0, (3, 1)), (0, (8, 3)))
INK = "#010203"  # stands for the colour of the text around the plot
QUARTILES = {"minimum": 0, "lower quartile": 25, "median": 50, "upper quartile": 75, "maximum": 100}


@dataclass(frozen=True)
class Plot:
    """An inline SVG and, as text, what it shows: `header` and `rows` of a table, and a caption in a sentence."""

    svg: str
    caption: str
    header: list[str]
    rows: list[list[str]]


def box_plot(values, models, title, decimals, better=None):
    """A box per group and model.

    Parameters
    ----------
    values : dict of (str, str) to array of float
        (group, model) → one value per case, NaN left out. Groups stand in their order of appearance.
    models : list of str
        All models, in the order that gives each its colour, hatch and marker.
    title : str
        Of the values' axis.
    decimals : int
        Of the numbers in the text.
    better : str, optional
        "higher" or "lower", said beside the axis.

    Box: quartiles; line: median; whiskers: to the farthest value within 1.5 interquartile ranges; points: all values.
    """
    from matplotlib.patches import Patch

    groups = list(dict.fromkeys(group for group, _ in values))
    values = {key: np.asarray(some, dtype=float)[~np.isnan(some)] for key, some in values.items()}
    width = 0.8 / len(models)
    with _style() as figure_class:
        figure = figure_class(figsize=(max(4.4, 1.4 + 0.5 * len(groups) * len(models)), 3.1), layout="constrained")
        axis = figure.subplots()
        for number, model in enumerate(models):
            places = np.arange(len(groups)) + (number - (len(models) - 1) / 2) * width
            some = [values.get((group, model), np.empty(0)) for group in groups]
            look = _look(number)
            boxes = axis.boxplot(
                some,
                positions=places,
                widths=0.78 * width,
                patch_artist=True,
                showfliers=False,
                boxprops={"facecolor": look["colour"], "edgecolor": INK, "alpha": 0.55, "linewidth": 0.8},
                medianprops={"color": INK, "linewidth": 2},
                whiskerprops={"color": INK, "linewidth": 0.8},
                capprops={"color": INK, "linewidth": 0.8},
            )
            for box in boxes["boxes"]:
                box.set_hatch(look["hatch"])
            for place, points in zip(places, some, strict=True):
                axis.scatter(
                    place + _spread(len(points), 0.5 * width),
                    points,
                    s=13,
                    marker=look["marker"],
                    facecolor="white",
                    edgecolor=INK,
                    linewidth=0.7,
                    zorder=3,
                )
        axis.set_xticks(range(len(groups)), groups)
        axis.set_xlim(-0.6, len(groups) - 0.4)
        axis.set_ylabel(title + (f"\n({better} is better)" if better else ""))
        axis.grid(axis="y", alpha=0.18, color=INK, linewidth=0.8)
        if len(models) > 1:
            looks = {model: _look(number) for number, model in enumerate(models)}
            handles = [
                Patch(facecolor=look["colour"], edgecolor=INK, alpha=0.55, hatch=look["hatch"], label=model)
                for model, look in looks.items()
            ]
            figure.legend(handles=handles, loc="outside upper left", ncols=len(models), frameon=False)
        rows = [
            [group, model, str(len(some)), *_numbers(some, decimals)]
            for (group, model), some in sorted(values.items(), key=lambda item: groups.index(item[0][0]))
        ]
        caption = f"{title}: " + "; ".join(
            f"{group}, {model}: median {row[2]}, quartiles {row[1]} to {row[3]}, range {row[0]} to {row[4]}, {n} values"
            for group, model, n, *row in rows
        )
        return Plot(_svg(figure, caption), caption, ["Group", "Model", "Values", *map(str.capitalize, QUARTILES)], rows)


def curves(panels):
    """Curves over epochs, a panel each.

    panels: title → name → values (NaN leaves a gap). Epochs count from 0, as nnU-Net's do.
    """
    with _style() as figure_class:
        n_columns = 2 if len(panels) == 4 else min(3, len(panels))
        n_rows = -(-len(panels) // n_columns)
        figure = figure_class(figsize=(3.7 * n_columns, 2.9 * n_rows), layout="constrained")
        axes = figure.subplots(n_rows, n_columns, squeeze=False).flat
        rows = []
        for axis, (title, lines) in itertools.zip_longest(axes, panels.items(), fillvalue=(None, {})):
            axis.set_visible(bool(lines))
            if not lines:
                continue
            for number, (name, values) in enumerate(lines.items()):
                look = _look(number)
                axis.plot(
                    range(len(values)),
                    values,
                    label=name,
                    color=look["colour"],
                    linestyle=look["dash"],
                    linewidth=1.6,
                    marker=look["marker"],
                    markersize=4,
                    markevery=max(1, len(values) // 8),
                )
                rows.append([title, name, str(len(values)), *_ends(values)])
            axis.set_title(title, fontsize=10, loc="left", fontweight="bold")
            axis.set_xlabel("epoch")
            axis.xaxis.get_major_locator().set_params(integer=True)
            axis.grid(alpha=0.18, color=INK, linewidth=0.8)
            axis.legend(frameon=False, fontsize=8, handlelength=3)
        caption = "; ".join(
            f"{title}, {name}: first {first}, last {last}, over {n} epochs" for title, name, n, first, *_, last in rows
        )
        header = ["Panel", "Curve", "Epochs", "First", "Smallest", "Largest", "Last"]
        return Plot(_svg(figure, caption), caption, header, rows)


def _look(number):
    """Colour, hatch, marker and dash of the model or curve of this number."""
    several = {"colour": COLOURS, "hatch": HATCHES, "marker": MARKERS, "dash": DASHES}
    return {name: options[number % len(options)] for name, options in several.items()}


def _spread(count, width):
    """`count` offsets over `width`, those of neighbours apart, always the same."""
    return width * (np.modf(np.arange(1, count + 1) * 0.618034)[0] - 0.5) if count > 1 else np.zeros(count)


def _numbers(values, decimals):
    if not values.size:
        return ["–"] * len(QUARTILES)
    return [f"{number:.{decimals}f}" for number in np.percentile(values, list(QUARTILES.values()))]


def _ends(values):
    finite = np.asarray(values, dtype=float)
    finite = finite[np.isfinite(finite)]
    if not finite.size:
        return ["–"] * 4
    return [f"{number:.3f}" for number in (finite[0], finite.min(), finite.max(), finite[-1])]


@contextlib.contextmanager
def _style():
    """Within it figures are drawn in `INK` on nothing, with text as text; yields matplotlib's Figure."""
    import matplotlib
    from matplotlib.figure import Figure

    inked = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    settings = {
        **dict.fromkeys(inked, INK),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "figure.facecolor": "none",
        "axes.facecolor": "none",
        "font.size": 9,
        "hatch.linewidth": 0.6,
        "text.parse_math": False,
        "svg.fonttype": "none",
        "svg.hashsalt": "nnunet_da",
    }
    with matplotlib.rc_context(settings):
        yield Figure


def _svg(figure, caption):
    """The figure as an SVG element of a page with several: ids of its own, the page's ink, `caption` as its label."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Type": None, "Format": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    prefix = f"plot{zlib.crc32(text.encode()):08x}-"
    text = re.sub(r'\bid="', f'id="{prefix}', text)
    text = re.sub(r"url\(#", f"url(#{prefix}", text)
    text = re.sub(r'xlink:href="#', f'href="#{prefix}', text)
    text = text.replace(INK, "currentColor")
    width = re.search(r'width="([\d.]+)pt"', text)[1]
    opening = (
        f'<svg class="plot" role="img" aria-label="{escape(caption)}" style="max-width:{float(width) * 1.4:.0f}px"'
    )
    return re.sub(r'<svg (?:xmlns:xlink="[^"]*" )?width="[^"]*" height="[^"]*"', opening, text, count=1)
