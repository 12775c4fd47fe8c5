"""What the cross-package tests share: a tiny Wan pipeline, a small latent data set, and running the real command."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from fastvideo_data.schema import encode_tensor
from fastvideo_testing import processes

collect_ignore = [
    "kit_faults/bases"
]  # plug-ins that are right, to plant faults in: run_kit_faults installs copies of them

TEXT_DIM = 32


@pytest.fixture(scope="session")
def tiny_wan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random-weight Wan pipeline in the real format."""
    from fastvideo_wan.tiny import write_tiny_pipeline

    out = tmp_path_factory.mktemp("tiny") / "wan"
    write_tiny_pipeline(out, seed=0)
    return out


@pytest.fixture(scope="session")
def latent_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 latents [16, 3, 4, 4] with captions' embeddings, in two files of several row groups."""
    out = tmp_path_factory.mktemp("latents")
    generator = torch.Generator().manual_seed(0)
    for file in range(2):
        rows = []
        for number in range(file * 12, file * 12 + 12):
            row: dict[str, Any] = {"id": f"s{number}", "caption": f"clip {number}", "media_type": "video"}
            row |= {"file_name": f"{number}.mp4", "width": 32, "height": 32, "num_frames": 3, "duration_sec": 0.6}
            row |= {"fps": 16.0, **encode_tensor("vae_latent", torch.randn(16, 3, 4, 4, generator=generator))}
            row |= encode_tensor("text_embedding", torch.randn(3 + number % 4, TEXT_DIM, generator=generator))
            rows.append(row)
        pq.write_table(pa.Table.from_pylist(rows), out / f"part-{file}.parquet", row_group_size=4)
    return out


def trajectory_data(path: Path, times: Sequence[float], *, dims: tuple[int, ...] = (), channels: int = 16) -> Path:
    """8 trajectories of states [*dims, S, channels, 3, 4, 4] at these timesteps, in a file as FastVideo's ODE data sets are."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for number in range(8):
        row: dict[str, Any] = {"id": f"t{number}", "caption": f"prompt {number}", "media_type": "text"}
        row |= {
            "file_name": f"t{number}",
            **encode_tensor("text_embedding", torch.randn(4, TEXT_DIM, generator=generator)),
        }
        states = torch.randn(*dims, len(times), channels, 3, 4, 4, generator=generator)
        row |= encode_tensor("trajectory_latents", states)
        row |= encode_tensor("trajectory_timesteps", torch.tensor(times).reshape(*dims, -1))
        rows.append(row)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def write_run(path: Path, run: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(run, sort_keys=False), encoding="utf-8")
    return path


def pytest_configure() -> None:
    processes.preload("fastvideo_wan.family", "fastvideo_wan.sampler")


@dataclass(frozen=True)
class Done:
    """How a command ended; a negative status is the signal that killed it."""

    returncode: int
    stdout: str
    stderr: str


def distill(*arguments: str | Path, cwd: Path, timeout: float = 600) -> Done:
    """Runs `fastvideo-distill ARGUMENTS` as a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as folder:
        output, error = Path(folder) / "output.txt", Path(folder) / "error.txt"
        process = processes.start(
            "fastvideo_core.cli.main:main",
            {"argv": list(map(str, arguments))},
            environment=environment,
            output=output,
            error=error,
            folder=cwd,
        )
        process.join(timeout)
        late = process.exitcode is None
        process.kill()
        process.join()
        done = Done(process.exitcode, output.read_text(encoding="utf-8"), error.read_text(encoding="utf-8"))
    assert not late, f"not done after {timeout:.0f} seconds:\n{done.stderr}"
    return done
