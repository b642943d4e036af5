"""Fake images of earlier steps."""

import torch


class ImageBuffer:
    """Keeps fake images to train a discriminator on, so that it does not forget (CycleGAN: 50).

    Parameters
    ----------
    size : int
        0: none is kept.
    """

    def __init__(self, size):
        self.size = size
        self.images = []

    def exchange(self, images):
        """As many images as are given, (batch, channels, *space): with a chance of one half each an older one.

        The older one gives its place to the new one. Until the buffer is full, all are kept and given back.
        """
        given = []
        for image in images.detach().float():
            if len(self.images) < self.size:
                self.images.append(image)
            elif self.size > 0 and torch.rand(()) < 0.5:
                place = int(torch.randint(self.size, ()))
                image, self.images[place] = self.images[place], image
            given.append(image)
        return torch.stack(given)

    def state_dict(self):
        return {"images": list(self.images)}

    def load_state_dict(self, state):
        """Those of `state`, as far as they find room."""
        self.images = list(state["images"])[: self.size]
