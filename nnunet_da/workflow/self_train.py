"""Self-training across modalities (Shin et al., arXiv:2109.10674): the recipe of ``nnunet-da self-train``.

1. translation: a CycleGAN with segmenters learns to make labelled source scans look like the target;
2. segmentation: nnU-Net in 2D and 3D is trained on the translated scans with their true labels;
3. pseudo-labels: its predictions of the unlabelled target scans become labels;
4. self-training: nnU-Net in 2D and 3D again, on translated and target scans; chosen folds make an ensemble.
"""

import re
from pathlib import Path

from nnunet_da.paths import RAW
from nnunet_da.raw_tables import TEST_CASES
from nnunet_da.workflow.actions import (
    Command,
    Ensemble,
    LinkUnlabelled,
    MakeDataset,
    Model,
    NewFolder,
    Predict,
    PredictChosen,
)
from nnunet_da.workflow.pipeline import Pipeline, flags, name_of
from nnunet_da.workflow.report import Report
from nnunet_da.workflow.run_file import Recipe
from nnunet_da.workflow.self_train_config import (
    PLANNED,
    TRANSLATION,
    TRANSLATOR,
    SelfTrainConfig,
    check,
    test_images,
    test_labels,
)
from nnunet_da.workflow.steps import Plan

SOURCE_ONLY_TRAINER = "nnUNetTrainerUNet"


def make_plan(config, place):
    """The Plan of a SelfTrainConfig at a Place."""
    return _Pipeline(config, place).plan()


