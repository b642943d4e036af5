"""How many threads a training on the CPU computes with."""

import os

import torch

VARIABLE = "OMP_NUM_THREADS"


def honour_thread_variable(device):
    """Lets a training on the CPU (torch.device) have as many threads as OMP_NUM_THREADS says.

    nnU-Net gives every training all cores, whatever the variable says, so that several side by side are slower than one
    after the other. Where the variable is absent, or says nothing that OpenMP would take, this changes nothing.
    """
    first = os.environ.get(VARIABLE, "").partition(",")[0].strip()
    if device.type == "cpu" and first.isdecimal() and int(first) > 0:
        torch.set_num_threads(int(first))
