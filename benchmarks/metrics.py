"""Time and memory of all metrics, beside what MONAI, MedPy and surface-distance take for those that they offer.

    python benchmarks/metrics.py [--quick] [--pairs N] [--tools …] [--json FILE]

One process and one thread for all. Exits with 1 where values differ by more than 1e-6 although the definitions agree,
or, without --quick, where ours is not `TARGET` times as fast as the fastest of the others. In --quick the label maps
are so small that calls weigh more than work. All takes about half an hour, most of it MedPy's; --quick one minute.
"""

import argparse
import importlib.metadata
import importlib.util
import multiprocessing
import os
import resource
import sys
import tempfile
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from nnunet_da.files import write_json

# Heavy imports stand inside functions that run in child processes: this process must stay small, since the peak memory
# that the system reports of a child starts at what its parent held.

OURS = "nnunet-da"
PACKAGES = {OURS: "nnunet-da", "MONAI": "monai", "MedPy": "MedPy", "surface-distance": "surface-distance"}
TARGET = 5.0
RELATIVE_TOLERANCE = 1e-6
TOLERANCE_MM = 1.0
N_STRUCTURES = 5
# Distances that MedPy and surface-distance define otherwise (see docs/evaluation.md) are computed, but not compared.
COMPARED = {
    "MONAI": ("dsc", "hd_mm", "hd_voxels", "hd95_mm", "assd_mm", "aad_mm", "nsd", "sensitivity", "specificity"),
    "MedPy": ("dsc", "hd_mm", "hd_voxels", "assd_mm", "aad_mm", "sensitivity", "specificity", "ravd"),
    "surface-distance": ("dsc",),
}


@dataclass(frozen=True)
class Size:
    """Shape (voxels) and spacing (mm) of simulated label maps, and how many pairs of them."""

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    n_pairs: int

    def __str__(self):
        return "×".join(map(str, self.shape))


SIZES = (Size((36, 256, 256), (4.0, 0.7, 0.7), 20), Size((256, 256, 256), (1.0, 1.0, 1.0), 20))
QUICK_SIZES = (Size((12, 96, 96), (4.0, 0.7, 0.7), 3), Size((96, 96, 96), (1.0, 1.0, 1.0), 2))


def simulate(size, seed):
    """A reference and a prediction: uint8 label maps of five ellipsoids with a rough surface.

    In the prediction each is moved by some 1 mm, scaled by some 3 %, and rough in another way; and every other
    prediction has a false island in a corner, which spreads the box of its structure over the volume.
    """
    import numpy as np

    generator = np.random.default_rng(seed)
    spacing, extent = np.array(size.spacing), np.multiply(size.shape, size.spacing)
    maps = np.zeros((2, *size.shape), np.uint8)
    for label in range(1, N_STRUCTURES + 1):
        centre, radii = extent * generator.uniform(0.25, 0.75, 3), extent * generator.uniform(0.08, 0.16, 3)
        for label_map in maps:
            paint(label_map, label, centre, radii, spacing, generator)
            centre, radii = centre + generator.normal(0, 1, 3), radii * generator.normal(1, 0.03, 3)
    if seed % 2:
        maps[1, 1:3, 2:5, 2:5] = 1
    return maps


