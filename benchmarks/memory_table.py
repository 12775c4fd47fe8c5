"""What `check` says of runs of Wan on 8 GPUs of 80 GB, and what fits one GPU: README's tables.

    python benchmarks/memory_table.py
    python benchmarks/memory_table.py fits [WORDS ...]    # of the rows whose title has one of these words

From configuration files alone: the published geometries, no weights, no network. `check` itself is run on each; the runs of
recipes are read from their pages.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from fastvideo_core import load_run_config
from fastvideo_core.cli.main import main as distill
from fastvideo_core.dispatch.examine import examine
from fastvideo_core.registry import PluginRegistry
from fastvideo_data.schema import (
    VIDEO_METADATA,
    arrow_schema,
    encode_tensor,
    key_value_metadata,
    text_schema,
    write_part,
)
from fastvideo_tools.commands.fits import GIB, LEFT_OVER, Search
from fastvideo_wan.loading import outline_transformer
from fastvideo_wan.tiny import write_tiny_pipeline

RECIPES = Path(__file__).parents[1] / "docs" / "recipes"


@dataclass(frozen=True)
class Geometry:
    """A published Wan.

    Args:
        network: what of the configuration of its networks is not that of a tiny one.
        variant: of `tiny wan`.
    """

    network: Mapping[str, int]
    variant: str = "t2v"


OF_14B = {"num_layers": 40, "num_attention_heads": 40, "attention_head_dim": 128, "ffn_dim": 13824}
OF_IMAGES = {"image_dim": 1280, "added_kv_proj_dim": 5120}
GEOMETRIES = {
    "1.3B": Geometry({"num_layers": 30, "num_attention_heads": 12, "attention_head_dim": 128, "ffn_dim": 8960}),
    "14B": Geometry(OF_14B),
    "Wan-AI/Wan2.2-T2V-A14B-Diffusers": Geometry(OF_14B, "a14b"),
    "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers": Geometry({**OF_14B, **OF_IMAGES}, "i2v"),
    "Wan-AI/Wan2.2-TI2V-5B-Diffusers": Geometry(
        {"num_layers": 30, "num_attention_heads": 24, "attention_head_dim": 128, "ffn_dim": 14336}, "ti2v"
    ),
}
"""By the name that runs give: those of recipes are hub ids."""
IMAGE_ENCODER = CLIPVisionConfig(
    hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=16, patch_size=14
)
TEXT_DIM = 4096
VIDEO = {"num_height": 480, "num_width": 832, "num_frames": 77}
LATENTS = (20, 60, 104)  # of such a video
LORA = {"rank": 64}
RUNS: dict[str, tuple[str, Mapping[str, Any]]] = {
    "student and critic 1.3B, teacher 14B": ("1.3B", {}),
    "all 14B": ("14B", {}),
    "all 14B, student and critic with LoRA of rank 64": ("14B", {"lora": LORA}),
}
"""DMD2 by title: the geometry of student and critic, and what their entries have besides."""
SIZES = {
    "1.3B": "1.3B",
    "5B": "Wan-AI/Wan2.2-TI2V-5B-Diffusers",
    "14B": "14B",
    "A14B": "Wan-AI/Wan2.2-T2V-A14B-Diffusers",
}
GPUS = (24, 32, 48, 80)
OF_RECIPES: dict[str, Mapping[str, tuple[int, ...]]] = {
    "dmd2-of-wan22-on-8-gpus": {},
    "finetune-wan-i2v-with-lora": {
        "vae_latent": (16, *LATENTS), "first_frame_latent": (16, *LATENTS), "clip_feature": (257, 1280),
    },
    "finetune-wan-ti2v-5b": {"vae_latent": (48, 31, 44, 80)},
}  # fmt: skip
"""By page: the tensors of its clips beside their text; none where captions are enough."""


def write_outline(folder: Path, name: str) -> Path:
    """A pipeline's folder with the configuration of a published Wan, and files of weights that are all header."""
    path, geometry = folder / name, GEOMETRIES[name]
    write_tiny_pipeline(path, variant=geometry.variant)  # type: ignore[arg-type]  # one of its variants
    for network in sorted(path.glob("transformer*")):
        config = json.loads((network / "config.json").read_text())
        (network / "config.json").write_text(json.dumps({**config, **geometry.network, "text_dim": TEXT_DIM}))
        outline = outline_transformer(str(path), name=network.name)
        write_header(network / "diffusion_pytorch_model.safetensors", outline)
    if (path / "image_encoder").is_dir():
        IMAGE_ENCODER.save_pretrained(path / "image_encoder")
        with torch.device("meta"):
            write_header(path / "image_encoder" / "model.safetensors", CLIPVisionModel(IMAGE_ENCODER))
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


