"""What a pipeline's configuration files say, and the reading of them that both generations share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastvideo_data.prompt_fit import FIRST, LAST, ImageUse
from fastvideo_diffusers.folder import PipelineFolder
from fastvideo_ltx.traits import Traits


@dataclass(frozen=True, kw_only=True)
class LtxFolder(PipelineFolder):
    """An LTX pipeline; `text_length` are the tokens of text that the pipeline gives to the network.

    Args:
        traits: of the generation that the folder's own index names.
        pipeline: name of the diffusers pipeline class in its index.
        facts: what only one generation has; part of the latent space.
    """

    layout = "[B, tokens, C]"

    traits: Traits
    pipeline: str
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def image_use(self) -> ImageUse:
        apart = self.traits.frames_apart(self.pipeline)
        return ImageUse(optional=(FIRST, LAST) if apart else (FIRST,), frames_apart=apart)

    @property
    def latent_space(self) -> dict[str, object]:
        return super().latent_space | {"generation": self.traits.name, **self.facts}
