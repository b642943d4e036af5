"""How often a case is drawn in the combined training."""

import numpy as np


def case_probabilities(cases, weights, true_share=None):
    """The probability (len(cases),) of each of `cases` (str), summing to 1.

    `weights`: case → weight above 0 of those with a pseudo-label; a true label weighs 1. `true_share`: what the cases
    with true labels make up together, where not what their weights make them; both kinds must then be there.
    """
    drawn = np.array([weights.get(case, 1.0) for case in cases], float)
    if true_share is not None:
        is_pseudo = np.array([case in weights for case in cases])
        for kind, share in ((is_pseudo, 1 - true_share), (~is_pseudo, true_share)):
            drawn[kind] *= share / drawn[kind].sum()
    return drawn / drawn.sum()
