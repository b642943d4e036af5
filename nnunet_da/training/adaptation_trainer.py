"""Training with labels where there are some, and towards domains where there are none (`nnunet_da.adaptation`)."""

import copy
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import distributed as dist

from nnunet_da.adaptation.check import INDICATORS, Evidence, best_epoch
from nnunet_da.adaptation.randomisation import randomise
from nnunet_da.adaptation.settings import AdaptationSettings
from nnunet_da.adaptation.statistics import reestimate
from nnunet_da.adaptation.teacher import MeanTeacher
from nnunet_da.errors import UserError
from nnunet_da.training import curves
from nnunet_da.training.checkpoints import read_checkpoint
from nnunet_da.training.configured_trainer import ConfiguredTrainer, unwrap
from nnunet_da.training.loaders import DomainBalancedLoader, start_loader, stop_loader
from nnunet_da.training.schedule import Schedule

STATE = "adaptation"
BEST = "checkpoint_best.pth"
CHECKED = tuple(f"adaptation/{name}" for name in (*INDICATORS, "score"))
LEARNT = tuple(f"adaptation/{name}" for name in ("target_loss", "target_share"))


@dataclass(frozen=True)
class AdaptationTrainerSettings(Schedule):
    """Schedule, and the settings of the adaptation."""

    adaptation: AdaptationSettings = field(default_factory=AdaptationSettings)


