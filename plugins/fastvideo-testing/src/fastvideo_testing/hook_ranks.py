"""Hooks in two processes: collectives that one of them alone calls, and answers that differ, are told before anything waits."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import Store
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

from fastvideo_core.distributed import context
from fastvideo_core.registry import PluginRegistry
from fastvideo_testing.hook_calls import HookWatch, watched
from fastvideo_testing.ranks import run_ranks
from fastvideo_testing.runs import build_run, toy_world

ALONE = ("checkpoint_saved", "exception")
"""Hooks that may call no collectives: one runs on the main process alone, at the other processes may be gone."""

_SAID = "problem.txt"
_LIMIT = timedelta(minutes=4)  # only a process that died, or waits for this one elsewhere, reaches it


class HooksDiffer(BaseException):
    """What two processes do differently in a hook; no `except Exception` of a callback holds it up."""


class _Collectives(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Tells `watch` of every collective before it is made."""

    def __init__(self, watch: Agreement) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._watch = watch

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(issubclass(one, DTensor) for one in types):
            return NotImplemented  # it comes again with the tensors of this process
        name = func.overloadpacket.__name__.strip("_")
        to_one = name.startswith(("send", "recv", "wait_tensor"))
        if func.namespace in ("c10d", "_c10d_functional") and not to_one:
            self._watch.collective(name)
        return func(*args, **(kwargs or {}))


class Agreement(HookWatch):
    """Compares, hook by hook, what this process does with what the other does."""

    def __init__(self, store: Store, folder: Path) -> None:
        self._store, self._folder = store, folder
        self._rank, self._calls, self._hook, self._step, self._made = context.rank(), 0, "", None, 0
        self._mode: _Collectives | None = None
        self._known: set[str] = set()

    def before(self, hook: str, arguments: Mapping[str, Any]) -> None:
        self._hook, self._step, self._made = hook, arguments.get("step"), 0
        self._known = set(arguments.get("metrics", ()))
        if hook not in ALONE:
            self._calls += 1
        self._mode = _Collectives(self)
        self._mode.__enter__()  # type: ignore[no-untyped-call]

    def after(self, hook: str, arguments: Mapping[str, Any], returned: Any) -> None:
        if hook in ALONE:
            return
        metrics = arguments.get("metrics", {})
        tensors = [name for name, value in metrics.items() if isinstance(value, Tensor) and name not in self._known]
        stops = bool(returned) if hook == "stop_requested" else None
        mine, other = self._exchange({"made": None, "stops": stops, "tensors": sorted(tensors)})
        if other["made"] is not None:
            self._fail(self._alone(other["made"], 1 - self._rank))
        if mine["stops"] != other["stops"]:
            self._fail(
                f"stop_requested answers {mine['stops']} on process {self._rank} and {other['stops']} on the other: one "
                "would end and the other wait for it; decide by what all have (context.from_main gives the main process's word)"
            )
        if mine["tensors"] != other["tensors"]:
            differing = sorted(set(mine["tensors"]) ^ set(other["tensors"]))
            self._fail(
                f"{self._place()} adds the metric {differing[0]!r} on one process alone: a tensor is logged as the mean over "
                "all of them, so each must add it, or the main process a plain number"
            )

    def left(self) -> None:
        assert self._mode is not None
        self._mode.__exit__(None, None, None)  # type: ignore[no-untyped-call]

    def collective(self, name: str) -> None:
        """This process is about to make one."""
        if self._hook in ALONE:
            why = (
                "runs on the main process alone"
                if self._hook == "checkpoint_saved"
                else "may run when the others are gone"
            )
            self._fail(f"{self._hook} calls the collective {name}, but {why}: the call would never end")
        _, other = self._exchange({"made": name})
        self._made += 1
        if other["made"] is None:
            self._fail(self._alone(name, self._rank))
        if other["made"] != name:
            self._fail(
                f"{self._place()} calls {name} on one process while the other calls {other['made']}: order them alike"
            )

    def _exchange(self, mine: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """What this process and the other do next in this call."""
        key = f"{self._calls}/{self._hook}/{self._made}"
        self._store.set(f"{key}/{self._rank}", json.dumps(mine))
        return mine, json.loads(self._store.get(f"{key}/{1 - self._rank}"))

    def _alone(self, name: str, rank: int) -> str:
        return (
            f"{self._place()} calls the collective {name} on process {rank} and not on the other: it would wait for ever, or "
            "pair with another call. Hooks run on all processes: call collectives on all of them, outside of `if "
            "context.is_main_process()`, and only write what they gave inside of it"
        )

    def _place(self) -> str:
        return self._hook if self._step is None else f"{self._hook} of step {self._step}"

    def _fail(self, problem: str) -> None:
        (self._folder / _SAID).write_text(problem, encoding="utf-8")
        raise HooksDiffer(problem)


def train_in_two_processes(folder: Path, run: Mapping[str, Any], files: Sequence[str], plugin: str) -> None:
    """Trains with the callback in two processes.

    Raises:
        AssertionError: what its hooks do that several processes must not; or the end of what a failed process printed.
    """
    arguments = {"folder": str(folder), "run": json.loads(json.dumps(run)), "files": files, "plugin": plugin}
    try:
        run_ranks(f"{__name__}:train", arguments, world_size=2)
    except AssertionError:
        if (folder / _SAID).exists():
            raise AssertionError((folder / _SAID).read_text(encoding="utf-8")) from None
        raise


def train(folder: str, run: Mapping[str, Any], files: Sequence[str], plugin: str) -> None:
    """In each process of a group of two: trains, and calls the hook of a failing run at the end."""
    own = Path(folder) / f"rank-{context.rank()}"
    own.mkdir()
    store = dist.FileStore(str(Path(folder) / "store"), 2)  # type: ignore[attr-defined]
    store.set_timeout(_LIMIT)
    with toy_world(*files):
        registry = PluginRegistry()
        callback: Any = registry.resolve(registry.get("callbacks", plugin), "impl")
        with watched(callback, Agreement(store, Path(folder))):
            runtime = build_run(own, run)
            runtime.train()
            step = runtime.training_args.max_train_steps
            runtime.callbacks.hook.exception(method=runtime.method, step=step, error=RuntimeError("of the kit"))
