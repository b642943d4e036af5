import json
import os
from pathlib import Path

import pytest

from nnunet_da import postprocessing
from nnunet_da.errors import UserError
from nnunet_da.files import read_json
from nnunet_da.submission.challenges import CHALLENGES, grand_challenge
from nnunet_da.submission.context import parse_model, write_context
from nnunet_da.submission.requirements import add_plugin_wheel, pinned
from nnunet_da.training.checkpoints import read_checkpoint


def write(tmp_path, *models, challenge=CHALLENGES["crossmoda2022"], **options):
    output = tmp_path / "context"
    notes = write_context(challenge, list(map(str, models)), output, **options)
    return output, notes


def refused(tmp_path, *models, **options):
    """The message of a context that is refused, which must leave nothing."""
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError) as refusal:
        write(tmp_path, *models, **options)
    assert sorted(tmp_path.rglob("*")) == before
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


def test_what_a_context_holds(make_model, tmp_path):
    model = make_model(folds=(0, 3))
    output, notes = write(tmp_path, f"{model}:3", closing=2)
    files = sorted(path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file())
    model_files = ["dataset.json", "fold_3/checkpoint_final.pth", "plans.json"]
    assert files == sorted(
        [
            *(".dockerignore", "Dockerfile", "build.sh", "postprocessing.py", "predict.py", "settings.json"),
            *("requirements/requirements.txt", "test_run.sh"),
            *(f"models/0_3d_fullres/{name}" for name in model_files),
        ]
    )
    assert notes == []
    for script in ("build.sh", "test_run.sh"):
        assert os.access(output / script, os.X_OK)
        assert "crossmoda2022}" in (output / script).read_text()
    assert (output / "postprocessing.py").read_bytes() == Path(postprocessing.__file__).read_bytes()
    settings = read_json(output / "settings.json")
    assert settings["members"] == [{"folder": "models/0_3d_fullres", "folds": ["3"]}]
    assert (settings["closing"], settings["mirroring"]) == (2, True)


def test_nothing_of_this_machine_or_of_the_cases_is_told(make_model, tmp_path, host_name):
    output, _ = write(tmp_path, make_model())
    secrets = [b"secret", str(tmp_path).encode(), *host_name]
    for path in output.rglob("*"):
        assert not path.is_file() or not [word for word in secrets if word in path.read_bytes()], path
    read_checkpoint(output / "models/0_3d_fullres/fold_0/checkpoint_final.pth")


def test_the_image_is_slim_and_runs_as_nobody_special(make_model, tmp_path):
    output, _ = write(tmp_path, make_model())
    dockerfile = (output / "Dockerfile").read_text()
    assert "@" not in dockerfile
    (base,) = [line for line in dockerfile.splitlines() if line.startswith("FROM ")]
    assert base.endswith("-slim-bookworm")
    assert "\nUSER user\n" in dockerfile
    assert "://" not in dockerfile + (output / "requirements/requirements.txt").read_text()


def test_packages_are_pinned_with_all_that_they_need():
    lines = pinned()
    names = [line.split("==")[0] for line in lines]
    assert names == sorted(names)
    assert {"nnunetv2", "torch", "simpleitk", "connected-components-3d", "dynamic-network-architectures"} <= {*names}
    assert "nnunet-da" not in names
    assert not [line for line in lines if "+" in line or "@" in line]
    assert {*lines} < {*pinned(with_plugin=True)}
    assert "jinja2" in [line.split("==")[0] for line in pinned(with_plugin=True)]


def test_label_values_go_by_name(make_model, tmp_path):
    model = make_model(labels=("cochlea", "tumour"))
    assert "the label 'tumour' is none of crossmoda2022" in refused(tmp_path, model)
    output, _ = write(tmp_path, model, labels=["tumour=1"])
    assert read_json(output / "settings.json")["values"] == {"0": 0, "1": 2, "2": 1}
    (note,) = write(tmp_path, make_model("2d", labels=("VS",)), overwrite=True)[1]
    assert "has no label 'cochlea' (2 in crossmoda2022)" in note


