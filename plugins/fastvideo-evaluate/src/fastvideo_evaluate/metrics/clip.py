"""Whether videos show what their prompts say, by a CLIP model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from fastvideo_evaluate.metrics import optional
from fastvideo_evaluate.metrics.contract import Sample, VideoMetric

NAME = "clip_similarity"
FRAMES = 8
NEEDS = "the folder of a CLIP model in transformers' format, or its hub id in the local cache"
GET = "hf download openai/clip-vit-large-patch14 --local-dir FOLDER"


class ClipSimilarity(VideoMetric):
    """The mean cosine between a prompt and FRAMES frames of its video, evenly spread (Hessel et al. 2021, unscaled)."""

    unit, better = "-1 to 1", "higher"

    def __init__(self, *, weights: str = "", device: str = "cpu") -> None:
        super().__init__(weights=weights, device=device)
        transformers = optional.package(NAME, "transformers", "'fastvideo-evaluate[clip]'")
        is_hub_id = weights.count("/") == 1 and not Path(weights).parent.exists()
        given = weights if is_hub_id else str(optional.weights(NAME, weights, NEEDS, GET))
        try:
            model, info = transformers.CLIPModel.from_pretrained(given, local_files_only=True, output_loading_info=True)
            self._processor = transformers.CLIPProcessor.from_pretrained(given, local_files_only=True)
        except Exception as error:
            raise optional.unreadable(NAME, weights, NEEDS, GET, error) from error
        if missing := sorted(info["missing_keys"]):
            raise optional.unreadable(NAME, weights, NEEDS, GET, f"it has no {missing[0]}, which a CLIP model has")
        self._model = model.to(device).eval()

    @torch.no_grad()
    def measure(self, video: Sample) -> float:
        chosen = np.linspace(0, len(video.frames) - 1, min(FRAMES, len(video.frames))).round().astype(int)
        inputs = self._processor(
            text=[video.prompt],
            images=list(video.frames[chosen]),
            return_tensors="pt",
            padding=True,
            truncation=True,
            max_length=self._model.config.text_config.max_position_embeddings,
        ).to(self.device)
        found = self._model(**inputs)
        return float((found.image_embeds @ found.text_embeds.T).mean())
