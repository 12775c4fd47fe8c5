"""A trained role as a complete diffusers folder, which the plain pipeline of its index loads."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from diffusers import DiffusionPipeline
from torch import Tensor

from fastvideo_core.errors import CheckpointError, Problem
from fastvideo_diffusers.pipeline_copy import ROOT_FILES, component_names, copy_parts, new_folder
from fastvideo_diffusers.pipeline_files import component_config
from fastvideo_diffusers.quiet import no_progress_bars

MAX_SHARD_SIZE = "5GB"
FIX = "name the pipeline that the role was trained from"


def export_pipeline(
    base_path: str,
    out: Path,
    modules: Mapping[str, Mapping[str, Tensor]],
    *,
    networks: Mapping[str, Any],
    scheduler: Mapping[str, Any] | None = None,
) -> None:
    """Writes the base pipeline with other networks.

    Args:
        base_path: folder or hub id whose other components are copied.
        out: the new folder; complete or absent, whatever happens.
        modules: state dicts by module name: {"transformer": ...}, stored in their own dtypes.
        networks: the base's by the same names, diffusers models on meta, as `loading.outline_model` gives them.
        scheduler: the whole configuration of the new pipeline's scheduler; None keeps the base's.

    Raises:
        ConfigError: `out` is not empty, or the base cannot be copied.
        CheckpointError: the state dicts do not fit the base's networks.
    """
    check_modules(modules, networks)
    for name, network in networks.items():
        _fill(network, modules[name], f"the {name}", base_path)
    with new_folder(Path(out)) as aside:
        _copy_components(base_path, aside, networks)
        with no_progress_bars():
            for name, network in networks.items():
                network.save_pretrained(aside / name, max_shard_size=MAX_SHARD_SIZE)
        if scheduler is not None:
            _write_json(aside / "scheduler" / "scheduler_config.json", scheduler)
            index = json.loads((aside / "model_index.json").read_text(encoding="utf-8"))
            if index["scheduler"][1] != scheduler["_class_name"]:
                _write_json(aside / "model_index.json", {**index, "scheduler": ["diffusers", scheduler["_class_name"]]})


def check_modules(modules: Mapping[str, Any], networks: Mapping[str, Any]) -> None:
    """A role's modules are those of the base.

    Raises:
        CheckpointError: it has others, or lacks one.
    """
    if set(modules) != set(networks):
        found = f"holds the modules {', '.join(modules) or 'none'}"
        raise CheckpointError(Problem(found, where="export", allowed=", ".join(networks)))


def _fill(network: Any, tensors: Mapping[str, Tensor], what: str, base_path: str) -> None:
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        network.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:
        found = f"its weights do not fit {what}: {' '.join(str(error).split())[:300]}"
        raise CheckpointError(Problem(found, where=f"export with base {base_path}", fix=FIX)) from error


def _copy_components(base_path: str, aside: Path, networks: Collection[str]) -> None:
    """The base's index, its license, and every component of the index but the networks."""
    names = component_names(component_config(DiffusionPipeline, base_path, None), where=f"base path ({base_path})")
    components = [name for name in names if name not in networks]
    source = Path(base_path)
    if not source.is_dir():
        from huggingface_hub import snapshot_download

        wanted = [*ROOT_FILES, *(f"{name}/*" for name in components)]
        source = Path(snapshot_download(base_path, allow_patterns=wanted))
    copy_parts(source, aside, components)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
