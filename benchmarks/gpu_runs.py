"""The runs that the GPU benchmarks make: random-weight Wan pipelines of real geometry, and data of the right shapes."""

from __future__ import annotations

import contextlib
import io
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from fastvideo_core.dispatch.examine import examine
from fastvideo_core.dispatch.load_run_config import load_run_config
from fastvideo_core.dispatch.memory_estimate import estimate_run
from fastvideo_core.dispatch.runtime import DistillRuntime, build_runtime_from_config
from fastvideo_core.registry import PluginRegistry
from fastvideo_core.training.trainer import DistillTrainer
from fastvideo_data.schema import VIDEO_METADATA, arrow_schema, encode_tensor, key_value_metadata, write_part
from fastvideo_testing.tracker import InMemoryTracker
from fastvideo_wan.tiny import write_tiny_pipeline
from fastvideo_wan.tiny_image_encoder import TOKENS as IMAGE_TOKENS
from fastvideo_wan.tiny_image_encoder import WIDTH as IMAGE_WIDTH

TEXT_LENGTH = 512
SEED = 0
ROLES = {
    "finetune": ("student",),
    "dmd2": ("student", "teacher", "critic"),
    "consistency": ("student", "teacher"),
    "rcm": ("student", "teacher", "critic"),
}
SETTINGS: dict[str, dict[str, Any]] = {
    "dmd2": {"generator_update_interval": 2, "dmd_denoising_steps": [1000, 750, 500, 250]},
    "consistency": {"solver": "heun", "target": "average"},
    "rcm": {"generator_update_interval": 2, "tangent_warmup_steps": 2},
}


@dataclass(frozen=True)
class Variant:
    """A network and the videos that it is trained on.

    Args:
        sizes: of the network, as `write_tiny_pipeline` takes them.
        frames, height, width: of a video, in pixels.
        checkpointing: enable_gradient_checkpointing_type of its runs.
        iterations: how many are timed.
        kind: of the pipeline: the variant of `tiny wan`.
    """

    name: str
    sizes: Mapping[str, int]
    frames: int
    height: int
    width: int
    checkpointing: str | None
    iterations: int
    kind: str = "t2v"

    @property
    def latent(self) -> tuple[int, int, int, int]:
        """[C, T, H, W] of a sample."""
        channels, pixels = (48, 16) if self.kind == "ti2v" else (16, 8)
        return channels, (self.frames - 1) // 4 + 1, self.height // pixels, self.width // pixels

    @property
    def tokens(self) -> int:
        """Latent tokens of a sample."""
        _, frames, height, width = self.latent
        return frames * (height // 2) * (width // 2)


WAN_1_3B = {"num_layers": 30, "num_heads": 12, "head_dim": 128, "ffn_dim": 8960, "text_dim": 4096, "text_layers": 1}
TINY = {"num_layers": 2, "num_heads": 2, "head_dim": 12, "ffn_dim": 32, "text_dim": 32}

LARGE = Variant("Wan 1.3B, 480p, 77 frames", WAN_1_3B, 77, 480, 832, "full", 4)
SMALL = Variant("Wan 1.3B, 256 x 448, 17 frames", WAN_1_3B, 17, 256, 448, None, 10)
CPU = Variant("tiny Wan", TINY, 9, 64, 64, None, 4)


@dataclass
class Runs:
    """Builds runs in one folder; pipelines and data sets are written once."""

    folder: Path
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)

    def pipeline(self, sizes: Mapping[str, int], kind: str = "t2v") -> Path:
        """A random-weight pipeline of these sizes."""
        path = self.folder / "-".join(["wan", kind, *(str(size) for size in sizes.values())])
        if not path.exists():
            write_tiny_pipeline(path, seed=SEED, variant=kind, **sizes)  # type: ignore[arg-type]  # one of its variants
        return path

    def data(self, variant: Variant, rows: int = 1) -> Path:
        """Random latents and text embeddings of the variant's shapes."""
        path = self.folder / f"data-{variant.kind}-{variant.sizes['text_dim']}-{variant.tokens}-{rows}"
        if not path.exists():
            path.mkdir()
            generator = torch.Generator().manual_seed(SEED)
            shapes: dict[str, tuple[int, ...]] = {"vae_latent": variant.latent}
            shapes["text_embedding"] = (TEXT_LENGTH, variant.sizes["text_dim"])
            if variant.kind == "i2v":
                shapes |= {"first_frame_latent": variant.latent, "clip_feature": (IMAGE_TOKENS, IMAGE_WIDTH)}
            table = []
            for number in range(rows):
                row: dict[str, object] = {"id": f"{number}", "file_name": f"{number}.mp4", "caption": f"clip {number}"}
                row |= {"media_type": "video", "width": variant.width, "height": variant.height}
                row |= {"num_frames": variant.latent[1], "duration_sec": 1.0, "fps": 16.0}
                for name, shape in shapes.items():
                    row |= encode_tensor(name, torch.randn(shape, generator=generator))
                table.append(row)
            metadata = key_value_metadata(normalised=False, settings={})
            write_part(path / "part.parquet", table, arrow_schema([*shapes], VIDEO_METADATA), metadata)
        return path

    def write(
        self,
        method: str,
        variant: Variant,
        *,
        rows: int = 1,
        roles: Mapping[str, Mapping[str, Any]] | None = None,
        method_config: Mapping[str, Any] | None = None,
        callbacks: Mapping[str, Any] | None = None,
        **training: Any,
    ) -> Path:
        """A run.yaml; what is given goes over what is usual here."""
        pipeline = self.pipeline(variant.sizes, variant.kind)
        number = next(self._numbers)
        run: dict[str, Any] = {
            "recipe": {"family": "wan", "method": method},
            "roles": {name: {"path": str(pipeline), "trainable": name != "teacher"} for name in ROLES[method]},
            "training": {
                "seed": SEED,
                "output_dir": str(self.folder / f"run-{number}"),
                "data_path": str(self.data(variant, rows)),
                "max_train_steps": 10**6,
                "learning_rate": 1e-5,
                "mixed_precision": "bf16",
                "num_height": variant.height,
                "num_width": variant.width,
                "num_frames": variant.frames,
                "enable_gradient_checkpointing_type": variant.checkpointing,
                **training,
            },
            "pipeline_config": {
                "sampler_kind": "sde" if method in ("consistency", "rcm") else "ode",
                "first_frame_probability": 0.5 if variant.kind == "ti2v" else 0.0,
            },
            "method_config": {**SETTINGS.get(method, {}), **(method_config or {})},
            "callbacks": dict(callbacks or {}),
        }
        for name, options in (roles or {}).items():
            run["roles"][name] |= options
        path = self.folder / f"run-{number}.yaml"
        path.write_text(yaml.safe_dump(run), encoding="utf-8")
        return path


