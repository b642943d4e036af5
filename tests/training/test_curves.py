import math
from types import SimpleNamespace

from nnunet_da.training import curves


def test_register_keeps_what_is_there():
    log = {"loss": [1.0]}
    logger = SimpleNamespace(local_logger=SimpleNamespace(my_fantastic_logging=log))
    curves.register(logger, ["loss", "accuracy"])
    assert log == {"loss": [1.0], "accuracy": []}


def test_plot_takes_gaps_and_single_epochs(tmp_path):
    path = tmp_path / "curves.png"
    curves.plot([("loss", {"training": [1.0]}, None), ("accuracy", {"a": [0.2, math.nan, 0.4]}, 0.25)], path)
    assert path.read_bytes().startswith(b"\x89PNG")
