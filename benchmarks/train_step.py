"""Time of a training step over that of nnU-Net's own trainer, beside the ratio that counting convolutions predicts.

    python benchmarks/train_step.py [-device cpu|cuda] [--steps N] [--trainers …] [--work DIR] [--json FILE]

Data loading and peak memory stand beside it. See README.md in this folder for what is measured and how.
"""

import argparse
import contextlib
import importlib
import importlib.metadata
import itertools
import multiprocessing
import os
import pkgutil
import platform
import resource
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from nnunet_da import settings
from nnunet_da.errors import UserError, nearest
from nnunet_da.files import atomic_folder, read_json, write_json
from nnunet_da.paths import PREPROCESSED, RAW, RESULTS, nnunet_folder
from nnunet_da.workplace import Workplace

# Heavy imports stand inside functions that run in child processes: this process must stay small, since the peak memory
# that the system reports of a child starts at what its parent held.

STOCK = "nnUNetTrainer"
TRAINERS = ("nnUNetTrainerUNet", "nnUNetTrainerIntensityDA", "nnUNetTrainerIntensityDA:pretext.update=joint")
SCANNERS = ("philips_3t", "siemens_1p5t", "ge_gre_3t")
DATASET_ID, DATASET = 997, "Dataset997_Benchmark"
TOLERANCE = 0.15
N_BATCHES = 4


@dataclass(frozen=True)
class Size:
    """The simulated scans (voxels along R, A, S), and what each configuration changes in its plan."""

    scan: tuple[int, int, int]
    plan_2d: tuple[str, ...]
    plan_3d: tuple[str, ...]

    @property
    def configurations(self):
        """Custom configurations: the planned one that each inherits from, and its changes, by name."""
        return {"bench_2d": ("2d", self.plan_2d), "bench_3d": ("3d_fullres", self.plan_3d)}


SIZES = {
    "cpu": Size(
        (16, 160, 160),
        ("patch_size=160,160", "batch_size=6", "features_per_stage=16,32,64,128,128"),
        ("patch_size=16,64,64", "batch_size=2", "features_per_stage=16,32,64,64"),
    ),
    "cuda": Size(
        (40, 320, 320),
        ("patch_size=256,256", "batch_size=24", "features_per_stage=32,64,128,256,512,512"),
        ("patch_size=32,160,160", "batch_size=2", "features_per_stage=32,64,128,256,320"),
    ),
}


def main():
    arguments = parse_arguments()
    in_child(check, arguments)
    # Worker processes would share the cores with what is measured.
    os.environ.update(nnUNet_n_proc_DA="0")
    with contextlib.ExitStack() as stack:
        work = arguments.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder = work.absolute() / arguments.device
        if not folder.exists():
            print(f"Preparing a simulated dataset in {folder} …", file=sys.stderr)
            in_child(prepare, folder, SIZES[arguments.device])
        set_folders(folder)
        rows = []
        for configuration in SIZES[arguments.device].configurations:
            rows += measure_configuration(configuration, arguments)
    print(table(rows))
    if arguments.json:
        write_json({**environment(arguments), "tolerance": TOLERANCE, "rows": rows}, arguments.json)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-device", choices=["cpu", "cuda"], default="cpu", help="default: %(default)s")
    parser.add_argument("--steps", type=positive, default=60, metavar="N", help="timed steps (%(default)s)")
    parser.add_argument("--warmup", type=positive, default=5, metavar="N", help="untimed steps before (%(default)s)")
    parser.add_argument("--batches", type=positive, default=30, metavar="N", help="timed batches (%(default)s)")
    parser.add_argument(
        "--trainers",
        nargs="+",
        default=TRAINERS,
        metavar="TRAINER[:KEY=VALUE…]",
        help=f"trainers, with settings (default: {' '.join(TRAINERS)})",
    )
    parser.add_argument("--work", type=Path, metavar="DIR", help="where the dataset is kept for the next run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    parser.add_argument(
        "--threads", type=positive, default=multiprocessing.cpu_count(), metavar="N", help="on the CPU (all of them)"
    )
    return parser.parse_args()


