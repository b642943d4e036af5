import os
import pickle

import numpy as np
import pytest
import torch

from nnunet_da.errors import UserError
from nnunet_da.training.checkpoints import read_checkpoint

CONTENT = {
    "network_weights": {"weight": torch.arange(3.0)},
    "init_args": {"device": torch.device("cpu"), "fold": 0},
    "trainer_name": "nnUNetTrainer",
    "logging": {"dice": [np.float32(0.5)], "loss": [np.float64(1.0)], "count": [np.int64(3)], "flag": [np.bool_(True)]},
}


def test_a_checkpoint_with_numpy_scalars_is_read(tmp_path):
    torch.save(CONTENT, tmp_path / "checkpoint.pth")
    content = read_checkpoint(tmp_path / "checkpoint.pth")
    assert content["logging"] == CONTENT["logging"]
    assert torch.equal(content["network_weights"]["weight"], torch.arange(3.0))


class Harmful:
    def __reduce__(self):
        return os.mkdir, (os.environ["HARM"],)


def test_code_in_a_checkpoint_is_not_run(tmp_path, monkeypatch):
    monkeypatch.setenv("HARM", str(tmp_path / "harm"))
    torch.save({**CONTENT, "more": Harmful()}, tmp_path / "checkpoint.pth")
    with pytest.raises(UserError, match=r"checkpoint.pth: refused"):
        read_checkpoint(tmp_path / "checkpoint.pth")
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "truncated or not a checkpoint"),
        (b"no checkpoint", "refused|not a checkpoint"),
        (pickle.dumps([1], protocol=2), "not a checkpoint"),
    ],
)
def test_other_files(tmp_path, content, message):
    path = tmp_path / "file.pth"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        read_checkpoint(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_truncated_absent_and_foreign_checkpoints(tmp_path):
    path = tmp_path / "checkpoint.pth"
    with pytest.raises(UserError, match="no such checkpoint"):
        read_checkpoint(path)
    torch.save(CONTENT, path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match="truncated or not a checkpoint"):
        read_checkpoint(path)
    torch.save({"state_dict": {}}, path)
    with pytest.raises(UserError, match="not a checkpoint of nnU-Net"):
        read_checkpoint(path)
