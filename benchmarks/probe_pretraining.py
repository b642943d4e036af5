"""What pretrained weights tell of the structures before any fine-tuning: a linear classifier on the network's maps.

    python benchmarks/probe_pretraining.py STUDY [STUDY …] [-n 2]

STUDY is a folder of `nnunet-da label-efficiency`, or WORK/study of `label_efficiency_chaos.py`. For each of its
pretrained networks, and for random weights, logistic regression learns the label of a pixel from what one map of the
network shows there, on the labelled subjects of each draw of N. It is tested on the cases that no fine-tuning sees.
The maps are the last one of the decoder and the bottleneck. The number is the balanced accuracy, over background and
structures; chance is one over their number. Whole slices, cropped or padded to the patch; 2D configurations alone.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from nnunet_da.files import read_json
from nnunet_da.training.checkpoints import read_checkpoint

MAPS = ("decoder", "bottleneck")
PIXELS = 60  # of each class in a slice
SEEDS = (1, 2, 3)  # of random weights


def build(plans, configuration):
    """The network of a configuration with the weights of the global random state, and its patch size."""
    chosen = PlansManager(plans).get_configuration(configuration)
    network = get_network_from_plans(
        chosen.network_arch_class_name,
        chosen.network_arch_init_kwargs,
        chosen.network_arch_init_kwargs_req_import,
        1,
        2,
        deep_supervision=False,
    )
    return network.eval(), chosen.patch_size


def slices(dataset, case, patch_size):
    """Slices with a structure (n, 1, Y, X), float32, and their labels (n, Y, X)."""
    data, labels, *_ = dataset.load_case(case)
    data, labels = np.asarray(data)[0], np.asarray(labels)[0]
    shown = (labels > 0).any(axis=(1, 2))
    data, labels = (_fitted(array[shown], patch_size) for array in (data, np.maximum(labels, 0)))
    return torch.from_numpy(data[:, None].astype(np.float32)), labels


def _fitted(array, shape):
    array = pad_nd_image(array, shape)
    low = [(have - wanted) // 2 for have, wanted in zip(array.shape[1:], shape, strict=True)]
    return array[:, low[0] : low[0] + shape[0], low[1] : low[1] + shape[1]]


@torch.inference_mode()
def features(network, images):
    """Map → its values at the pixels of `images`: float32 (n, features, Y, X)."""
    caught = {}
    hook = network.decoder.seg_layers[-1].register_forward_pre_hook(lambda _, given: caught.update(decoder=given[0]))
    skips = network.encoder(images)
    network.decoder(skips)
    hook.remove()
    caught["bottleneck"] = torch.nn.functional.interpolate(skips[-1], images.shape[2:], mode="bilinear")
    return caught


def samples(network, scans, rng):
    """Map → features (n, f), and the labels (n,), of pixels drawn from each class of each slice."""
    chosen = {name: [] for name in MAPS}
    labels = []
    for images, truth in scans:
        places = []
        for number, plane in enumerate(truth):
            for value in np.unique(plane):
                rows, columns = np.nonzero(plane == value)
                drawn = rng.permutation(len(rows))[:PIXELS]
                places.append(np.stack([np.full(len(drawn), number), rows[drawn], columns[drawn]]))
                labels.append(np.full(len(drawn), value))
        index, row, column = np.concatenate(places, axis=1)
        for name, values in features(network, images).items():
            chosen[name].append(values.numpy()[index, :, row, column])
    return {name: np.concatenate(parts) for name, parts in chosen.items()}, np.concatenate(labels)


def probe(network, draws, scans):
    """Map → balanced accuracy on the held-out cases for each draw."""
    accuracy = {name: [] for name in MAPS}
    for draw in draws:
        rng = np.random.default_rng(0)
        (train, train_labels), (val, val_labels) = (
            samples(network, [scans[case] for case in draw[side]], rng) for side in ("train", "val")
        )
        for name in MAPS:
            model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300, class_weight="balanced"))
            model.fit(train[name], train_labels)
            accuracy[name].append(balanced_accuracy_score(val_labels, model.predict(val[name])))
    return accuracy


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="+", type=Path)
    parser.add_argument("-n", type=int, default=2, help="labelled subjects; default: %(default)s")
    arguments = parser.parse_args()
    print("| study | weights | map | balanced accuracy, by draw | mean |\n| --- | --- | --- | --- | ---: |", flush=True)
    for study in arguments.studies:
        (preprocessed,) = (study / "nnUNet_preprocessed").iterdir()
        plans = read_json(preprocessed / "nnUNetPlans.json")
        draws = [d for d in json.loads((study / "splits.json").read_text()) if d["subjects"] == arguments.n]
        pretrained = sorted((study / "nnUNet_results" / preprocessed.name).glob("*pretrain-*/fold_all/pretrained.pth"))
        (configuration,) = {path.parts[-3].split("__")[2] for path in pretrained[:1]}
        folder = preprocessed / PlansManager(plans).get_configuration(configuration).data_identifier
        dataset = nnUNetDatasetBlosc2(str(folder))
        networks = {}
        for seed in SEEDS:
            torch.manual_seed(seed)
            networks[f"random, seed {seed}"], patch_size = build(plans, configuration)
        for path in pretrained:
            networks[path.parts[-3].split("pretrain-")[1]] = network = build(plans, configuration)[0]
            missing, _ = network.load_state_dict(read_checkpoint(path)["network_weights"], strict=False)
            assert all(".seg_layers." in name for name in missing), missing
        scans = {case: slices(dataset, case, patch_size) for case in {c for d in draws for c in d["train"] + d["val"]}}
        for weights, network in networks.items():
            for name, values in probe(network, draws, scans).items():
                by_draw = ", ".join(f"{value:.3f}" for value in values)
                print(f"| {study.name} | {weights} | {name} | {by_draw} | {np.mean(values):.3f} |", flush=True)


if __name__ == "__main__":
    main()
