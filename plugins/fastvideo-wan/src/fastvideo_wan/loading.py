"""Weights of a Wan pipeline, through diffusers' and transformers' own loading code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from torch import nn
from transformers import AutoTokenizer, PreTrainedTokenizerBase, UMT5EncoderModel

from fastvideo_core.errors import ConfigError, foreign_file
from fastvideo_diffusers.hub import unreadable_pipeline
from fastvideo_diffusers.pipeline_files import DAMAGED, check_undamaged, has_weights
from fastvideo_diffusers.safetensors_weights import SafetensorsWeights, check_complete, check_fit
from fastvideo_wan.folder import COMPONENTS, TRANSFORMER, open_folder
from fastvideo_wan.network import keep_time_embedder_in_float32
from fastvideo_wan.quiet import no_progress_bars


def load_transformer(
    path: str, *, dtype: torch.dtype, device: torch.device, where: str = "path"
) -> WanTransformer3DModel:
    """The denoising network, in eval mode, a module of its own at every call.

    With bfloat16, the modules that diffusers lists in `_keep_in_fp32_modules` (time embedder, modulation tables, norms)
    stay in float32.

    Raises:
        ConfigError: the weights cannot be read, or do not fit the configuration.
    """
    with _readable(path, "transformer", where):
        transformer, report = WanTransformer3DModel.from_pretrained(
            path,
            subfolder="transformer",
            torch_dtype=dtype,
            use_safetensors=True,
            low_cpu_mem_usage=True,
            output_loading_info=True,
        )
    check_complete(report, f"{where} ({path}/transformer)")
    keep_time_embedder_in_float32(transformer)
    return transformer.to(device).eval()


def meta_transformer(path: str, *, dtype: torch.dtype, where: str = "path") -> WanTransformer3DModel:
    """The denoising network as `load_transformer` gives it, but with its parameters on meta; buffers hold their values.

    Raises:
        ConfigError: the configuration cannot be read.
    """
    with _readable(path, "transformer", where), init_empty_weights(include_buffers=False):
        config = WanTransformer3DModel.load_config(path, subfolder="transformer")
        transformer = WanTransformer3DModel.from_config(config)
    islands = set(WanTransformer3DModel._keep_in_fp32_modules or ())
    for name, parameter in list(transformer.named_parameters()):
        if not islands.intersection(name.split(".")):
            owner, _, own = name.rpartition(".")
            cast = nn.Parameter(parameter.to(dtype), requires_grad=parameter.requires_grad)
            setattr(transformer.get_submodule(owner), own, cast)
    keep_time_embedder_in_float32(transformer)
    return transformer.eval()


def transformer_weights(path: str, *, where: str = "path") -> SafetensorsWeights:
    """The stored weights of the denoising network, to be read in parts; of a hub id once they are downloaded.

    Raises:
        ConfigError: there are none, or they are damaged.
    """
    folder = component_folder(path, TRANSFORMER, where=where)
    assert folder is not None
    return SafetensorsWeights({TRANSFORMER: folder}, where=where)


def component_folder(path: str, subfolder: str, *, where: str, download: bool = True) -> Path | None:
    """Where the stored weights of a component are; of a hub id in the hub's cache, once they are fetched.

    Args:
        download: whether they may be fetched.

    Returns:
        None where they are not on this machine and may not be fetched.

    Raises:
        ConfigError: they cannot be fetched.
    """
    folder = Path(path)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        with _readable(path, subfolder, where):
            try:
                wanted = [f"{subfolder}/*"]
                folder = Path(snapshot_download(path, allow_patterns=wanted, local_files_only=not download))
            except LocalEntryNotFoundError:
                if download:
                    raise
                return None
        if not download and not has_weights(folder / subfolder, where=f"{where} ({path})"):
            return None
    return folder / subfolder


def outline_transformer(path: str, *, where: str = "path") -> WanTransformer3DModel:
    """The denoising network on the meta device: names, shapes and architecture without weights.

    Raises:
        ConfigError: the configuration cannot be read.
    """
    return _outline(WanTransformer3DModel, path, TRANSFORMER, where)


def _outline(kind: Any, path: str, subfolder: str, where: str) -> Any:
    with _readable(path, subfolder, where), torch.device("meta"):
        return kind.from_config(kind.load_config(path, subfolder=subfolder))


def check_weights(path: str, *, where: str, encodes: bool, decodes: bool) -> None:
    """A pipeline's weights are those that its configurations describe, by the headers of their files; the tokenizer can be used.

    What is only at the hub yet is told when it is loaded.

    Args:
        encodes: whether its text encoder is used.
        decodes: whether its VAE is.

    Raises:
        ConfigError: they are not.
    """
    kinds = {TRANSFORMER: WanTransformer3DModel, **({"vae": AutoencoderKLWan} if decodes else {})}
    for subfolder, kind in kinds.items():
        if (folder := component_folder(path, subfolder, where=where, download=False)) is not None:
            check_fit(_outline(kind, path, subfolder, where), folder, where=where)
    if encodes and Path(path).is_dir():
        _load_tokenizer(path, where=where)
        with _readable(path, "text_encoder", where), torch.device("meta"):
            encoder = UMT5EncoderModel(UMT5EncoderModel.config_class.from_pretrained(path, subfolder="text_encoder"))
        check_fit(encoder, Path(path) / "text_encoder", where=where, whole=False)


def outline_role(path: str) -> dict[str, nn.Module]:
    """A role's networks on the meta device, by module name.

    Raises:
        ConfigError: the path holds no complete Wan 2.1 text-to-video pipeline, or a damaged one.
    """
    open_folder(path, where="path")
    check_undamaged(path, COMPONENTS, where="path")
    return {TRANSFORMER: outline_transformer(path)}


def load_vae(path: str, *, device: torch.device, where: str = "path") -> AutoencoderKLWan:
    """The autoencoder, float32, frozen, in eval mode.

    Raises:
        ConfigError: as `load_transformer`.
    """
    with _readable(path, "vae", where):
        vae, report = AutoencoderKLWan.from_pretrained(
            path,
            subfolder="vae",
            torch_dtype=torch.float32,
            use_safetensors=True,
            low_cpu_mem_usage=True,
            output_loading_info=True,
        )
    check_complete(report, f"{where} ({path}/vae)")
    return vae.to(device).eval().requires_grad_(False)


def load_text_encoder(
    path: str, *, dtype: torch.dtype, device: torch.device, where: str = "path"
) -> tuple[PreTrainedTokenizerBase, UMT5EncoderModel]:
    """The tokenizer and the text encoder, frozen, in eval mode.

    Raises:
        ConfigError: as `load_transformer`.
    """
    tokenizer = _load_tokenizer(path, where=where)
    with _readable(path, "text_encoder", where):
        encoder, report = UMT5EncoderModel.from_pretrained(
            path, subfolder="text_encoder", dtype=dtype, use_safetensors=True, output_loading_info=True
        )
    check_complete(report, f"{where} ({path}/text_encoder)")
    return tokenizer, encoder.to(device).eval().requires_grad_(False)


def _load_tokenizer(path: str, *, where: str) -> PreTrainedTokenizerBase:
    """The tokenizer, read from its folder also where `path` is a hub id: transformers asks the hub for files that a tokenizer may
    have, and offline it gives up on those that are not cached.

    Raises:
        ConfigError: it cannot be read.
    """
    folder = component_folder(path, "tokenizer", where=where)
    with _readable(path, "tokenizer", where):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
        # What cannot be used is found here.
        tokenizer("a")
        tokenizer("a", padding="max_length", max_length=8, truncation=True)
    return tokenizer


@contextmanager
def _readable(path: str, subfolder: str, where: str) -> Iterator[None]:
    # diffusers draws initial values on the CPU before it overwrites them.
    guard = foreign_file(f"{where} ({path}/{subfolder})", f"{subfolder} of a pipeline", ConfigError, DAMAGED)
    with guard, no_progress_bars(), torch.random.fork_rng(devices=[]):
        try:
            yield
        except (OSError, ValueError) as error:
            if Path(path).is_dir():
                raise
            allowed = f"a folder or hub id that holds {subfolder}/"
            raise unreadable_pipeline(path, f"{subfolder}/", error, where=where, allowed=allowed) from error
