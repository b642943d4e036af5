"""The disc pipeline (ivd_dense_aspp): the recipe of ``nnunet-da ivd``.

1. region: a U-Net learns the region of the spine; every case gets an out-of-fold prediction of it;
2. discs: dense ASPP learns the discs inside that region;
3. localizer: a V-Net learns to tell them apart;
4. cross_validation: out-of-fold predictions of all three are put together, numbered, and evaluated;
5. test: new scans likewise, by all folds.
"""

from dataclasses import dataclass
from pathlib import Path

from nnunet_da.domains import read_domains
from nnunet_da.errors import UserError
from nnunet_da.files import atomic_folder
from nnunet_da.paths import RAW
from nnunet_da.workflow.actions import Action, Command, Dataset, MakeDataset, Model, NewFolder, remove
from nnunet_da.workflow.ivd_config import IvdConfig, check
from nnunet_da.workflow.pipeline import Pipeline, flags
from nnunet_da.workflow.report import Report
from nnunet_da.workflow.run_file import Recipe
from nnunet_da.workflow.steps import Plan

# What each network's dataset is called behind the name of the source, and its labels.
DATASETS = {
    "region": ("SpineRegion", "spine-region"),
    "discs": ("InRegion", "discs-in-region"),
    "localizer": ("Numbered", "discs-numbered"),
}
FOUND = "discs"


def make_plan(config, place):
    """The Plan of an IvdConfig at a Place."""
    return _Pipeline(config, place).plan()


@dataclass(frozen=True)
class CollectLabels(Action):
    """A folder of links to the label maps of the labelled cases of a dataset: in `folders`, or the dataset's own."""

    dataset: Dataset
    folder: Path
    folders: tuple[Path, ...] = ()

    def replaced(self):
        return (self.folder,)

    def do(self, job):
        content, raw = self.dataset.json, self.dataset.folder(RAW)
        cases = read_domains(content, raw / "dataset.json").labelled_cases
        with atomic_folder(self.folder) as temporary:
            for case in cases:
                name = f"{case}{content['file_ending']}"
                found = [path for folder in self.folders or (raw / "labelsTr",) if (path := folder / name).exists()]
                if len(found) != 1:
                    raise UserError(
                        f"{self.folder}: {len(found)} label maps of case '{case}'; the setting 'folds' must be the "
                        f"number of splits of {raw.name}"
                    )
                (temporary / name).symlink_to(found[0])

    def discard(self):
        remove(self.folder)