def test_a_context_is_replaced_on_purpose_alone(make_model, tmp_path):
    model = make_model()
    write(tmp_path, model)
    assert "exists already; choose another place, or --overwrite" in refused(tmp_path, model)
    (tmp_path / "context/settings.json").unlink()
    assert "is no context of a container, so it is not replaced" in refused(tmp_path, model, overwrite=True)


def test_members_must_be_alike(make_model, tmp_path):
    model = make_model()
    for other, what in (
        (make_model("2d_a", labels=("cochlea", "vs")), "has other labels"),
        (make_model("2d_b", channels=("T1",)), "has other channels"),
        (make_model("2d_c", reader="SimpleITKIO"), "has other image_reader_writer (SimpleITKIO) than"),
    ):
        message = refused(tmp_path, model, other)
        assert message.startswith(f"{other}: {what}")


def test_models_that_do_not_fit(make_model, tmp_path, monkeypatch):
    model = make_model()
    assert "no such trained model" in refused(tmp_path, tmp_path / "absent")
    assert "plans.json: no such file" in refused(tmp_path, tmp_path / "results")
    assert "fold_4/checkpoint_final.pth: no such checkpoint" in refused(tmp_path, f"{model}:4")
    assert "names a fold twice" in refused(tmp_path, f"{model}:0,0")
    assert "no fold has checkpoint_best.pth" in refused(tmp_path, model, checkpoint="checkpoint_best.pth")
    assert "no model has weights of each domain's own" in refused(tmp_path, model, domain="s")
    assert "--radius -1: must not be negative" in refused(tmp_path, model, closing=-1)
    assert "msd: takes no containers" in refused(tmp_path, model, challenge=CHALLENGES["msd"])
    two = make_model("2d", channels=("T1", "T2"))
    assert "takes 2 channels (T1, T2), but the container gets 1 (T2)" in refused(tmp_path, two)
    discs = CHALLENGES["ivdm3seg"]
    assert "takes the channel 'T2', but ivdm3seg has fat, inn" in refused(tmp_path, model, challenge=discs)
    slugs = grand_challenge(["t2-mri"], "discs")
    assert "grand-challenge has no labels" in refused(tmp_path, model, challenge=slugs, labels=["vs=1"])
    full = type("Usage", (), {"free": 10})
    monkeypatch.setattr("nnunet_da.files.shutil.disk_usage", lambda folder: full)
    assert "the context needs" in refused(tmp_path, model)


def test_a_context_in_a_file_s_place(make_model, tmp_path):
    (tmp_path / "context").write_text("a thesis")
    assert "exists already" in refused(tmp_path, make_model())


@pytest.mark.parametrize(
    ("word", "folder", "folds"),
    [
        ("model", "model", None),
        ("a/model:0", "a/model", ["0"]),
        ("model:3,1", "model", ["3", "1"]),
        ("model:all", "model", ["all"]),
        ("C:model", "C:model", None),
        ("model:", "model:", None),
    ],
)
def test_words_for_models(word, folder, folds):
    assert tuple(map(str, parse_model(word)[:1])) == (folder,)
    assert parse_model(word)[1] == folds


def test_a_folder_whose_name_ends_as_folds_do(tmp_path):
    (tmp_path / "model:0").mkdir()
    assert parse_model(tmp_path / "model:0") == (tmp_path / "model:0", None)


@pytest.fixture
def gated(make_model):
    """A model with attention gates and the domains' own norms and layers; the weights are those of another network."""

    def change(plans):
        (configuration,) = plans["configurations"].values()
        architecture = configuration["architecture"]
        architecture["network_class_name"] = "nnunet_da.multidomain.attention.AttentionUNet"
        architecture["arch_kwargs"] |= {"n_conv_per_stage": [1, 1]}

    return make_model("2d", change=change)


