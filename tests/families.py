"""Every installed family, ready to train: a tiny pipeline of each kind that it makes, and data out of small clips."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from fastvideo_core.cli.main import main
from fastvideo_core.contracts.family import open_family
from fastvideo_core.registry import PluginRegistry
from fastvideo_data.encoder import AudioEncoder
from fastvideo_testing.prepared_family import Clip, encode_clips, write_clips

KINDS: Mapping[str, tuple[Mapping[str, Any], ...]] = {"ltx": ({"generation": 1}, {"generation": 2})}
"""Options of `tiny` for families of which it makes several kinds; of the others there is one."""


@dataclass(frozen=True)
class Kind:
    """A family and what its `tiny` is asked for."""

    family: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return "-".join([self.family, *(f"{name}{value}" for name, value in self.options.items())])


FURTHER = {variant: Kind("wan", {"variant": variant}) for variant in ("flf2v", "i2v_a14b")}
"""Kinds that `tiny` makes besides, by name, which are put to the test beside those of all families."""


@dataclass(frozen=True)
class TinyFamily:
    """A kind of pipeline and its data on disk.

    Args:
        family: its name.
        base: the tiny pipeline.
        data: four clips, preprocessed; with their sound where the family takes it.
        clip: their size.
        sound: whether they have sound.
    """

    family: str
    base: Path
    data: Path
    clip: Clip
    sound: bool

    def network(self, path: Path | str | None = None) -> torch.nn.Module:
        """The transformer of a pipeline of this family, of the tiny one by default."""
        registry = PluginRegistry()
        plugin = registry.get("models", self.family)
        section = registry.config_class(plugin)()
        sampler = open_family(self.family, registry, "sampler").sampler(
            str(path or self.base), section, device=torch.device("cpu")
        )
        (module,) = sampler.handle.modules.values()
        network: torch.nn.Module = module
        return network

    def trajectories(self) -> Path:
        """Three trajectories of the tiny pipeline in four steps, in a folder; made when they are first asked for."""
        out, prompts = self.base.parent / "trajectories", self.base.parent / "prompts.txt"
        if not out.exists():
            prompts.write_text("a red square\na blue disc\na green bar\n", encoding="utf-8")
            columns = pq.read_schema(next(self.data.rglob("*.parquet"))).names
            if any(name.endswith("frame_latent_bytes") for name in columns):
                prompts = self.data  # the teacher is given the clips' images
            size = ("--height", self.clip.height, "--width", self.clip.width, "--num-frames", self.clip.num_frames)
            given = ("--family", self.family, "--model", self.base, "--prompts", prompts, "--output", out, *size)
            words = ["trajectories", *map(str, given), "--steps", "4", "--guidance-scale", "2"]
            assert main(words) == 0
        return out


ALL_KINDS = [
    Kind(family, options) for family in PluginRegistry().names("models") for options in KINDS.get(family, ({},))
]

MakeFamily = Callable[[Kind], TinyFamily]


@pytest.fixture(scope="module")
def tiny_family(tmp_path_factory: pytest.TempPathFactory) -> MakeFamily:
    """Makes a kind when it is first asked for; read only."""
    made: dict[str, TinyFamily] = {}

    def make(kind: Kind) -> TinyFamily:
        if str(kind) not in made:
            made[str(kind)] = write_tiny_family(kind, tmp_path_factory.mktemp(str(kind)))
        return made[str(kind)]

    return make


def write_tiny_family(kind: Kind, folder: Path) -> TinyFamily:
    """Pipeline, clips and data, in `folder`."""
    family = open_family(kind.family, PluginRegistry())
    family.tiny(folder / "base", seed=0, **kind.options)
    encoder = family.encoder(str(folder / "base"), device=torch.device("cpu"))
    clip, sound = Clip.smallest(encoder.geometry), isinstance(encoder, AudioEncoder)
    write_clips(folder / "clips", clip, encoder.geometry.fps, sound=sound)
    encode_clips(encoder, folder / "clips", folder / "data", clip)
    return TinyFamily(kind.family, folder / "base", folder / "data", clip, sound)
