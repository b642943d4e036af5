"""Segments the scans of /input into /output with the models beside this file, as settings.json says.

One process without network, a few threads, no files but in /output and the folder for temporary files; on the GPU
where there is one. The ensemble is nnU-Net's: probabilities of its members averaged in single precision, each member
the mean of its folds; one member is in memory at a time. A case that fails costs one line on stderr and the exit code,
not the other cases.
"""

import argparse
import contextlib
import io
import json
import logging
import os
import resource
import sys
import tempfile
import time
import warnings
from pathlib import Path

if __name__ == "__main__":
    # Read by the libraries below when they are imported. Threads count as processes to the limit of a container.
    n_threads = os.environ.setdefault("OMP_NUM_THREADS", str(min(8, len(os.sched_getaffinity(0)))))
    os.environ.update(OPENBLAS_NUM_THREADS=n_threads, MKL_NUM_THREADS=n_threads, nnUNet_def_n_proc=n_threads)
    os.environ.update(nnUNet_n_proc_DA="0")  # Without it, nnU-Net starts a process to ask for the host's name.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    os.environ.setdefault("MPLCONFIGDIR", tempfile.gettempdir())
    warnings.simplefilter("ignore")
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # It tells that it looks for fonts.

import _codecs

import nibabel
import numpy as np
import SimpleITK as sitk  # noqa: N813
import torch

with contextlib.redirect_stdout(io.StringIO()):  # nnU-Net tells which of its folders are not set
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

