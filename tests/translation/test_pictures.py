import matplotlib.image
import numpy as np

from nnunet_da.translation.pictures import draw


def test_slices_side_by_side_with_outlines(tmp_path):
    grey = np.full((2, 20, 30), 0.5)
    mask = np.zeros((2, 1, 20, 30), bool)
    mask[0, 0, 5:15, 5:20] = True
    columns = {"fat": grey, "fat as opp": grey}
    draw(columns, {}, tmp_path / "plain.png")
    draw(columns, {"fat": mask}, tmp_path / "outlined.png")
    plain, outlined = (matplotlib.image.imread(tmp_path / name) for name in ("plain.png", "outlined.png"))
    changed = (plain != outlined).any(axis=-1)
    height, width = changed.shape
    assert width > height
    # In the first row and column alone, and in colour.
    assert changed[: height // 2 + 10, : width // 2].any()
    assert not changed[:, width // 2 :].any()
    assert np.ptp(outlined[changed][:, :3], axis=1).max() > 0.3
    assert {path.name for path in tmp_path.iterdir()} == {"plain.png", "outlined.png"}
