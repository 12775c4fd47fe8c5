"""An optimizer's state by parameter name instead of by position, exact to the bit.

Not torch's `get_optimizer_state_dict`: it steps an optimizer that has not stepped yet, so that the moments of a student who
learns every second step would begin one step late (test_a_resumed_run_continues_bit_identically).
"""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from fastvideo_core.checkpoint.stored_state import StoredTensor

logger = logging.getLogger(__name__)


def collect(optimizer: Optimizer, names: Mapping[int, str], where: str) -> dict[str, Any]:
    """`{"param_groups": [{"params": [name, ...], option: value, ...}], "state": {name: {key: value}}}`.

    A parameter that was never stepped has no entry under "state". `names` are by id of the parameter. Raises TypeError where
    the optimizer has a parameter without a name, or state that belongs to no parameter.
    """
    groups, state = [], {}
    for group in optimizer.param_groups:
        for index, parameter in enumerate(group["params"]):
            if id(parameter) not in names:
                shape = list(parameter.shape)
                raise TypeError(f"{where}: its parameter {index} of shape {shape} belongs to no role")
            if parameter in optimizer.state:
                state[names[id(parameter)]] = dict(optimizer.state[parameter])
        groups.append({**group, "params": [names[id(parameter)] for parameter in group["params"]]})
    if len(state) != len(optimizer.state):
        raise TypeError(f"{where}: {type(optimizer).__name__} keeps state that belongs to none of its parameters")
    return {"param_groups": groups, "state": state}


def restore(optimizer: Optimizer, stored: dict[str, Any], names: Mapping[int, str], where: str) -> None:
    """Puts the state of `collect` into an optimizer over the same parameter names.

    Options that the run's configuration changed since (learning rate, betas, weight decay, ...) keep their new value, and
    the log says so; `restore_scheduler` sets a scheduled learning rate anew. `Optimizer.load_state_dict` is not used:
    it goes by position and casts moments to the parameters' dtype.
    """
    optimizer.state.clear()
    for group, saved in zip(optimizer.param_groups, stored["param_groups"], strict=True):
        for parameter in group["params"]:
            if names[id(parameter)] in stored["state"]:
                optimizer.state[parameter] = stored["state"][names[id(parameter)]]
        base = "initial_lr" if "initial_lr" in group and "initial_lr" in saved else "lr"
        for key, value in saved.items():
            if key in group and key not in ("params", "lr") and not _same(group[key], value):
                _log_change(where, key, value, group[key])
        if _same(group[base], saved[base]):
            group["lr"] = saved["lr"]
        elif base == "initial_lr":
            group["lr"] = saved["lr"] / saved[base] * group[base] if saved[base] else group[base]
        else:
            _log_change(where, "lr", saved["lr"], group["lr"])
        group.update({key: value for key, value in saved.items() if key not in group})


def restore_scheduler(scheduler: LRScheduler, stored: dict[str, Any], where: str) -> None:
    """Puts a schedule where it was, over an optimizer that `restore` has restored.

    What run.yaml says counts from the first step on: a schedule whose rates follow from the number of updates alone (a
    LambdaLR, as core's are) gives the rate for its place. Any other goes on from the checkpoint's rate; the log says so
    where the base rate was changed.
    """
    scheduler.load_state_dict(stored)
    groups = scheduler.optimizer.param_groups
    then = [group["lr"] for group in groups]
    bases = [group.get("initial_lr", group["lr"]) for group in groups]
    changed = not _same(bases, stored.get("base_lrs", bases))
    scheduler.base_lrs = bases
    if not isinstance(scheduler, LambdaLR):
        if changed:
            logger.warning("%s: a %s goes on from %s, not anew", where, type(scheduler).__name__, then)
        return
    for group, base, factor in zip(groups, bases, scheduler.lr_lambdas, strict=True):
        group["lr"] = base * factor(scheduler.last_epoch)
    scheduler._last_lr = [group["lr"] for group in groups]
    if scheduler._last_lr != then:
        now, before = (", ".join(dict.fromkeys(f"{float(one):.3g}" for one in lr)) for lr in (scheduler._last_lr, then))
        counts = "this run's schedule counts from the first step on"
        logger.warning("%s: %s: the rate is %s (by the checkpoint's it was %s)", where, counts, now, before)


def memory_for(optimizer: Optimizer, stored: dict[str, Any], names: Mapping[int, str]) -> dict[str, Tensor]:
    """Memory for the StoredTensors under "state", by key; laid out like the parameters where shapes are equal."""
    memory: dict[str, Tensor] = {}
    for group, options in zip(optimizer.param_groups, stored["param_groups"], strict=True):
        # torch keeps step counters on the CPU unless the update itself runs from the device
        on_device = bool(options.get("capturable") or options.get("fused"))
        for parameter in group["params"]:
            for key, one in stored["state"].get(names[id(parameter)], {}).items():
                if not isinstance(one, StoredTensor):
                    continue
                if one.shape == parameter.shape and key != "step":
                    memory[one.key] = torch.empty_like(parameter, dtype=one.dtype, requires_grad=False)
                else:
                    device = parameter.device if on_device or key != "step" else "cpu"
                    memory[one.key] = torch.empty(one.shape, dtype=one.dtype, device=device)
    return memory


def _log_change(where: str, key: str, then: Any, now: Any) -> None:
    name = "learning rate" if key in ("lr", "initial_lr") else key
    found = f"{where}: {name} was {then} in the checkpoint; this run's configuration says {now}, and counts"
    logger.warning("%s", found)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        return bool(torch.equal(torch.as_tensor(one), torch.as_tensor(other)))
    return bool(one == other)