HERE = Path(__file__).resolve().parent
# All that a checkpoint may hold beside tensors and plain Python: nothing in it is executed.
SAFE_GLOBALS = [
    np._core.multiarray.scalar,
    np.dtype,
    _codecs.encode,
    *(type(np.dtype(name)) for name in ("bool", "int32", "int64", "uint8", "float16", "float32", "float64")),
]
GEOMETRY_FIELDS = (
    *("pixdim", "xyzt_units", "qform_code", "sform_code", "srow_x", "srow_y", "srow_z"),
    *("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
)


class Failure(Exception):
    """What is wrong, in one line."""


def find_cases(root, inputs, output):
    """The cases below the folder `root`: (name, a path per channel, where the result goes below the output folder).

    `inputs`: a template per channel, such as ``{case}_hrT2.nii.gz``; `output`: that of the result.
    """
    channels = [
        sorted(path for path in root.glob(template.replace("{case}", "*")) if not path.name.startswith("."))
        for template in inputs
    ]
    for template, paths in zip(inputs, channels, strict=True):
        if not paths:
            raise Failure(f"{root}: holds no {template.replace('{case}', '*')}")
    if len(channels[0]) > 1:
        # One case may have a name of its own in every channel; several are told by their names.
        names = [{name_of(path, template) for path in paths} for template, paths in zip(inputs, channels, strict=True)]
        unlike = set.union(*names) - set.intersection(*names)
        if unlike:
            raise Failure(f"{root}: case {min(unlike)} lacks a channel")
    if len({len(paths) for paths in channels}) > 1:
        raise Failure(f"{root}: the channels have different numbers of scans")
    cases = [(name_of(paths[0], inputs[0]), paths) for paths in zip(*channels, strict=True)]
    return [(name, paths, output.replace("{case}", name)) for name, paths in cases]


def name_of(path, template):
    """What stands for ``{case}`` in the name of a file; its whole name where the template has none."""
    before, _, after = template.rpartition("/")[2].partition("{case}")
    return path.name[len(before) : len(path.name) - len(after)] if "{case}" in template else path.name


def load_member(folder, folds, mirroring, device):
    """nnU-Net's predictor with the `folds` of the exported model in `folder`."""
    plans = PlansManager(str(folder / "plans.json"))
    dataset_json = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    with torch.serialization.safe_globals(SAFE_GLOBALS):
        checkpoints = [
            torch.load(folder / f"fold_{fold}" / "checkpoint_final.pth", map_location="cpu", weights_only=True)
            for fold in folds
        ]
    configuration = plans.get_configuration(checkpoints[0]["init_args"]["configuration"])
    network = nnUNetTrainer.build_network_architecture(
        plans,
        configuration,
        determine_num_input_channels(plans, configuration, dataset_json),
        plans.get_label_manager(dataset_json).num_segmentation_heads,
        enable_deep_supervision=False,
    )
    predictor = nnUNetPredictor(use_mirroring=mirroring, device=device, allow_tqdm=False)
    predictor.manual_initialization(
        network,
        plans,
        configuration,
        [checkpoint["network_weights"] for checkpoint in checkpoints],
        dataset_json,
        nnUNetTrainer.__name__,
        checkpoints[0]["inference_allowed_mirroring_axes"],
    )
    torch.backends.cudnn.benchmark = False  # The predictor sets it; which algorithm is fastest may differ by run.
    return predictor


def segment(paths, settings, device, scratch):
    """The label map (X, Y, Z) of a case in the model's values, voxels in the order of the case's first file."""
    members = settings["members"]
    image = total = None
    for member in members:
        predictor = load_member(HERE / member["folder"], member["folds"], settings["mirroring"], device)
        if image is None:
            reader = predictor.plans_manager.image_reader_writer_class()
            image, properties = reader.read_images([readable(path, reader, scratch) for path in paths])
        result = predictor.predict_single_npy_array(
            image, dict(properties), save_or_return_probabilities=len(members) > 1
        )
        if len(members) > 1:
            probabilities = np.asarray(result[1], np.float32)
            total = probabilities if total is None else np.add(total, probabilities, out=total)
    if len(members) > 1:
        total /= len(members)
        result = predictor.label_manager.convert_probabilities_to_segmentation(total)
    written = scratch / "result.nii.gz"
    reader.write_seg(np.asarray(result), str(written), properties)
    return np.asarray(nibabel.load(written).dataobj)


def readable(path, reader, scratch):
    """`path`, or a copy of the scan as .nii.gz where nnU-Net's `reader` does not read its format."""
    if path.name.endswith(tuple(reader.supported_file_endings)):
        return str(path)
    copy = scratch / f"{path.parent.name}_{path.name}.nii.gz"
    sitk.WriteImage(sitk.ReadImage(str(path)), str(copy))
    return str(copy)


def save(voxels, source, target):
    """Writes `voxels` (X, Y, Z) uint8 on the very grid of the scan `source`; `target` is complete or not there."""
    partial = target.with_name(f".partial.{target.name}")
    try:
        if source.name.endswith((".nii", ".nii.gz")):
            scan = nibabel.load(source)
            header = type(scan.header)()
            for field in GEOMETRY_FIELDS:
                header[field] = scan.header[field]
            header.set_data_dtype(np.uint8)
            header.set_data_shape(voxels.shape)
            nibabel.save(type(scan)(voxels, scan.affine, header), partial)
        else:
            image = sitk.GetImageFromArray(np.ascontiguousarray(voxels.T))
            image.CopyInformation(sitk.ReadImage(str(source)))
            sitk.WriteImage(image, str(partial), useCompression=True)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def process(paths, target, settings, device):
    """Segments one case into the file `target`."""
    with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stdout(io.StringIO()):
        voxels = segment(paths, settings, device, Path(scratch))
        if settings.get("region"):
            region = segment(paths, {**settings, "members": settings["region"]}, device, Path(scratch))
            voxels = np.where(region > 0, voxels, 0)
        if settings.get("localizer"):
            numbers = segment(paths, {**settings, "members": settings["localizer"]}, device, Path(scratch))
            voxels = keep_discs(voxels, numbers, paths[0], settings["n_discs"])
        if settings["closing"] is not None:
            from postprocessing import postprocess

            voxels = postprocess(voxels.astype(np.int32), settings["closing"])
        if settings["values"] is not None:
            table = np.zeros(256, np.uint8)
            table[[int(value) for value in settings["values"]]] = list(settings["values"].values())
            voxels = table[voxels]
        save(voxels.astype(np.uint8), paths[0], target)


def keep_discs(voxels, numbers, path, n_discs):
    """What of the label map `voxels` belongs to one of the lowest `n_discs` discs, by the localiser's `numbers`.

    Both (X, Y, Z), on the grid of the scan in `path`. Where no disc is found they stay as they are, and stderr says so.
    """
    from nnunet_da.discs.localisation import localise
    from nnunet_da.scans import read_scan

    try:
        found = localise(voxels > 0, read_scan(path).grid.affine, localiser=numbers, n_discs=n_discs)
    except ValueError as error:
        print(f"warning: {path.name}: discs were not told apart: {error}", file=sys.stderr, flush=True)
        return voxels
    return np.where(found.label_map > 0, voxels, 0)


def peak_memory():
    """The most memory that this process ever held, and on a GPU the most since the last call, in words."""
    text = f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB"  # from KiB
    if torch.cuda.is_available():
        text += f", on the GPU {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB"
        torch.cuda.reset_peak_memory_stats()
    return text


def one_line(error):
    """The last line of an error's message, which in ITK's says what is wrong; or its kind."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def main():
    """The exit code: 0 only where every case is segmented."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--input", type=Path, default="/input")
    parser.add_argument("--output", type=Path, default="/output")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    arguments = parser.parse_args()
    try:
        settings = json.loads((HERE / "settings.json").read_text(encoding="utf-8"))
        cases = find_cases(arguments.input, settings["inputs"], settings["output"])
        for _, _, result in cases:
            (arguments.output / result).parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=(arguments.output / cases[0][2]).parent):
            pass
    except (Failure, OSError) as error:
        if arguments.debug:
            raise
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 1
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.deterministic = True
    torch.use_deterministic_algorithms(True, warn_only=True)
    failed = 0
    for number, (name, paths, result) in enumerate(cases, 1):
        start = time.perf_counter()
        try:
            process(paths, arguments.output / result, settings, device)
        except Exception as error:  # Whatever it is, the other cases are still to be segmented.
            if arguments.debug:
                raise
            failed += 1
            print(f"error: {name}: {one_line(error)}", file=sys.stderr, flush=True)
        else:
            seconds = time.perf_counter() - start
            print(f"{name} ({number} of {len(cases)}): {seconds:.1f} s on {device.type}, {peak_memory()}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