class _Pipeline(Pipeline):
    """The steps of one config, added stage by stage."""

    def __init__(self, config, place):
        super().__init__(config, place)
        self.configurations = config.segmentation.configurations

    def plan(self):
        # What the report compares: arm → models.
        arms = {}
        data = self.data_stage()
        if self.config.source_only:
            arms["source only"] = self.source_only_stage(data)
        if self.config.start == TRANSLATION:
            dataset, made = self.translation_stage(data)
            ready = self.prepare("segmentation", dataset, self.configurations, [made], {})
        else:
            dataset, ready = self.config.source, data
        segmenters = self.segmentation_stage(dataset, ready)
        arms["translation" if self.config.start == TRANSLATION else "start"] = segmenters
        scans = self.link_target(dataset, ready)
        for number in range(1, self.config.rounds + 1):
            plans_of = dataset
            dataset, made = self.pseudo_label_stage(number, segmenters, scans)
            segmenters = self.self_training_stage(number, dataset, made, plans_of)
            arms[f"self-training, round {number}"] = segmenters
        final, chosen = self.ensemble_stage(segmenters, scans, data)
        self.report_stage(arms, final, data, chosen)
        return Plan(self.steps)

    # Stages

    def data_stage(self):
        """The step after which the dataset of source and target is planned and preprocessed."""
        data, dataset = self.config.data, self.config.source
        needs, settings = [], {"data.dataset": data.dataset}
        if data.convert:
            words = (
                *("nnunet-da", "convert", data.convert, self.place.path(data.raw), "-d", dataset.id),
                *("--name", dataset.name, *flags(data.options)),
            )
            settings |= {f"data.{name}": getattr(data, name) for name in ("convert", "raw", "name", "options")}
            needs = [self.add("convert", dataset.folder_name, "data", MakeDataset(words, dataset), (), settings)]
        bases = []
        if self.config.start == TRANSLATION:
            bases.append(self.config.translation.configuration)
        if self.config.start != TRANSLATION or self.config.source_only:
            bases += [name for name in self.configurations if name not in bases]
        return self.prepare("data", dataset, bases, needs, settings)

    def translation_stage(self, data):
        """The dataset of translated source scans, and the step after which it is there."""
        own, source = self.config.translation, self.config.source
        settings = {"translation.settings": own.settings}
        preset = ["--preset", self.config.preset, *(["-tr", TRANSLATOR] if self.config.preset == "paper" else [])]
        name, configured = self.configure(
            "translation", source, own.configuration, "translate", own.settings, data, settings, preset
        )
        trained = self.train_fold("translation", Model(source, name, TRANSLATOR), "all", configured, own.settings)
        dataset = self.config.derived(1, "Translated")
        words = (
            *("nnunet-da", "translate", "-d", source.id, "-c", name, "-f", "all"),
            *("--as", dataset.id, "--name", dataset.name, "-device", self.place.device, *flags(own.options)),
        )
        action, settings = MakeDataset(words, dataset), {"translation.options": own.options}
        return dataset, self.add("translate", dataset.folder_name, "translation", action, [trained], settings, gpu=True)

    def training_stage(self, stage, dataset, ready, trainer, settings_of, settings):
        """The models that are trained in every configuration and fold: Model → fold → step."""
        trained = {}
        for base in self.configurations:
            block = settings_of(base)
            of_this = {**settings, f"segmentation.configurations.{base}": self.configurations[base] or {}}
            preset = ["--preset", "cpu"] if self.config.preset == "cpu" and base in PLANNED else []
            name, configured = self.configure(stage, dataset, base, self.config.suffix, block, ready, of_this, preset)
            model = Model(dataset, name, trainer)
            trained[model] = {
                fold: self.train_fold(stage, model, fold, configured, block) for fold in self.config.folds
            }
        return trained

    def segmentation_stage(self, dataset, ready):
        own = self.config.segmentation
        settings = {"segmentation.trainer": own.trainer, "segmentation.settings": own.settings}
        return self.training_stage("segmentation", dataset, ready, own.trainer, self.config.training_settings, settings)

    def source_only_stage(self, data):
        own = self.config.segmentation
        return self.training_stage(
            "source_only",
            self.config.source,
            data,
            SOURCE_ONLY_TRAINER,
            self.config.training_settings,
            {"segmentation.settings": own.settings},
        )

    def pseudo_label_stage(self, number, segmenters, scans):
        """The dataset of round `number` with pseudo-labels, and the step after which it is there."""
        stage = in_round("pseudo_labels", number)
        before = next(iter(segmenters)).dataset
        predicted = self.predict_folds(stage, segmenters, scans)
        n_made = number + (self.config.start == TRANSLATION)
        dataset = self.config.derived(n_made, in_round("Combined", number))
        words = (
            *("nnunet-da", "pseudo-label", "-d", before.id),
            *("--predictions", *(step.action.output for step in predicted), "--as", dataset.id),
            *("--name", dataset.name, *flags(self.config.pseudo_labels)),
        )
        settings = {"pseudo_labels": self.config.pseudo_labels, "segmentation.folds": list(self.config.folds)}
        action = MakeDataset(words, dataset)
        return dataset, self.add("pseudo_label", dataset.folder_name, stage, action, predicted, settings)

    def self_training_stage(self, number, dataset, made, plans_of):
        stage = in_round("self_training", number)
        own = self.config.self_training
        ready = self.prepare(stage, dataset, self.configurations, [made], {}, plans_of)
        settings = {
            "self_training.trainer": own.trainer,
            "self_training.settings": own.settings,
            "segmentation.settings": self.config.segmentation.settings,
        }

        def settings_of(base):
            return self.config.training_settings(base, self_training=True)

        return self.training_stage(stage, dataset, ready, own.trainer, settings_of, settings)

    def ensemble_stage(self, segmenters, scans, data):
        """The step after which the test scans are predicted for good, and the file of the folds that were chosen."""
        config, work = self.config, self.place.work
        predicted = self.predict_folds("ensemble", segmenters, scans)
        choice = work / "choice.json"
        numbers = {
            model: config.chosen.get(base, 0) for base, model in zip(self.configurations, segmenters, strict=True)
        }
        chosen = None
        if len(predicted) > 1:
            chosen = self.choose(segmenters, predicted, numbers, choice)
        members = []
        for model, number in numbers.items():
            for rank in range(1, number + 1):
                name = f"final-{model.configuration}-{rank}"
                output = work / "predictions" / "test" / name
                place = (test_images(config, self.place), output, self.place.device)
                if chosen is None:
                    action = Predict(model, config.folds, *place)
                else:
                    action = PredictChosen(model, (), *place, rank=rank, chosen=choice)
                needs = [data, *([chosen] if chosen else predicted)]
                settings = {**self.tested, "rounds": config.rounds}
                members.append(self.add("predict", name, "ensemble", action, needs, settings, gpu=True))
        final = self.merge("ensemble", "final", members)
        if config.postprocess is not None:
            output = work / "predictions" / "test" / "postprocessed"
            words = ("nnunet-da", "postprocess", "-i", final.action.output, "-o", output, *flags(config.postprocess))
            settings = {"postprocess": config.postprocess}
            final = self.add("postprocess", "final", "ensemble", NewFolder(words, output), [final], settings)
        if config.package is not None:
            self.package_step(final)
        return final, chosen and choice

    def report_stage(self, arms, final, data, chosen):
        config, work = self.config, self.place.work
        labels = test_labels(config, self.place)
        predictions = {"ensemble": final}
        if labels is not None:
            predictions = {arm: self.predict_test(arm, models, data) for arm, models in arms.items()} | predictions
        needs, evaluation = list(predictions.values()), None
        compared = {name: getattr(config, name) for name in ("rounds", "source_only", "postprocess")}
        if labels is not None:
            evaluation = work / "report" / "evaluation"
            cases = self.place.path(config.test.cases) if config.test.cases else None
            if cases is None and not config.test.images:
                cases = config.source.folder(RAW) / TEST_CASES
            words = (
                *("nnunet-da", "evaluate", "-g", labels, "-d", config.source.id, "-o", evaluation, "--html"),
                *(word for arm, step in predictions.items() for word in ("--pred", f"{arm}={step.action.output}")),
                *("--images", test_images(config, self.place), "--picture-model", "ensemble"),
                *(["--cases", cases] if cases else []),
            )
            settings = {**compared, **self.tested}
            settings |= {f"test.{name}": getattr(config.test, name) for name in ("labels", "cases")}
            action = NewFolder(words, evaluation)
            needs = [self.add("evaluate", "test", "report", action, needs, settings)]
        action = Report(work / "report", tuple(predictions), evaluation, work, tuple(self.steps), chosen)
        self.add("report", "report", "report", action, needs, compared)

    def predict_test(self, arm, models, data):
        """The step after which the test scans are predicted by all folds of all configurations of an arm."""
        label = re.sub(r"\W+", "_", arm)
        members = []
        for model, trained in models.items():
            name = f"{label}-{model.configuration}"
            output = self.place.work / "predictions" / "test" / name
            scans, folds = test_images(self.config, self.place), tuple(trained)
            action = Predict(model, folds, scans, output, self.place.device)
            settings = {**self.tested, "segmentation.folds": list(folds)}
            members.append(self.add("predict", name, "report", action, [*trained.values(), data], settings, gpu=True))
        return self.merge("report", label, members)

    @property
    def tested(self):
        return {"test.images": self.config.test.images}

    # Steps

    def choose(self, segmenters, predicted, numbers, output):
        """The step that ranks the trained folds by their predictions and chooses some: Model → how many."""
        names = [f"{model.configuration}/{fold}" for model, trained in segmenters.items() for fold in trained]
        options = self.config.choose
        if options.get("labels"):
            options = {**options, "labels": self.place.path(options["labels"])}
        words = (
            *("nnunet-da", "choose-folds", "-d", next(iter(segmenters)).dataset.id, "--predictions"),
            *(f"{name}={step.action.output}" for name, step in zip(names, predicted, strict=True)),
            *("--pick", *(f"{model.configuration}={number}" for model, number in numbers.items() if number)),
            *("-o", output, *flags(options)),
        )
        settings = {name: getattr(self.config, name) for name in ("rounds", "choose")}
        settings["ensemble"] = self.config.chosen
        return self.add("choose", "folds", "ensemble", Command(words, (output,)), predicted, settings)

    def package_step(self, final):
        own, archive = self.config.package, self.place.work / "submission.zip"
        words = (
            *("nnunet-da", "package", own.challenge, "-i", final.action.output, "-o", archive, "--overwrite"),
            *("-d", self.config.source.id, "--scans", self.place.path(own.scans), *flags(own.options)),
        )
        settings = {f"package.{name}": getattr(own, name) for name in ("challenge", "scans", "options")}
        self.add("package", "final", "ensemble", Command(words, (archive,)), [final], settings)

    def merge(self, stage, name, members):
        """The step after which there is a mean of `members`, steps that predict."""
        inputs = tuple(step.action.output for step in members)
        action = Ensemble(inputs, self.place.work / "predictions" / "test" / name)
        return self.add("ensemble", name, stage, action, members)

    def train_fold(self, stage, model, fold, ready, block):
        is_ours = model.dataset != self.config.source or self.config.data.convert is not None
        is_own = is_ours or model.configuration not in self.configurations
        return self.train(stage, model, fold, ready, block, is_own)

    def link_target(self, dataset, ready):
        """The folder of unlabelled scans that all rounds predict, and the step after which it is there."""
        action = LinkUnlabelled(dataset, self.place.work / "scans")
        step = self.add("link", dataset.folder_name, in_round("pseudo_labels", 1), action, [ready])
        return action.folder, step

    def predict_folds(self, stage, models, scans):
        """A step for each model and fold, which predicts the unlabelled scans."""
        folder, linked = scans
        steps = []
        for model, trained in models.items():
            for fold, step in trained.items():
                name = name_of(model, fold)
                output = self.place.work / "predictions" / "target" / name
                action = Predict(model, (fold,), folder, output, self.place.device)
                steps.append(self.add("predict", name, stage, action, [step, linked], gpu=True))
        return steps


def in_round(name, number):
    """`name` in the first round, ``name_2`` in the second."""
    return name if number == 1 else f"{name}_{number}"


RECIPE = Recipe(
    __name__,
    SelfTrainConfig,
    make_plan,
    check,
    Path(__file__).with_name("self_train_template.yaml"),
    # It changes plans.json.
    one_at_a_time=("configure",),
)
