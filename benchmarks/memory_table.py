"""What `check` says of DMD2 of Wan 1.3B and of 14B on 8 GPUs of 80 GB: README's table.

    python benchmarks/memory_table.py

From configuration files alone: the published geometries, no weights, no network. `check` itself is run on each.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from fastvideo_core.cli.main import main as distill
from fastvideo_data.schema import encode_tensor, key_value_metadata, text_schema, write_part
from fastvideo_wan.loading import outline_transformer
from fastvideo_wan.tiny import write_tiny_pipeline

GEOMETRIES = {
    "1.3B": {"num_layers": 30, "num_attention_heads": 12, "attention_head_dim": 128, "ffn_dim": 8960},
    "14B": {"num_layers": 40, "num_attention_heads": 40, "attention_head_dim": 128, "ffn_dim": 13824},
}
TEXT_DIM = 4096
VIDEO = {"num_height": 480, "num_width": 832, "num_frames": 77}
LORA = {"rank": 64}
RUNS: dict[str, tuple[str, Mapping[str, Any]]] = {
    "student and critic 1.3B, teacher 14B": ("1.3B", {}),
    "all 14B": ("14B", {}),
    "all 14B, student and critic with LoRA of rank 64": ("14B", {"lora": LORA}),
}
"""By title: the geometry of student and critic, and what their entries have besides."""


def write_outline(folder: Path, name: str) -> Path:
    """A pipeline's folder with the configuration of a published Wan, and files of weights that are all header."""
    path = folder / f"wan-{name}"
    write_tiny_pipeline(path)
    config = json.loads((path / "transformer" / "config.json").read_text())
    (path / "transformer" / "config.json").write_text(json.dumps({**config, **GEOMETRIES[name], "text_dim": TEXT_DIM}))
    write_header(path / "transformer" / "diffusion_pytorch_model.safetensors", outline_transformer(str(path)))
    return path


def write_header(path: Path, network: nn.Module) -> None:
    """A safetensors file of a network on meta, as large as the real one, of which the disk holds the header alone."""
    entries, end = {}, 0
    for name, tensor in network.state_dict().items():
        begin, end = end, end + 2 * tensor.numel()
        entries[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [begin, end]}
    header = json.dumps(entries).encode()
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + end)


def write_captions(folder: Path) -> Path:
    """A data set of one caption: DMD2 by simulation needs no videos."""
    row: dict[str, object] = {
        "id": "0",
        "caption": "a cat",
        **encode_tensor("text_embedding", torch.zeros(8, TEXT_DIM)),
    }
    path = folder / "captions"
    path.mkdir()
    write_part(path / "part.parquet", [row], text_schema(), key_value_metadata(normalised=False, settings={}))
    return path


def run_of(folder: Path, student: str, extra: Mapping[str, Any]) -> dict[str, Any]:
    """The run: bfloat16, full activation checkpointing, everything sharded over 8 GPUs."""
    trained = {"path": str(folder / f"wan-{student}"), "trainable": True, **extra}
    return {
        "recipe": {"family": "wan", "method": "dmd2"},
        "roles": {
            "student": trained,
            "teacher": {"path": str(folder / "wan-14B"), "trainable": False},
            "critic": trained,
        },
        "training": {
            "output_dir": str(folder / "out"),
            "data_path": str(folder / "captions"),
            "max_train_steps": 4000,
            "train_batch_size": 1,
            "num_gpus": 8,
            "mixed_precision": "bf16",
            "enable_gradient_checkpointing_type": "full",
            **VIDEO,
        },
        "method_config": {"rollout_mode": "simulate"},
        "callbacks": {"ema": {"decay": 0.99}},
    }


def memory_of(config: Path) -> list[str]:
    """The lines of `check` about memory and the checkpoint.

    Raises:
        RuntimeError: `check` found something wrong.
    """
    with contextlib.redirect_stdout(io.StringIO()) as out:
        if distill(["check", str(config)]) != 0:
            raise RuntimeError(f"check {config} failed")
    lines = [line[2:] for line in out.getvalue().splitlines()]
    first = next(number for number, line in enumerate(lines) if line.startswith("memory per GPU"))
    return lines[first : lines.index("", first) if "" in lines else len(lines) - 1]


def tables(folder: Path) -> str:
    """What README shows."""
    for name in GEOMETRIES:
        write_outline(folder, name)
    write_captions(folder)
    parts = []
    for number, (title, (student, extra)) in enumerate(RUNS.items()):
        config = folder / f"run-{number}.yaml"
        config.write_text(yaml.safe_dump(run_of(folder, student, extra), sort_keys=False), encoding="utf-8")
        parts.append("\n".join([title, *(f"  {line}" for line in memory_of(config))]))
    return "\n\n".join(parts)


def main() -> int:
    """Print the tables."""
    folder = Path(tempfile.mkdtemp(prefix="memory-"))
    try:
        print(tables(folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
