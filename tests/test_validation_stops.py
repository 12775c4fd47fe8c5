"""Every family's sampling can be left between two steps, and says where it is; nothing of that is in the family."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from fastvideo_core.checkpoint import storage
from fastvideo_core.errors import RunStopped
from fastvideo_core.tracking.display import LoggedStep, Sampling
from fastvideo_testing.runs import build_run
from tests.families import ALL_KINDS, Kind, MakeFamily, tiny_family

__all__ = ["tiny_family"]

MANY = 1000


class Terminates:
    """A display that asks for the run's end when a validation is at step 3."""

    def __init__(self) -> None:
        self.seen: list[Sampling] = []

    def show(self, logged: LoggedStep) -> None: ...

    def validating(self, sampling: Sampling) -> None:
        self.seen.append(sampling)
        if sampling.sampling_step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    def close(self) -> None: ...


@pytest.mark.parametrize("method", ["finetune", "dmd2"])
@pytest.mark.parametrize("kind", ALL_KINDS, ids=str)
def test_a_stop_ends_the_sampling_at_its_step(tiny_family, tmp_path: Path, kind: Kind, method: str) -> None:
    make: MakeFamily = tiny_family
    family = make(kind)
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red ball\na blue ball\n")
    names = ["student"] if method == "finetune" else ["student", "teacher", "critic"]
    run: dict[str, Any] = {
        "recipe": {"family": family.family, "method": method},
        "roles": {name: {"path": str(family.base), "trainable": name != "teacher"} for name in names},
        "training": {
            "output_dir": str(tmp_path / "run"),
            "data_path": str(family.data),
            "max_train_steps": 9,
            "log_validation": True,
            "validation_steps": 1,
            "validation_dataset_file": str(prompts),
            "validation_sampling_steps": str(MANY),
            "num_height": family.clip.height,
            "num_width": family.clip.width,
            "num_frames": family.clip.num_frames,
        },
    }
    if method == "dmd2":
        run["method_config"] = {"dmd_denoising_steps": [1000, 750, 500, 250]}
    display = Terminates()
    with pytest.raises(RunStopped) as stopped:
        build_run(tmp_path, run).train(display)
    assert stopped.value.exit_code == 143
    assert storage.resolve_checkpoint(tmp_path / "run").name == "checkpoint-000001"
    steps = MANY if method == "finetune" else 4
    label = "" if method == "finetune" else "student "
    assert [str(one) for one in display.seen] == [f"validating {label}1/2, step {n}/{steps}" for n in (1, 2, 3)]
