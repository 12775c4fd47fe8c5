"""LoRA files as the values that a role's adapters start from."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from torch import Tensor

from fastvideo_core.config.run import LoraConfig
from fastvideo_core.errors import ConfigError, Problem
from fastvideo_diffusers.lora_file import LoraFile, tell_once
from fastvideo_diffusers.lora_formats import some

_MERGE = "merge it instead (merge_lora)"


def initial_adapters(
    files: Mapping[str, LoraFile], lora: LoraConfig, names: Collection[str], *, where: str
) -> dict[str, Tensor]:
    """The values of adapters by their names, float32; those that no file holds start as always, and are told.

    Args:
        files: by module, read as they were trained.
        lora: the role's adapters.
        names: theirs, `module.layer.lora_A.default.weight` and so on.
        where: how errors name the place that gave the files.

    Raises:
        ConfigError: rank or alpha of a file are not the role's, or it has layers or biases that the role does not train.
    """
    found: dict[str, Tensor] = {}
    problems = []
    for module, file in files.items():
        place = f"{where} ({file.path})"
        problems += [Problem(what, place, fix=fix) for what, fix in _misfits(file, lora)]
        own = {name.replace(".weight", ".default.weight"): one for name, one in file.tensors.items()}
        given = {f"{module}.{name}": one.float() for name, one in own.items() if name.endswith(".weight")}
        untrained = sorted({name.partition(".lora_")[0] for name in given if name not in names})
        if untrained:
            text = f"{some(untrained)} of the file are not among the role's targets, so that they would be lost"
            problems.append(Problem(text, place, fix="name their ends in lora.targets, or merge the file (merge_lora)"))
        found |= given
    if problems:
        raise ConfigError(problems)
    if afresh := sorted({name.partition(".lora_")[0] for name in names if name not in found}):
        tell_once(f"{where}: {some(afresh)} have no adapters in the file, and start at no effect")
    return found


def _misfits(file: LoraFile, lora: LoraConfig) -> list[tuple[str, str]]:
    """Why the adapters cannot be the file's, and what to do."""
    problems = []
    ranks = sorted({one.shape[0] for name, one in file.tensors.items() if name.endswith(".lora_A.weight")})
    alphas = sorted({scale for scale in file.scales.values() if not math.isclose(scale, lora.scale, rel_tol=1e-6)})
    if ranks != [lora.rank]:
        text = f"its adapters have rank {', '.join(map(str, ranks))}, and the role's lora.rank is {lora.rank}"
        problems.append((text, f"set rank: {ranks[0]}, or {_MERGE}" if len(ranks) == 1 else _MERGE))
    elif alphas:
        own, others = lora.scale * lora.rank, ", ".join(f"{scale * lora.rank:g}" for scale in alphas)
        text = f"its adapters have alpha {others} at rank {lora.rank}, and the role's lora.alpha is {own:g}"
        problems.append((text, f"set alpha: {others}, or {_MERGE}" if len({*file.scales.values()}) == 1 else _MERGE))
    if biases := [name.partition(".lora_")[0] for name in file.tensors if name.endswith(".bias")]:
        problems.append((f"it has biases of {some(biases)}, which adapters of a role have not", _MERGE))
    return problems
