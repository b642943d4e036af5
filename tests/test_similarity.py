"""Similarities of embeddings, and the losses of both methods that gather them over processes."""

import os

import torch
from torch import distributed as dist
from torch import multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from nnunet_da.multidomain.contrastive import contrastive_loss
from nnunet_da.pretraining.contrast import global_contrast
from nnunet_da.similarity import gathered, similarities


def test_similarities_are_cosines_over_tau_and_none_with_itself():
    z = torch.randn(2, 3, 4, dtype=torch.float64)
    found = similarities(z, 0.1)
    for group in range(2):
        for i in range(3):
            for j in range(3):
                expected = (
                    -torch.inf if i == j else nn.functional.cosine_similarity(z[group, i], z[group, j], dim=0) * 10
                )
                assert torch.isclose(found[group, i, j], torch.as_tensor(expected, dtype=torch.float64))
    assert similarities(z.half(), 0.1).dtype == torch.float32


def test_one_process_has_its_own_embeddings_alone():
    z = torch.randn(2, 3)
    assert gathered(z) is z


def encoder():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 4))


def images(rank):
    return torch.randn(4, 3, generator=torch.Generator().manual_seed(rank))


# A domain of each process's own samples, two over both; two views of two images of each process.
LOSSES = {
    "domains": lambda z: contrastive_loss(z, list(range(len(z)))),
    "views": lambda z: global_contrast(z[::2], z[1::2]),
}


def run_process(rank, n_processes, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=n_processes)
    results = {}
    for name, compute in LOSSES.items():
        model = DistributedDataParallel(encoder())
        loss = compute(model(images(rank)))
        loss.backward()
        results[name] = loss.detach(), [parameter.grad for parameter in model.parameters()]
    torch.save(results, os.path.join(folder, f"{rank}.pt"))
    dist.destroy_process_group()


def test_over_processes_losses_are_those_of_all_samples(tmp_path):
    multiprocessing.spawn(run_process, args=(2, str(tmp_path)), nprocs=2)
    results = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    everything = torch.cat([images(0), images(1)])
    expected = {
        "domains": lambda z: contrastive_loss(z, [*range(4), *range(4)]),
        "views": LOSSES["views"],
    }
    for name, compute in expected.items():
        model = encoder()
        loss = compute(model(everything))
        loss.backward()
        for found, gradients in (result[name] for result in results):
            assert torch.allclose(found, loss, atol=1e-6)
            for gradient, parameter in zip(gradients, model.parameters(), strict=True):
                assert torch.allclose(gradient, parameter.grad, atol=1e-6)
