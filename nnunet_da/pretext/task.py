"""What a pretext task is: something to be told of an image that needs no annotator."""

import abc

import torch
from torch.nn import functional


class PretextTask(abc.ABC):
    """A question about images whose answer is made together with the input.

    A task is one file: its settings (a dataclass, or none), what it asks, and how an answer is judged.

    Attributes
    ----------
    name : str
        Names the head of the task in the network, its curves and its settings.
    score_name : str
        What `score` is, as curves call it.
    flips_rows : bool
        Whether images may be flipped before: not where a flip turns one answer into another.
    needs_square : bool
        Whether images must be as high as they are wide.
    """

    name: str
    score_name = "accuracy"
    flips_rows = True
    needs_square = False

    def __init__(self, settings, spacing, n_channels):
        """
        Parameters
        ----------
        settings : dataclass or None
            The trainer's settings of the task's name.
        spacing : sequence of float
            Spacing of the images in mm, one value per spatial axis.
        n_channels : int
            Channels of the images.
        """
        self.settings = settings
        self.relative_spacing = [min(spacing) / value for value in spacing]
        self.n_channels = n_channels

    @property
    @abc.abstractmethod
    def n_outputs(self):
        """Channels of the head's last layer."""

    @abc.abstractmethod
    def sample(self, images):
        """What the network is shown, and the answers to it.

        Parameters
        ----------
        images : Tensor, (batch, channels, *space)
            As the network sees them, normalised by nnU-Net; left as they are.

        Returns a Tensor of one or more inputs per image, (k · batch, channels, *space), and a Tensor of answers.
        """

    @abc.abstractmethod
    def loss(self, outputs, answers):
        """L_p, a scalar; `outputs`: (k · batch, n_outputs)."""

    @abc.abstractmethod
    def score(self, outputs, answers):
        """How right the outputs are: one value in [0, 1] per image, (batch,)."""

    @abc.abstractmethod
    def chance(self, n_images):
        """The score that guessing reaches in a batch of `n_images`; None where that depends on the images."""


class ClassificationTask(PretextTask):
    """A pretext task that asks which of a few transformations an image went through.

    Attributes
    ----------
    class_names : tuple of str
        One per transformation; the index is the class.
    """

    class_names: tuple[str, ...]

    @property
    def n_outputs(self):
        return len(self.class_names)

    @abc.abstractmethod
    def transform(self, images, labels):
        """The images after the transformations that `labels` (int64, (batch,)) name, none of them in place."""

    def sample(self, images):
        """Transformed images and their labels (int64, (batch,)): every class as often as any other, in random order."""
        # Were the first classes always those that come once more, a batch that the number of classes does not divide
        # would favour them.
        first = torch.randint(self.n_outputs, (1,), device=images.device)
        labels = (torch.randperm(len(images), device=images.device) + first) % self.n_outputs
        return self.transform(images, labels), labels

    def loss(self, outputs, answers):
        """Softmax cross-entropy, mean over the batch (the paper, "Pretext tasks")."""
        return functional.cross_entropy(outputs, answers)

    def score(self, outputs, answers):
        return (outputs.argmax(dim=1) == answers).float()

    def chance(self, n_images):
        return 1 / self.n_outputs
