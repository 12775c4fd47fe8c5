"""Rank, world size and device of this process; one process is rank 0 of 1."""

from __future__ import annotations

import os

import torch
import torch.distributed as dist


def rank() -> int:
    """This process's global rank."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    """How many processes take part in the run."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_main_process() -> bool:
    """True on the one process that writes files and talks to the console."""
    return rank() == 0


def device() -> torch.device:
    """The CUDA device of this process's local rank when there is one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


def barrier() -> None:
    """Waits until every process is here; nothing to wait for with one."""
    if world_size() > 1:
        dist.barrier()
