"""Sampling with the transformer of a folder: what `sample` calls."""

from __future__ import annotations

import torch

from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_core.contracts.sampler import PathSampler, StudentSchedule
from fastvideo_data.captions import PromptEmbeddings
from fastvideo_diffusers.folder import TRANSFORMER
from fastvideo_ltx.batches import layout_of_video
from fastvideo_ltx.config import LtxConfig
from fastvideo_ltx.generations import open_folder
from fastvideo_ltx.run import check_streams
from fastvideo_ltx.schedule import resolve_flow_shift


def build_sampler(
    model_path: str, pipeline_config: LtxConfig, *, device: torch.device, dtype: torch.dtype = torch.float32
) -> PathSampler:
    """A sampler for the pipeline at `model_path`; videos have the generation's own size unless a prompt says otherwise.

    Args:
        model_path: folder or hub id.
        pipeline_config: shift, sampler kind, negative prompt; of a run it names the tokens that its shift was taken at,
            without them it is that of the generation's own size.
        device: where everything runs.
        dtype: of transformer and text encoder; the VAE is float32.

    Raises:
        ConfigError: the path holds no LTX pipeline, or not the streams that are asked for.
    """
    folder = open_folder(model_path, where="model path")
    check_streams(pipeline_config, folder)
    generation = folder.generation
    transformer = generation.load_transformer(model_path, dtype=dtype, device=device, where="model path")
    encoder = generation.caption_encoder(folder, device=device, dtype=dtype, where="model path")
    prompts = PromptEmbeddings(encoder, keep_encoder=True)
    size = generation.size
    layout = layout_of_video(folder, size)
    adapter = generation.adapter(
        folder,
        config=pipeline_config,
        flow_shift=resolve_flow_shift(folder, pipeline_config, tokens=layout.video),
        device=device,
        training=None,
        autocast=False,
        prompts=prompts,
        negative_prompt=pipeline_config.negative_text(generation.negative_prompt),
    )
    sampler = generation.sampler(
        folder, adapter=adapter, config=pipeline_config, device=device, prompts=prompts, size=size, autocast=False
    )
    handle = RoleHandle("student", {TRANSFORMER: transformer.requires_grad_(False)}, family="ltx")
    student = StudentSchedule.exported(folder.marked, where=f"{model_path}/scheduler")
    return PathSampler(handle, sampler, student)
