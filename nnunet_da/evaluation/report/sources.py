"""Which files and names the pictures and the signs of doubt are made from."""

from dataclasses import dataclass
from pathlib import Path

from nnunet_da.errors import UserError
from nnunet_da.evaluation.cases import DEFAULT_DOMAIN
from nnunet_da.evaluation.label_map import label_maps_in
from nnunet_da.evaluation.membership import Structures, parse_labels, structures_of_domain
from nnunet_da.evaluation.report.doubt import PredictedCase
from nnunet_da.evaluation.report.overlays import CaseFiles, image_of


@dataclass(frozen=True)
class Sources:
    """Files by model and case. `domain_of_case`: of all predicted cases, domain after domain; `chosen`: domain → the
    structures it names → label values."""

    structures: Structures
    predictions: dict[str, dict[str, Path]]
    folds: dict[str, list[dict[str, Path]]]
    probabilities: dict[str, Path]
    references: dict[str, Path]
    images: Path | None
    domain_of_case: dict[str, str]
    chosen: dict[str, dict[str, tuple[int, ...]]]

    def predicted_cases(self):
        """All cases, as `doubt.indicators` takes them."""
        return [self._predicted_case(name, domain) for name, domain in self.domain_of_case.items()]

    def _predicted_case(self, name, domain):
        paths = self.predictions_of(name)
        files = {model: self.probabilities[model] / f"{name}.npz" for model in paths}
        return PredictedCase(
            name=name,
            domain=domain,
            chosen=self.chosen[domain],
            predictions=paths,
            folds={model: [fold[name] for fold in self.folds.get(model, ()) if name in fold] for model in paths},
            probabilities={model: file for model, file in files.items() if file.is_file()},
        )

    def predictions_of(self, name):
        """Model → the predicted label map of a case, for the models that have one."""
        return {model: paths[name] for model, paths in self.predictions.items() if name in paths}

    def case_files(self, name):
        """A case as `overlays.draw` takes it."""
        return CaseFiles(
            name=name,
            values=self.chosen[self.domain_of_case[name]],
            image=None if self.images is None else image_of(self.images, name),
            reference=self.references.get(name),
            predictions=self.predictions_of(name),
        )


def collect(
    rows,
    labels,
    predictions,
    *,
    images=None,
    references=None,
    domain_of_case=None,
    default_domain=None,
    domain_labels=None,
    folds=None,
    probabilities=None,
):
    """`Sources` of the arguments of `page.write_html_report`.

    Raises UserError where a folder is missing, or one of predictions is empty.
    """
    if images is not None and not Path(images).is_dir():
        raise UserError(f"{images}: no such folder")
    structures = parse_labels(labels)
    found = {model: label_maps_in(folder) for model, folder in predictions.items()}
    for model, folder in predictions.items():
        if not found[model]:
            raise UserError(f"{folder}: model '{model}' has no predicted label maps")
    known = dict(domain_of_case or {})
    if rows is not None:
        known |= dict(zip(rows["case"], rows["domain"], strict=True))
    cases = dict.fromkeys(case for paths in found.values() for case in paths)
    domains = {case: known.get(case, default_domain or DEFAULT_DOMAIN) for case in cases}
    order = list(dict.fromkeys([*known.values(), *domains.values()]))
    return Sources(
        structures=structures,
        predictions=found,
        folds={model: [label_maps_in(folder) for folder in folders] for model, folders in (folds or {}).items()},
        probabilities={model: Path((probabilities or {}).get(model, folder)) for model, folder in predictions.items()},
        references=label_maps_in(references) if references is not None else {},
        images=None if images is None else Path(images),
        domain_of_case=dict(sorted(domains.items(), key=lambda item: order.index(item[1]))),
        chosen={
            domain: structures_of_domain(structures, (domain_labels or {}).get(domain), f"labels of '{domain}'")
            for domain in order
        },
    )
