from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn

from nnunet_da.errors import UserError
from nnunet_da.multidomain.network import DomainNetwork, collapse
from nnunet_da.multidomain.norm import DOMAIN_NORMS
from nnunet_da.prediction import embedding_view, features
from nnunet_da.prediction.features import NEW, TRAINING, Encoder, Source, extract
from nnunet_da.prediction.profiles import Scale

CPU = torch.device("cpu")
DOMAINS = ("site1", "site2")
CHANNELS = ((0, 1), (0, 2))


def model(trainer="nnUNetTrainerDSL", configuration="2d", plans="nnUNetPlans", domains=DOMAINS, **planned):
    """What the view asks of a model of one channel before any network is run."""
    planned = {
        "data_identifier": "nnUNetPlans_2d",
        "spacing": [1, 1],
        "patch_size": [16, 16],
        "batch_size": 4,
    } | planned
    return SimpleNamespace(
        folder=Path(f"{trainer}__{plans}__{configuration}"),
        trainer=trainer,
        configuration=configuration,
        plans={"plans_name": plans},
        scales=(Scale(),),
        dataset_json={"domains": {domain: {} for domain in domains}},
        configuration_manager=SimpleNamespace(**planned),
    )


SHARED = Encoder(model("nnUNetTrainerJoint"), None, (), CPU)
OF_DOMAINS = Encoder(model(), None, DOMAINS, CPU)


def unet(norm_op, **norm_op_kwargs):
    torch.manual_seed(0)
    return PlainConvUNet(
        input_channels=1,
        n_stages=3,
        features_per_stage=[4, 8, 16],
        conv_op=nn.Conv2d,
        kernel_sizes=3,
        strides=[1, 2, 2],
        n_conv_per_stage=1,
        num_classes=3,
        n_conv_per_stage_decoder=1,
        conv_bias=True,
        norm_op=norm_op,
        norm_op_kwargs=norm_op_kwargs,
        nonlin=nn.LeakyReLU,
    ).eval()


@pytest.fixture
def domain_network():
    """Of two domains, whose norms differ in all their numbers."""
    network = DomainNetwork(unet(DOMAIN_NORMS["batch", 2], num_domains=2), CHANNELS).eval()
    for name, tensor in network.state_dict().items():
        if "stacked" in name and tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) + 0.5)
    return network


def stock_features(network, domain, patches):
    """What the stock U-Net of a domain, which knows of no other, makes of patches (n, channels, *patch)."""
    stock = unet(nn.BatchNorm2d)
    stock.load_state_dict(collapse(network.state_dict(), DOMAINS.index(domain), CHANNELS, 3))
    with torch.no_grad():
        bottleneck = stock.encoder(torch.from_numpy(patches))[-1]
    return bottleneck.flatten(2).max(dim=2).values.numpy()


@pytest.fixture
def sources(monkeypatch):
    """Cases of both domains in turn; their voxels are noise, of different sizes."""
    generator = np.random.default_rng(0)
    data = {f"case{index}": generator.normal(size=(1, 3, 20 + index, 12)).astype(np.float32) for index in range(4)}
    monkeypatch.setattr(features, "_read", lambda source, *_: data[source.case])
    return [Source(case, DOMAINS[index % 2], TRAINING) for index, case in enumerate(data)]


def test_a_patch_goes_through_the_norms_of_its_domain(domain_network):
    # The order is that of training, not that of the names.
    encoder = Encoder(model(), domain_network, DOMAINS, CPU)
    patches = np.random.default_rng(0).normal(size=(3, 1, 16, 16)).astype(np.float32)
    results = {domain: encoder.features(patches, domain) for domain in reversed(DOMAINS)}
    for domain in DOMAINS:
        assert results[domain].shape == (3, 16)
        np.testing.assert_array_equal(results[domain], stock_features(domain_network, domain, patches))
    assert not np.isclose(results["site1"], results["site2"]).any()


@pytest.mark.parametrize("batch_size", [2, 5])
def test_all_encoders_see_the_same_patches(domain_network, sources, monkeypatch, batch_size):
    monkeypatch.setattr(Encoder, "batch_size", batch_size)
    stock = unet(nn.BatchNorm2d)
    stock.load_state_dict(collapse(domain_network.state_dict(), 1, CHANNELS, 3))
    encoders = [Encoder(model(), domain_network, DOMAINS, CPU), Encoder(model("nnUNetTrainer"), stock, (), CPU)]
    of_domains, of_second = extract(encoders, sources, "", n_patches=5, seed=1)
    assert of_domains.shape == of_second.shape == (len(sources) * 5, 16)
    in_second = np.repeat([source.domain == "site2" for source in sources], 5)
    np.testing.assert_allclose(of_domains[in_second], of_second[in_second], atol=1e-6)
    assert not np.isclose(of_domains[~in_second], of_second[~in_second]).any()
    # However many go through at a time, rows are of patches in order.
    monkeypatch.setattr(Encoder, "batch_size", 1)
    one_by_one, _ = extract(encoders, sources, "", n_patches=5, seed=1)
    np.testing.assert_allclose(of_domains, one_by_one, atol=1e-6)
    assert len(np.unique(one_by_one, axis=0)) > 2 * len(sources)