def positive(text):
    """For argparse: a whole number, at least 1."""
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def check(arguments):
    """Raises UserError for a trainer or a device that is not there, before anything is written."""
    import torch

    for name in arguments.trainers:
        trainer_class(name)
        settings.parse_assignments(name.split(":")[1:])
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise UserError("-device cuda: PyTorch finds no GPU")


def in_child(function, *arguments):
    """The value of `function` in a new process, which ends with it."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def set_folders(folder):
    for name in (RAW, PREPROCESSED, RESULTS):
        os.environ[name] = str(folder / name)


def prepare(folder, size):
    """Simulates, converts and plans the dataset in `folder`, with the configurations of `size`; complete or not at all.

    Five scans of a labelled scanner, and three of two unlabelled ones each.
    """
    from nnunet_da.phantom.study import write_study

    with atomic_folder(folder) as temporary:
        place = Workplace(temporary, "cpu", show=False)
        counts = dict.fromkeys(SCANNERS, 3) | {SCANNERS[0]: 5}
        manifest = write_study(temporary / "study", SCANNERS, counts, 0, size=size.scan)
        place.run(
            *("nnunet-da", "convert", "manifest", manifest, "-d", DATASET_ID, "--name", "Benchmark"),
            *("--labels", "disc=1", "--channels", "MR"),
        )
        planned = [base for base, _ in size.configurations.values()]
        place.run(
            *("nnUNetv2_plan_and_preprocess", "-d", DATASET_ID, "-c", *planned, "-npfp", 1, "-np", *[1] * len(planned))
        )
        for name, (base, changes) in size.configurations.items():
            assignments = [word for change in changes for word in ("--set", f"plan.{change}")]
            place.run("nnunet-da", "configure", "-d", DATASET_ID, "-c", base, "--as", name, *assignments)


def measure_configuration(configuration, arguments):
    """The rows (dicts) of the table for `configuration`: the stock trainer, and `arguments.trainers`."""
    names = list(dict.fromkeys([STOCK, *arguments.trainers]))
    print(f"{configuration}: timing {arguments.steps} steps of {len(names)} trainers in turn …", file=sys.stderr)
    timed = in_child(time_trainers, configuration, names, arguments)
    print(f"{configuration}: peak memory, one process per trainer …", file=sys.stderr)
    memory = {name: in_child(peak_memory, configuration, name, arguments) for name in names}
    for name in names:
        memory[name]["memory_ratio"] = memory[name]["memory_mb"] / memory[STOCK]["memory_mb"]
    return [{"configuration": configuration, "trainer": name, **timed[name], **memory[name]} for name in names]


def time_trainers(configuration, names, arguments):
    """Time of a step and of loading, and the predicted ratio, as a dict for each of `names`."""
    import numpy as np

    trainers = {name: build_trainer(name, configuration, arguments) for name in names}
    stock = trainers[STOCK]
    pretext_loaders = {
        name: trainer.dataloader_pretext for name, trainer in trainers.items() if hasattr(trainer, "dataloader_pretext")
    }
    loading = time_in_turn(
        {name: loader.__next__ for name, loader in {STOCK: stock.dataloader_train, **pretext_loaders}.items()},
        n_warmup=2,
        n_rounds=arguments.batches,
    )
    # What a batch costs depends on the augmentations it draws, so that the mean says what an epoch takes.
    loading = {name: seconds.mean() for name, seconds in loading.items()}
    batches = preload(stock.dataloader_train, stock.device)
    predicted = {name: predict_ratio(stock, trainer, batches[0]) for name, trainer in trainers.items()}
    seconds = time_in_turn(
        {name: step_on(trainer, batches) for name, trainer in trainers.items()}, arguments.warmup, arguments.steps
    )
    rows = {}
    for name in names:
        ratios = seconds[name] / seconds[STOCK]
        agreement = np.median(ratios) / predicted[name]
        pretext = loading[name] if name in pretext_loaders else 0.0
        rows[name] = {
            "step_ms": 1e3 * np.median(seconds[name]),
            "step_ratio": np.median(ratios),
            "step_ratio_interval": interval_of_median(ratios),
            "predicted_ratio": predicted[name],
            "measured_over_predicted": agreement,
            "within_tolerance": bool(abs(agreement - 1) <= TOLERANCE),
            "loading_segmentation_ms": 1e3 * loading[STOCK],
            "loading_pretext_ms": 1e3 * pretext,
            "loading_ratio": 1 + pretext / loading[STOCK],
        }
    return rows


def trainer_class(name):
    """The class that `name` (``CLASS[:KEY=VALUE…]``) begins with: nnU-Net's trainer, or one of this package."""
    class_name = name.split(":")[0]
    if class_name == STOCK:
        from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

        return nnUNetTrainer
    from nnunet_da import trainers

    known = [module.name for module in pkgutil.iter_modules(trainers.__path__)]
    if class_name not in known:
        raise UserError(f"--trainers {name}: no such trainer{nearest(class_name, known)} (known: {', '.join(known)})")
    return getattr(importlib.import_module(f"{trainers.__name__}.{class_name}"), class_name)


