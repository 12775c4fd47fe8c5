"""What a pipeline's configuration files say, and how they are read: no weights are loaded here."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler
from safetensors import safe_open

from fastvideo_core.config.base import is_hub_id
from fastvideo_core.errors import ConfigError, Problem, foreign_file
from fastvideo_data.prompt_fit import TEXT_ALONE, ImageUse
from fastvideo_data.video_sizes import VideoSize
from fastvideo_diffusers.hub import quiet_hub, unreadable_pipeline
from fastvideo_diffusers.pipeline_files import DAMAGED, check_files, component_config

if TYPE_CHECKING:
    from torch import Tensor

TRANSFORMER = "transformer"
"""The name of a role's module, of several the first, and of its folder."""

MARKER = "_fastvideo"
"""Key of scheduler_config.json under which an exported few-step student keeps its schedule, and what else its family says.
diffusers ignores keys that begin with an underscore."""


@dataclass(frozen=True, kw_only=True)
class PipelineFolder:
    """A pipeline: where it is and the facts that its files state.

    Args:
        path: folder or hub id.
        text_dim: width of a stored text embedding.
        text_length: tokens of a text that the network attends to, padding included.
        latents_mean: of the video autoencoder, per channel.
        latents_std: likewise.
        temporal_factor: video frames per latent frame.
        spatial_factor: pixels per latent pixel.
        scaling_factor: of normalised latents.
        scheduler: the whole scheduler configuration.

    Attributes:
        layout: the shape of the batches' latents.
    """

    layout: ClassVar[str] = "[B, C, T, H, W]"

    path: str
    text_dim: int
    text_length: int
    latents_mean: tuple[float, ...]
    latents_std: tuple[float, ...]
    temporal_factor: int
    spatial_factor: int
    scheduler: Mapping[str, Any]
    scaling_factor: float = 1.0

    @property
    def channels(self) -> int:
        """Of the video's latents."""
        return len(self.latents_mean)

    @property
    def image_use(self) -> ImageUse:
        """The images that its prompts bring."""
        return TEXT_ALONE

    @property
    def networks(self) -> tuple[str, ...]:
        """The sub-folders of a role's networks."""
        return (TRANSFORMER,)

    @property
    def num_train_timesteps(self) -> int:
        """The length of the noise axis."""
        return int(self.scheduler.get("num_train_timesteps", 1000))

    @property
    def marked(self) -> Mapping[str, Any]:
        """What an export of ours left in the scheduler's configuration; empty where there was nothing to leave."""
        marked: Mapping[str, Any] = self.scheduler.get(MARKER, {})
        return marked

    @property
    def latent_space(self) -> dict[str, object]:
        """What two roles must share to train on the same latents and text embeddings, as messages name it."""
        return {
            "layout": self.layout,
            "channels": self.channels,
            "latents_mean": self.latents_mean,
            "latents_std": self.latents_std,
            "scaling_factor": self.scaling_factor,
            "temporal factor": self.temporal_factor,
            "spatial factor": self.spatial_factor,
            "text_dim": self.text_dim,
            "text_length": self.text_length,
        }

    def latent_size(self, video: VideoSize) -> tuple[int, int, int]:
        """(T, H, W) of the latents of a video of `temporal_factor` k + 1 frames."""
        frames = (video.num_frames - 1) // self.temporal_factor + 1
        return frames, video.height // self.spatial_factor, video.width // self.spatial_factor

    def video_size(self, latents: Sequence[int]) -> VideoSize:
        """The video of latents (T, H, W)."""
        frames, height, width = latents
        pixels = self.spatial_factor
        return VideoSize(height * pixels, width * pixels, (frames - 1) * self.temporal_factor + 1)


F = TypeVar("F", bound=PipelineFolder)


def open_pipeline(
    path: str, read: Callable[[Mapping[str, Any], str], F], *, what: str, supported: str, where: str
) -> F:
    """Reads a pipeline's configuration files.

    Args:
        path: folder or hub id.
        read: called with the pipeline's index and `where`, the path included; gives its facts.
        what: what the folder should be, such as "Wan pipeline".
        supported: what errors about an unusable pipeline offer instead.
        where: how errors name the place that gave the path, for example "roles.student.path".

    Raises:
        ConfigError: the path holds no such pipeline, or what `read` raises.
    """
    where = f"{where} ({path})"
    with foreign_file(where, what, ConfigError, DAMAGED):
        local = Path(path) if Path(path).is_dir() else None
        if local is None and not is_hub_id(path):
            allowed = f"a folder or hub id that holds {supported}"
            raise ConfigError(Problem("there is no such folder", where, allowed=allowed))
        if local is not None and not (local / "model_index.json").is_file():
            raise ConfigError(Problem("is a folder without model_index.json", where, allowed=supported))
        folder = read(read_config(DiffusionPipeline, path, None, supported=supported, where=where), where)
        FlowMatchEulerDiscreteScheduler.from_config(dict(folder.scheduler))  # its numbers can be used
        return folder


def check_components(path: str, components: Sequence[str], weighted: Sequence[str], *, where: str) -> None:
    """`pipeline_files.check_files` of a folder; a hub id's files are told of when they are loaded."""
    if Path(path).is_dir():
        check_files(Path(path), components, weighted, where=where)


def read_config(kind: Any, path: str, subfolder: str | None, *, supported: str, where: str) -> dict[str, Any]:
    """A component's configuration with the defaults of its class `kind`, or the pipeline's index (subfolder None).

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        with quiet_hub():
            config = component_config(kind, path, subfolder)
    except (OSError, ValueError) as error:
        what = f"{subfolder}/" if subfolder else "a pipeline"
        allowed = f"a folder or hub id that holds {supported}"
        raise unreadable_pipeline(path, f"the configuration of {what}", error, where=where, allowed=allowed) from error
    if subfolder in (None, "scheduler"):
        return dict(config)
    parameters = inspect.signature(kind.__init__).parameters.values()
    defaults = {one.name: one.default for one in parameters if one.default is not inspect.Parameter.empty}
    return {**defaults, **config}


Expected = tuple[str, Mapping[str, Any], str, str, Callable[[object], bool]]
"""A component, its configuration, a key of it, what is allowed there, and whether a value is that."""


def check_values(expected: Iterable[Expected], *, where: str) -> None:
    """Configurations hold what their readers take for granted.

    Raises:
        ConfigError: naming every value that is something else.
    """
    problems = [
        Problem(f"{key} in {component}/ is {config.get(key)!r}", where, allowed=allowed, fix=DAMAGED)
        for component, config, key, allowed, good in expected
        if not good(config.get(key))
    ]
    if problems:
        raise ConfigError(problems)


def whole_numbers(component: str, config: Mapping[str, Any], *keys: str) -> list[Expected]:
    """Whole numbers above 0."""
    return [(component, config, key, "a whole number", _whole_number) for key in keys]


def noise_axis(scheduler: Mapping[str, Any]) -> list[Expected]:
    """The length of a scheduler's noise axis, which is 1000 where it names none."""
    return whole_numbers("scheduler", {"num_train_timesteps": 1000, **scheduler}, "num_train_timesteps")


def _whole_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def number_list(kind: type | tuple[type, ...], count: int) -> Callable[[object], bool]:
    """Whether a value is a list of `count` numbers of a kind."""

    def good(values: object) -> bool:
        return isinstance(values, list | tuple) and len(values) == count and all(isinstance(v, kind) for v in values)

    return good


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