def build(config: Path) -> DistillRuntime:
    """The run, as the command line builds it."""
    registry = PluginRegistry()
    return build_runtime_from_config(load_run_config(config, registry), registry)


def foretold_peak(config: Path) -> int:
    """The most memory that the run takes in one process, in bytes, as `check` foretells it."""
    registry = PluginRegistry()
    run, _ = examine(load_run_config(config, registry), registry, starts=True)
    estimate = estimate_run(run)
    if estimate is None or not estimate.knows_activations:
        raise ValueError("the family does not say how its networks are called")
    return estimate.peak


def train(runtime: DistillRuntime, *, saving: bool = True) -> list[dict[str, float]]:
    """Trains to the end of the run, without its lines on the console; the metrics of every logged step."""
    trainer = DistillTrainer(runtime.training_args, config={})
    trainer.tracker.finish()
    tracker = trainer.tracker = InMemoryTracker()
    with contextlib.redirect_stdout(io.StringIO()):
        trainer.run(
            runtime.method,
            runtime.dataloader,
            runtime.training_args.max_train_steps,
            runtime.start_step,
            checkpoint_manager=runtime.checkpoint_manager if saving else None,
            callbacks=runtime.callbacks,
        )
    return [dict(metrics) for _, metrics in tracker.steps]


def network_inputs(variant: Variant, samples: int, device: str | torch.device) -> dict[str, Tensor]:
    """What the transformer takes for so many samples; random where the device holds values."""
    return {
        "hidden_states": torch.randn(samples, *variant.latent, device=device),
        "timestep": torch.full((samples,), 600.0, device=device),
        "encoder_hidden_states": torch.randn(samples, TEXT_LENGTH, variant.sizes["text_dim"], device=device),
    }
