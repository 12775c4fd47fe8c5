"""What `check` says of the memory of a run with LTX, of either generation, is what the run then takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from fastvideo_data.schema import encode_tensor
from fastvideo_ltx.tiny import write_tiny_pipeline
from tests.test_memory_estimate import Profiled, built, estimated, held, within

SIZE = {"num_height": 320, "num_width": 320, "num_frames": 33}
FPS = 24.0
ROLES = {"finetune": ("student",), "dmd2": ("student", "teacher", "critic")}
METHODS: dict[str, dict[str, Any]] = {
    "finetune": {},
    "dmd2": {"generator_update_interval": 1, "dmd_denoising_steps": [1000, 500]},
}


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory) -> dict[int, Path]:
    """Both generations."""
    made = {}
    for generation in (1, 2):
        made[generation] = tmp_path_factory.mktemp("ltx") / str(generation)
        write_tiny_pipeline(made[generation], generation=generation, num_layers=3, num_heads=4)
    return made


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Latents [128, 5, 10, 10] of videos of SIZE: 500 tokens, and the 34 of their sound."""
    out = tmp_path_factory.mktemp("latents")
    generator = torch.Generator().manual_seed(0)
    rows = []
    for number in range(4):
        row: dict[str, Any] = {
            "id": f"s{number}",
            "caption": f"clip {number}",
            "file_name": f"{number}.mp4",
            "fps": FPS,
        }
        row |= encode_tensor("vae_latent", torch.randn(128, 5, 10, 10, generator=generator))
        row |= encode_tensor("audio_latent", torch.randn(8, 35, 16, generator=generator))
        rows.append(row | encode_tensor("text_embedding", torch.randn(8, 32, generator=generator)))
    pq.write_table(pa.Table.from_pylist(rows), out / "part.parquet")
    return out


def run_of(path: Path, data: Path, out: Path, method: str, pipeline: dict[str, Any], **training: Any) -> dict[str, Any]:
    return {
        "recipe": {"family": "ltx", "method": method},
        "roles": {role: {"path": str(path), "trainable": role != "teacher"} for role in ROLES[method]},
        "training": {"output_dir": str(out), "data_path": str(data), "max_train_steps": 3, **training},
        "pipeline_config": pipeline,
        "method_config": METHODS[method],
        "callbacks": {},
    }


@pytest.mark.parametrize(
    ("generation", "method", "precision", "pipeline"),
    [
        (1, "finetune", "no", {}),
        (1, "finetune", "no", {"first_frame_probability": 0.5}),
        pytest.param(1, "dmd2", "bf16", {}, marks=pytest.mark.slow),
        (2, "finetune", "no", {}),
        (2, "finetune", "no", {"streams": ["video"]}),
        (2, "finetune", "bf16", {"first_frame_probability": 0.5}),
        pytest.param(2, "dmd2", "no", {}, marks=pytest.mark.slow),
    ],
)
def test_the_peak_is_what_the_allocator_sees(tmp_path, pipelines, data, generation, method, precision, pipeline):
    if generation == 1:
        data = without_sound(data, tmp_path / "silent")
    run = run_of(pipelines[generation], data, tmp_path / "run", method, pipeline, mixed_precision=precision, **SIZE)
    estimate = estimated(tmp_path, run)
    assert estimate.knows_activations
    runtime = built(tmp_path, run)
    watched = Profiled(runtime.dataloader)
    replace(runtime, dataloader=watched).train()
    for role, of_role in estimate.roles.items():
        for kind, size in held(runtime, role).items():
            assert within(getattr(of_role, kind), size, 0.01), f"{role}, {kind}: {getattr(of_role, kind)} of {size}"
    state = sum(role.state for role in estimate.roles.values())
    assert within(estimate.peak, state + watched.peak), f"{estimate.peak} of {state + watched.peak}"
    if precision == "no" and method == "finetune":
        assert within(estimate.peak - state, watched.peak), f"{estimate.peak - state} of {watched.peak}"


def without_sound(data: Path, out: Path) -> Path:
    out.mkdir()
    table = pq.read_table(data / "part.parquet")
    pq.write_table(table.select([name for name in table.column_names if "audio" not in name]), out / "part.parquet")
    return out
