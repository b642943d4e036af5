"""Structures of a public dataset: which of its label values make which label of the nnU-Net dataset.

A converter declares `SCHEMES`: name → (structure → values in the release's label maps). Schemes of datasets that
annotate alike have the same names and the same structures, so that several conversions go into one dataset.
"""

from collections.abc import Iterable, Mapping

from nnunet_da.errors import UserError

# Structures of spine datasets, by level from below, as every dataset numbers them here.
DISC_LEVELS = ("L5-S1", "L4-L5", "L3-L4", "L2-L3", "L1-L2", "T12-L1", "T11-T12", "T10-T11", "T9-T10")
VERTEBRA_LEVELS = ("L5", "L4", "L3", "L2", "L1", "T12", "T11", "T10", "T9")

Scheme = Mapping[str, tuple[int, ...]]


def add_structures(parser, schemes: Mapping[str, Scheme], default=None):
    """``--structures``: one or several of `schemes`; default: the first."""
    default = default or next(iter(schemes))
    parser.add_argument(
        "--structures",
        nargs="+",
        choices=list(schemes),
        default=[default],
        metavar="SCHEME",
        help=f"what becomes a label: {', '.join(schemes)} (default: {default}); several are joined",
    )


def labels_and_values(chosen: Iterable[str], schemes: Mapping[str, Scheme], known: Iterable[int], ignored=()):
    """The dataset's `labels` (structure → 1, 2, …) and a case's `label_values` for the `chosen` schemes.

    `known`: every value that the release uses; those of no chosen structure become background, those in `ignored`
    ignore. Raises UserError where two chosen schemes claim one value.
    """
    labels, mapping = {}, {}
    for scheme in chosen:
        for structure, values in schemes[scheme].items():
            labels.setdefault(structure, len(labels) + 1)
            for value in values:
                if mapping.setdefault(value, labels[structure]) != labels[structure]:
                    raise UserError(f"--structures {' '.join(chosen)}: two of them use the same structures; choose one")
    ignore = len(labels) + 1
    for value in known:
        mapping.setdefault(value, ignore if value in ignored else 0)
    return labels, mapping


def by_level(levels, values) -> Scheme:
    """A structure per level, from below, with one value each."""
    return {level: (value,) for level, value in zip(levels, values, strict=False)}