def build_trainer(name, configuration, arguments):
    """The trainer that `name` (``CLASS[:KEY=VALUE…]``) describes, ready for `train_step`, with its loaders."""
    import torch

    folder = nnunet_folder(PREPROCESSED) / DATASET
    plans, dataset = (read_json(folder / file) for file in ("nnUNetPlans.json", "dataset.json"))
    plans["continue_training"] = False
    plans["configurations"][configuration][settings.BLOCK] = settings.parse_assignments(name.split(":")[1:])
    # As nnU-Net trains on either device.
    torch.set_num_threads(arguments.threads)
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(0)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        trainer = trainer_class(name)(plans, configuration, 0, dataset, torch.device(arguments.device))
        trainer.initialize()
        trainer.dataloader_train, trainer.dataloader_val = trainer.get_dataloaders()
    trainer.network.train()
    return trainer


def preload(loader, device):
    """The next batches of `loader`, on `device`."""

    def move(value):
        if isinstance(value, list) and hasattr(value[0], "to"):
            return [move(item) for item in value]
        return value.to(device) if hasattr(value, "to") else value

    return [{key: move(value) for key, value in next(loader).items()} for _ in range(N_BATCHES)]


def step_on(trainer, batches):
    """A function that does one step of `trainer` on the next of `batches`, and waits for the device."""
    import torch

    batches = itertools.cycle(batches)
    if hasattr(trainer, "dataloader_pretext"):
        trainer.dataloader_pretext = itertools.cycle(preload(trainer.dataloader_pretext, trainer.device))

    def step():
        trainer.train_step(next(batches))
        if trainer.device.type == "cuda":
            torch.cuda.synchronize()

    return step


def time_in_turn(actions, n_warmup, n_rounds):
    """Seconds, (n_rounds,), of each of `actions` (dict of functions), one after the other in every round.

    What else the machine does hits all of them alike; the order is drawn anew for each round.
    """
    import numpy as np

    rng = np.random.default_rng(0)
    seconds = {name: np.empty(n_rounds) for name in actions}
    for index in range(-n_warmup, n_rounds):
        for name in rng.permutation(list(actions)):
            start = time.perf_counter()
            actions[name]()
            if index >= 0:
                seconds[name][index] = time.perf_counter() - start
    return seconds


def interval_of_median(values, n_draws=10_000):
    """The 95 % interval (low, high) of the median, by bootstrap."""
    import numpy as np

    draws = np.random.default_rng(0).choice(values, (n_draws, len(values)))
    return np.percentile(np.median(draws, axis=1), [2.5, 97.5]).tolist()


