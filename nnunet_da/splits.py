"""Cross-validation splits over the labelled cases that never part a subject.

They stand in ``splits_final.json`` of the dataset's preprocessed folder, where nnU-Net's own trainer reads them too.
Unlabelled cases are in no split. A split is ``{"train": [case, …], "val": [case, …]}``, both sorted.
"""

import hashlib
from collections import Counter, defaultdict
from pathlib import Path

from nnunet_da.domains import Domains
from nnunet_da.errors import UserError
from nnunet_da.files import read_json, write_json

FILE_NAME = "splits_final.json"
N_FOLDS = 5
SIDES = ("train", "val")


def make_splits(domains: Domains) -> list[dict[str, list[str]]]:
    """Five splits by subject (fewer where there are fewer subjects), each labelled case in exactly one `val`.

    Subjects are dealt one domain after the other to the fold that has the fewest cases of that domain, so that every
    fold validates on every domain as far as there are subjects. Fold 0, which many train alone, validates on every
    domain of two subjects or more. The result depends on the cases, not on their order.
    One subject alone gives a single split that validates on its training cases, with a warning; none gives no split.
    """
    cases_of_subject = _labelled_cases_of_subjects(domains)
    if len(cases_of_subject) == 1:
        (subject,) = cases_of_subject
        print(
            f"warning: all labelled cases are of one subject ({subject}), which cannot be parted: fold 0 validates on "
            "its own training cases, so its validation scores say nothing about new subjects"
        )
        cases = sorted(cases_of_subject[subject])
        return [{"train": cases, "val": list(cases)}]
    validated = _deal(cases_of_subject, [[] for _ in range(min(N_FOLDS, len(cases_of_subject)))], domains)
    return [
        {"train": sorted(case for other in validated if other is not fold for case in other), "val": sorted(fold)}
        for fold in validated
        if fold
    ]


def leave_one_out(domains: Domains) -> list[dict[str, list[str]]]:
    """Splits that leave one subject of each domain out, in all domains at once; each also has the cases to ``test``.

    "For each dataset, one examination was retained for validation, one for test and the remaining data were used to
    train the model. We iterated through the datasets simultaneously and each examination was used at maximum once for
    test" (Boutillon et al., arXiv:2105.10310, "Evaluation of Predicted Segmentation"). Round r tests subject r of each
    domain and validates on the next one (after the last, the first); there are as many rounds as the largest domain has
    subjects. The paper leaves open what becomes of the others then, and here all of them train: every labelled case is
    tested exactly once. A subject with scans in several domains is one of the first of them, and never parted.

    Raises UserError where a domain has fewer than three subjects, of which one could train.
    """
    cases_of_subject = _labelled_cases_of_subjects(domains)
    subjects_of_domain = {name: [] for name in domains.names}
    for subject, cases in cases_of_subject.items():
        subjects_of_domain[domains.names[min(map(domains.index_of_case, cases))]].append(subject)
    for name, subjects in subjects_of_domain.items():
        if len(subjects) < 3:
            raise UserError(
                f"{domains.source}: domain '{name}' has {len(subjects)} labelled subjects of its own; leaving one out "
                f"for test and one for validation takes at least 3"
            )
    rounds = []
    for index in range(max(map(len, subjects_of_domain.values()))):
        left_out = [subjects for subjects in subjects_of_domain.values() if index < len(subjects)]
        tested = [subjects[index] for subjects in left_out]
        validated = [subjects[(index + 1) % len(subjects)] for subjects in left_out]
        trained = cases_of_subject.keys() - {*tested, *validated}
        sides = {"train": trained, "val": validated, "test": tested}
        rounds.append(
            {side: sorted(case for name in names for case in cases_of_subject[name]) for side, names in sides.items()}
        )
    return rounds


