"""The run's processes: started here through torch's own launcher, or joined when another launcher started them."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from fastvideo_core.distributed import context


def is_launched() -> bool:
    """Whether a launcher (ours, torchrun, accelerate launch) started this process as one of several."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def start_processes(count: int, arguments: Sequence[str]) -> int:
    """Runs `python -m fastvideo_core ARGUMENTS` in `count` processes of this machine and waits for them.

    Returns:
        The exit status: 0, or that of the process that failed first; the others are ended.
    """
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        start_method="spawn",
        monitor_interval=0.5,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "fastvideo_core", *arguments)
    except ChildFailedError as failed:
        status: int = failed.get_first_failure()[1].exitcode
        return status if status > 0 else 1
    return 0


def join_process_group() -> None:
    """Makes this process one of the run's when a launcher started it; nothing to do alone."""
    if dist.is_initialized() or not is_launched():
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(context.device())
        dist.init_process_group("nccl", device_id=context.device())
    else:
        dist.init_process_group("gloo")


def leave_process_group() -> None:
    """Undoes `join_process_group`."""
    if dist.is_initialized():
        dist.destroy_process_group()
