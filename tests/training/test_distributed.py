"""DDP with the dual-task network: passes leave parts of it unused, and gradients are means over processes."""

import copy
import os

import torch
from torch import distributed as dist
from torch import multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from nnunet_da.pretext.head import PretextHead
from nnunet_da.pretext.network import DualTaskNetwork


class Unet(nn.Module):
    """Just an encoder, which returns its features bottleneck last, and a decoder."""

    def __init__(self):
        super().__init__()
        self.encoder = Encoder()
        self.decoder = Decoder()


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)

    def forward(self, images):
        return [images, self.conv(images)]


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 2, 1)

    def forward(self, features):
        return self.conv(features[-1])


def network():
    torch.manual_seed(0)
    return DualTaskNetwork(Unet(), {"intensity": PretextHead(4, 4, nn.Conv2d, filters=(8,))})


def batch(rank):
    return torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(rank))


def losses(model, images):
    """The two losses of an alternating step, one after the other."""
    yield model(None, {"intensity": images})[1]["intensity"].square().mean()
    yield model(images).square().mean()


def gradients(model):
    return [None if parameter.grad is None else parameter.grad.clone() for parameter in model.parameters()]


def run_process(rank, n_processes, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=n_processes)
    # Wrapped twice, as the trainer finds it: nnU-Net's own wrapper does not look for unused parameters.
    model = DistributedDataParallel(network())
    model = DistributedDataParallel(model.module, find_unused_parameters=True)
    found = []
    for loss in losses(model, batch(rank)):
        model.zero_grad(set_to_none=True)
        loss.backward()
        found.append(gradients(model.module))
    torch.save(found, os.path.join(folder, f"{rank}.pt"))
    dist.destroy_process_group()


def test_gradients_are_means_over_processes_and_unused_parts_get_none(tmp_path):
    multiprocessing.spawn(run_process, args=(2, str(tmp_path)), nprocs=2)
    expected = []
    for rank in range(2):
        model = copy.deepcopy(network())
        expected.append([])
        for loss in losses(model, batch(rank)):
            model.zero_grad(set_to_none=True)
            loss.backward()
            expected[-1].append(gradients(model))
    names = [name for name, _ in network().named_parameters()]
    for rank in range(2):
        for step, found in enumerate(torch.load(tmp_path / f"{rank}.pt")):
            for name, ours, one, other in zip(names, found, expected[0][step], expected[1][step], strict=True):
                if one is None:
                    assert ours is None, name
                else:
                    assert torch.allclose(ours, (one + other) / 2, atol=1e-6), name