def write_data(folder: Path, tensors: Mapping[str, tuple[int, ...]]) -> Path:
    """A data set of one row: a caption, and zeros of these shapes."""
    shapes = {"text_embedding": (8, TEXT_DIM), **tensors}
    row: dict[str, object] = {"id": "0", "caption": "a cat"}
    for name, shape in shapes.items():
        row |= encode_tensor(name, torch.zeros(shape, dtype=torch.bfloat16))
    row |= {
        "file_name": "0.mp4",
        "media_type": "video",
        "width": 1,
        "height": 1,
        "num_frames": 1,
        "fps": 1.0,
        "duration_sec": 1.0,
    }
    folder.mkdir()
    schema = arrow_schema([*shapes], VIDEO_METADATA) if tensors else text_schema()
    row = {name: value for name, value in row.items() if name in schema.names}
    write_part(folder / "part.parquet", [row], schema, key_value_metadata(normalised=False, settings={}))
    return folder


def run_of(folder: Path, student: str, extra: Mapping[str, Any]) -> dict[str, Any]:
    """The run: bfloat16, full activation checkpointing, everything sharded over 8 GPUs."""
    trained = {"path": str(folder / student), "trainable": True, **extra}
    return {
        "recipe": {"family": "wan", "method": "dmd2"},
        "roles": {
            "student": trained,
            "teacher": {"path": str(folder / "14B"), "trainable": False},
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


def run_of_recipe(folder: Path, page: str) -> tuple[str, dict[str, Any]]:
    """The title of a page and its run, on outlines and a row of data."""
    text = (RECIPES / f"{page}.md").read_text(encoding="utf-8")
    found = re.search(r"# (.*)\n(?s:.*?)```yaml\n((?s:.*?))```", text)
    assert found
    run = yaml.safe_load(found[2])
    for role in run["roles"].values():
        role["path"] = str(folder / role["path"])
    run["training"] |= {"output_dir": str(folder / "out"), "data_path": str(folder / page)}
    write_data(folder / page, OF_RECIPES[page])
    return found[1], run


def tables(folder: Path) -> str:
    """What README shows."""
    for name in GEOMETRIES:
        write_outline(folder, name)
    write_data(folder / "captions", {})
    runs = [(title, run_of(folder, *of)) for title, of in RUNS.items()]
    runs += [run_of_recipe(folder, page) for page in OF_RECIPES]
    parts = []
    for number, (title, run) in enumerate(runs):
        config = folder / f"run-{number}.yaml"
        config.write_text(yaml.safe_dump(run, sort_keys=False), encoding="utf-8")
        parts.append("\n".join([title, *(f"  {line}" for line in memory_of(config))]))
    return "\n\n".join(parts)


def on_one_gpu(folder: Path, name: str, method: str) -> dict[str, Any]:
    """A run of adapters on one GPU: in bfloat16 with full activation checkpointing, at 480p and 77 frames."""
    run = run_of(folder, name, {"lora": LORA})
    run["training"]["num_gpus"] = 1
    if method == "dmd2":
        run["roles"] = {role: {**one, "path": str(folder / name)} for role, one in run["roles"].items()}
        for role in ("student", "critic"):
            run["roles"][role]["share"] = "teacher"
        return run
    channels, height, width = (48, 30, 52) if GEOMETRIES[name].variant == "ti2v" else (16, *LATENTS[1:])
    data = folder / f"latents-{channels}"
    if not data.exists():
        write_data(data, {"vae_latent": (channels, LATENTS[0], height, width)})
    run["training"] |= {"data_path": str(data)}
    run["recipe"]["method"], run["method_config"] = "finetune", {}
    run["roles"] = {"student": run["roles"]["student"]}
    return run


def fits(folder: Path, words: Sequence[str] = ()) -> Iterator[str]:
    """Rows of README's second table: the peak on one GPU, and for each size of GPU what makes it fit."""
    write_data(folder / "captions", {})
    registry = PluginRegistry()
    for title, method in {"LoRA": "finetune", "DMD2 on one base": "dmd2"}.items():
        for size, name in SIZES.items():
            if words and not any(word in f"{title}, {size}" for word in words):
                continue
            if not (folder / name).exists():
                write_outline(folder, name)
            config = folder / "run.yaml"
            config.write_text(yaml.safe_dump(on_one_gpu(folder, name, method)), encoding="utf-8")
            cfg = load_run_config(str(config), registry)
            search = Search(examine(cfg, registry, starts=False)[0])
            cells = [f"{search.estimate(cfg).peak / GIB:.1f}"]
            for memory in GPUS:
                plan = search.plan(memory * GIB * (1 - LEFT_OVER))
                changes = ", ".join(one.partition(".")[2] for one in plan.changes) if plan else "no"
                cells.append(f"{changes}: {plan.peak / GIB:.1f}" if plan and changes else changes or "fits")
            yield f"| {title}, {size} | {' | '.join(cells)} |"


def main(words: Sequence[str]) -> int:
    """Print the tables, or the rows of the second."""
    folder = Path(tempfile.mkdtemp(prefix="memory-"))
    try:
        for line in fits(folder, words[1:]) if words else [tables(folder)]:
            print(line, flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
