"""What the checks of model families stand on: a run with the family, its files, and calls of its adapter."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from fastvideo_core.contracts.batch import TrainingBatch
from fastvideo_core.contracts.family import ModelComponents, family_class
from fastvideo_core.errors import UserError
from fastvideo_core.registry import Kind
from fastvideo_data.encoder import AudioEncoder
from fastvideo_testing.prepared_family import Clip, PreparedFamily, encode_clips, write_clips
from fastvideo_testing.suite import PluginSuite

SHIFTS = (1.0, 6.0)
"""No timestep shift, and one that cannot be missed."""


@dataclass(frozen=True)
class Packing:
    """How a family turns what its autoencoder gives into its one latent tensor, for the check of the way there and back.

    Args:
        pack: from the separate parts to latents [B, ...].
        unpack: the inverse.
        example: some parts.
    """

    pack: Callable[[tuple[Tensor, ...]], Tensor]
    unpack: Callable[[Tensor], tuple[Tensor, ...]]
    example: tuple[Tensor, ...]


class FamilySuite(PluginSuite):
    """Base of `ModelPluginSuite`'s groups of checks; see there for the attributes."""

    kind: ClassVar[Kind] = "models"
    capabilities: ClassVar[Mapping[str, str]] = {
        "features": "hidden states for an adversarial term: extract_features, feature_channels",
        "negative": "a negative conditioning, and with it guidance",
        "zeros": "latents of the run's shape without data",
        "batching": "samples of a batch do not influence each other",
        "tiny": "a small random-weight pipeline",
        "encoder": "videos and captions to parquet",
        "export": "a trained role as a folder of the family's own format",
        "flow_shift": "pipeline_config.flow_shift moves the noise levels",
        "sampler": "videos from prompts",
        "sound": "videos with sound, where the family encodes that of clips",
        "outline": "networks on the meta device, for `check`",
        "pipeline": "the model's own pipeline, to which predictions are held; define own_pipeline()",
        "packing": "latents packed into one tensor; override packing()",
    }

    path: ClassVar[str | None] = None
    tiny: ClassVar[Mapping[str, Any]] = {}
    clip: ClassVar[Clip | None] = None
    training: ClassVar[Mapping[str, Any]] = {}
    tolerance: ClassVar[float] = 1e-4

    def packing(self, components: ModelComponents) -> Packing | None:
        """How latents are packed; None for latents that are the autoencoder's own tensor."""
        return None

    def prompt_images(self, prepared: PreparedFamily, clip: Path) -> dict[str, Path]:
        """The images that prompts must bring, of a pipeline whose videos begin with one: `image_path` and `last_image_path`,
        files that the suite makes of this clip; none here."""
        return {}

    # --- runs -----------------------------------------------------------------------------------------------------

    def section(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {"pipeline_config": dict(values)}

    def run(self, folder: Path, **training: Any) -> dict[str, Any]:
        path = self.path if self.path is not None else "org/pipeline"
        return {
            "recipe": {"family": self.plugin, "method": "toy"},
            "roles": {
                "student": {"path": path, "trainable": True},
                "teacher": {"path": path, "trainable": False},
            },
            "training": {
                "output_dir": str(folder / "out"),
                "max_train_steps": 2,
                "train_batch_size": 2,
                "learning_rate": 1e-3,
                **self.training,
                **training,
            },
            **self.section(self.config),
        }

    def prepare(self, folder: Path) -> PreparedFamily:
        """The tiny pipeline and its data, written into `folder`."""
        run = self.run(folder)
        if "tiny" not in self.unsupported:
            self._family("tiny").tiny(folder / "tiny", seed=0, **self.tiny)
            for role in run["roles"].values():
                role["path"] = str(folder / "tiny")
        clip, sound = None, False
        if "encoder" not in self.unsupported:
            encoder = self._encoder(run)
            clip = self.clip or Clip.smallest(encoder.geometry)
            sound = isinstance(encoder, AudioEncoder)
            write_clips(folder / "clips", clip, encoder.geometry.fps, sound=sound)
            encode_clips(encoder, folder / "clips", folder / "data", clip)
            run["training"]["data_path"] = str(folder / "data")
        return PreparedFamily(folder, run, clip, sound=sound)

    @pytest.fixture(scope="class")
    @classmethod
    def prepared(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PreparedFamily]:
        suite = cls()
        with suite.world():
            yield suite.prepare(tmp_path_factory.mktemp("family"))

    # --- helpers --------------------------------------------------------------------------------------------------------

    def _family(self, offer: str) -> Any:
        registry, _ = self.found()
        family: Any = family_class(registry.get("models", self.plugin), registry)
        assert offer in family.offers(), (
            f"{self.called()} has no `{offer}`; define it, or opt out of {offer!r} in `unsupported` with a reason"
        )
        return family()

    def _encoder(self, run: Mapping[str, Any]) -> Any:
        return self._family("encoder").encoder(run["roles"]["student"]["path"], device=torch.device("cpu"))

    @staticmethod
    def _batch(prepared: PreparedFamily) -> tuple[ModelComponents, TrainingBatch]:
        components = prepared.components()
        raw = prepared.raw_batch(components)
        return components, components.adapter.prepare_batch(raw, generator=torch.Generator().manual_seed(0))

    @staticmethod
    def _predict(
        components: ModelComponents,
        role: str,
        noisy: Tensor,
        t: Tensor,
        batch: TrainingBatch,
        *,
        what: str = "predict_noise",
        conditional: bool = True,
    ) -> Tensor:
        with torch.no_grad():
            call = getattr(components.adapter, what)
            out: Tensor = call(components.bundle[role], noisy, t, batch, conditional=conditional)
        return out.clone()


@contextmanager
def refusal_skips(what: str) -> Iterator[None]:
    """Inside, an error for users means that the family refuses `what`, which it may."""
    try:
        yield
    except UserError as error:
        pytest.skip(f"the family refuses {what}: {error}")


def along(values: Tensor, like: Tensor) -> Tensor:
    """[B] as [B, 1, ...]."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def free_latents(batch: TrainingBatch) -> Tensor:
    """1 where latents are trained, 0 where they are given (conditioning frames, padding)."""
    if batch.loss_weight is None:
        return torch.ones_like(batch.latents)
    return (batch.loss_weight != 0).to(batch.latents.dtype).expand_as(batch.latents)
