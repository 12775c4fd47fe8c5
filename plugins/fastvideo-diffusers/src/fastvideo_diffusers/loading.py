"""Weights of a pipeline's components, through diffusers' and transformers' own loading code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import nn
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from fastvideo_core.errors import ConfigError, foreign_file
from fastvideo_diffusers.hub import unreadable_pipeline
from fastvideo_diffusers.pipeline_files import DAMAGED, component_config, has_weights
from fastvideo_diffusers.quiet import no_progress_bars
from fastvideo_diffusers.safetensors_weights import SafetensorsWeights, check_complete, check_fit


def load_model(
    kind: Any, path: str, subfolder: str, *, dtype: torch.dtype, device: torch.device, where: str = "path"
) -> Any:
    """A diffusers model of class `kind`, in eval mode, a module of its own at every call.

    In bfloat16, the modules that diffusers lists in its `_keep_in_fp32_modules` stay in float32.

    Args:
        kind: with `from_pretrained`, `load_config` and `from_config`.
        path: folder or hub id of the pipeline.
        subfolder: of the component.
        where: how errors name the place that gave the path.

    Raises:
        ConfigError: the weights cannot be read, or do not fit the configuration.
    """
    with readable(path, subfolder, where):
        model, report = kind.from_pretrained(
            path,
            subfolder=subfolder,
            torch_dtype=dtype,
            use_safetensors=True,
            low_cpu_mem_usage=True,
            output_loading_info=True,
        )
    check_complete(report, f"{where} ({path}/{subfolder})")
    return model.to(device).eval()


def meta_model(kind: Any, path: str, subfolder: str, *, dtype: torch.dtype, where: str = "path") -> Any:
    """The model as `load_model` gives it, but with its parameters on meta; buffers hold their values.

    Raises:
        ConfigError: the configuration cannot be read.
    """
    with readable(path, subfolder, where), init_empty_weights(include_buffers=False):
        model = kind.from_config(component_config(kind, path, subfolder))
    islands = set(kind._keep_in_fp32_modules or ())
    for name, parameter in list(model.named_parameters()):
        if not islands.intersection(name.split(".")):
            owner, _, own = name.rpartition(".")
            cast = nn.Parameter(parameter.to(dtype), requires_grad=parameter.requires_grad)
            setattr(model.get_submodule(owner), own, cast)
    return model.eval()


def stored_weights(path: str, *subfolders: str, where: str = "path") -> SafetensorsWeights:
    """The stored weights of components, to be read in parts; of a hub id once they are downloaded.

    Raises:
        ConfigError: there are none, or they are damaged.
    """
    folders = {}
    for subfolder in subfolders:
        folder = component_folder(path, subfolder, where=where)
        assert folder is not None
        folders[subfolder] = folder
    return SafetensorsWeights(folders, where=where)


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

        with readable(path, subfolder, where):
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


def outline_model(kind: Any, path: str, subfolder: str, *, where: str = "path") -> Any:
    """A diffusers model on the meta device: names, shapes and architecture without weights.

    Raises:
        ConfigError: the configuration cannot be read.
    """
    with readable(path, subfolder, where), torch.device("meta"):
        config = component_config(kind, path, subfolder)
        return kind.from_config(config)


def check_weights(
    path: str, kinds: Mapping[str, Any], *, where: str, tokenizer: bool = False, tokenizer_pads: bool = True
) -> None:
    """A pipeline's weights are those that its configurations describe, by the headers of their files.

    Args:
        kinds: the class of each component that is compared, by sub-folder.
        tokenizer: whether the tokenizer of a folder must be usable too; `tokenizer_pads` as in `load_tokenizer`.

    Raises:
        ConfigError: they are not.
    """
    if tokenizer and Path(path).is_dir():
        load_tokenizer(path, where=where, pads=tokenizer_pads)
    for subfolder, kind in kinds.items():
        check_model(kind, path, subfolder, where=where)


def check_model(kind: Any, path: str, subfolder: str, *, where: str) -> None:
    """A component's weights are those that its configuration describes, by the headers of their files.

    What is only at the hub yet is told when it is loaded.

    Args:
        kind: its class, of diffusers or transformers; the latter rename tensors when they load, so that only shapes are compared.

    Raises:
        ConfigError: they are not.
    """
    if (folder := component_folder(path, subfolder, where=where, download=False)) is None:
        return
    if hasattr(kind, "from_config"):
        check_fit(outline_model(kind, path, subfolder, where=where), folder, where=where)
        return
    with readable(path, subfolder, where), torch.device("meta"):
        model = kind(kind.config_class.from_pretrained(str(folder)))
    check_fit(model, folder, where=where, whole=False)


def load_frozen(
    kind: Any,
    path: str,
    subfolder: str,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device,
    where: str = "path",
) -> Any:
    """As `load_model`, without gradients: autoencoders, vocoders and the like."""
    return load_model(kind, path, subfolder, dtype=dtype, device=device, where=where).requires_grad_(False)


def load_text_model(
    kind: Any, path: str, subfolder: str, *, dtype: torch.dtype, device: torch.device, where: str
) -> Any:
    """A transformers model of class `kind`, frozen, in eval mode.

    Raises:
        ConfigError: as `load_model`.
    """
    with readable(path, subfolder, where):
        model, report = kind.from_pretrained(
            path, subfolder=subfolder, dtype=dtype, use_safetensors=True, output_loading_info=True
        )
    check_complete(report, f"{where} ({path}/{subfolder})")
    return model.to(device).eval().requires_grad_(False)


def load_tokenizer(path: str, *, where: str, pads: bool = True) -> PreTrainedTokenizerBase:
    """The tokenizer, read from its folder also where `path` is a hub id: transformers asks the hub for files that a tokenizer may
    have, and offline it gives up on those that are not cached.

    Args:
        pads: whether it must have a padding token of its own.

    Raises:
        ConfigError: it cannot be read.
    """
    folder = component_folder(path, "tokenizer", where=where)
    with readable(path, "tokenizer", where):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
        # What cannot be used is found here.
        tokenizer("a")
        tokenizer("a", padding="max_length" if pads else False, max_length=8, truncation=True)
    return tokenizer


@contextmanager
def readable(path: str, subfolder: str, where: str) -> Iterator[None]:
    """Inside, what cannot be read becomes a ConfigError that names the component; random state and output stay."""
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