def test_a_network_of_this_package_brings_it_along(gated, tmp_path):
    wheel = tmp_path / "nnunet_da-0.1.0-py3-none-any.whl"
    assert f"--plugin-wheel {wheel}: must be a wheel" in refused(tmp_path, gated, plugin_wheel=wheel)
    wheel.write_bytes(b"a wheel")
    output, _ = write(tmp_path, gated, plugin_wheel=wheel)
    lines = (output / "requirements/requirements.txt").read_text().splitlines()
    assert lines[-1] == f"./requirements/{wheel.name}"
    assert (output / "requirements" / wheel.name).read_bytes() == b"a wheel"
    assert [line for line in lines if line.startswith("jinja2==")]


def test_a_wheel_that_cannot_be_built(tmp_path, monkeypatch):
    (tmp_path / "site/nnunet_da").mkdir(parents=True)
    monkeypatch.setattr("nnunet_da.submission.requirements.nnunet_da.__file__", str(tmp_path / "site/nnunet_da/x.py"))
    with pytest.raises(UserError, match="is no clone to build it of; give --plugin-wheel FILE"):
        add_plugin_wheel(tmp_path)
    for name in ("trainers", "dataset_conversion"):
        (tmp_path / "site" / name).mkdir()
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        (tmp_path / "site" / name).write_text("no [ TOML")
    with pytest.raises(UserError, match="its wheel cannot be built here"):
        add_plugin_wheel(tmp_path)


def test_json_of_the_settings_is_stable(make_model, tmp_path):
    output, _ = write(tmp_path, make_model())
    text = (output / "settings.json").read_text()
    assert list(json.loads(text)) == ["inputs", "output", "members", "mirroring", "closing", "values"]


def test_the_models_of_the_disc_pipeline(make_model, tmp_path):
    """Dense ASPP segments; a region and a localiser help."""

    def network(class_name, arguments):
        def change(plans):
            (configuration,) = plans["configurations"].values()
            configuration["architecture"] = {
                "network_class_name": f"nnunet_da.discs.{class_name}",
                "arch_kwargs": arguments,
                "_kw_requires_import": ["norm_op"],
            }

        return change

    norm = {"norm_op_kwargs": {"affine": True}}
    dense = {"rates": [1, 2], "growth": 2, "layers": 1, "aspp_growth": 2, "reduction": 2}
    dense |= {"norm_op": "torch.nn.modules.batchnorm.BatchNorm2d", **norm}
    vnet = {"features": [2, 4], "convolutions": [1, 1], "kernel_sizes": [[3] * 3] * 2, "strides": [[1] * 3, [2] * 3]}
    vnet |= {"norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d", **norm}
    dixon = ("fat", "inn", "opp", "wat")
    discs = make_model("2d", channels=dixon, labels=("disc",), change=network("dense_aspp.DenseASPPNet", dense))
    region = make_model("2d_region", channels=dixon, labels=("spine",))
    levels = ("L5-S1", "L4-L5")
    localizer = make_model("3d_fullres", channels=dixon, labels=levels, change=network("vnet.VNet", vnet))
    wheel = tmp_path / "nnunet_da-0.1.0-py3-none-any.whl"
    wheel.write_bytes(b"a wheel")
    challenge = CHALLENGES["ivdm3seg"]
    helpers = {"region": f"{region}:0", "localizer": localizer}
    output, _ = write(tmp_path, discs, challenge=challenge, plugin_wheel=wheel, **helpers, n_discs=5)
    settings = json.loads((output / "settings.json").read_text())
    assert settings["inputs"] == ["fat.nii.gz", "inn.nii.gz", "opp.nii.gz", "wat.nii.gz"]
    assert settings["output"] == "result.nii.gz"
    assert settings["n_discs"] == 5
    for name in ("members", "region", "localizer"):
        (member,) = settings[name]
        assert (output / member["folder"] / "fold_0" / "checkpoint_final.pth").is_file()
    other = make_model("3d_lowres", channels=("fat",), labels=levels)
    assert "has other channels" in refused(tmp_path, discs, challenge=challenge, localizer=other, overwrite=True)