def predict_ratio(stock, trainer, batch):
    """(segmentation + pretext) / segmentation, in multiply–adds of convolutions, forward and backward."""
    from nnunet_da.training.configured_trainer import unwrap

    network = unwrap(stock.network)
    segmentation = count_multiply_adds(network, lambda: network(batch["data"]))
    if not hasattr(trainer, "dataloader_pretext"):
        return 1.0
    network = unwrap(trainer.network)
    images = next(trainer.dataloader_pretext)["data"].to(trainer.device)

    def pretext():
        for head in network.pretext_heads.values():
            head(network.encoder(images)[-1])

    return 1 + count_multiply_adds(network, pretext) / segmentation


def count_multiply_adds(network, run):
    """Multiply–adds of the convolutions that `run` calls in `network`, forward and backward.

    Forward, each weight meets each position once: the positions of the output, or of the input where the convolution is
    transposed. Backward, the gradients of the weights and of the input take as many each; the images need none.
    """
    from torch import nn

    counts = []

    def count(module, inputs, output):
        positions = inputs[0] if module.transposed else output
        forward = module.weight.numel() * len(positions) * positions[0, 0].numel()
        counts.append(forward * (3 if inputs[0].requires_grad else 2))

    convolutions = nn.modules.conv._ConvNd
    hooks = [module.register_forward_hook(count) for module in network.modules() if isinstance(module, convolutions)]
    run()
    for hook in hooks:
        hook.remove()
    return sum(counts)


def peak_memory(configuration, name, arguments):
    """Peak memory (MB) of this process after a few steps of the trainer `name`.

    On the CPU, `memory_mb` is what the process took beyond its imports, which are the same for every trainer, and
    `process_mb` all of it; on a GPU, `memory_mb` is what PyTorch allocated there.
    """
    import torch

    for trainer in (STOCK, name):
        trainer_class(trainer)
    imports = resident_mb()
    trainer = build_trainer(name, configuration, arguments)
    step = step_on(trainer, preload(trainer.dataloader_train, trainer.device))
    for _ in range(2 * N_BATCHES):
        step()
    process = resident_mb()
    on_device = torch.cuda.max_memory_allocated() / 1e6 if trainer.device.type == "cuda" else process - imports
    return {"memory_mb": on_device, "process_mb": process}


def resident_mb():
    """The most memory (MB) that this process has held in RAM so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def table(rows):
    """Markdown."""
    columns = ["configuration", "trainer", "step (ms)", "step ratio [95 %]", "predicted", "measured / predicted"]
    columns += [f"within {TOLERANCE:.0%}", "loading (ms), segmentation + pretext", "loading ratio", "peak memory (MB)"]
    columns += ["memory ratio"]
    lines = [columns, ["---"] * len(columns)]
    for row in rows:
        low, high = row["step_ratio_interval"]
        lines.append(
            [
                row["configuration"],
                row["trainer"],
                f"{row['step_ms']:.0f}",
                f"{row['step_ratio']:.3f} [{low:.3f}, {high:.3f}]",
                f"{row['predicted_ratio']:.3f}",
                f"{row['measured_over_predicted']:.3f}",
                "yes" if row["within_tolerance"] else "no",
                f"{row['loading_segmentation_ms']:.0f} + {row['loading_pretext_ms']:.0f}",
                f"{row['loading_ratio']:.2f}",
                f"{row['memory_mb']:.0f}",
                f"{row['memory_ratio']:.2f}",
            ]
        )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def environment(arguments):
    """What the figures depend on."""
    packages = ("nnunet-da", "nnunetv2", "torch", "numpy")
    return {
        "device": in_child(device_name, arguments.device),
        "threads": arguments.threads,
        "steps": arguments.steps,
        "python": platform.python_version(),
        **{package: importlib.metadata.version(package) for package in packages},
    }


def device_name(device):
    """Of the GPU; of the CPU its architecture and the instructions that PyTorch uses."""
    import torch

    if device == "cuda":
        return torch.cuda.get_device_name()
    return f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"train_step.py: error: {error}")
