"""One self-contained HTML page: the table, and slices of scans with the outlines of reference and predictions."""

import base64
import csv
import io
from pathlib import Path

import nibabel
import numpy as np

from nnunet_da.files import atomic_file

TEMPLATE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>nnunet_da demo</title>
<style>
  body { font-family: system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
  table { border-collapse: collapse; margin: 1rem 0; }
  th, td { padding: .3rem .8rem; border-bottom: 1px solid #ddd; text-align: right; }
  th:first-child, td:first-child, th:nth-child(2), td:nth-child(2) { text-align: left; }
  img { max-width: 100%; }
  .note { color: #555; }
</style>
<h1>Simulated scanners, one of them labelled</h1>
<p>Both models were trained on the labels of <b>{{ source }}</b> alone. <b>t1t2s-int</b> also saw the unlabelled scans
of {{ targets | join(" and ") }}, through the pretext task. All scans below were seen by neither.</p>
<table>
<tr>{% for title in titles %}<th>{{ title }}</th>{% endfor %}</tr>
{% for row in rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table>
<p class="note">Mean ± standard deviation over the test scans of a scanner. These are short trainings on simulated
scans: they show that every part works, not how good a method is.</p>
<p><img alt="Slices with outlines" src="data:image/png;base64,{{ overlays }}"></p>
<h2>The pretext task</h2>
<p><img alt="Loss and accuracy of the pretext task" src="data:image/png;base64,{{ curves }}"></p>
</html>
"""
COLUMNS = {"DSC": ("dsc", 3), "HD (voxels)": ("hd_voxels", 1), "HD95 (mm)": ("hd95_mm", 1), "ASSD (mm)": ("assd_mm", 2)}
COLOURS = ("tab:orange", "tab:cyan", "tab:pink")


def write_overview(path, *, scanners, source, test_folder, predictions, report_folder, pretext_curves):
    """Writes the page to `path`.

    Parameters
    ----------
    path : Path
    scanners : sequence of str
        Domains, the source among them.
    source : str
    test_folder : Path
        With images/, labels/ and cases.csv.
    predictions : dict of str to Path
        Folder of predicted label maps by model.
    report_folder : Path
        Of `nnunet-da evaluate`.
    pretext_curves : Path
        pretext.png of the training.
    """
    from jinja2 import Environment

    cases = _cases_by_domain(test_folder / "cases.csv")
    page = Environment(autoescape=True).from_string(TEMPLATE)
    text = page.render(
        source=source,
        targets=[scanner for scanner in scanners if scanner != source],
        titles=["Scanner", "Model", *COLUMNS],
        rows=_table_rows(report_folder / "table.csv"),
        overlays=_overlays(scanners, cases, test_folder, predictions),
        curves=base64.b64encode(Path(pretext_curves).read_bytes()).decode(),
    )
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _cases_by_domain(path):
    by_domain = {}
    with open(path, newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            by_domain.setdefault(row["domain"], []).append(row["case"])
    return by_domain


def _table_rows(path):
    with open(path, newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            cells = [
                f"{float(row[f'{key}_mean']):.{decimals}f} ± {float(row[f'{key}_std']):.{decimals}f}"
                for key, decimals in COLUMNS.values()
            ]
            yield [row["domain"], row["model"], *cells]


def _overlays(scanners, cases, test_folder, predictions):
    """A PNG (base64) with a row per scanner: its first test scan, and on it reference and predictions outlined."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(3 * (len(predictions) + 2), 3.4 * len(scanners)), layout="constrained")
    axes = figure.subplots(len(scanners), len(predictions) + 2, squeeze=False)
    for row, scanner in zip(axes, scanners, strict=True):
        case = cases[scanner][0]
        image, position = _sagittal_slice(test_folder / "images" / f"{case}_0000.nii.gz")
        reference, _ = _sagittal_slice(test_folder / "labels" / f"{case}.nii.gz", position)
        row[0].set_title(f"{scanner}: {case}", fontsize="small")
        row[1].set_title("reference", fontsize="small")
        for axis in row:
            axis.imshow(image, cmap="gray", vmax=np.percentile(image, 99.5), origin="lower")
            axis.set_axis_off()
        row[1].contour(reference, [0.5], colors="lime", linewidths=1)
        for axis, (model, folder), colour in zip(row[2:], predictions.items(), COLOURS, strict=False):
            predicted, _ = _sagittal_slice(folder / f"{case}.nii.gz", position)
            axis.set_title(model, fontsize="small")
            axis.contour(reference, [0.5], colors="lime", linewidths=1)
            if predicted.any():
                axis.contour(predicted, [0.5], colors=colour, linewidths=1)
    lines = [Line2D([], [], color=colour) for colour in ("lime", *COLOURS[: len(predictions)])]
    figure.legend(lines, ["reference", *predictions], loc="outside lower center", ncols=len(lines))
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=90)
    return base64.b64encode(stream.getvalue()).decode()


def _sagittal_slice(path, position=None):
    """The sagittal slice at `position` (middle where None), superior up and anterior left, and its position."""
    volume = nibabel.as_closest_canonical(nibabel.load(path))
    array = np.asarray(volume.dataobj)
    position = array.shape[0] // 2 if position is None else position
    return array[position, ::-1].T, position
