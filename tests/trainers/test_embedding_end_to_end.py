"""`nnunet-da embed` with trained networks, nnU-Net's own and this package's."""

import numpy as np
import pandas as pd
import pytest
import torch
from nnunetv2.run.run_training import get_trainer_from_args, run_training

from nnunet_da import cli
from nnunet_da.evaluation.embedding import ALL, OUTPUTS
from nnunet_da.prediction.features import dataset_sources, extract, load_encoder
from nnunet_da.prediction.model import open_model
from nnunet_da.training.export import export

CPU = torch.device("cpu")
DOMAINS = ["philips_3t", "siemens_1p5t", "ge_t1"]


@pytest.mark.parametrize(
    ("trainer", "configuration"), [("nnUNetTrainerIntensityDA", "tiny_2d"), ("nnUNetTrainerUNet", "tiny_3d")]
)
def test_domains_are_embedded_per_checkpoint(trainer, configuration, spine, fresh_results, tmp_path, capsys):
    run_training(spine.id, configuration, "0", trainer, device=CPU)
    table = tmp_path / "cases.csv"
    scans = sorted(path.name.removesuffix("_0000.nii.gz") for path in (spine.test / "images").iterdir())
    table.write_text("case,domain\n" + "".join(f"{scan},elsewhere\n" for scan in scans))
    words = [
        "embed",
        "-d",
        spine.id,
        "-c",
        configuration,
        "-tr",
        trainer,
        "-f",
        "0",
        "-device",
        "cpu",
        "--patches",
        "3",
    ]
    words += ["-chk", "checkpoint_best.pth", "checkpoint_final.pth", "-o", str(tmp_path / "out")]
    words += ["-i", str(spine.test / "images"), "--cases", str(table)]
    capsys.readouterr()
    assert cli.main(words) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(OUTPUTS)
    printed = capsys.readouterr().out
    assert "perplexity of 15.6667 rather than 30: only 48 patches" in printed

    points = pd.read_csv(tmp_path / "out" / "embedding.csv")
    assert points.groupby("checkpoint").size().to_dict() == {"checkpoint_best.pth": 48, "checkpoint_final.pth": 48}
    by_domain = points[points["checkpoint"] == "checkpoint_best.pth"].groupby("domain")["role"].value_counts()
    assert by_domain["siemens_1p5t"].to_dict() == {"unlabelled": 9}
    assert by_domain["elsewhere"].to_dict() == {"new": 18}
    assert by_domain["philips_3t"]["validation"] == 3
    scores = pd.read_csv(tmp_path / "out" / "silhouette.csv")
    assert list(scores["domain"][:5]) == [ALL, *DOMAINS, "elsewhere"]
    assert scores[["silhouette_pca", "silhouette_plane"]].abs().max().max() <= 1

    # The features are those of the network's bottleneck, equal from run to run.
    model = open_model(spine.results / f"{trainer}__nnUNetPlans__{configuration}", ["0"])
    sources = dataset_sources(model, spine.preprocessed)
    encoder = load_encoder(model, CPU)
    (one,) = extract([encoder], sources, spine.preprocessed, n_patches=2, seed=1)
    assert one.shape == (2 * len(sources), 8)
    (other,) = extract([encoder], sources, spine.preprocessed, n_patches=2, seed=1)
    np.testing.assert_array_equal(one, other)


def test_domains_with_layers_of_their_own_with_and_without_the_contrastive_term(
    joints, fresh_results, tmp_path, capsys
):
    trainers = ("nnUNetTrainerDSL", "nnUNetTrainerDSLContrastive")
    for trainer in trainers:
        get_trainer_from_args(joints.id, "tiny_2d", 0, trainer, device=CPU).run_training()
    output = tmp_path / "out"
    words = ["embed", "-d", joints.id, "-c", "tiny_2d", "-tr", trainers[0], "--also", trainers[1], "-device", "cpu"]
    words += ["--patches", "2", "-i", str(joints.test / "images"), "-o", str(output)]
    capsys.readouterr()
    assert cli.main(words) == 1
    assert "-i " in (refusal := capsys.readouterr().err)
    assert "nnUNetTrainerDSL has layers of the domains philips_3t, siemens_1p5t; name that of each" in refusal
    assert not output.exists()

    table = tmp_path / "cases.csv"
    table.write_text("case,domain\n" + "".join(f"{domain}_test_001,{domain}\n" for domain in joints.domains))
    assert cli.main([*words, "--cases", str(table)]) == 0
    scores = pd.read_csv(output / "silhouette.csv")
    assert list(scores["model"]) == [trainer for trainer in trainers for _ in (ALL, *joints.domains)]
    assert scores["silhouette_pca"].nunique() == len(scores)
    points = pd.read_csv(output / "embedding.csv")
    assert points.groupby(["model", "domain"])["role"].value_counts().unstack()["new"].to_list() == [2, 2, 2, 2]

    # Every domain's features are those of the stock network that is exported for it.
    folder = joints.results / "nnUNetTrainerDSL__nnUNetPlans__tiny_2d"
    model = open_model(folder, ["0"])
    encoder = load_encoder(model, CPU)
    assert encoder.domains == joints.domains
    sources = dataset_sources(model, joints.preprocessed)
    exported = [load_encoder(open_model(path, ["0"]), CPU) for path in export(folder, tmp_path / "export")]
    features = extract([encoder, *exported], sources, joints.preprocessed, n_patches=1, seed=0)
    for domain, stock in zip(joints.domains, features[1:], strict=True):
        of_domain = np.array([source.domain == domain for source in sources])
        np.testing.assert_array_equal(features[0][of_domain], stock[of_domain])
        assert (features[0][~of_domain] != stock[~of_domain]).any()
