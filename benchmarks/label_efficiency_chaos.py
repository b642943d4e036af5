"""Label efficiency on real abdomens: liver, both kidneys and spleen in T2-SPIR, from one or two labelled subjects.

    python benchmarks/label_efficiency_chaos.py ../shared/data WORK --tested dev
    python benchmarks/label_efficiency_chaos.py ../shared/data WORK

Makes a dataset of the training cases of splits.json, and calls `nnunet-da label-efficiency` with a small 2D plan: axial
slices as a whole, at 2.5 mm in plane, 128 × 128. The cases `dev` are held out by the split: they may guide decisions,
since no fine-tuning sees them, and pretraining sees them without labels. What else stands on the command line goes to
that verb, after the arguments here: `-n 1 2 4`, `--set num_epochs=20`, `-device cuda`.

Augmentation is the paper's, translation, crop and elastic deformation, without flips: left and right kidney are two
structures. All fine-tunings take as many steps, whatever the number of labelled subjects.
"""

import argparse
import json
import os
import shutil
from pathlib import Path

from spine_vb import write_csv

from nnunet_da import cli
from nnunet_da.splits import write_splits
from nnunet_da.workplace import Workplace

DATASET_ID, NAME = 106, "Abdomen"
LABELS = ("liver", "right_kidney", "left_kidney", "spleen")
SPACING = (7.7, 2.5, 2.5)
SETTINGS = {
    "plan.patch_size": "128,128",
    "plan.batch_size": 6,
    "plan.features_per_stage": "16,32,64,128,128",
    "num_epochs": 10,
    "num_iterations_per_epoch": 50,
    "num_val_iterations_per_epoch": 5,
    "save_every": 1,
    "optimizer": "adam",
    "initial_lr": 0.001,
    "augmentation.scheme": "simple",
    "augmentation.flips": "[]",
    "augmentation.rotation": 0,
    "augmentation.translation": 0.1,
    "augmentation.crop": 0.2,
    "augmentation.elastic": 0.03,
    "augmentation.brightness": 0,
}
# More images to be told from each other.
PRETRAINING = {"plan.batch_size": 12, "num_epochs": 12}
STUDY = ("-n", "1", "2", "--draws", "3")


def write_scans(data, folder):
    """Writes cases.csv of the training cases into `folder`, for `convert manifest`, and dev and test to evaluate on."""
    splits = json.loads((data / "splits.json").read_text())["chaos_t2spir"]
    source = (data / "chaos_t2spir").resolve()
    for name in ("dev", "test"):
        for kind, ending in (("images", "_0000.nii.gz"), ("labels", ".nii.gz")):
            (folder / name / kind).mkdir(parents=True, exist_ok=True)
            for case in splits[name]:
                shutil.copyfile(source / kind / f"{case}.nii.gz", folder / name / kind / f"{case}{ending}")
    rows = [
        [case, "t2spir", *(source / kind / f"{case}.nii.gz" for kind in ("images", "labels"))]
        for case in splits["train"]
    ]
    write_csv(folder / "cases.csv", ["case", "domain", "image_0000", "label"], rows)


def hold_out_dev(data, folder):
    """Fold 0 of the dataset in `folder`: the cases dev validate, the others train."""
    splits = json.loads((data / "splits.json").read_text())["chaos_t2spir"]
    train = sorted(set(splits["train"]) - set(splits["dev"]))
    write_splits([{"train": train, "val": sorted(splits["dev"])}], folder)


def prepare(data, place):
    """The dataset in `place` (Workplace): scans, conversion, split, plan; each done once."""
    scans = place.folder / "data"
    place.step("data", "Writing the scans", lambda: write_scans(data, scans))
    place.step(
        "convert",
        "Converting",
        lambda: place.run(
            *("nnunet-da", "convert", "manifest", scans / "cases.csv", "-d", DATASET_ID, "--name", NAME, "--overwrite"),
            *("--channels", "T2", "--labels", *(f"{name}={value}" for value, name in enumerate(LABELS, start=1))),
        ),
    )
    dataset = place.folder / "nnUNet_preprocessed" / f"Dataset{DATASET_ID}_{NAME}"
    place.step("split", "Holding out the cases dev", lambda: hold_out_dev(data, dataset))
    place.step(
        "plan",
        "Planning and preprocessing",
        lambda: place.run(
            *("nnUNetv2_plan_and_preprocess", "-d", DATASET_ID, "-c", "2d", "-npfp", 2, "-np", 2),
            *("-overwrite_target_spacing", *SPACING),
        ),
    )


def words(dataset, work, tested):
    """The command line of the study; `dataset`: the folder that `prepare` was given."""
    scans = dataset / "data" / tested
    return [
        *("label-efficiency", "-d", DATASET_ID, "-c", "2d", "-o", work / "study", "--tested", tested, *STUDY),
        *("--images", scans / "images", "--labels", scans / "labels", "-device", "cpu"),
        *(word for name, value in SETTINGS.items() for word in ("--set", f"{name}={value}")),
        *(word for name, value in PRETRAINING.items() for word in ("--pretraining-set", f"{name}={value}")),
    ]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("data", type=Path, help="folder of the scans")
    parser.add_argument("work", type=Path, help="folder of the study; run again, it goes on")
    parser.add_argument("--tested", choices=["dev", "test"], default="test", help="which scans; default: %(default)s")
    arguments, others = parser.parse_known_args()
    work = arguments.work.absolute()
    place = Workplace(work / "dataset", "cpu")
    prepare(arguments.data, place)
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        os.environ[name] = str(place.folder / name)
    return cli.main([*map(str, words(place.folder, work, arguments.tested)), *others])


if __name__ == "__main__":
    raise SystemExit(main())
