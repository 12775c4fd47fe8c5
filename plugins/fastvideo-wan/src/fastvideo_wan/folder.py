"""Which pipelines this package can use, and what their configuration files say: no weights are read here."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, WanPipeline, WanTransformer3DModel
from transformers.models.auto.tokenization_auto import get_tokenizer_config

from fastvideo_core.config.hub import is_hub_id
from fastvideo_core.errors import ConfigError, Problem, foreign_file
from fastvideo_diffusers.hub import quiet_hub, unreadable_pipeline
from fastvideo_diffusers.pipeline_files import DAMAGED, check_files

SUPPORTED = "Wan 2.1 text-to-video in diffusers format (for example Wan-AI/Wan2.1-T2V-1.3B-Diffusers)"
TRANSFORMER = "transformer"
"""The name of a role's only module, and of its folder."""

COMPONENTS = (TRANSFORMER, "vae", "text_encoder", "tokenizer", "scheduler")
WEIGHTED = (TRANSFORMER, "vae", "text_encoder")
LATENT_CHANNELS = 16
TEXT_LENGTH = 512
"""Tokens that Wan's networks attend to. They have no text mask, so that the zeros behind a short caption count. A pipeline whose
tokenizer takes fewer (its model_max_length) is one for so many."""

MARKER = "_fastvideo"
"""Key of scheduler_config.json under which an exported few-step student keeps its flow_shift and schedule. diffusers
ignores keys that begin with an underscore."""


@dataclass(frozen=True)
class WanFolder:
    """A Wan 2.1 text-to-video pipeline: where it is and the facts that its configuration files state.

    Args:
        path: folder or hub id.
        text_dim: width of a text embedding.
        text_length: tokens of a text that the network attends to, padding included: 512, or the tokenizer's limit below it.
        patch_size: (frames, height, width) of latents that become one token.
        latents_mean: of the autoencoder, per channel.
        latents_std: likewise.
        temporal_factor: video frames per latent frame (4).
        spatial_factor: pixels per latent pixel (8).
        scheduler: the whole scheduler configuration.
    """

    path: str
    text_dim: int
    text_length: int
    patch_size: tuple[int, int, int]
    latents_mean: tuple[float, ...]
    latents_std: tuple[float, ...]
    temporal_factor: int
    spatial_factor: int
    scheduler: Mapping[str, Any]

    @property
    def num_train_timesteps(self) -> int:
        return int(self.scheduler.get("num_train_timesteps", 1000))

    @property
    def latent_space(self) -> tuple[Any, ...]:
        """What two roles must share to train on the same latents and text embeddings."""
        return self.text_dim, self.text_length, self.patch_size, self.latents_mean, self.latents_std


def open_folder(path: str, *, where: str) -> WanFolder:
    """Reads a pipeline's configuration files.

    Args:
        path: folder or hub id.
        where: how errors name the place that gave the path, for example "roles.student.path".

    Raises:
        ConfigError: the path holds no Wan pipeline, an incomplete one, or a variant that is not supported.
    """
    where = f"{where} ({path})"
    with foreign_file(where, "Wan pipeline", ConfigError, DAMAGED):
        return _opened(path, where)


def _opened(path: str, where: str) -> WanFolder:
    local = Path(path) if Path(path).is_dir() else None
    if local is None and not is_hub_id(path):
        raise ConfigError(
            Problem("there is no such folder", where, allowed=f"a folder or hub id that holds {SUPPORTED}")
        )
    if local is not None and not (local / "model_index.json").is_file():
        raise ConfigError(Problem("is a folder without model_index.json", where, allowed=SUPPORTED))
    index = _config(WanPipeline, path, None, where)
    _check_index(index, where)
    if local is not None:
        check_files(local, COMPONENTS, WEIGHTED, where=where)
    transformer = _config(WanTransformer3DModel, path, "transformer", where)
    vae = _config(AutoencoderKLWan, path, "vae", where)
    scheduler = _config(FlowMatchEulerDiscreteScheduler, path, "scheduler", where)
    _check_values(transformer, vae, scheduler, where)
    FlowMatchEulerDiscreteScheduler.from_config(scheduler)
    _check_variant(transformer, vae, where)
    return WanFolder(
        path=path,
        text_dim=int(transformer["text_dim"]),
        text_length=_text_length(path),
        patch_size=tuple(transformer["patch_size"]),
        latents_mean=tuple(vae["latents_mean"]),
        latents_std=tuple(vae["latents_std"]),
        temporal_factor=int(vae["scale_factor_temporal"]),
        spatial_factor=int(vae["scale_factor_spatial"]),
        scheduler=scheduler,
    )


