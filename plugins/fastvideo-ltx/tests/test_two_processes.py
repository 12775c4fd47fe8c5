"""Both generations on two processes: the gradients of one, and going on with another number of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from fastvideo_data.schema import encode_tensor
from fastvideo_testing.methods import write_gradients
from fastvideo_testing.ranks import run_ranks

pytestmark = [pytest.mark.slow, pytest.mark.distributed]
STEPS = 2


def write_data(folder: Path, *, sound: bool) -> str:
    """One sample, four times: how samples are dealt out to processes is not the family's."""
    generator = torch.Generator().manual_seed(0)
    row: dict[str, Any] = {"caption": "a cat", "file_name": "0.mp4", "fps": 24.0}
    row |= encode_tensor("vae_latent", torch.randn(128, 2, 2, 3, generator=generator))
    row |= encode_tensor("text_embedding", torch.randn(3, 32, generator=generator))
    if sound:
        row |= encode_tensor("audio_latent", torch.randn(8, 9, 16, generator=generator))
    folder.mkdir()
    rows = [{**row, "id": f"s{number}"} for number in range(4)]
    pq.write_table(pa.Table.from_pylist(rows), folder / "part.parquet")
    return str(folder)


def run_of(model: str, data: str, out: Path, *, batch_size: int, processes: int) -> dict[str, Any]:
    return {
        "recipe": {"family": "ltx", "method": "toy"},
        "roles": {"student": {"path": model, "trainable": True}, "teacher": {"path": model, "trainable": False}},
        "training": {
            "output_dir": str(out),
            "data_path": data,
            "max_train_steps": STEPS,
            "train_batch_size": batch_size,
            "num_gpus": processes,
            "learning_rate": 0.0,
        },
        "pipeline_config": {"first_frame_probability": 1.0},
    }


@pytest.mark.parametrize("model", ["tiny", "tiny_ltx2"])
def test_two_processes_of_batch_1_have_the_gradients_of_one_of_batch_2(request, tmp_path, model):
    path = request.getfixturevalue(model)
    data = write_data(tmp_path / "data", sound=model == "tiny_ltx2")
    found = {}
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        folder.mkdir()
        run = run_of(path, data, folder / "out", batch_size=2 // processes, processes=processes)
        arguments = {"folder": str(folder), "run": json.loads(json.dumps(run)), "files": [], "steps": STEPS}
        if processes == 1:
            write_gradients(**arguments)
        else:
            run_ranks("fastvideo_testing.methods:write_gradients", arguments, world_size=2)
        found[processes] = [load_file(folder / f"gradients-{step}.safetensors") for step in range(1, STEPS + 1)]
    for one, two in zip(found[1], found[2], strict=True):
        assert one.keys() == two.keys()
        assert all(name.startswith("student/") for name in one)
        scale = max(float(gradient.abs().max()) for gradient in one.values())
        assert scale > 0
        for name, gradient in one.items():
            torch.testing.assert_close(two[name], gradient, rtol=0, atol=1e-5 * scale, msg=name)
