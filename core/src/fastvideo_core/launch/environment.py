"""What the environment says of a launcher that started this process: how many there are, and where they meet."""

from __future__ import annotations

import os

from fastvideo_core.errors import ConfigError, Problem
from fastvideo_core.launch import slurm


def launched_processes() -> int | None:
    """How many processes a launcher (ours, torchrun, accelerate launch, srun with several tasks) started; None without one.

    Raises:
        ConfigError: WORLD_SIZE is no such number.
    """
    if slurm.is_task_of_several():
        return int(os.environ["SLURM_STEP_NUM_TASKS"])
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return None
    count = os.environ["WORLD_SIZE"]
    if not count.isdigit() or int(count) < 1:
        raise ConfigError(
            Problem(f"WORLD_SIZE is {count!r}", "environment", "a whole number from 1", "unset RANK and WORLD_SIZE")
        )
    return int(count)


def check_place() -> None:
    """A launched process knows its rank and where the others are; nothing to see without a launcher.

    Raises:
        ConfigError: something else set RANK and WORLD_SIZE, and not the rest.
    """
    count = launched_processes()
    if count is None:
        return
    fix = (
        "start the processes with torchrun, accelerate launch or srun, or set the rest as well; unset RANK and "
        "WORLD_SIZE to have `training.num_gpus` start them"
    )
    if missing := [name for name in slurm.MEETING if name not in os.environ]:
        are = "is" if len(missing) == 1 else "are"
        found = f"RANK and WORLD_SIZE are set, as a launcher does, but {' and '.join(missing)} {are} not"
        allowed = "the name of rank 0's machine, and a free port there"
        raise ConfigError(Problem(found, "environment", allowed, fix))
    for name in ("RANK", "LOCAL_RANK"):
        value = os.environ.get(name, "0")
        if not value.isdigit() or int(value) >= count:
            raise ConfigError(Problem(f"{name} is {value!r}", "environment", f"0 to {count - 1} (WORLD_SIZE)", fix))