def _text_length(path: str) -> int:
    limit = get_tokenizer_config(path, subfolder="tokenizer").get("model_max_length")
    return min(TEXT_LENGTH, int(limit)) if isinstance(limit, int | float) and limit > 0 else TEXT_LENGTH


def _config(kind: Any, path: str, subfolder: str | None, where: str) -> dict[str, Any]:
    try:
        with quiet_hub():
            config = kind.load_config(path, subfolder=subfolder)
    except (OSError, ValueError) as error:
        what = f"{subfolder}/" if subfolder else "a pipeline"
        allowed = f"a folder or hub id that holds {SUPPORTED}"
        raise unreadable_pipeline(path, f"the configuration of {what}", error, where=where, allowed=allowed) from error
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(kind.__init__).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }
    return {**defaults, **config} if subfolder in ("transformer", "vae") else dict(config)


def _check_index(index: Mapping[str, Any], where: str) -> None:
    problems = []
    if index.get("_class_name") != "WanPipeline":
        problems.append(Problem(f"is a {index.get('_class_name')}", where, allowed=f"a WanPipeline: {SUPPORTED}"))
    if (index.get("transformer_2") or [None])[0] is not None or index.get("boundary_ratio") is not None:
        problems.append(Problem("has two transformers (Wan 2.2 A14B), not supported", where, allowed=SUPPORTED))
    if index.get("expand_timesteps"):
        problems.append(Problem("is a Wan 2.2 TI2V pipeline, not supported", where, allowed=SUPPORTED))
    if problems:
        raise ConfigError(problems)


def _check_values(
    transformer: Mapping[str, Any], vae: Mapping[str, Any], scheduler: Mapping[str, Any], where: str
) -> None:
    expected = (
        (TRANSFORMER, transformer, "patch_size", "3 whole numbers", _numbers(int, 3)),
        (TRANSFORMER, transformer, "text_dim", "a whole number", _whole_number),
        ("vae", vae, "latents_mean", f"{LATENT_CHANNELS} numbers", _numbers((int, float), LATENT_CHANNELS)),
        ("vae", vae, "latents_std", f"{LATENT_CHANNELS} numbers", _numbers((int, float), LATENT_CHANNELS)),
        ("vae", vae, "scale_factor_temporal", "a whole number", _whole_number),
        ("vae", vae, "scale_factor_spatial", "a whole number", _whole_number),
        (
            "scheduler",
            {"num_train_timesteps": 1000, **scheduler},
            "num_train_timesteps",
            "a whole number",
            _whole_number,
        ),
    )
    problems = [
        Problem(f"{key} in {component}/ is {config.get(key)!r}", where, allowed=allowed, fix=DAMAGED)
        for component, config, key, allowed, good in expected
        if not good(config.get(key))
    ]
    if problems:
        raise ConfigError(problems)


def _whole_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _numbers(kind: type | tuple[type, ...], count: int) -> Callable[[object], bool]:
    def good(values: object) -> bool:
        return isinstance(values, list | tuple) and len(values) == count and all(isinstance(v, kind) for v in values)

    return good


def _check_variant(transformer: Mapping[str, Any], vae: Mapping[str, Any], where: str) -> None:
    problems = []
    if transformer["in_channels"] != LATENT_CHANNELS or transformer["image_dim"] is not None:
        problems.append(
            Problem(
                f"its transformer takes {transformer['in_channels']} channels (image-to-video or another variant)",
                where,
                allowed=f"{LATENT_CHANNELS} channels and no image embedding: {SUPPORTED}",
            )
        )
    if vae["z_dim"] != LATENT_CHANNELS:
        problems.append(
            Problem(f"its VAE has {vae['z_dim']} channels", where, allowed=f"{LATENT_CHANNELS}: {SUPPORTED}")
        )
    if problems:
        raise ConfigError(problems)
