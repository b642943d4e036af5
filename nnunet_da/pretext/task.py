"""What a pretext task is: versions of an image, made and named without any annotator."""

import abc

import torch
from torch.nn import functional


class ClassificationTask(abc.ABC):
    """A pretext task that asks which of a few transformations an image went through.

    A task is one file: its settings, the names of its classes, and `transform`.

    Attributes
    ----------
    name : str
        Names the head of the task in the network, its curves and its settings.
    class_names : tuple of str
        One per transformation; the index is the class.
    """

    name: str
    class_names: tuple[str, ...]

    @property
    def n_outputs(self):
        return len(self.class_names)

    @abc.abstractmethod
    def transform(self, images, labels):
        """The images after the transformations that `labels` name, on the device of `images`, none of them in place.

        Parameters
        ----------
        images : Tensor, (batch, channels, *space)
            As the network sees them, normalised by nnU-Net.
        labels : Tensor of int64, (batch,)
            The class of each image.
        """

    def sample(self, images):
        """Transformed images and their labels (int64, (batch,)): every class as often as any other, in random order."""
        # Were the first classes always those that come once more, a batch that the number of classes does not divide
        # would favour them.
        first = torch.randint(self.n_outputs, (1,), device=images.device)
        labels = (torch.randperm(len(images), device=images.device) + first) % self.n_outputs
        return self.transform(images, labels), labels

    def loss(self, logits, labels):
        """L_p of the paper: softmax cross-entropy, mean over the batch. `logits`: (batch, n_outputs)."""
        return functional.cross_entropy(logits, labels)
