"""What a launcher (ours, torchrun, accelerate launch, srun) says to the processes that it starts, in environment variables."""

from __future__ import annotations

import os

from fastvideo_core.errors import ConfigError, Problem

# torch's variables, and those of Slurm that say the same
_OF_SLURM = {"RANK": "SLURM_PROCID", "WORLD_SIZE": "SLURM_STEP_NUM_TASKS", "LOCAL_RANK": "SLURM_LOCALID"}


def launched_processes() -> int | None:
    """How many processes a launcher started; None without one. Raises ConfigError where WORLD_SIZE is no such number."""
    if _is_task_of_srun():
        return int(os.environ["SLURM_STEP_NUM_TASKS"])
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return None
    count = os.environ["WORLD_SIZE"]
    if not count.isdigit() or int(count) < 1:
        raise ConfigError(
            Problem(f"WORLD_SIZE is {count!r}", "environment", "a whole number from 1", "unset RANK and WORLD_SIZE")
        )
    return int(count)


def complete_environment() -> None:
    """Sets torch's variables from Slurm's where srun started this process; all that torch needs is there afterwards.

    Raises ConfigError where something set RANK and WORLD_SIZE, or srun started several tasks, without the rest.
    """
    count = launched_processes()
    if count is None:
        return
    by_srun = _is_task_of_srun()
    fix = (
        "start the processes with torchrun, accelerate launch or srun, or set the rest as well; unset RANK and "
        "WORLD_SIZE to have `training.num_gpus` start them"
    )
    if missing := [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in os.environ]:
        found = f"srun started {count} processes" if by_srun else "RANK and WORLD_SIZE are set, as a launcher does"
        found += f", but {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set"
        if by_srun:
            fix = 'export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p) MASTER_PORT=29500'
        allowed = "the name of rank 0's machine, and a free port there"
        raise ConfigError(Problem(found, "environment", allowed, fix))
    if by_srun:
        os.environ.update({name: os.environ[source] for name, source in _OF_SLURM.items()})
    for name in ("RANK", "LOCAL_RANK"):
        value = os.environ.get(name, "0")
        if not value.isdigit() or int(value) >= count:
            raise ConfigError(Problem(f"{name} is {value!r}", "environment", f"0 to {count - 1} (WORLD_SIZE)", fix))


def _is_task_of_srun() -> bool:
    """Whether this process is one of several tasks of a Slurm step, and no other launcher has named it.

    A step of one task is no launch: torchrun may be what it runs, or a command that starts its own processes.
    """
    count = os.environ.get("SLURM_STEP_NUM_TASKS", "1")
    return "RANK" not in os.environ and "SLURM_PROCID" in os.environ and count.isdigit() and int(count) > 1
