"""Parquet data sets of latents and text embeddings: made from videos and captions, read as training batches.

`data_set` opens one, `data_sources` all of a run, `schema` is its format, `loading` makes its batches, `preprocessing` writes it
(the command is in `command`). `family` is the base of families on such data, with what `run_checks` finds before a run is built.
`encoder` is what a family offers to preprocess, `captions` embeds the prompts of a run, `video_sizes` are what a family can
encode, `prompt_fit` is what it can make of a prompt, `validation_prompts` and `video_validator` are a run's validation,
`model_sampler` samples a pipeline outside of one, and `video_files` reads and writes videos.

The names that plug-ins use are imported lazily from here, so that `import fastvideo_data` loads neither torch nor pyarrow.
"""

from __future__ import annotations

import importlib
from typing import Any

_EXPORTS = {
    "ParquetFamily": "family",
    "parquet_loader": "family",
    "DataSet": "data_set",
    "DataSources": "data_sources",
    "ParquetLoader": "loading.loader",
    "SourcesLoader": "loading.sources",
    "LatentEncoder": "encoder",
    "AudioEncoder": "encoder",
    "EncoderIdentity": "encoder",
    "CaptionCut": "captions",
    "CaptionEncoder": "captions",
    "PromptEmbeddings": "captions",
    "VideoGeometry": "video_sizes",
    "VideoSize": "video_sizes",
    "SamplingValidator": "video_validator",
    "prompts_of_run": "validation_prompts",
    "preprocess": "preprocessing.run",
    "PreprocessOptions": "preprocessing.clips",
    "Buckets": "preprocessing.buckets",
    "arrow_schema": "schema",
    "encode_tensor": "schema",
    "key_value_metadata": "schema",
    "write_part": "schema",
    "read_frames": "video_files",
    "write_video": "video_files",
    "PathSampler": "model_sampler",
    "fit_prompt": "prompt_fit",
    "ImageUse": "prompt_fit",
    "PromptImages": "prompt_fit",
    "data_free_size": "video_sizes",
    "cut_of": "captions",
}

__all__ = [*_EXPORTS]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'fastvideo_data' has no attribute '{name}'")
    return getattr(importlib.import_module(f"fastvideo_data.{_EXPORTS[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