def test_a_gpu_takes_as_many_patches_as_in_a_training_step():
    assert Encoder(model(batch_size=12), None, (), torch.device("cuda")).batch_size == 12
    assert Encoder(model(batch_size=12), None, (), CPU).batch_size == 1


def test_a_case_must_be_of_a_trained_domain_where_layers_are_of_domains():
    with pytest.raises(UserError) as refusal:
        OF_DOMAINS.require("a", "site3", "cases.csv")
    assert str(refusal.value) == (
        "cases.csv: case 'a' is of domain 'site3', but nnUNetTrainerDSL has layers of site1, site2 alone; did you mean "
        "'site2'?"
    )
    OF_DOMAINS.require("a", "site2", "cases.csv")
    SHARED.require("a", "site3", "cases.csv")


FIRST = ("nnUNetTrainerDSL", "nnUNetPlans", "2d")


@pytest.mark.parametrize(
    ("also", "expected"),
    [
        ([], []),
        (["nnUNetTrainerDSL"], []),
        (["nnUNetTrainerJoint"], [("nnUNetTrainerJoint", "nnUNetPlans", "2d")]),
        (["nnUNetTrainerJoint__P"], [("nnUNetTrainerJoint", "P", "2d")]),
        (["A", "nnUNetTrainerDSL__nnUNetPlans__2d_x"], [("A", "nnUNetPlans", "2d"), (*FIRST[:2], "2d_x")]),
    ],
)
def test_models_are_named_as_their_folders_are(also, expected):
    assert embedding_view.models_to_compare(FIRST, also) == [FIRST, *expected]


def test_rows_are_named_by_what_tells_the_models_apart():
    contrastive = model("nnUNetTrainerDSLContrastive")
    assert embedding_view._names([model(), model(), contrastive]) == [
        "nnUNetTrainerDSL",
        "nnUNetTrainerDSL",
        "nnUNetTrainerDSLContrastive",
    ]
    assert embedding_view._names([contrastive, model(configuration="2d_x")]) == [
        "nnUNetTrainerDSLContrastive 2d",
        "nnUNetTrainerDSL 2d_x",
    ]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"data_identifier": "nnUNetPlans_3d_fullres"}, "folder of preprocessed data"),
        ({"patch_size": [16, 32]}, "patch size"),
        ({"spacing": [1, 2]}, "voxel size"),
        ({"domains": ("site1", "site3")}, "set of domains and cases"),
    ],
)
def test_models_that_see_different_patches_are_refused(changed, message):
    embedding_view._require_equal_patches([model(), model("nnUNetTrainerJoint", batch_size=8)])
    with pytest.raises(UserError, match=f"^A__nnUNetPlans__2d: has another {message} than nnUNetTrainerDSL__nnUNetP"):
        embedding_view._require_equal_patches([model(), model(), model("A", **changed)])


@pytest.fixture
def scans(tmp_path, write_scan):
    for name in ("a", "b"):
        write_scan(tmp_path / "scans" / f"{name}.nii.gz")
    return tmp_path / "scans"


@pytest.mark.parametrize("encoders", [[SHARED], [SHARED, OF_DOMAINS]], ids=["shared", "of domains"])
def test_new_scans_are_of_the_domains_in_the_table(scans, tmp_path, encoders):
    table = tmp_path / "cases.csv"
    table.write_text("case,domain\nb,site2\na,site1\n")
    sources = embedding_view._new_sources(encoders, scans, table)
    assert [(source.case, source.domain, source.role) for source in sources] == [
        ("a", "site1", NEW),
        ("b", "site2", NEW),
    ]


def test_without_a_table_they_are_of_a_domain_of_their_own(scans):
    assert {source.domain for source in embedding_view._new_sources([SHARED], scans, None)} == {NEW}
    with pytest.raises(UserError, match=r"-i .*scans: nnUNetTrainerDSL has layers of the domains site1, site2; name"):
        embedding_view._new_sources([SHARED, OF_DOMAINS], scans, None)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a,s\nb,s\nc,s\n", "there is no scan 'c' in"),
        ("a,s\n", r"scan 'b' of .* is not listed"),
    ],
)
def test_a_table_that_does_not_fit_the_scans(scans, tmp_path, rows, message):
    table = tmp_path / "cases.csv"
    table.write_text("case,domain\n" + rows)
    with pytest.raises(UserError, match=message):
        embedding_view._new_sources([SHARED], scans, table)


def test_a_table_with_a_domain_that_was_not_trained(scans, tmp_path):
    table = tmp_path / "cases.csv"
    table.write_text("case,domain\na,site1\nb,elsewhere\n")
    assert len(embedding_view._new_sources([SHARED], scans, table)) == 2
    with pytest.raises(UserError, match=r"cases\.csv: case 'b' is of domain 'elsewhere', but nnUNetTrainerDSL has"):
        embedding_view._new_sources([SHARED, OF_DOMAINS], scans, table)
