"""Time of a training step over that of nnU-Net's own trainer, beside the ratio that counting convolutions predicts.

    python benchmarks/train_step.py [-device cpu|cuda] [--families …] [--trainers …] [--work DIR] [--json FILE]

Data loading and peak memory stand beside it. See README.md in this folder for what is measured and how.
"""

import argparse
import contextlib
import importlib.metadata
import itertools
import multiprocessing
import os
import platform
import resource
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from nnunet_da import settings
from nnunet_da.errors import UserError, nearest
from nnunet_da.files import atomic_folder, read_json, write_json
from nnunet_da.paths import PREPROCESSED, RAW, RESULTS, nnunet_folder
from nnunet_da.workplace import Workplace

# Heavy imports stand inside functions that run in child processes: this process must stay small, since the peak memory
# that the system reports of a child starts at what its parent held.

STOCK = "nnUNetTrainer"
SCANNERS = ("philips_3t", "siemens_1p5t", "ge_gre_3t")
DATASET_ID, DATASET = 997, "Dataset997_Benchmark"
TOLERANCE = 0.15
N_BATCHES = 4
# Voxels of the simulated scans along R, A, S.
SCANS = {"cpu": (16, 160, 160), "cuda": (40, 320, 320)}
PLANNED = ("2d", "3d_fullres")
CUSTOM = {planned: f"bench_{planned[:2]}" for planned in PLANNED}


@dataclass(frozen=True)
class Family:
    """Trainers that learn from data of one kind, which they and the stock trainer are measured on.

    Attributes
    ----------
    labelled : sequence of str
        The scanners whose scans have labels.
    trainers : sequence of str
        ``CLASS[:KEY=VALUE…]``, measured unless others are asked for.
    plans : dict
        By device and planned configuration, what is changed in it.
    limits : dict
        By class, the step ratio that it may not exceed.
    planned : dict
        By class, the one planned configuration that its network is for.
    """

    labelled: tuple[str, ...]
    trainers: tuple[str, ...]
    plans: dict
    limits: dict = field(default_factory=dict)
    planned: dict = field(default_factory=dict)


