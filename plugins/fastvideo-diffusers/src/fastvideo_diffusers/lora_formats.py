"""How programs other than diffusers spell LoRA files, in forms that diffusers' own converters read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastvideo_core.config.run import LoraConfig
from fastvideo_core.errors import ConfigError, Problem

DIFFUSERS = "diffusers"
"""The format that every family exports: names of the network's own layers, alpha in the file's metadata."""


def _every(layer: str) -> bool:
    return True


@dataclass(frozen=True)
class LoraFormat:
    """One spelling of a network's LoRA layers.

    Args:
        prefix: of every key of a file.
        name: a layer's name in it by the one in diffusers (`blocks.0.attn1.to_q`); None where diffusers reads none.
        parts: what A [rank, in] and B [out, rank] are called.
        has_alpha: of which layers diffusers reads an alpha; into B of the others alpha / rank is multiplied.
        needed: ends of layers' names; diffusers reads a file only where each block has all of these.
    """

    prefix: str
    name: Callable[[str], str | None]
    parts: tuple[str, str] = ("lora_down", "lora_up")
    has_alpha: Callable[[str], bool] = _every
    needed: tuple[str, ...] = ()

    def lacking(self, layers: Collection[str]) -> list[str]:
        """The layers, by their names in diffusers, without which diffusers does not read a file of these."""
        blocks = {one.removesuffix(f".{end}") for one in layers for end in self.needed if one.endswith(f".{end}")}
        return [name for block in sorted(blocks) for end in self.needed if (name := f"{block}.{end}") not in layers]

    def spell(
        self, pairs: Mapping[str, tuple[Tensor, Tensor]], lora: LoraConfig, *, pipeline: Any, where: str
    ) -> dict[str, Tensor]:
        """The tensors of a file.

        Args:
            pairs: A [rank, in] and B [out, rank] by layer.
            lora: how they count.
            pipeline: the diffusers class that is to read the file.
            where: how errors name the format.

        Raises:
            ConfigError: it could not.
        """
        _refuse([layer for layer in pairs if self.name(layer) is None], "have no name in this format", where)
        _refuse(
            self.lacking(pairs), "are not trained: diffusers reads it where each block has all of its layers", where
        )
        tensors = {}
        for layer, (down, up) in pairs.items():
            stem, alpha = f"{self.prefix}{self.name(layer)}", self.has_alpha(layer)
            tensors[f"{stem}.{self.parts[0]}.weight"] = down
            tensors[f"{stem}.{self.parts[1]}.weight"] = up if alpha else up * lora.scale
            if alpha:
                tensors[f"{stem}.alpha"] = torch.tensor(lora.scale * lora.rank)
        try:  # of copies: some of the converters multiply in place
            read = pipeline.lora_state_dict({name: tensor.clone() for name, tensor in tensors.items()})
        except (KeyError, ValueError) as error:
            found = f"{pipeline.__name__} could not read a file of these layers: {error}"
            raise ConfigError(Problem(found, where, fix=_FIX)) from error
        come_back = {name.removeprefix("transformer.").partition(".lora_")[0] for name in read}
        _refuse([layer for layer in pairs if layer not in come_back], "would be lost when diffusers reads it", where)
        return tensors


def some(layers: Collection[str], shown: int = 3) -> str:
    """The first of many layers, and how many there are."""
    listed = ", ".join([*layers][:shown])
    return listed if len(layers) <= shown else f"{len(layers)} layers ({listed}, ...)"


_FIX = "take another --format, or train with other targets"


def _refuse(layers: Collection[str], what: str, where: str) -> None:
    if layers:
        raise ConfigError(Problem(f"{some(layers)} {what}", where, fix=_FIX))
