"""A trained role as a complete diffusers folder, which the plain pipeline of its index loads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusers import DiffusionPipeline
from torch import Tensor

from fastvideo_core.errors import CheckpointError, Problem
from fastvideo_diffusers.folder import TRANSFORMER
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
    transformer: Any,
    scheduler: Mapping[str, Any] | None = None,
) -> None:
    """Writes the base pipeline with another transformer.

    Args:
        base_path: folder or hub id whose other components are copied.
        out: the new folder; complete or absent, whatever happens.
        modules: state dicts by module name: {"transformer": ...}, stored in their own dtypes.
        transformer: the base's, a diffusers model on meta, as `loading.outline_model` gives it.
        scheduler: the whole configuration of the new pipeline's scheduler; None keeps the base's.

    Raises:
        ConfigError: `out` is not empty, or the base cannot be copied.
        CheckpointError: the state dict does not fit the base's transformer.
    """
    _fill(transformer, modules, base_path)
    with new_folder(Path(out)) as aside:
        _copy_components(base_path, aside)
        with no_progress_bars():
            transformer.save_pretrained(aside / TRANSFORMER, max_shard_size=MAX_SHARD_SIZE)
        if scheduler is not None:
            _write_json(aside / "scheduler" / "scheduler_config.json", scheduler)
            index = json.loads((aside / "model_index.json").read_text(encoding="utf-8"))
            if index["scheduler"][1] != scheduler["_class_name"]:
                _write_json(aside / "model_index.json", {**index, "scheduler": ["diffusers", scheduler["_class_name"]]})


def only_transformer(modules: Mapping[str, Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
    """The tensors of a role's one module.

    Raises:
        CheckpointError: it has other modules.
    """
    if set(modules) != {TRANSFORMER}:
        found = f"holds the modules {', '.join(modules) or 'none'}"
        raise CheckpointError(Problem(found, where="export", allowed=TRANSFORMER))
    return modules[TRANSFORMER]


def _fill(transformer: Any, modules: Mapping[str, Mapping[str, Tensor]], base_path: str) -> None:
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in only_transformer(modules).items()}
    try:
        transformer.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:
        found = f"its weights do not fit the transformer: {' '.join(str(error).split())[:300]}"
        raise CheckpointError(Problem(found, where=f"export with base {base_path}", fix=FIX)) from error


def _copy_components(base_path: str, aside: Path) -> None:
    """The base's index, its license, and every component of the index but the transformer."""
    names = component_names(component_config(DiffusionPipeline, base_path, None), where=f"base path ({base_path})")
    components = [name for name in names if name != TRANSFORMER]
    source = Path(base_path)
    if not source.is_dir():
        from huggingface_hub import snapshot_download

        wanted = [*ROOT_FILES, *(f"{name}/*" for name in components)]
        source = Path(snapshot_download(base_path, allow_patterns=wanted))
    copy_parts(source, aside, components)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