def paint(label_map, label, centre, radii, spacing, generator):
    """Sets an ellipsoid, `centre` and `radii` in mm, whose surface goes in and out by some 5 % over 6 mm."""
    import numpy as np
    from scipy.ndimage import gaussian_filter

    low = np.maximum(((centre - 1.3 * radii) / spacing).astype(int), 0)
    high = np.minimum(((centre + 1.3 * radii) / spacing).astype(int) + 2, label_map.shape)
    axes = [
        (np.arange(a, b) * step - c) / r for a, b, step, c, r in zip(low, high, spacing, centre, radii, strict=True)
    ]
    radius = np.sqrt(sum(np.square(axis) for axis in np.ix_(*axes)))
    roughness = gaussian_filter(generator.normal(size=radius.shape), 3 / spacing)
    crop = label_map[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    crop[radius + 0.05 * roughness / roughness.std() < 1] = label


# The tools: each takes two label maps and the spacing, and returns label → metrics that it offers.


def with_ours(reference, prediction, spacing):
    from nnunet_da.evaluation.metrics import label_map_metrics

    structures = {label: (label,) for label in range(1, N_STRUCTURES + 1)}
    return label_map_metrics(reference, prediction, spacing, structures, tolerance_mm=TOLERANCE_MM)


def with_monai(reference, prediction, spacing):
    import torch
    from monai import metrics

    found = {}
    for label in range(1, N_STRUCTURES + 1):
        r, p = (torch.from_numpy(label_map == label)[None, None].float() for label_map in (reference, prediction))
        options = {"include_background": True, "spacing": spacing}
        confusion = metrics.get_confusion_matrix(p, r)
        values = {
            "dsc": metrics.compute_dice(p, r),
            "hd_mm": metrics.compute_hausdorff_distance(p, r, **options),
            "hd_voxels": metrics.compute_hausdorff_distance(p, r, include_background=True),
            "hd95_mm": metrics.compute_hausdorff_distance(p, r, percentile=95, **options),
            "assd_mm": metrics.compute_average_surface_distance(p, r, symmetric=True, **options),
            "aad_mm": metrics.compute_average_surface_distance(p, r, **options),
            "nsd": metrics.compute_surface_dice(p, r, [TOLERANCE_MM], **options),
            "sensitivity": metrics.compute_confusion_matrix_metric("sensitivity", confusion),
            "specificity": metrics.compute_confusion_matrix_metric("specificity", confusion),
        }
        found[label] = {key: value.item() for key, value in values.items()}
    return found


def monai_hd95(reference, prediction, spacing):
    """Label → MONAI's HD95 with the percentile of its own distances interpolated in double precision.

    MONAI does that in single precision, where the rank of 10⁴ distances is off by 10⁻³: 5e-6 of the value.
    """
    import numpy as np
    import torch
    from monai.metrics.utils import get_edge_surface_distance

    found = {}
    for label in range(1, N_STRUCTURES + 1):
        r, p = (torch.from_numpy(label_map == label) for label_map in (reference, prediction))
        _, directed, _ = get_edge_surface_distance(p, r, spacing=spacing, symmetric=True)
        found[label] = max(float(np.percentile(distances.double().numpy(), 95)) for distances in directed)
    return found


def with_medpy(reference, prediction, spacing):
    from medpy.metric import binary

    found = {}
    for label in range(1, N_STRUCTURES + 1):
        r, p = reference == label, prediction == label
        found[label] = {
            "dsc": binary.dc(p, r),
            "hd_mm": binary.hd(p, r, spacing),
            "hd_voxels": binary.hd(p, r),
            "hd95_mm": binary.hd95(p, r, spacing),
            "assd_mm": binary.assd(p, r, spacing),
            "aad_mm": binary.asd(p, r, spacing),
            "sensitivity": binary.sensitivity(p, r),
            "specificity": binary.specificity(p, r),
            "ravd": abs(binary.ravd(p, r)),
        }
    return found


def with_surface_distance(reference, prediction, spacing):
    from surface_distance import metrics

    found = {}
    for label in range(1, N_STRUCTURES + 1):
        r, p = reference == label, prediction == label
        distances = metrics.compute_surface_distances(r, p, spacing)
        means = metrics.compute_average_surface_distance(distances)
        found[label] = {
            "dsc": metrics.compute_dice_coefficient(r, p),
            "hd_mm": metrics.compute_robust_hausdorff(distances, 100),
            "hd95_mm": metrics.compute_robust_hausdorff(distances, 95),
            "masd_mm": sum(means) / 2,
            "aad_mm": means[1],
            "nsd": metrics.compute_surface_dice_at_tolerance(distances, TOLERANCE_MM),
        }
    return found


TOOLS = {
    OURS: with_ours,
    "MONAI": with_monai,
    "MedPy": with_medpy,
    "surface-distance": with_surface_distance,
}


def time_tools(size, tools):
    """Tool → seconds per pair, largest relative difference from ours, and number of metrics; and of one pass (s).

    On each pair all tools have their turn, in random order, so that whatever else the machine does hits them alike.
    """
    import numpy as np

    quiet()
    generator = np.random.default_rng(0)
    seconds, differences, n_metrics, passes = {name: [] for name in tools}, dict.fromkeys(tools, 0.0), {}, []
    warm_up = simulate(Size((24, 32, 32), size.spacing, 1), 0)
    for name in tools:
        TOOLS[name](*warm_up, size.spacing)
    for seed in range(size.n_pairs):
        maps, found = simulate(size, seed), {}
        for name in generator.permutation(tools).tolist():
            start = time.perf_counter()
            found[name] = TOOLS[name](*maps, size.spacing)
            seconds[name].append(time.perf_counter() - start)
        start = time.perf_counter()
        for label_map in maps:
            np.bitwise_or.reduce(label_map, axis=None)
        passes.append(time.perf_counter() - start)
        if "MONAI" in found:
            for label, value in monai_hd95(*maps, size.spacing).items():
                found["MONAI"][label]["hd95_mm"] = value
        for name in tools:
            n_metrics[name] = sum(isinstance(value, float) for value in found[name][1].values())
            differences[name] = max(differences[name], difference(found[name], found[OURS], COMPARED.get(name, ())))
    rows = {
        name: {"seconds": seconds[name], "difference": differences[name], "n_metrics": n_metrics[name]}
        for name in tools
    }
    return rows, passes


def difference(found, ours, keys):
    """The largest relative difference of the metrics `keys`, over all structures."""
    pairs = [(found[label][key], ours[label][key]) for label in ours for key in keys]
    return max((abs(a - b) / max(abs(a), abs(b)) for a, b in pairs if a != b), default=0.0)


def peak_memory(size, name, folder):
    """Megabytes that a tool takes beyond the imports and the two label maps, in a process of its own."""
    import numpy as np

    quiet()
    TOOLS[name](*np.ones((2, 4, 8, 8), np.uint8) * np.arange(8, dtype=np.uint8).clip(1, N_STRUCTURES), size.spacing)
    maps = [np.load(Path(folder) / f"{role}.npy") for role in ("reference", "prediction")]
    before = resident_mb()
    TOOLS[name](*maps, size.spacing)
    return resident_mb() - before


def write_pair(size, folder):
    """Saves a pair with a false island, for `peak_memory`."""
    import numpy as np

    for role, label_map in zip(("reference", "prediction"), simulate(size, 1), strict=True):
        np.save(Path(folder) / f"{role}.npy", label_map)


def resident_mb():
    """The most memory (MB) that this process has held in RAM so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def quiet():
    """One thread; and no warnings, which some of the tools give in every call."""
    warnings.simplefilter("ignore")
    if importlib.util.find_spec("torch"):
        import torch

        torch.set_num_threads(1)


def in_child(function, *arguments):
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def measure(size, tools):
    """Rows of the table, one per tool, for label maps of one size."""
    timed, passes = in_child(time_tools, size, tools)
    with tempfile.TemporaryDirectory() as folder:
        in_child(write_pair, size, folder)
        memory = {name: in_child(peak_memory, size, name, folder) for name in tools}
    ours = sum(timed[OURS]["seconds"])
    return [
        {
            "size": str(size),
            "n_pairs": size.n_pairs,
            "tool": f"{name} {importlib.metadata.version(PACKAGES[name])}",
            "n_metrics": timed[name]["n_metrics"],
            "seconds_per_pair": sum(timed[name]["seconds"]) / size.n_pairs,
            "times_ours": sum(timed[name]["seconds"]) / ours,
            "times_one_pass": sum(timed[name]["seconds"]) / sum(passes),
            "memory_mb": memory[name],
            "compared": COMPARED.get(name, ()),
            "difference": timed[name]["difference"],
        }
        for name in tools
    ]


def table(rows):
    """Markdown."""
    titles = ["label maps", "tool", "metrics", "s per pair", "× ours", "× one pass", "peak memory (MB)"]
    titles += ["compared", "largest relative difference"]
    lines = [titles, ["---"] * 2 + ["---:"] * 5 + ["---", "---:"]]
    for row in rows:
        lines.append(
            [
                f"{row['n_pairs']} × {row['size']}",
                row["tool"],
                str(row["n_metrics"]),
                f"{row['seconds_per_pair']:.4f}",
                f"{row['times_ours']:.1f}",
                f"{row['times_one_pass']:.0f}",
                f"{row['memory_mb']:.0f}",
                ", ".join(row["compared"]) or "–",
                f"{row['difference']:.1e}" if row["compared"] else "–",
            ]
        )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def complaints(rows, target):
    """What is not as it should be, a line each; `target` is how many times as fast as the others ours must be."""
    found = [
        f"{row['tool']}, {row['size']}: values differ by {row['difference']:.1e}"
        for row in rows
        if row["difference"] > RELATIVE_TOLERANCE
    ]
    for size in dict.fromkeys(row["size"] for row in rows):
        others = [row for row in rows if row["size"] == size and not row["tool"].startswith(OURS)]
        fastest = min(others, key=lambda row: row["times_ours"], default=None)
        if fastest and fastest["times_ours"] < target:
            found.append(f"{size}: only {fastest['times_ours']:.1f} times as fast as {fastest['tool']}")
    return found


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few small pairs: does everything run and agree?")
    parser.add_argument("--pairs", type=int, metavar="N", help="pairs of each size (default: 20, with --quick 2 or 3)")
    parser.add_argument(
        "--tools", nargs="+", choices=list(TOOLS)[1:], default=list(TOOLS)[1:], help="compare with these"
    )
    parser.add_argument("--json", metavar="FILE", help="also write the figures to FILE")
    arguments = parser.parse_args(argv)
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = "1"
    modules = {"MONAI": "monai", "MedPy": "medpy", "surface-distance": "surface_distance"}
    absent = [name for name in arguments.tools if importlib.util.find_spec(modules[name]) is None]
    if absent:
        print(f"not installed, left out: {', '.join(absent)}", file=sys.stderr)
    tools = [OURS, *(name for name in arguments.tools if name not in absent)]
    rows = []
    for size in QUICK_SIZES if arguments.quick else SIZES:
        rows += measure(Size(size.shape, size.spacing, arguments.pairs or size.n_pairs), tools)
    print(table(rows))
    if arguments.json:
        write_json(rows, arguments.json)
    found = complaints(rows, 0 if arguments.quick else TARGET)
    print(*found, sep="\n", file=sys.stderr, end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
