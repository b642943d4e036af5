"""How often spoilt disc masks are numbered right, how far centroids are off, and what confidence tells of it.

    python benchmarks/disc_numbering.py ../shared/data WORK [--variants 600] [--expect] [-np 2]
    python benchmarks/disc_numbering.py --simulated WORK [--variants 600]

The first spoils the reference labels of `lumbar_discs`, the second simulated spines: on these alone, with other seeds,
the constants of `nnunet_da/discs/` were chosen. Each variant is a file in WORK; interrupted, it goes on where it
stopped.
"""

import argparse
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from nnunet_da.discs.confidence import FLAGGED
from nnunet_da.discs.corruption import CORRUPTIONS, compare, corrupt
from nnunet_da.discs.localisation import localise
from nnunet_da.discs.simulation import draw_discs
from nnunet_da.errors import UserError
from nnunet_da.files import read_json, write_json
from nnunet_da.parallel import run_parallel
from nnunet_da.phantom.spine import Spine
from nnunet_da.scan_folder import scans_by_stem
from nnunet_da.scans import integer_voxels, read_scan

SINGLES = ((), *((name,) for name in CORRUPTIONS))


@dataclass(frozen=True)
class Task:
    """Variant `index` of the seed, of the label map at `source`, or of a simulated spine where it is None."""

    seed: int
    index: int
    source: Path | None
    expects: bool
    result: Path


def corruptions_of(index, rng):
    """Every other variant has one corruption (or none), in turn; the others two to four."""
    if index % 2 == 0:
        return SINGLES[index // 2 % len(SINGLES)]
    return tuple(rng.choice(list(CORRUPTIONS), size=rng.integers(2, 5), replace=False).tolist())


def simulated_case(rng):
    """A spine with its lowest five to ten discs numbered, in a scan that ends 15 to 70 mm below the lowest of them."""
    spine = Spine.sample(rng)
    spacing = (rng.uniform(1.0, 3.5), *[rng.uniform(0.9, 1.6)] * 2)
    below = -95 - rng.uniform(15, 70)
    n_discs = rng.integers(5, 11)
    above = -95 + 36 * n_discs + rng.uniform(-10, 60)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = (-45, -80, below)
    shape = np.ceil([90 / spacing[0], 130 / spacing[1], (above - below) / spacing[2]]).astype(int)
    label_map = draw_discs(spine, shape, affine)
    return np.where(label_map <= n_discs, label_map, 0), affine


@lru_cache(maxsize=4)
def real_case(path):
    """A label map with discs numbered from the lowest, and its affine."""
    scan = read_scan(path)
    return integer_voxels(scan), scan.grid.affine


def run_variant(task):
    """What came of one variant, from its file where it was done before."""
    if task.result.exists():
        return read_json(task.result)
    rng = np.random.default_rng([task.seed, task.index])
    if task.source is None:
        label_map, affine = simulated_case(rng)
    else:
        label_map, affine = real_case(task.source)
    names = corruptions_of(task.index, rng)
    variant = corrupt(label_map, affine, names, rng)
    row = {"index": task.index, "case": task.source and task.source.name, "corruptions": list(names)}
    row["lowest_is_missing"] = variant.numbers[0] > 1
    start = time.process_time()
    try:
        found = localise(variant.mask, variant.affine, expected=int(label_map.max()) if task.expects else None)
    except ValueError as error:
        row |= {"right": False, "confidence": 0.0, "doubts": [str(error)], "discs": [], "missed": variant.required}
    else:
        agreement = compare(variant, found.label_map, {disc.number: disc.centroid for disc in found.discs})
        row |= {"right": agreement.is_right, "confidence": found.confidence, "doubts": list(found.doubts)}
        row["missed"] = list(agreement.missed)
        row["discs"] = [
            {
                "number": disc.number,
                "right": agreement.discs[disc.number],
                "error": agreement.errors.get(disc.number),
                "confidence": disc.confidence,
                "doubts": list(disc.doubts),
            }
            for disc in found.discs
        ]
    row["seconds"] = time.process_time() - start
    write_json(row, task.result)
    return row


def summary(name, rows):
    """A row of the table: counts, shares in percent, errors in mm."""
    from sklearn.metrics import roc_auc_score

    def separation(items):
        wrong = np.array([not item["right"] for item in items], bool)
        confidence = np.array([item["confidence"] for item in items])
        flagged = confidence < FLAGGED
        auc = roc_auc_score(wrong, -confidence) if 0 < wrong.sum() < len(wrong) else np.nan
        return [share(~wrong), f"{flagged[wrong].sum()}/{wrong.sum()}", share(flagged[~wrong]), f"{auc:.3f}"]

    discs = [disc for row in rows for disc in row["discs"]]
    errors = np.array([disc["error"] for disc in discs if disc["right"]])
    lengths = [f"{errors.mean():.2f}", f"{np.percentile(errors, 95):.2f}"] if len(errors) else ["–", "–"]
    return [name, str(len(rows)), *separation(rows), *(separation(discs) if discs else ["–"] * 4), *lengths]


def share(flags):
    return f"{100 * np.mean(flags):.1f}" if len(flags) else "–"


COLUMNS = (
    *("variants", "n", "cases right (%)", "wrong flagged", "right flagged (%)", "AUC"),
    *("discs right (%)", "wrong flagged", "right flagged (%)", "AUC", "error (mm)", "95 % of errors (mm)"),
)


def table(rows):
    """All variants, those with each corruption alone, with several, and without the lowest disc: Markdown."""
    groups = {"all": rows}
    groups |= {
        " + ".join(names) or "unspoilt": [r for r in rows if r["corruptions"] == list(names)] for names in SINGLES
    }
    groups["several"] = [row for row in rows if len(row["corruptions"]) > 1]
    groups["lowest disc in the mask"] = [row for row in rows if not row["lowest_is_missing"]]
    groups["lowest disc not in the mask"] = [row for row in rows if row["lowest_is_missing"]]
    lines = [COLUMNS, ["---"] + ["---:"] * (len(COLUMNS) - 1)]
    lines += [summary(name, group) for name, group in groups.items() if group]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", type=Path, help="folder that holds lumbar_discs")
    parser.add_argument("work", type=Path)
    parser.add_argument("--simulated", action="store_true", help="spines of the phantom instead of data")
    parser.add_argument("--expect", action="store_true", help="tell how many discs there were before")
    parser.add_argument("--variants", type=int, default=600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("-np", dest="n_processes", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.simulated == (arguments.data is not None):
        parser.error("give either DATA or --simulated")
    sources = [None] if arguments.simulated else list(scans_by_stem(arguments.data / "lumbar_discs/labels").values())
    expecting = "_expecting" if arguments.expect else ""
    results = arguments.work / f"{'simulated' if arguments.simulated else 'real'}{expecting}_{arguments.seed}"
    tasks = [
        Task(arguments.seed, index, sources[index % len(sources)], arguments.expect, results / f"{index:05d}.json")
        for index in range(arguments.variants)
    ]
    rows = run_parallel(run_variant, tasks, arguments.n_processes, "Variants")
    print(table(rows))
    seconds = [row["seconds"] for row in rows]
    print(f"\n{np.median(seconds):.2f} s per case (median of CPU time), {np.max(seconds):.2f} s at most")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(str(error)) from None
