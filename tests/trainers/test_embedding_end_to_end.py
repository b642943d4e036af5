"""`nnunet-da embed` with trained networks, nnU-Net's own and this package's."""

import pandas as pd
import pytest
import torch
from nnunetv2.run.run_training import run_training

from nnunet_da import cli
from nnunet_da.evaluation.embedding import ALL, OUTPUTS
from nnunet_da.prediction.features import dataset_sources, extract
from nnunet_da.prediction.model import open_model

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
    one = extract(model, sources, spine.preprocessed, n_patches=2, seed=1, device=CPU)
    assert one.shape == (2 * len(sources), 8)
    assert (one == extract(model, sources, spine.preprocessed, n_patches=2, seed=1, device=CPU)).all()
