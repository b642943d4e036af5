"""Slices per second of training and applying a translation, beside what its convolutions allow.

    python benchmarks/translation.py [-device cpu|cuda] [--work DIR] [--json FILE]

The bound is the rate of multiply–adds at which nnU-Net's own trainer computes here, over those that a slice needs. See
README.md in this folder.
"""

import argparse
import contextlib
import multiprocessing
import os
import sys
import tempfile
from pathlib import Path

import train_step
from train_step import in_child, positive, time_in_turn

from nnunet_da.errors import UserError
from nnunet_da.files import write_json

# Heavy imports stand inside functions, as in train_step.py.

TARGET = train_step.SCANNERS[1]
TRAINER = "nnUNetTrainerCycleGAN"
PLANNED = "2d"
# Of the paper's defaults a generator is as thin on the CPU as the U-Net that it is compared with.
SETTINGS = {
    "cpu": "translation.features=16,32,64:translation.discriminator_features=16",
    "cuda": "translation.features=32,64,128",
}


def main():
    arguments = parse_arguments()
    in_child(choose_device, arguments.device)
    os.environ.update(nnUNet_n_proc_DA="0")
    with contextlib.ExitStack() as stack:
        work = arguments.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder = work.absolute() / f"pretext_{arguments.device}"
        if not folder.exists():
            print(f"Preparing a simulated dataset in {folder} …", file=sys.stderr)
            in_child(train_step.prepare, folder, "pretext", arguments.device)
        train_step.set_folders(folder)
        print(f"Timing {arguments.steps} steps and as many slices …", file=sys.stderr)
        rows = in_child(measure, arguments)
    print(table(rows))
    if arguments.json:
        write_json({**train_step.environment(arguments), "rows": rows}, arguments.json)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-device", choices=["cpu", "cuda"], default="cpu", help="default: %(default)s")
    parser.add_argument("--steps", type=positive, default=30, metavar="N", help="timed rounds (%(default)s)")
    parser.add_argument("--warmup", type=positive, default=3, metavar="N", help="untimed rounds before (%(default)s)")
    parser.add_argument("--work", type=Path, metavar="DIR", help="where the dataset is kept for the next run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    parser.add_argument(
        "--threads", type=positive, default=multiprocessing.cpu_count(), metavar="N", help="on the CPU (all of them)"
    )
    return parser.parse_args()


def choose_device(name):
    """Raises UserError where there is no such device."""
    from nnunet_da.prediction import model

    model.choose_device(name)


def measure(arguments):
    """The rows of the table (list of dict): training and translating."""
    import numpy as np

    configuration = train_step.CUSTOM[PLANNED]
    name = f"{TRAINER}:translation.target={TARGET}:{SETTINGS[arguments.device]}"
    trainers = {
        label: train_step.build_trainer(trainer, configuration, arguments)
        for label, trainer in ((train_step.STOCK, train_step.STOCK), (TRAINER, name))
    }
    stock, ours = trainers.values()
    translator = build_translator(ours)
    patch_size = ours.configuration_manager.patch_size
    # Twice the patch, so that tiles overlap.
    slices = np.random.default_rng(0).random((1, 4, 2 * patch_size[0], 2 * patch_size[1]), dtype=np.float32)
    (batch,) = train_step.preload(stock.dataloader_train, stock.device, 1)
    passes = {"train": (train_step.step_on(stock), train_step.step_on(ours))}
    passes["translate"] = (forward(stock, batch["data"]), lambda: translator.translate_slices(slices))
    n_slices = {"train": 2 * ours.batch_size, "translate": slices.shape[1]}
    rows = []
    for work, (reference, own) in passes.items():
        seconds = time_in_turn({"reference": reference, "own": own}, arguments.warmup, arguments.steps)
        median = {name: float(np.median(values)) for name, values in seconds.items()}
        multiply_adds = {"reference": count(reference), "own": count(own)}
        rate = multiply_adds["reference"] / median["reference"]
        per_second = n_slices[work] / median["own"]
        bound = n_slices[work] * rate / multiply_adds["own"]
        rows.append(
            {
                "work": work,
                "patch": list(patch_size),
                "slice": list(patch_size if work == "train" else slices.shape[2:]),
                "multiply_adds_per_slice": multiply_adds["own"] / n_slices[work],
                "rate_of_nnunet": rate,
                "slices_per_second": per_second,
                "bound": bound,
                "share_of_bound": per_second / bound,
            }
        )
    return rows


def build_translator(trainer):
    """A Translator with the network of `trainer`, which need not be trained."""
    from types import SimpleNamespace

    from nnunet_da.prediction.translation import Translator

    model = SimpleNamespace(
        configuration_manager=trainer.configuration_manager,
        predictor=lambda device, mirroring: SimpleNamespace(network=trainer.network),
    )
    return Translator(model, False, trainer.device)


def forward(trainer, images):
    """A function that segments `images` without gradients, and waits for the device."""
    import torch

    def run():
        with torch.inference_mode():
            trainer.network(images)
        if trainer.device.type == "cuda":
            torch.cuda.synchronize()

    return run


def count(function):
    """Multiply–adds of the convolutions in a call of `function`, forward and backward."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops() / 2


def table(rows):
    """Markdown."""
    columns = ["work", "slice", "10⁹ multiply–adds per slice", "slices/s", "bound (slices/s)", "share of the bound"]
    lines = [columns, ["---"] * len(columns)]
    for row in rows:
        lines.append(
            [
                row["work"],
                " × ".join(map(str, row["slice"])),
                f"{row['multiply_adds_per_slice'] / 1e9:.2f}",
                f"{row['slices_per_second']:.1f}",
                f"{row['bound']:.1f}",
                f"{row['share_of_bound']:.0%}",
            ]
        )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"translation.py: error: {error}")
