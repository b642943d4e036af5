import numpy as np
import pytest

from nnunet_da.errors import UserError
from nnunet_da.self_training.sampling import case_probabilities
from nnunet_da.self_training.settings import SelfTrainingSettings

CASES = ["t1", "p1", "t2", "p2", "t3"]
WEIGHTS = {"p1": 1.0, "p2": 0.5, "elsewhere": 0.1}


def test_cases_are_drawn_by_weight():
    np.testing.assert_allclose(case_probabilities(CASES, {}), 0.2)
    np.testing.assert_allclose(case_probabilities(CASES, WEIGHTS), np.array([1, 1, 1, 0.5, 1]) / 4.5)


def test_true_labels_have_their_share_and_weights_count_within_theirs():
    found = case_probabilities(CASES, WEIGHTS, 0.7)
    np.testing.assert_allclose(found, [0.7 / 3, 0.2, 0.7 / 3, 0.1, 0.7 / 3])
    assert found.sum() == pytest.approx(1)


@pytest.mark.parametrize("share", [0, 1, -0.2, 1.5])
def test_a_share_leaves_room_for_both(share):
    with pytest.raises(UserError, match=r"self_training\.true_share: must be between 0 and 1"):
        SelfTrainingSettings(true_share=share)
