"""What a pipeline's configuration files say, and the reading of them that both generations share."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import safe_open

from fastvideo_core.errors import ConfigError, Problem, foreign_file
from fastvideo_diffusers.hub import quiet_hub, unreadable_pipeline
from fastvideo_diffusers.pipeline_files import DAMAGED

if TYPE_CHECKING:
    from torch import Tensor

    from fastvideo_ltx.generation import Generation

TRANSFORMER = "transformer"
"""The name of a role's only module, and of its folder."""

MARKER = "_fastvideo"
"""Key of scheduler_config.json under which an exported few-step student keeps its flow_shift and schedule, and the base's
own scheduler. diffusers ignores keys that begin with an underscore."""


@dataclass(frozen=True)
class LtxFolder:
    """A pipeline: where it is and the facts that its files state.

    Args:
        path: folder or hub id.
        generation: what the folder's own index says it is.
        pipeline: name of the diffusers pipeline class in its index.
        text_dim: width of a stored text embedding.
        text_length: tokens of text that the pipeline gives to the network.
        latents_mean: of the video autoencoder, per channel.
        latents_std: likewise.
        temporal_factor: video frames per latent frame (8).
        spatial_factor: pixels per latent pixel (32).
        scheduler: the whole scheduler configuration.
        facts: what only one generation has; part of the latent space.
    """

    path: str
    generation: Generation
    pipeline: str
    text_dim: int
    text_length: int
    latents_mean: tuple[float, ...]
    latents_std: tuple[float, ...]
    temporal_factor: int
    spatial_factor: int
    scheduler: Mapping[str, Any]
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def channels(self) -> int:
        """Channels of a video token."""
        return len(self.latents_mean)

    @property
    def num_train_timesteps(self) -> int:
        return int(self.scheduler.get("num_train_timesteps", 1000))

    @property
    def latent_space(self) -> tuple[Any, ...]:
        """What two roles must share to train on the same latents and text embeddings."""
        facts = sorted(self.facts.items())
        return self.generation.name, self.text_dim, self.text_length, self.latents_mean, self.latents_std, facts


# --- reading ------------------------------------------------------------------------------------------------------------


def read_config(kind: Any, path: str, subfolder: str | None, *, supported: str, where: str) -> dict[str, Any]:
    """A component's configuration with the defaults of its class `kind`, or the pipeline's index (subfolder None).

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        with quiet_hub():
            config = kind.load_config(path, subfolder=subfolder)
    except (OSError, ValueError) as error:
        what = f"{subfolder}/" if subfolder else "a pipeline"
        allowed = f"a folder or hub id that holds {supported}"
        raise unreadable_pipeline(path, f"the configuration of {what}", error, where=where, allowed=allowed) from error
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(kind.__init__).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }
    return {**defaults, **config} if subfolder not in (None, "scheduler") else dict(config)


def read_tensors(path: str, subfolder: str, names: Sequence[str], *, where: str) -> dict[str, Tensor]:
    """Some small tensors of a component's weights; of a hub id the component is downloaded.

    Raises:
        ConfigError: they are not there, or the files are damaged.
    """
    folder = Path(path)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        try:
            folder = Path(snapshot_download(path, allow_patterns=[f"{subfolder}/*"]))
        except (OSError, ValueError) as error:
            allowed = f"a folder or hub id that holds {subfolder}/"
            raise unreadable_pipeline(path, f"{subfolder}/", error, where=where, allowed=allowed) from error
    found: dict[str, Tensor] = {}
    for file in sorted((folder / subfolder).glob("[!.]*.safetensors")):
        guard = foreign_file(f"{where}: {subfolder}/{file.name}", "safetensors file", ConfigError, DAMAGED)
        with guard, safe_open(file, framework="pt") as tensors:
            found |= {name: tensors.get_tensor(name) for name in names if name in tensors.keys()}  # noqa: SIM118
    if missing := [name for name in names if name not in found]:
        raise ConfigError(Problem(f"{subfolder}/ holds no tensor {', '.join(missing)}", where, fix=DAMAGED))
    return found