# As nnU-Net's own, which tells the cost of the domain-specific layers from that of another norm and loss.
LIKE_STOCK = "multidomain.norm=instance:multidomain.loss=nnunet"
TAUGHT = "adaptation.teacher.start=0:adaptation.teacher.ramp=0"
PLANS_2D = {
    "cpu": {"patch_size": "160,160", "batch_size": 6, "features_per_stage": "16,32,64,128,128"},
    "cuda": {"patch_size": "256,256", "batch_size": 24, "features_per_stage": "32,64,128,256,512,512"},
}
PLANS = {
    "cpu": {
        "2d": PLANS_2D["cpu"],
        "3d_fullres": {"patch_size": "16,64,64", "batch_size": 2, "features_per_stage": "16,32,64,64"},
    },
    "cuda": {
        "2d": PLANS_2D["cuda"],
        "3d_fullres": {"patch_size": "32,160,160", "batch_size": 2, "features_per_stage": "32,64,128,256,320"},
    },
}
FAMILIES = {
    "pretext": Family(
        labelled=SCANNERS[:1],
        trainers=("nnUNetTrainerUNet", "nnUNetTrainerIntensityDA", "nnUNetTrainerIntensityDA:pretext.update=joint"),
        plans=PLANS,
    ),
    # The stages of the contrast by themselves, since they train different parts.
    "pretraining": Family(
        labelled=SCANNERS[:1],
        trainers=(
            "nnUNetTrainerSSLRegression",
            "nnUNetTrainerSSLContrastive:pretraining.contrast.stages=global",
            "nnUNetTrainerSSLContrastive:pretraining.contrast.stages=local",
            "nnUNetTrainerSSLContrastive:pretraining.contrast.stages=local:pretraining.contrast.encoder=trained",
            "nnUNetTrainerSSLFinetune",
        ),
        plans=PLANS,
    ),
    # With the teacher's labels from the first step on, as in most of a training; and without them.
    "adaptation": Family(
        labelled=SCANNERS[:1],
        trainers=(
            "nnUNetTrainerUNet",
            f"nnUNetTrainerAdapt:{TAUGHT}",
            f"nnUNetTrainerAdapt:{TAUGHT}:adaptation.teacher.views=1",
            "nnUNetTrainerAdapt:adaptation.teacher.weight=0",
        ),
        plans=PLANS,
    ),
    # Batches hold two samples of each domain at least, as the contrastive loss needs, so that no trainer raises them.
    "multidomain": Family(
        labelled=SCANNERS,
        trainers=(
            "nnUNetTrainerUNet",
            "nnUNetTrainerJoint",
            "nnUNetTrainerDSL",
            f"nnUNetTrainerDSL:{LIKE_STOCK}",
            "nnUNetTrainerDSLContrastive",
            f"nnUNetTrainerDSLContrastive:{LIKE_STOCK}",
            "nnUNetTrainerAttentionJoint",
            "nnUNetTrainerAttentionDSL",
        ),
        plans={
            "cpu": {
                "2d": PLANS_2D["cpu"],
                "3d_fullres": {"patch_size": "16,48,48", "batch_size": 6, "features_per_stage": "16,32,64,64"},
            },
            "cuda": {
                "2d": PLANS_2D["cuda"],
                "3d_fullres": {"patch_size": "32,128,128", "batch_size": 6, "features_per_stage": "32,64,128,256,320"},
            },
        },
        limits={"nnUNetTrainerDSL": 1.05, "nnUNetTrainerDSLContrastive": 1.07},
    ),
    # Their networks are their own: nnU-Net's filters are no measure of them.
    "discs": Family(
        labelled=SCANNERS[:1],
        trainers=(
            "nnUNetTrainerSpineRegion",
            "nnUNetTrainerDenseASPP",
            "nnUNetTrainerDenseASPP:dense_aspp.growth=8:dense_aspp.layers=2:dense_aspp.aspp_growth=16",
            "nnUNetTrainerVNetLocalizer",
        ),
        plans=PLANS,
        planned={"nnUNetTrainerDenseASPP": "2d", "nnUNetTrainerVNetLocalizer": "3d_fullres"},
    ),
}