class AdaptationTrainer(ConfiguredTrainer):
    """Segmentation of labelled cases with randomised intensities, and of unlabelled ones with a teacher's labels.

    The network is nnU-Net's own. After every epoch, predictions on unlabelled cases are checked without labels; the
    epoch that does best is ``checkpoint_best.pth``, and its weights are those of ``checkpoint_final.pth``, which
    predicts. Without unlabelled cases, the intensities of labelled ones are randomised, and that is all.

    Attributes
    ----------
    teacher : MeanTeacher or None
        None: there are no unlabelled cases.
    """

    settings_class = AdaptationTrainerSettings

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),
    ):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.teacher = None
        self.dataloader_target = None
        self.dataloader_check = None
        # Of the network, while it has the weights that predict.
        self._student = None

    def refuse_unsupported(self, configuration_manager, fold):
        name = type(self).__name__
        if configuration_manager.previous_stage_name is not None:
            raise UserError(
                f"{name}: the second stage of a cascade is not supported, since unlabelled cases have no prediction of "
                f"the first; train 3d_lowres or 3d_fullres"
            )
        if self.target_cases and self.settings.best_epoch == "loss":
            raise UserError(
                f"{name}: setting best_epoch: the best epoch is that of the check on unlabelled cases; leave it out"
            )
        norm = configuration_manager.network_arch_init_kwargs.get("norm_op") or ""
        if self.settings.adaptation.statistics.adabn and "BatchNorm" not in str(norm):
            raise UserError(
                f"{name}: setting adaptation.statistics.adabn: the plan has no batch normalisation whose statistics "
                f"could be the target's; set plan.norm=batch, or leave it out"
            )

    @property
    def target_cases(self):
        """The unlabelled cases of each domain that has some (list of list of str)."""
        if self.domains is None:
            return []
        return [list(domain.unlabelled) for domain in self.domains if domain.unlabelled]

    @property
    def exclusive(self):
        """Whether labels exclude one another; regions need not."""
        return not self.label_manager.has_regions

    def initialize(self):
        super().initialize()
        if not self.target_cases:
            self.print_to_log_file(
                "No case without labels, so no domain to adapt to: training on labelled cases with randomised "
                "intensities alone; nnunet-da add-domain adds unlabelled scans"
            )
            return
        network = unwrap(self.network)
        n_outputs = self.label_manager.num_segmentation_heads
        self.teacher = MeanTeacher(network, self.settings.adaptation.teacher, n_outputs, self.exclusive)
        if self.enable_deep_supervision:
            self.teacher.network.decoder.deep_supervision = False
        curves.register(self.logger, [*LEARNT, *CHECKED])

    def configure_optimizers(self):
        optimizer, scheduler = super().configure_optimizers()
        # The teacher is kept with the optimiser, in the same entry of the checkpoint.
        optimizer.register_state_dict_post_hook(self._add_state)
        optimizer.register_load_state_dict_pre_hook(self._take_state)
        return optimizer, scheduler

    def _add_state(self, optimizer, state):
        if self.teacher is None:
            return state
        own = {"teacher": self.teacher.state_dict()}
        if self._student is not None:
            own["student"] = self._student
        return {**state, STATE: own}

    def _take_state(self, optimizer, state):
        state = dict(state)
        own = state.pop(STATE, None)
        if self.teacher is None:
            return state
        if own is None:
            raise UserError(f"{self.output_folder}: the checkpoint has no teacher; it had no unlabelled cases")
        self.teacher.load_state_dict(own["teacher"])
        self._student = own.get("student")
        return state

    def on_train_start(self):
        super().on_train_start()
        if self._student is not None:
            # What was loaded predicts; the training goes on with what it had.
            unwrap(self.network).load_state_dict(self._student)
            self._student = None

    def get_dataloaders(self):
        loaders = super().get_dataloaders()
        if self.teacher is None:
            return loaders
        train, _ = self.do_split()
        self.print_to_log_file(
            f"Adapting to {len(self.domains.unlabelled_cases)} unlabelled cases of "
            f"{', '.join(domain.name for domain in self.domains if domain.unlabelled)}"
        )
        degrees = self.settings.adaptation.teacher.rotation
        if self.settings.adaptation.teacher.weight > 0:
            self.dataloader_target = self._start_loader(self.target_cases, degrees, 0.75)
        self.dataloader_check = self._start_loader([train, *self.target_cases], 0.0, 0.25)
        return loaders

    def _start_loader(self, cases_by_domain, degrees, share):
        loader = DomainBalancedLoader(
            self.preprocessed_dataset([case for cases in cases_by_domain for case in cases]),
            cases_by_domain,
            # Of the check, one of each domain at least.
            max(self.batch_size, len(cases_by_domain)),
            degrees,
            self.configuration_manager.patch_size,
            self.label_manager,
        )
        return start_loader(loader, self.device, share)

    def on_train_end(self):
        if self.teacher is not None:
            self._take_chosen_weights()
        super().on_train_end()
        self._student = None
        for loader in (self.dataloader_target, self.dataloader_check):
            stop_loader(loader)

    def n_training(self):
        """The number of steps of the whole training."""
        return self.num_epochs * self.num_iterations_per_epoch

    def progress(self):
        """The share of the training that is done (float)."""
        return self.teacher.n_steps / self.n_training()

    def randomised(self, images, probability=None):
        """`images` (batch, channels, *space) with other intensities; what nnU-Net masked to 0 stays 0."""
        changed = randomise(images, self.settings.adaptation.randomisation, probability)
        for channel, masked in enumerate(self.configuration_manager.use_mask_for_norm):
            if masked:
                changed[:, channel][images[:, channel] == 0] = 0
        return changed

    def draw_axes(self):
        """Axes to mirror along, each with a chance of one half, of those along which predictions are; from the last."""
        dimension = len(self.configuration_manager.patch_size)
        allowed = self.inference_allowed_mirroring_axes or ()
        return [axis - dimension for axis in allowed if torch.rand(()) < 0.5]

    def teach(self, images):
        """What the student is to learn from unlabelled `images` (batch, channels, *space).

        Returns the images as it sees them, the teacher's labels, and where those count; all mirrored alike.
        """
        settings = self.settings.adaptation.teacher
        views = []
        for _ in range(settings.views - 1):
            axes = self.draw_axes()
            views.append((self.randomised(images, 1.0).flip(axes), axes))
        with self.autocast():
            probabilities = self.teacher.probabilities(images, views)
        labels, counts = self.teacher.label(probabilities, self._average)
        axes = self.draw_axes()
        return self.randomised(images, settings.strength).flip(axes), labels.flip(axes), counts.flip(axes)

    def _average(self, values):
        if self.is_ddp:
            dist.all_reduce(values)
            values = values / dist.get_world_size()
        return values

    def train_step(self, batch):
        data = self.randomised(batch["data"].to(self.device, non_blocking=True))
        target = batch["target"]
        # A list of resolutions under deep supervision.
        target = [t.to(self.device) for t in target] if isinstance(target, list) else target.to(self.device)
        n, results = len(data), {}
        weight = 0.0 if self.teacher is None else self.settings.adaptation.teacher.weight_at(self.progress())
        if weight > 0:
            images = next(self.dataloader_target)["data"].to(self.device, non_blocking=True)
            seen, labels, counts = self.teach(images)
            # One pass, as DDP and torch.compile want it.
            data = torch.cat([data, seen])
        self.optimizer.zero_grad(set_to_none=True)
        with self.autocast():
            output = self.network(data)
            several = isinstance(output, (list, tuple))
            loss = self.loss([scale[:n] for scale in output] if several else output[:n], target)
            results["loss"] = loss.detach().cpu().numpy()
            if weight > 0:
                target_loss = self.teacher.loss((output[0] if several else output)[n:], labels, counts)
                results |= {"target_loss": target_loss.item(), "target_share": counts.float().mean().item()}
                loss = loss + weight * target_loss
        self.update_weights(loss)
        if self.teacher is not None:
            self.teacher.follow(unwrap(self.network), self.n_training())
        return results

    def on_train_epoch_end(self, train_outputs):
        super().on_train_epoch_end([{"loss": output["loss"]} for output in train_outputs])
        if self.teacher is not None:
            for key in LEARNT:
                value = self.mean_over_processes(train_outputs, key.removeprefix("adaptation/"))
                self.logger.log(key, value, self.current_epoch)

    def on_validation_epoch_end(self, val_outputs):
        super().on_validation_epoch_end(val_outputs)
        if self.teacher is not None:
            for name, value in self.check_target().items():
                self.logger.log(f"adaptation/{name}", value, self.current_epoch)

    @torch.no_grad()
    def check_target(self):
        """The indicators (dict) of the weights that would be kept now, on patches of unlabelled cases."""
        settings = self.settings.adaptation
        n_batches = settings.check.batches or self.num_val_iterations_per_epoch
        batches = [next(self.dataloader_check) for _ in range(n_batches)]
        unlabelled = set(self.domains.unlabelled_cases)
        on_target = [torch.tensor([key in unlabelled for key in batch["keys"]]) for batch in batches]
        if settings.statistics.adabn:
            images = (batch["data"][mask].to(self.device) for batch, mask in zip(batches, on_target, strict=True))
            reestimate(self.kept_network(), (of_batch for of_batch in images if len(of_batch)))
        n_structures = self.label_manager.num_segmentation_heads - self.exclusive
        evidence = Evidence(self.exclusive, n_structures)
        student = unwrap(self.network)
        self.set_deep_supervision_enabled(False)
        with self.autocast():
            for batch, mask in zip(batches, on_target, strict=True):
                images = batch["data"].to(self.device, non_blocking=True)
                target, source = images[mask], images[~mask]
                if len(source):
                    evidence.add_source(self._found(self.kept_network(), source))
                if len(target):
                    other = self.teacher.network if settings.weights == "student" else student
                    evidence.add_target(
                        self._found(self.kept_network(), target),
                        self._found(other, target),
                        self._found(self.kept_network(), self.randomised(target, 1.0)),
                    )
        self.set_deep_supervision_enabled(self.enable_deep_supervision)
        if self.is_ddp:
            gathered = [None] * dist.get_world_size()
            dist.all_gather_object(gathered, evidence)
            evidence = sum(gathered[1:], gathered[0])
        return evidence.indicators(settings.check.tolerance)

    def kept_network(self):
        """The network whose weights are checked and kept."""
        teacher = self.settings.adaptation.weights == "teacher"
        return self.teacher.network if teacher else unwrap(self.network)

    def _found(self, network, images):
        logits = network(images).float()
        return logits.softmax(1) if self.exclusive else logits.sigmoid()

    def on_epoch_end(self):
        if self.teacher is None:
            return super().on_epoch_end()
        epoch = self.current_epoch
        logged = {key: self.logger.get_value(key, step=None)[epoch] for key in (*LEARNT, *CHECKED)}
        shown = {key.removeprefix("adaptation/"): round(value, 4) for key, value in logged.items() if value == value}
        self.print_to_log_file("Check without labels", shown)
        # nnU-Net keeps an epoch whose pseudo Dice is above the best one: that of the source says nothing here.
        self._best_ema = float("inf")
        super().on_epoch_end()
        if self.chosen_epoch() == epoch:
            self.print_to_log_file(f"Highest score so far: {logged['adaptation/score']:.4f}")
            # Counted on already; a checkpoint is of the epoch that ended.
            self.current_epoch -= 1
            with self._predicting_weights():
                self.save_checkpoint(str(Path(self.output_folder, BEST)))
            self.current_epoch += 1
        if self.local_rank == 0:
            self._plot_curves()

    def chosen_epoch(self):
        """The epoch (int) of the highest score so far; None where none is plausible."""
        scores, volumes = (self.logger.get_value(f"adaptation/{name}", step=None) for name in ("score", "volume"))
        return best_epoch(scores, volumes, self.settings.adaptation.check.least_volume)

    @contextmanager
    def _predicting_weights(self):
        """A block in which the network has the weights that would predict."""
        network = unwrap(self.network)
        self._student = copy.deepcopy(network.state_dict())
        network.load_state_dict(self.kept_network().state_dict())
        try:
            yield
        finally:
            network.load_state_dict(self._student)
            self._student = None

    def _take_chosen_weights(self):
        """Gives the network the weights that predict, and says which."""
        network, chosen = unwrap(self.network), self.chosen_epoch()
        self._student = copy.deepcopy(network.state_dict())
        path = Path(self.output_folder, BEST)
        if self.is_ddp:
            dist.barrier()
        wanted = self.settings.adaptation.check.choose == "score"
        if wanted and chosen is not None and path.is_file():
            network.load_state_dict(read_checkpoint(path, self.device)["network_weights"])
            start = self.settings.adaptation.teacher.start * self.num_epochs
            note = ""
            if self.settings.adaptation.teacher.weight > 0 and chosen < start:
                note = "; it fell back to before the teacher's labels were learnt"
            score = self.logger.get_value("adaptation/score", step=None)[chosen]
            text = f"epoch {chosen}, of the highest score without labels ({score:.4f}){note}"
        else:
            network.load_state_dict(self.kept_network().state_dict())
            text = "the last epoch"
            if wanted:
                text += ", since in no epoch the volumes on unlabelled cases were plausible: look at its predictions"
        self.print_to_log_file(
            f"checkpoint_final.pth has the weights of the {self.settings.adaptation.weights} of {text}"
        )

    def _plot_curves(self):
        def of(*keys):
            return {key.removeprefix("adaptation/"): self.logger.get_value(key, step=None) for key in keys}

        panels = [
            ("check on unlabelled cases", of(*CHECKED), None),
            ("loss and share of the teacher's labels", of(*LEARNT), None),
        ]
        curves.plot(panels, Path(self.output_folder, "adaptation.png"))
