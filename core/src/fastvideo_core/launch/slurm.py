"""Processes that `srun` started itself, without torchrun: Slurm's variables say who they are."""

from __future__ import annotations

import os

from fastvideo_core.errors import ConfigError, Problem

NAMES = {"RANK": "SLURM_PROCID", "WORLD_SIZE": "SLURM_STEP_NUM_TASKS", "LOCAL_RANK": "SLURM_LOCALID"}
"""torch's variables by those of Slurm that say the same."""

MEETING = ("MASTER_ADDR", "MASTER_PORT")


def is_task_of_several() -> bool:
    """Whether this process is one of several tasks of a Slurm step, and no other launcher has named it.

    A step of one task is no launch: torchrun may be what it runs, or a command that starts its own processes.
    """
    count = os.environ.get("SLURM_STEP_NUM_TASKS", "1")
    return "RANK" not in os.environ and "SLURM_PROCID" in os.environ and count.isdigit() and int(count) > 1


def name_process() -> None:
    """Sets torch's variables from Slurm's; nothing to do where another launcher set them.

    Raises:
        ConfigError: nothing says where the processes meet.
    """
    if not is_task_of_several():
        return
    missing = [name for name in MEETING if name not in os.environ]
    if missing:
        raise ConfigError(
            Problem(
                found=f"srun started {os.environ['SLURM_STEP_NUM_TASKS']} processes, but {' and '.join(missing)} "
                f"{'is' if len(missing) == 1 else 'are'} not set",
                where="environment",
                allowed="the name of the first node, and a free port there",
                fix='export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p) MASTER_PORT=29500',
            )
        )
    for name, source in NAMES.items():
        os.environ[name] = os.environ[source]