def main():
    arguments = parse_arguments()
    trainers = in_child(check, arguments)
    # Worker processes would share the cores with what is measured.
    os.environ.update(nnUNet_n_proc_DA="0")
    rows = []
    with contextlib.ExitStack() as stack:
        work = arguments.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for family, names in trainers.items():
            folder = work.absolute() / f"{family}_{arguments.device}"
            if not folder.exists():
                print(f"Preparing a simulated dataset in {folder} …", file=sys.stderr)
                in_child(prepare, folder, family, arguments.device)
            set_folders(folder)
            for planned in PLANNED:
                rows += measure_configuration(family, planned, trainers_for(family, planned, names), arguments)
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
        "--families", nargs="+", choices=FAMILIES, metavar="FAMILY", help=f"default: {' '.join(FAMILIES)}"
    )
    parser.add_argument(
        "--trainers",
        nargs="+",
        default=(),
        metavar="TRAINER[:KEY=VALUE…]",
        help="trainers, with settings, in place of those of their families",
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
    """The trainers to measure (list) by the name of the family. Raises UserError before anything is written.

    A trainer of no family, as one that learns from labelled scans alone, is measured with any.
    """
    import torch

    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise UserError("-device cuda: PyTorch finds no GPU")
    own = {name: family_of(name) for name in arguments.trainers}
    chosen = arguments.families or [family for family in FAMILIES if family in own.values()] or list(FAMILIES)
    if not own:
        return {family: list(FAMILIES[family].trainers) for family in chosen}
    for name, family in own.items():
        if family not in (None, *chosen):
            raise UserError(f"--trainers {name}: is of the family {family}, which --families leaves out")
    return {family: [name for name in own if own[name] in (None, family)] for family in chosen}


def trainers_for(family, planned, names):
    """Those of `names` whose network is for the planned configuration."""
    only = FAMILIES[family].planned
    return [name for name in names if only.get(name.split(":")[0], planned) == planned]


def family_of(name):
    """The family of the trainer `name` (``CLASS[:KEY=VALUE…]``), or None. Raises UserError for unknown settings."""
    from nnunet_da.training.adaptation_trainer import AdaptationTrainer
    from nnunet_da.training.disc_trainers import OwnNetworkTrainer, SpineRegionTrainer
    from nnunet_da.training.multidomain_trainer import MultiDomainTrainer
    from nnunet_da.training.pretext_trainer import PretextTrainer
    from nnunet_da.training.ssl_trainer import Pretrainer

    trainer, block = trainer_class(name), settings.parse_assignments(name.split(":")[1:])
    if hasattr(trainer, "settings_class"):
        settings.build(trainer.settings_class, block)
    elif block:
        raise UserError(f"--trainers {name}: {trainer.__name__} has no settings")
    parents = {
        "pretext": PretextTrainer,
        "multidomain": MultiDomainTrainer,
        "pretraining": Pretrainer,
        "adaptation": AdaptationTrainer,
        "discs": (OwnNetworkTrainer, SpineRegionTrainer),
    }
    return next((family for family, parent in parents.items() if issubclass(trainer, parent)), None)


def in_child(function, *arguments):
    """The value of `function` in a new process, which ends with it."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def set_folders(folder):
    for name in (RAW, PREPROCESSED, RESULTS):
        os.environ[name] = str(folder / name)


def prepare(folder, family, device):
    """Simulates, converts and plans the dataset of `family` in `folder`, with its configurations; whole or not at all.

    Five scans of the first scanner, and three of the two others each.
    """
    from nnunet_da.phantom.study import write_study

    with atomic_folder(folder) as temporary:
        place = Workplace(temporary, "cpu", show=False)
        counts = dict.fromkeys(SCANNERS, 3) | {SCANNERS[0]: 5}
        labelled = FAMILIES[family].labelled
        manifest = write_study(temporary / "study", SCANNERS, counts, 0, labelled=labelled, size=SCANS[device])
        place.run(
            *("nnunet-da", "convert", "manifest", manifest, "-d", DATASET_ID, "--name", "Benchmark"),
            *("--labels", "disc=1", "--channels", "MR"),
        )
        place.run(
            *("nnUNetv2_plan_and_preprocess", "-d", DATASET_ID, "-c", *PLANNED, "-npfp", 1, "-np", *[1] * len(PLANNED))
        )
        for planned in PLANNED:
            changes = FAMILIES[family].plans[device][planned]
            assignments = [word for name, value in changes.items() for word in ("--set", f"plan.{name}={value}")]
            place.run("nnunet-da", "configure", "-d", DATASET_ID, "-c", planned, "--as", CUSTOM[planned], *assignments)


def measure_configuration(family, planned, names, arguments):
    """The rows (dicts) of the table for a planned configuration: the stock trainer, and `names`."""
    names = list(dict.fromkeys([STOCK, *names]))
    title = f"{family}, {planned[:2]}"
    print(f"{title}: timing {arguments.steps} steps of {len(names)} trainers in turn …", file=sys.stderr)
    timed = in_child(time_trainers, CUSTOM[planned], names, arguments)
    print(f"{title}: peak memory, one process per trainer …", file=sys.stderr)
    memory = {name: in_child(peak_memory, CUSTOM[planned], name, arguments) for name in names}
    for name in names:
        memory[name]["memory_ratio"] = memory[name]["memory_mb"] / memory[STOCK]["memory_mb"]
        limit = FAMILIES[family].limits.get(name.split(":")[0])
        timed[name] |= {"limit": limit, "within_limit": limit and bool(timed[name]["step_ratio"] <= limit)}
    described = {"family": family, "configuration": planned[:2]}
    return [{**described, "trainer": name, **timed[name], **memory[name]} for name in names]


def time_trainers(configuration, names, arguments):
    """Time of a step and of loading, and the predicted ratio, as a dict for each of `names`."""
    import numpy as np

    trainers = {name: build_trainer(name, configuration, arguments) for name in names}
    stock = trainers[STOCK]
    check_batches(trainers)
    further = {name: further_loader(trainer) for name, trainer in trainers.items()}
    pretext_loaders = {name: getattr(trainers[name], loader) for name, loader in further.items() if loader}
    # All that segment load the same, which is timed once, but for those that read slabs.
    own_loaders = {
        name: trainer.dataloader_train
        for name, trainer in trainers.items()
        if is_pretrainer(trainer) or getattr(trainer, "deforms", False)
    }
    loaders = {STOCK: stock.dataloader_train, **pretext_loaders, **own_loaders}
    loading = time_in_turn(
        {name: loader.__next__ for name, loader in loaders.items()}, n_warmup=2, n_rounds=arguments.batches
    )
    # What a batch costs depends on the augmentations it draws, so that the mean says what an epoch takes.
    loading = {name: seconds.mean() for name, seconds in loading.items()}
    multiply_adds = {name: count_multiply_adds(trainer) for name, trainer in trainers.items()}
    steps = {name: step_on(trainer) for name, trainer in trainers.items()}
    seconds = time_in_turn(steps, arguments.warmup, arguments.steps)
    rows = {}
    for name in names:
        ratios = seconds[name] / seconds[STOCK]
        predicted = multiply_adds[name] / multiply_adds[STOCK]
        agreement = np.median(ratios) / predicted
        pretext = loading[name] if name in pretext_loaders else 0.0
        own = loading[name] if name in own_loaders else loading[STOCK]
        rows[name] = {
            **describe(trainers[name]),
            "step_ms": 1e3 * np.median(seconds[name]),
            "step_ratio": np.median(ratios),
            "step_ratio_interval": interval_of_median(ratios),
            "predicted_ratio": predicted,
            "measured_over_predicted": agreement,
            "within_tolerance": bool(abs(agreement - 1) <= TOLERANCE),
            "loading_own_ms": 1e3 * own,
            "loading_pretext_ms": 1e3 * pretext,
            "loading_ratio": (own + pretext) / loading[STOCK],
        }
    return rows


def further_loader(trainer):
    """The attribute (str) with a second loader, for pretext tasks or unlabelled images, where the trainer has one."""
    names = ("dataloader_pretext", "dataloader_target")
    return next((name for name in names if getattr(trainer, name, None) is not None), None)


def is_pretrainer(trainer):
    """Whether it has a loss of its own on images without labels, as the family `pretraining`."""
    return hasattr(trainer, "pretraining_loss")


def check_batches(trainers):
    """Raises UserError where one of `trainers` (by name) takes another number of samples in a step than nnU-Net's."""
    expected = trainers[STOCK].batch_size
    for name, trainer in trainers.items():
        if trainer.batch_size != expected:
            raise UserError(f"{name}: takes {trainer.batch_size} samples per step, {STOCK} {expected}")


def describe(trainer):
    """What else than its method the time of a trainer's step depends on: samples, norm and loss."""
    loss = trainer.loss
    while hasattr(loss, "loss"):
        loss = loss.loss
    name = "own" if is_pretrainer(trainer) else type(loss).__name__
    norm = trainer.configuration_manager.network_arch_init_kwargs["norm_op"]
    return {"samples": trainer.batch_size, "norm": norm.rpartition(".")[2], "loss": name}


def trainer_class(name):
    """The class that `name` (``CLASS[:KEY=VALUE…]``) begins with: nnU-Net's trainer, or one of this package."""
    class_name = name.split(":")[0]
    if class_name == STOCK:
        from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

        return nnUNetTrainer
    from nnunet_da.training.configurations import all_trainers

    known = all_trainers()
    if class_name not in known:
        raise UserError(f"--trainers {name}: no such trainer{nearest(class_name, known)} (known: {', '.join(known)})")
    return known[class_name]


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


def preload(loader, device, n_batches=N_BATCHES):
    """The next batches of `loader`, on `device`."""

    def move(value):
        if isinstance(value, list) and hasattr(value[0], "to"):
            return [move(item) for item in value]
        return value.to(device) if hasattr(value, "to") else value

    return [{key: move(value) for key, value in next(loader).items()} for _ in range(n_batches)]


def step_on(trainer):
    """A function that does one step of `trainer` on a batch of its own, loaded before, and waits for the device."""
    import torch

    batches = itertools.cycle(preload(trainer.dataloader_train, trainer.device))
    if loader := further_loader(trainer):
        setattr(trainer, loader, itertools.cycle(preload(getattr(trainer, loader), trainer.device)))

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


def count_multiply_adds(trainer):
    """Multiply–adds of the convolutions and matrix products of the network in one step, forward and backward.

    Of segmentation and, where the trainer has one, of the pretext pass; or of pretraining; or of unlabelled images
    too, and of the teacher that labels them, with the random convolutions of its views. Losses, updates and other
    transformations have none, or next to none.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from nnunet_da.training.configured_trainer import unwrap

    network = unwrap(trainer.network)
    (batch,) = preload(trainer.dataloader_train, trainer.device, 1)
    with FlopCounterMode(display=False) as counter:
        if is_pretrainer(trainer):
            # As it is without compilation, which the counter cannot look into.
            compiled, trainer.network = trainer.network, network
            outputs = [trainer.pretraining_loss(batch["data"])[0]]
            trainer.network = compiled
        elif further_loader(trainer) == "dataloader_target":
            (unlabelled,) = preload(trainer.dataloader_target, trainer.device, 1)
            seen, *_ = trainer.teach(unlabelled["data"])
            outputs = [*network(torch.cat([trainer.randomised(batch["data"]), seen]))]
        else:
            outputs = [*network(batch["data"])]
        if hasattr(trainer, "dataloader_pretext"):
            (batch,) = preload(trainer.dataloader_pretext, trainer.device, 1)
            outputs += network(None, dict.fromkeys(network.pretext_heads, batch["data"]))[1].values()
        sum(output.sum() for output in outputs).backward()
    trainer.optimizer.zero_grad(set_to_none=True)
    return counter.get_total_flops() / 2


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
    step = step_on(trainer)
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
    columns = ["family", "configuration", "trainer", "samples", "norm, loss", "step (ms)", "step ratio [95 %]", "limit"]
    columns += ["predicted", "measured / predicted", f"within {TOLERANCE:.0%}"]
    columns += ["loading (ms), own + pretext", "loading ratio", "peak memory (MB)", "memory ratio"]
    lines = [columns, ["---"] * len(columns)]
    for row in rows:
        low, high = row["step_ratio_interval"]
        lines.append(
            [
                row["family"],
                row["configuration"],
                row["trainer"],
                f"{row['samples']}",
                f"{row['norm']}, {row['loss']}",
                f"{row['step_ms']:.0f}",
                f"{row['step_ratio']:.3f} [{low:.3f}, {high:.3f}]",
                f"{row['limit']}: {yes_or_no(row['within_limit'])}" if row["limit"] else "–",
                f"{row['predicted_ratio']:.3f}",
                f"{row['measured_over_predicted']:.3f}",
                yes_or_no(row["within_tolerance"]),
                f"{row['loading_own_ms']:.0f} + {row['loading_pretext_ms']:.0f}",
                f"{row['loading_ratio']:.2f}",
                f"{row['memory_mb']:.0f}",
                f"{row['memory_ratio']:.2f}",
            ]
        )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def yes_or_no(value):
    return "yes" if value else "no"


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
