"""nnU-Net's predictor with a network that is adapted to each scan: the stored one stays, and scans do not mix."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from nnunet_da.adaptation.statistics import TestTimeSettings
from nnunet_da.prediction.scan_adaptation import ScanAdaptingPredictor


@pytest.fixture
def predictor(request):
    """``predictor(patch_size, regions, steps)`` with a network of two classes."""

    def make(patch_size, regions=False, steps=4):
        torch.manual_seed(0)
        dimension = len(patch_size)
        convolution, norm = (nn.Conv2d, nn.InstanceNorm2d) if dimension == 2 else (nn.Conv3d, nn.InstanceNorm3d)
        network = nn.Sequential(
            convolution(1, 4, 3, padding=1), norm(4, affine=True), nn.LeakyReLU(), convolution(4, 2, 1)
        )
        labels = SimpleNamespace(has_regions=regions, num_segmentation_heads=2)
        made = ScanAdaptingPredictor(
            TestTimeSettings(steps=steps, lr=0.05), device=torch.device("cpu"), allow_tqdm=False, use_mirroring=False
        )
        made.manual_initialization(
            network,
            SimpleNamespace(get_label_manager=lambda content: labels),
            SimpleNamespace(patch_size=list(patch_size)),
            [copy.deepcopy(network.state_dict())],
            {},
            "nnUNetTrainer",
            None,
        )
        return made

    return make


def scan(seed, shape=(1, 6, 20, 18)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("patch_size", [(16, 16), (8, 16, 16)])
@pytest.mark.parametrize("regions", [False, True])
def test_each_scan_starts_from_the_stored_network(predictor, patch_size, regions):
    made = predictor(patch_size, regions)
    network, before = made.network, copy.deepcopy(made.network.state_dict())
    first = made.predict_logits_from_preprocessed_data(scan(1))
    made.predict_logits_from_preprocessed_data(scan(2))
    assert torch.equal(made.predict_logits_from_preprocessed_data(scan(1)), first)
    assert made.network is network
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert first.shape == (2, 6, 20, 18)


def test_it_is_adapted(predictor):
    stored = predictor((16, 16), steps=0).predict_logits_from_preprocessed_data(scan(1))
    adapted = predictor((16, 16)).predict_logits_from_preprocessed_data(scan(1))
    assert (adapted - stored).abs().max() > 1e-3
    doubt = [logits.softmax(0).amin(0).mean().item() for logits in (stored, adapted)]
    assert doubt[1] < doubt[0]


def test_without_steps_it_is_nnunet_s_own_prediction(predictor, monkeypatch):
    made = predictor((16, 16), steps=0)
    ours = made.predict_logits_from_preprocessed_data(scan(1))
    monkeypatch.setattr(made, "_adapted", lambda image: made.network)
    assert torch.equal(made.predict_logits_from_preprocessed_data(scan(1)), ours)