class _Pipeline(Pipeline):
    def plan(self):
        source, converted = self.data_stage()
        self.models, trained = {}, {}
        for network in self.config.networks:
            trained[network] = self.network_stage(network, source, converted, trained)
        labels, evaluated, predicted = self.cross_validation_stage(source, trained)
        self.test_stage(labels, trained)
        self.report_stage(evaluated, predicted)
        return Plan(self.steps)

    def data_stage(self):
        """The dataset of discs, and the steps (list) after which it is there."""
        data, dataset = self.config.data, self.config.data.source
        if not data.convert:
            return dataset, []
        words = (
            *("nnunet-da", "convert", data.convert, self.place.path(data.raw), "-d", dataset.id),
            *("--name", dataset.name, *flags(data.options)),
        )
        settings = {f"data.{name}": getattr(data, name) for name in ("dataset", "convert", "raw", "name", "options")}
        return dataset, [self.add("convert", dataset.folder_name, "data", MakeDataset(words, dataset), (), settings)]

    def network_stage(self, name, source, converted, trained):
        """The steps (list) that train all folds of a network."""
        network = self.config.networks[name]
        dataset, made = self.dataset_of(name, source, converted, trained)
        ready = self.prepare(name, dataset, [network.configuration], made, {"data.dataset": self.config.data.dataset})
        block = self.config.settings_of(network)
        settings = {f"{name}.settings": network.settings}
        preset = ["--preset", "cpu"] if self.config.preset == "cpu" else []
        configuration, configured = self.configure(
            name, dataset, network.configuration, self.config.suffix, block, ready, settings, preset
        )
        model = self.models[name] = Model(dataset, configuration, network.trainer)
        is_own = dataset != source or bool(converted) or configuration != network.configuration
        return [self.train(name, model, fold, configured, block, is_own) for fold in range(self.config.folds)]

    def dataset_of(self, name, source, converted, trained):
        """The dataset that a network learns from, and the steps (list) after which it is there."""
        if name == "discs" and self.config.region is None:
            return source, converted
        ending, kind = DATASETS[name]
        dataset = Dataset(source.id + 1 + list(DATASETS).index(name), f"{source.name}{ending}")
        more, settings, needs = [], {"data.dataset": self.config.data.dataset}, converted
        if name == "region":
            more, settings["region.margin"] = ["--margin", self.config.region.margin], self.config.region.margin
        elif name == "localizer":
            more, settings["n_discs"] = ["--n-discs", self.config.n_discs], self.config.n_discs
        else:
            more, needs = ["--regions", *self.validated("region")], trained["region"]
        words = (
            *("nnunet-da", "disc-dataset", "-d", source.id, "--as", dataset.id, "--name", dataset.name),
            *("--labels", kind, "--link", *more),
        )
        return dataset, [self.add("dataset", dataset.folder_name, name, MakeDataset(words, dataset), needs, settings)]

    def validated(self, name):
        """The folders of a network's out-of-fold predictions."""
        return tuple(self.models[name].fold_folder(fold) / "validation" for fold in range(self.config.folds))

    def cross_validation_stage(self, source, trained):
        """The dataset of numbered discs and the step that evaluates with it (None: neither), and that which numbers."""
        stage, work = "cross_validation", self.place.work / "cross_validation"
        collected = {}
        for name, steps in trained.items():
            action = CollectLabels(source, work / name, self.validated(name))
            collected[name] = self.add("collect", name, stage, action, steps, {"folds": self.config.folds})
        masks = collected["discs"]
        if self.config.region is not None:
            words = ("nnunet-da", "restrict", "-i", work / "discs", "--regions", work / "region", "-o", work / "masks")
            masks = self.add("restrict", "masks", stage, NewFolder(words, work / "masks"), collected.values())
        folder = masks.action.output if masks is not collected["discs"] else work / "discs"
        output, more = work / "numbered", []
        if self.config.localizer is not None:
            more = ["--localizer", work / "localizer"]
        words = (*("nnunet-da", "localize-discs", "-i", folder, "-o", output, *more, *self.numbering),)
        settings = self.of_numbering
        needs = [masks, *collected.values()]
        numbered = self.add("localize", "numbered", stage, NewFolder(words, output), needs, settings)
        if "localizer" not in trained:
            # Then there is no dataset with numbered discs as labels.
            return None, None, numbered
        labels = self.models["localizer"].dataset
        action = CollectLabels(labels, work / "labels")
        references = self.add("collect", "labels", stage, action, trained["localizer"])
        evaluation = work / "evaluation"
        words = (
            *("nnunet-da", "evaluate", "-g", work / "labels", "--pred", f"{FOUND}={output}", "-d", labels.id),
            *("-o", evaluation),
        )
        action = NewFolder(words, evaluation)
        return labels, self.add("evaluate", "cross_validation", stage, action, [numbered, references]), numbered

    @property
    def numbering(self):
        """The arguments of the commands that number discs."""
        reference = self.config.reference
        return (
            *("--n-discs", self.config.n_discs),
            *(("--expect", self.config.expected) if self.config.expected is not None else ()),
            *(("--reference", self.place.path(reference)) if reference is not None else ()),
        )

    @property
    def of_numbering(self):
        """The settings that those arguments come from."""
        return {name: getattr(self.config, name) for name in ("reference", "n_discs", "expected")}

    def test_stage(self, labels, trained):
        test, work = self.config.test, self.place.work / "test"
        if test.images is None:
            return
        needs = [step for steps in trained.values() for step in steps]
        folds = ",".join(map(str, range(self.config.folds)))
        models = {name: f"{model.fold_folder(0).parent}:{folds}" for name, model in self.models.items()}
        words = (
            *("nnunet-da", "predict-discs", "-i", self.place.path(test.images), "-o", work / "predicted"),
            *(word for name, model in models.items() for word in (f"--{name}", model)),
            *("-device", self.place.device, *self.numbering),
        )
        settings = {"test.images": test.images} | self.of_numbering
        # Interrupted, it goes on.
        action = Command(words, (work / "predicted",))
        predicted = self.add("predict", "test", "test", action, needs, settings, gpu=True)
        if test.labels is None or labels is None:
            return
        words = (
            *("nnunet-da", "evaluate", "-g", self.place.path(test.labels), "-d", labels.id),
            *("--pred", f"{FOUND}={work / 'predicted' / 'numbered'}", "-o", work / "evaluation"),
            *(["--cases", self.place.path(test.cases)] if test.cases else []),
        )
        settings = {"test.labels": test.labels, "test.cases": test.cases}
        self.add("evaluate", "test", "test", NewFolder(words, work / "evaluation"), [predicted], settings)

    def report_stage(self, evaluated, predicted):
        evaluation = None if evaluated is None else evaluated.action.output
        action = Report(self.place.work / "report", (FOUND,), evaluation, self.place.work, tuple(self.steps))
        self.add("report", "report", "report", action, [evaluated or predicted], {})


RECIPE = Recipe(
    __name__,
    IvdConfig,
    make_plan,
    check,
    Path(__file__).with_name("ivd_template.yaml"),
    # It changes plans.json.
    one_at_a_time=("configure",),
)
