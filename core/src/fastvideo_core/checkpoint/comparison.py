"""What of a stored state does not fit into a run, as messages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from fastvideo_core.errors import Problem

_OTHER_RUN = "resume with the run.yaml that lies in the checkpoint, or start a new run from its weights"
_SHOWN = 5  # names listed per problem


def compare_states(stored: Mapping[str, Any], live: Mapping[str, Any], *, data: bool) -> list[Problem]:
    """Compares weights, optimizers, schedulers and, with `data`, whether there is a position in the data."""
    problems = compare_names("saved role", stored["roles"], live["roles"])
    for role in _both(stored["roles"], live["roles"]):
        where = f"role '{role}'"
        kept, now = stored["roles"][role], live["roles"][role]
        problems += compare_names("module", kept, now, where)
        for module in _both(kept, now):
            problems += compare_tensors(kept[module], now[module], f"{where}, module '{module}'")
        for kind, section in (("optimizer", "optimizers"), ("lr scheduler", "lr_schedulers")):
            problems += compare_names(kind, stored[section][role], live[section][role], where)
        kept, now = stored["optimizers"][role], live["optimizers"][role]
        for name in _both(kept, now):
            problems += _compare_groups(kept[name]["param_groups"], now[name]["param_groups"], optimizer_of(role, name))
    if data and (stored["dataloader"] is None) != (live["dataloader"] is None):
        no_position = "it holds no position in the data, but this run's dataloader needs one"
        no_reader = "it holds the position in the data, but this run's dataloader cannot resume"
        problems.append(Problem(no_position if stored["dataloader"] is None else no_reader, fix=_OTHER_RUN))
    return problems


def compare_names(kind: str, stored: Iterable[str], live: Iterable[str], where: str = "") -> list[Problem]:
    """Names that only one of the two has."""
    kept, now = dict.fromkeys(stored), dict.fromkeys(live)
    missing, extra = [name for name in now if name not in kept], [name for name in kept if name not in now]
    told = (
        (missing, f"it has no {kind} {_some(missing)}, which this run has", f"the checkpoint has: {_some(kept)}"),
        (extra, f"it has the {kind} {_some(extra)}, which this run has not", f"this run has: {_some(now)}"),
    )
    return [Problem(found, where, allowed, _OTHER_RUN) for names, found, allowed in told if names]


def compare_tensors(stored: Mapping[str, Tensor], live: Mapping[str, Tensor], where: str) -> list[Problem]:
    """Names that only one of the two has, and tensors of another shape or dtype."""
    differing = [
        f"'{name}' is {_form(stored[name])} in the checkpoint and {_form(live[name])} in this run"
        for name in _both(stored, live)
        if _form(stored[name]) != _form(live[name])
    ]
    problems = compare_names("parameter", stored, live, where)
    return [*problems, Problem(_some(differing, "; "), where, fix=_OTHER_RUN)] if differing else problems


def optimizer_of(role: str, name: str) -> str:
    """How messages call an optimizer."""
    return f"optimizer '{name}' of role '{role}'"


def _compare_groups(stored: list[Any], live: list[Any], where: str) -> list[Problem]:
    problems = []
    if len(stored) != len(live):
        found = f"it has {len(stored)} parameter groups, this run has {len(live)}"
        problems.append(Problem(found, where, fix=_OTHER_RUN))
    for index, (kept, now) in enumerate(zip(stored, live, strict=False)):
        problems += compare_names("parameter", kept["params"], now["params"], f"{where}, group {index}")
    return problems


def _both(stored: Mapping[str, Any], live: Mapping[str, Any]) -> list[str]:
    return [name for name in live if name in stored]


def _form(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"


def _some(names: Iterable[str], separator: str = ", ") -> str:
    names = list(names)
    more = f"{separator}... and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return separator.join(names[:_SHOWN]) + more or "none"