def extend_splits(old_splits: list[dict[str, list[str]]], domains: Domains, new=None) -> list[dict[str, list[str]]]:
    """`old_splits` with the labelled cases `new` (default: all that they lack); every other case keeps its sides.

    A new case follows its subject's other cases; a new subject joins the `val` of the fold with the fewest cases of
    its domain and the `train` of the others (of a single fold: its `train`). Cases that are not labelled any more are
    dropped. Where that empties a side, or the only split validated on its training cases, the splits are made anew.
    """
    labelled = set(domains.labelled_cases)
    known = {case for split in old_splits for side in SIDES for case in split[side]}
    new = (labelled if new is None else labelled & set(new)) - known
    if not new and known <= labelled:
        return old_splits
    splits = [{side: [case for case in split[side] if case in labelled] for side in SIDES} for split in old_splits]
    if not splits or _is_one_subject_split(splits) or not all(split[side] for split in splits for side in SIDES):
        return make_splits(domains)

    representative = {domains.subject_of(case): case for case in sorted(known & labelled)}
    new_subjects = {}
    for subject, cases in _labelled_cases_of_subjects(domains).items():
        cases = [case for case in cases if case in new]
        if not cases:
            continue
        if subject not in representative:
            new_subjects[subject] = cases
            continue
        for split in splits:
            for side in SIDES:
                if representative[subject] in split[side]:
                    split[side].extend(cases)

    # Of a single fold, whatever it does not train on would never be trained on.
    validated = [[] for _ in splits] if len(splits) == 1 else _deal(new_subjects, [s["val"] for s in splits], domains)
    for split, cases in zip(splits, validated, strict=True):
        split["val"].extend(cases)
        split["train"].extend(case for group in new_subjects.values() for case in group if case not in cases)
    return [{side: sorted(cases) for side, cases in split.items()} for split in splits]


def read_splits(path) -> list[dict[str, list[str]]] | None:
    """The splits in the file `path`, None where there is no such file. Raises UserError where it holds no splits."""
    if not Path(path).exists():
        return None
    splits = read_json(path)
    if not isinstance(splits, list) or not all(
        isinstance(split, dict) and isinstance(split.get("train"), list) and isinstance(split.get("val"), list)
        for split in splits
    ):
        raise UserError(f"{path}: not a splits file; it must list splits with 'train' and 'val' each")
    return [{side: split[side] for side in SIDES} for split in splits]


def write_splits(splits, folder) -> None:
    """Writes `splits` as ``splits_final.json`` into `folder`."""
    write_json(splits, Path(folder) / FILE_NAME)


def _labelled_cases_of_subjects(domains):
    """Subject → its labelled cases, in an order that does not depend on that of the cases."""
    cases_of_subject = defaultdict(list)
    for case in sorted(domains.labelled_cases):
        cases_of_subject[domains.subject_of(case)].append(case)
    return dict(sorted(cases_of_subject.items()))


def _deal(cases_of_subject, folds, domains):
    """Deals the subjects to `folds` (each a list of the cases it has), balanced per domain and then in total.

    Returns the cases that each fold gets.
    """
    counts = [Counter(map(domains.domain_of_case, fold)) for fold in folds]
    dealt = [[] for _ in folds]
    n_subjects = Counter(
        name for cases in cases_of_subject.values() for name in {domains.domain_of_case(case) for case in cases}
    )

    def rank(subject):
        in_domains = {domains.index_of_case(case) for case in cases_of_subject[subject]}
        # Subjects that bind most come first; the hash shuffles the others, since ids often follow the site or the date.
        shuffled = hashlib.sha256(subject.encode()).digest()
        return -len(in_domains), min(in_domains), -len(cases_of_subject[subject]), shuffled

    for subject in sorted(cases_of_subject, key=rank):
        added = Counter(map(domains.domain_of_case, cases_of_subject[subject]))
        of_these_domains = [sum(count[name] for name in added) for count in counts]
        if min(n_subjects[name] for name in added) == 1:
            # Where the only subject of a domain validates, nothing is learnt of it: of equal folds the last.
            fold = min(range(len(folds)), key=lambda i: (of_these_domains[i], counts[i].total(), -i))
        elif not any(of_these_domains):
            fold = 0
        else:
            fold = min(range(len(folds)), key=lambda i: (of_these_domains[i], counts[i].total(), i))
        dealt[fold].extend(cases_of_subject[subject])
        counts[fold] += added
    return dealt


def _is_one_subject_split(splits):
    """Whether `splits` is the single fold that validates on its training cases."""
    return len(splits) == 1 and set(splits[0]["train"]) == set(splits[0]["val"])
