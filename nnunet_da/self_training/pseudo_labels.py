"""From a dataset and predictions of its unlabelled cases to a dataset in which these have labels (the paper, 2.3)."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunet_da import __version__, scans, splits
from nnunet_da.domains import BACKGROUND, IGNORE, Domain, Domains, structures
from nnunet_da.errors import UserError, nearest
from nnunet_da.evaluation.finished import FinishedCases, fingerprint
from nnunet_da.files import read_json
from nnunet_da.parallel import run_parallel, shared_processes
from nnunet_da.paths import PREPROCESSED, RAW, dataset_folder
from nnunet_da.raw_dataset import Case, Conversion, write_dataset
from nnunet_da.raw_folder import RawFolder, new_folder
from nnunet_da.self_training import rules
from nnunet_da.self_training.channels import Channels
from nnunet_da.self_training.members import Member, open_members
from nnunet_da.self_training.uncertainty import CASE_MEASURES, VOXEL_MEASURES, Ensemble

RECORD = "pseudo_labels.json"
LEAST_CERTAIN = "among the least certain"
WEIGHTS = ("equal", "confidence")
CROSS_VALIDATED = ("all", "true")
# A case that is drawn at all is drawn now and then.
_LEAST_WEIGHT = 0.01


@dataclass(frozen=True)
class PseudoLabelOptions:
    """How predictions become labels; `nnunet-da pseudo-label` has an option for each.

    Attributes
    ----------
    leave_out : float
        Share of the cases that stay unlabelled, the least certain ones (the paper, Fig. 5: 7 of 105).
    case_measure : one of CASE_MEASURES, or None
        None: 'disagreement', or of a single member 'voxels'.
    voxel_measure : one of VOXEL_MEASURES
    max_uncertainty : float or None
        Voxels above it become `ignore`. None, as in the paper: none do.
    largest_component : tuple of str
        Structures of which the largest connected set is kept.
    volume_margin : float or None
        A case is left out where a structure is smaller or larger than in any case with a true label, by more than this
        share. None: no such rule.
    volume_ranges : name → (float, float)
        In mm³, in place of those of the true labels.
    weight : one of WEIGHTS
        'equal': 1. 'confidence': 1 - the uncertainty of the case, at least 0.01.
    cross_validated : one of CROSS_VALIDATED
        'all' (the paper): folds hold out pseudo-labelled cases too. 'true': these train in every fold but those that
        hold out their subject.
    """

    leave_out: float = rules.LEAVE_OUT
    case_measure: str | None = None
    voxel_measure: str = "probability"
    max_uncertainty: float | None = None
    largest_component: tuple[str, ...] = ()
    volume_margin: float | None = 0.5
    volume_ranges: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    weight: str = "equal"
    cross_validated: str = "all"

    def __post_init__(self):
        if not 0 <= self.leave_out < 1:
            raise UserError(f"--leave-out {self.leave_out}: must be a share from 0 to below 1")
        if self.max_uncertainty is not None and not 0 < self.max_uncertainty <= 1:
            raise UserError(f"--max-uncertainty {self.max_uncertainty}: must be above 0 and at most 1")
        if self.volume_margin is not None and not 0 <= self.volume_margin < math.inf:
            raise UserError(f"--volume-margin {self.volume_margin}: must be 0 or more")
        for name, (low, high) in self.volume_ranges.items():
            if not 0 <= low <= high:
                raise UserError(f"--volume-range {name}={low:g}:{high:g}: must be two volumes, the smaller first")
        for flag, value, known in (
            ("--case-uncertainty", self.case_measure, (None, *CASE_MEASURES)),
            ("--voxel-uncertainty", self.voxel_measure, VOXEL_MEASURES),
            ("--case-weight", self.weight, WEIGHTS),
            ("--cross-validate", self.cross_validated, CROSS_VALIDATED),
        ):
            if value not in known:
                raise UserError(f"{flag} {value}: must be one of {', '.join(filter(None, known))}")

    def check(self, channels, members):
        """Raises UserError where they do not fit these structures or members."""
        for flag, names in (("--largest-component", self.largest_component), ("--volume-range", self.volume_ranges)):
            for name in names:
                if name not in channels.structures:
                    raise UserError(f"{flag}: there is no structure '{name}'{nearest(name, channels.structures)}")
        for name in self.largest_component:
            for other, values in channels.structures.items():
                if set(channels.structures[name]) < set(values):
                    raise UserError(
                        f"--largest-component {name}: lies within the region '{other}', of which it is no part alone"
                    )
        if len(members) > 1:
            return
        if self.voxel_measure == "mutual_information" or self.case_measure == "disagreement":
            raise UserError(
                "--predictions: one folder cannot disagree with itself; give two or more, or other measures"
            )
        asked = self.max_uncertainty is not None or self.case_measure == "voxels" or self.weight == "confidence"
        if asked and not members[0].soft:
            raise UserError(
                f"--predictions {members[0].folder}: one folder of label maps says nothing of uncertainty; predict "
                f"with --save_probabilities, or give two or more folders"
            )


@dataclass(frozen=True)
class PseudoLabels:
    """What was made: the folder, cases with a pseudo-label, and case → reason of those that stay unlabelled."""

    folder: Path
    labelled: tuple[str, ...]
    left_out: Mapping[str, str]


@shared_processes()
def write_pseudo_labels(
    dataset,
    folders,
    new_id,
    name=None,
    *,
    domains=(),
    options: PseudoLabelOptions | None = None,
    reverse=False,
    link=False,
    overwrite=False,
    n_processes=None,
) -> PseudoLabels:
    """Writes a dataset with the true labels of `dataset` (id or name), and pseudo-labels from predictions.

    Args:
        folders: name → Path of the members' predictions.
        new_id, name: of the new dataset; name None: that of `dataset`.
        domains: names of those whose cases get pseudo-labels; none: every one that has cases without a true label.
        reverse: leave the true labels out. What is trained on the pseudo-labels alone can be tried on them (reverse
            validation: Zhong, E., et al., "Cross validation framework to choose amongst models and datasets for
            transfer learning", ECML PKDD 2010).
        link: hard links of scans where that is possible, not copies.
        overwrite: replace a dataset of that id and name.

    Pseudo-labels that `dataset` has are replaced. Everything is checked first; cases that an interrupted run finished
    are not computed again. Raises UserError, with nothing written, for the first rule that is broken.
    """
    options = options or PseudoLabelOptions()
    raw = RawFolder.read(dataset_folder(RAW, dataset))
    if raw.domains is None:
        raise UserError(f"{raw.json_path}: no 'domains' block; `nnunet-da add-domain` adds the unlabelled scans")
    folder = new_folder(new_id, name or raw.folder.name[len("Dataset000_") :])
    if folder == raw.folder:
        raise UserError(f"--as {new_id}: is the dataset itself; the new one needs an id of its own")
    if folder.exists() and not overwrite:
        raise UserError(f"{folder}: exists; replace it with --overwrite, or choose another --as")
    channels = channels_of(raw)
    targets = _targets(raw.domains, domains)
    members = open_members(folders, raw.content["labels"], list(targets))
    options.check(channels, members)
    options = _measured(options, members)

    ranges = _volume_ranges(raw, channels, options, n_processes)
    unfinished = FinishedCases.beside(folder)
    tasks = [_task(case, raw, targets[case], channels, members, options, unfinished) for case in targets]
    found = dict(zip(targets, run_parallel(_label, tasks, n_processes, "Pseudo-labels"), strict=True))
    left_out = _left_out(found, ranges, options)
    if len(left_out) == len(found):
        case, reason = next(iter(left_out.items()))
        raise UserError(f"no pseudo-label is left: of {len(found)} cases each is left out, such as '{case}' ({reason})")
    weights = {case: _weight(found[case], options) for case in found if case not in left_out}
    conversion = _conversion(
        raw,
        weights,
        {task.case: task.target for task in tasks},
        _record(raw, members, options, ranges, found, left_out, weights) | {"reverse": reverse},
        reverse,
    )
    write_dataset(
        conversion,
        new_id,
        folder.name[len("Dataset000_") :],
        overwrite=overwrite,
        link=link,
        n_processes=n_processes,
        make_splits=splits.make_splits if reverse else _splits_like(raw, options),
    )
    unfinished.clear()
    return PseudoLabels(folder, tuple(weights), left_out)


def channels_of(raw) -> Channels:
    """What the channels of a network trained on the dataset (RawFolder) stand for."""
    labels = raw.content["labels"]
    named = {
        name: tuple(labels[name]) if isinstance(labels[name], list) else (labels[name],) for name in structures(labels)
    }
    has_regions = any(len(values) > 1 for values in named.values())
    return Channels(named, tuple(raw.content["regions_class_order"]) if has_regions else None)


def true_volume_ranges(raw, channels, margin, n_processes=None):
    """`rules.volume_ranges` of `true_volumes`."""
    return rules.volume_ranges(true_volumes(raw, channels, n_processes), margin)


def true_volumes(raw, channels, n_processes=None):
    """Structure → mm³ of each case (list of dict) of a dataset (RawFolder) with a true label: its domain's structures.

    None (empty) where the dataset has no domains.
    """
    tasks = [
        _VolumeTask(raw.label_path(case), {name: channels.structures[name] for name in domain.labels})
        for domain in raw.domains or ()
        for case in domain.labelled
        if case not in raw.domains.pseudo_labels
    ]
    return run_parallel(_volumes, tasks, n_processes, "Volumes of true labels")


def _targets(domains, names):
    """Case → domain of the cases that are to get a pseudo-label."""
    chosen = domains.select(names) if names else tuple(domains)
    found = {
        case: domain
        for domain in chosen
        for case in domain.cases
        if case not in domain.labelled or case in domains.pseudo_labels
    }
    if not found:
        where = " of " + ", ".join(f"'{name}'" for name in names) if names else ""
        raise UserError(f"{domains.source}: every case{where} has a true label; pseudo-labels are for unlabelled cases")
    return found


def _measured(options, members):
    """`options` with the measure of a case's uncertainty named, or left None where nothing tells it."""
    if options.case_measure is not None:
        return options
    if len(members) > 1:
        return dataclasses.replace(options, case_measure="disagreement")
    if members[0].soft:
        return dataclasses.replace(options, case_measure="voxels")
    print(
        f"note: {members[0].folder}: one folder of label maps says nothing of uncertainty, so no case is left out as "
        f"uncertain"
    )
    return options


def _volume_ranges(raw, channels, options, n_processes):
    ranges = {}
    if options.volume_margin is not None:
        ranges = true_volume_ranges(raw, channels, options.volume_margin, n_processes)
    return ranges | {name: tuple(given) for name, given in options.volume_ranges.items()}


@dataclass(frozen=True)
class _VolumeTask:
    path: Path
    structures: Mapping[str, tuple[int, ...]]


def _volumes(task):
    scan = scans.read_scan(task.path)
    return rules.volumes(scans.integer_voxels(scan), task.structures, scan.grid.affine)


@dataclass(frozen=True)
class _Task:
    """A case to label, for a worker process; `target`: where its pseudo-label is kept."""

    case: str
    image: Path
    domain: Domain
    channels: Channels
    members: tuple[Member, ...]
    options: PseudoLabelOptions
    ignore: int
    fingerprint: str
    unfinished: FinishedCases
    target: Path


def _task(case, raw, domain, channels, members, options, unfinished):
    image = raw.folder / "imagesTr" / f"{case}_0000{raw.ending}"
    paths = [image, *(path for member in members for path in member.paths(case))]
    settings = {
        "options": dataclasses.asdict(options),
        "channels": dataclasses.asdict(channels),
        "structures": domain.labels,
        "members": [[member.soft, member.reorients] for member in members],
    }
    word = fingerprint(paths, settings)
    target = unfinished.folder / f"{word}.nii.gz"
    return _Task(case, image, domain, channels, tuple(members), options, raw.ignore, word, unfinished, target)


def _label(task):
    """Writes the pseudo-label of a case to `task.target`; what is known of it, as JSON holds it."""
    known = task.unfinished.load(task.fingerprint)
    if known is not None and task.target.exists():
        return known
    options, channels = task.options, task.channels
    grid = scans.read_scan(task.image).grid
    ensemble = Ensemble(channels, options.voxel_measure)
    for member in task.members:
        ensemble.add(*member.read(task.case, channels, grid)[:2])
    label_map = ensemble.label_map()
    for name in options.largest_component:
        label_map = rules.keep_largest(label_map, channels.structures[name])
    own = {name: channels.structures[name] for name in task.domain.labels}
    foreign = set(scans.values_in(label_map).tolist()) - {0}.union(*own.values())
    if foreign:
        raise UserError(
            f"case '{task.case}': the value {min(foreign)} is predicted, which is no label of its domain "
            f"'{task.domain.name}' ({', '.join(own)})"
        )
    known = {"volumes_mm3": rules.volumes(label_map, own, grid.affine), "ignored": 0.0}
    if options.case_measure is not None:
        known["uncertainty"] = ensemble.case_uncertainty(options.case_measure)
    if len(task.members) > 1:
        disagreement = ensemble.disagreement()
        known["disagreement"] = {name: None if np.isnan(value) else value for name, value in disagreement.items()}
    if options.max_uncertainty is not None:
        label_map = rules.mask_uncertain(label_map, ensemble.voxel_uncertainty(), options.max_uncertainty, task.ignore)
        known["ignored"] = float(np.mean(label_map == task.ignore))
    task.target.parent.mkdir(exist_ok=True)
    scans.save_nifti(label_map, grid, task.target)
    task.unfinished.save(task.fingerprint, known)
    return known


def _left_out(found, ranges, options):
    """Case → why it stays unlabelled: volumes first, then the least certain of the others."""
    reasons = {case: rules.implausible(known["volumes_mm3"], ranges) for case, known in found.items()}
    reasons = {case: reason for case, reason in reasons.items() if reason}
    if options.case_measure is not None:
        uncertainties = {case: known["uncertainty"] for case, known in found.items()}
        uncertain = rules.least_certain(uncertainties, options.leave_out, reasons)
        reasons |= dict.fromkeys(uncertain, LEAST_CERTAIN)
    return reasons


def _weight(known, options):
    if options.weight == "equal":
        return 1.0
    return round(max(1 - known["uncertainty"], _LEAST_WEIGHT), 4)


def _conversion(raw, weights, pseudo_labels, record, reverse):
    """The new dataset. `pseudo_labels`: case → file; without one of `weights` it stays unlabelled.

    `reverse`: no other case has a label.
    """
    domains = raw.domains
    images = raw.images_on_disk()
    # Those of domains that this round leaves as they are.
    kept = {case: weight for case, weight in domains.pseudo_labels.items() if case not in pseudo_labels and not reverse}
    # A true label may leave parts of its scan out.
    same_values = {value: value for value in range(raw.ignore + 1)}
    cases = []
    for domain in domains:
        for case in domain.cases:
            if case in pseudo_labels:
                label = pseudo_labels[case] if case in weights else None
            else:
                label = raw.label_path(case) if case in domain.labelled and not reverse else None
            subject = domains.subject_of(case)
            cases.append(
                Case(
                    case,
                    domain.name,
                    None if subject == case else subject,
                    tuple(images.get(case, ())),
                    label,
                    same_values,
                    (kept | weights).get(case),
                )
            )
    return Conversion(
        cases,
        raw.channel_names,
        {name: value for name, value in raw.labels.items() if name not in (BACKGROUND, IGNORE)},
        domain_labels={domain.name: domain.labels for domain in domains},
        regions_class_order=raw.content.get("regions_class_order"),
        extra=raw.extra,
        records={RECORD: record},
    )


def _record(raw, members, options, ranges, found, left_out, weights):
    """The content of pseudo_labels.json: how every pseudo-label came about; no places on a disk."""
    earlier = read_json(raw.folder / RECORD) if (raw.folder / RECORD).is_file() else {}
    return {
        "written_by": "nnunet-da pseudo-label",
        "version": __version__,
        "dataset": raw.folder.name,
        "round": earlier.get("round", 0) + 1,
        "members": [_described(member) for member in members],
        "options": dataclasses.asdict(options),
        "volume_ranges_mm3": ranges,
        "n_pseudo_labelled": len(weights),
        "n_left_out": len(left_out),
        "cases": {
            case: {"left_out": left_out.get(case), "weight": weights.get(case), **known}
            for case, known in found.items()
        },
    }


def _described(member):
    described = {"name": member.name, "predictions": "probabilities" if member.soft else "label maps"}
    if (member.folder / "prediction.json").is_file():
        described["model"] = read_json(member.folder / "prediction.json").get("model")
    return described


def _splits_like(raw, options):
    """The function domains → splits of the new dataset: a case that `raw` has in a fold stays there."""

    def make(domains):
        earlier = splits.read_splits(dataset_folder(PREPROCESSED, raw.folder.name) / splits.FILE_NAME)
        held_out = domains if options.cross_validated == "all" else _with_true_labels_alone(domains)
        made = splits.extend_splits(earlier, held_out) if earlier else splits.make_splits(held_out)
        return made if options.cross_validated == "all" else _training_always(made, domains)

    return make


def _with_true_labels_alone(domains):
    kept = [
        Domain(domain.name, domain.labels, tuple(case for case in domain.labelled if case not in domains.pseudo_labels))
        for domain in domains
    ]
    subjects = {case: domains.subject_of(case) for case in domains.cases}
    return Domains(kept, subjects, domains.source)


def _training_always(made, domains):
    """The splits `made`, with every pseudo-labelled case in `train` but where its subject is held out."""
    extended = []
    for split in made:
        held_out = {domains.subject_of(case) for case in split["val"]}
        always = [case for case in domains.pseudo_labels if domains.subject_of(case) not in held_out]
        extended.append({"train": sorted([*split["train"], *always]), "val": split["val"]})
    return extended
