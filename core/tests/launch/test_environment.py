"""What a launcher says through environment variables, and what of it cannot be right."""

from __future__ import annotations

import pytest
import torch

from fastvideo_core.distributed import context
from fastvideo_core.errors import ConfigError
from fastvideo_core.launch.launcher import complete_environment, launched_processes
from fastvideo_core.launch.processes import join_process_group

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID")
MEETING = {"MASTER_ADDR": "node1", "MASTER_PORT": "29500"}


@pytest.fixture
def environment(monkeypatch):
    """Sets what a launcher would, and nothing else of its kind."""

    def set_to(**values: str) -> None:
        for name in (*NAMES, "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"):
            monkeypatch.delenv(name, raising=False)
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return set_to


@pytest.mark.parametrize(
    ("values", "count"),
    [
        ({}, None),
        ({"RANK": "1"}, None),
        ({"RANK": "1", "WORLD_SIZE": "4"}, 4),
        ({"RANK": "0", "WORLD_SIZE": "1"}, 1),
        ({"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "8"}, 8),
        ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}, None),
        ({"RANK": "1", "WORLD_SIZE": "16", "SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"}, 16),  # torchrun in srun
    ],
)
def test_how_many_processes_were_launched(environment, values, count):
    environment(**values)
    assert launched_processes() == count


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "environment: RANK and WORLD_SIZE are set, as a launcher does, but MASTER_ADDR and MASTER_PORT are not"),
        ({"MASTER_ADDR": "node1"}, "but MASTER_PORT is not"),
        ({**MEETING, "RANK": "2"}, "RANK is '2'\n    allowed: 0 to 1"),
        ({**MEETING, "LOCAL_RANK": "x"}, "LOCAL_RANK is 'x'"),
        ({**MEETING, "WORLD_SIZE": "many"}, "WORLD_SIZE is 'many'\n    allowed: a whole number from 1"),
    ],
)
def test_half_a_launcher_is_an_error_that_says_what_to_do(environment, values, message):
    environment(**{"RANK": "0", "WORLD_SIZE": "2", **values})
    with pytest.raises(ConfigError) as error:
        join_process_group()
    assert message in str(error.value)
    assert "unset RANK and WORLD_SIZE" in str(error.value)


def test_a_whole_launcher_is_fine(environment):
    environment()
    complete_environment()
    environment(RANK="1", WORLD_SIZE="2", **MEETING)
    complete_environment()


@pytest.mark.parametrize(
    ("values", "visible", "index"),
    [
        ({}, 8, 0),
        ({"LOCAL_RANK": "7"}, 8, 7),
        ({"LOCAL_RANK": "7"}, 1, 0),  # srun --gpus-per-task=1
        ({"LOCAL_RANK": "0", "TORCHELASTIC_RUN_ID": "x"}, 1, 0),
    ],
)
def test_each_process_has_a_device(environment, monkeypatch, values, visible, index):
    environment(**values)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: visible)
    assert context.device() == torch.device("cuda", index)


@pytest.mark.parametrize(
    ("values", "visible", "found"),
    [
        ({"LOCAL_RANK": "1", "TORCHELASTIC_RUN_ID": "x"}, 1, r"process 1 of its machine .* 1 GPU is visible"),
        ({"LOCAL_RANK": "7"}, 4, r"process 7 of its machine .* 4 GPUs are visible"),
    ],
)
def test_more_processes_than_devices_is_an_error(environment, monkeypatch, values, visible, found):
    environment(**values)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: visible)
    with pytest.raises(ConfigError, match=found) as error:
        context.device()
    assert "--nproc-per-node" in str(error.value)
