"""How often the pretext heads of trained models are right on scans that training never saw, by domain and class.

    python benchmarks/pretext_accuracy.py IMAGES CASES.csv --model NAME=MODEL_FOLDER … -o figure.svg --csv accuracy.csv

IMAGES: a folder as `nnUNetv2_predict -i` takes it; CASES.csv: the columns case, domain. MODEL_FOLDER: the folder of a
trained model in nnUNet_results. Every scan is preprocessed as for prediction; patches from random places go through the
tasks of the model's trainer, and the network answers in evaluation mode.
"""

import argparse
import contextlib
import csv
import sys
from pathlib import Path

import numpy as np
import pandas
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

from nnunet_da.errors import UserError
from nnunet_da.files import atomic_file
from nnunet_da.training.checkpoints import read_checkpoint
from nnunet_da.training.pretext_trainer import flip_rows, square_patch


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("cases", type=Path)
    parser.add_argument("--model", action="append", required=True, metavar="NAME=MODEL_FOLDER", dest="models")
    parser.add_argument("-f", dest="fold", default="0", help="fold (%(default)s)")
    parser.add_argument("-chk", dest="checkpoint", default="checkpoint_final.pth", help="default: %(default)s")
    parser.add_argument("--patches", type=int, default=64, metavar="N", help="patches per scan (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", dest="figure", type=Path, metavar="FILE", help="figure to write")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="a row per patch and task")
    arguments = parser.parse_args()
    with open(arguments.cases, newline="", encoding="utf-8") as stream:
        domains = {row["case"]: row["domain"] for row in csv.DictReader(stream)}
    answers = []
    for model in arguments.models:
        name, _, folder = model.partition("=")
        answers += [{"model": name, **answer} for answer in ask(Path(folder), domains, arguments)]
    answers = pandas.DataFrame(answers)
    print(table(answers))
    if arguments.csv:
        with atomic_file(arguments.csv) as temporary:
            answers.to_csv(temporary, index=False)
    if arguments.figure:
        draw(answers, arguments.figure)


def ask(model_folder, domains, arguments):
    """A dict (task, domain, case, class, score, chance) for every patch."""
    trainer_name = read_checkpoint(model_folder / f"fold_{arguments.fold}" / arguments.checkpoint)["trainer_name"]
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    # nnU-Net tells on stdout where it looks; there the table is to stand alone.
    with contextlib.redirect_stdout(sys.stderr):
        trainer = recursive_find_trainer_class_by_name(trainer_name)
        predictor.initialize_from_trained_model_folder(str(model_folder), (arguments.fold,), arguments.checkpoint)
    configuration, network = predictor.configuration_manager, predictor.network
    network.load_state_dict(predictor.list_of_parameters[0])
    network.eval()
    ending = predictor.dataset_json["file_ending"]
    for case, domain in domains.items():
        files = sorted(str(path) for path in arguments.images.glob(f"{case}_[0-9][0-9][0-9][0-9]{ending}"))
        if not files:
            raise UserError(f"{arguments.images}: no scan of case {case}")
        preprocessor = configuration.preprocessor_class(verbose=False)
        data, _, _ = preprocessor.run_case(files, None, predictor.plans_manager, configuration, predictor.dataset_json)
        tasks = trainer.build_tasks(configuration, len(data))
        # The same patches and transformations for every model.
        torch.manual_seed(arguments.seed)
        rng = np.random.default_rng(arguments.seed)
        size = list(configuration.patch_size)
        if any(task.needs_square for task in tasks):
            size = square_patch(size, configuration.pool_op_kernel_sizes)
        patches = random_patches(torch.as_tensor(np.asarray(data)), size, arguments.patches, rng)
        for task in tasks:
            inputs, answers = task.sample(flip_rows(patches) if task.flips_rows else patches)
            with torch.inference_mode():
                _, outputs = network(None, {task.name: inputs})
            scores = task.score(outputs[task.name], answers)
            names = getattr(task, "class_names", None)
            for index, score in enumerate(scores.tolist()):
                asked = names[answers[index]] if names else ""
                row = {"task": task.name, "domain": domain, "case": case, "class": asked, "score": score}
                yield row | {"chance": task.chance(arguments.patches)}


def random_patches(data, size, n_patches, rng):
    """Patches (n_patches, channels, *size) from anywhere in an image (channels, slices, rows, columns).

    `size` of two axes: of single slices. Where the image is smaller, zeros fill the patch on both sides.
    """
    wanted = [1] * (3 - len(size)) + list(size)
    missing = [max(0, length - available) for length, available in zip(wanted, data.shape[1:], strict=True)]
    margins = [margin for lack in reversed(missing) for margin in (lack // 2, lack - lack // 2)]
    data = torch.nn.functional.pad(data, margins)
    patches = []
    for _ in range(n_patches):
        patch = data
        for axis, length in enumerate(wanted, start=1):
            patch = patch.narrow(axis, int(rng.integers(data.shape[axis] - length + 1)), length)
        patches.append(patch)
    return torch.stack(patches).reshape(n_patches, len(data), *size)


def table(answers):
    """Mean score by model, task and domain, overall and by class, as Markdown."""
    lines = [
        "| Model | Task | Domain | Cases | Score | Chance | By class |",
        "| --- | --- | --- | ---: | ---: | ---: | --- |",
    ]
    for (model, task, domain), rows in answers.groupby(["model", "task", "domain"], sort=False):
        by_class = rows.groupby("class", sort=True)["score"].mean()
        classes = ", ".join(f"{name} {value:.2f}" for name, value in by_class.items() if name)
        chance = rows["chance"].iloc[0]
        lines.append(
            f"| {model} | {task} | {domain} | {rows['case'].nunique()} | {rows['score'].mean():.2f} "
            f"| {'' if pandas.isna(chance) else f'{chance:.2f}'} | {classes} |"
        )
    return "\n".join(lines)


def draw(answers, path):
    """A panel per task, a group of bars per model, a bar per domain, and a dashed line at chance."""
    import matplotlib.pyplot as plt

    tasks, domains = answers["task"].unique(), list(answers["domain"].unique())
    figure, axes = plt.subplots(len(tasks), 1, figsize=(8, 3 * len(tasks)), squeeze=False, layout="constrained")
    for axis, task in zip(axes[:, 0], tasks, strict=True):
        rows = answers[answers["task"] == task]
        models = list(rows["model"].unique())
        for index, domain in enumerate(domains):
            means = [rows[(rows["model"] == model) & (rows["domain"] == domain)]["score"].mean() for model in models]
            offset = (index - (len(domains) - 1) / 2) * 0.8 / len(domains)
            axis.bar(np.arange(len(models)) + offset, means, width=0.8 / len(domains), label=domain)
        if rows["chance"].notna().all():
            axis.axhline(rows["chance"].iloc[0], color="grey", linestyle="--", linewidth=1, label="chance")
        axis.set(title=f"{task} task on unseen cases", ylabel="score", ylim=(0, 1), xticks=range(len(models)))
        axis.set_xticklabels(models)
        axis.legend(fontsize="small", ncols=len(domains) + 1)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:])
    plt.close(figure)


if __name__ == "__main__":
    main()
