"""Processes of their own for tests, forked from a server that has imported torch already.

A fresh interpreter needs seconds to import torch and a family's library, more than most tests take otherwise. The standard
library's fork server pays that once per test process; what a child then does (its environment, folder, output, signals,
exit status, death by SIGKILL) is what a started program does.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import sys
from collections.abc import Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
_PRELOADED = ["fastvideo_core.training.trainer"]  # of the one server that a process can have


def preload(*modules: str) -> None:
    """Names what else the server imports before it forks; of no effect once a process was started."""
    _PRELOADED.extend(modules)


def start(
    target: str,
    arguments: Mapping[str, Any],
    *,
    environment: Mapping[str, str],
    output: Path,
    error: Path | None = None,
    folder: Path | None = None,
) -> ForkServerProcess:
    """Runs `module:function(**arguments)` in a new process; its return value, when an int, is the exit status.

    Args:
        target: importable by name.
        arguments: picklable.
        environment: the whole of it. What a library reads when it is imported is the test process's, though.
        output: file that takes what it prints; `error` takes standard error, by default the same file.
        folder: where it works; the test's own folder by default.
    """
    _CONTEXT.set_forkserver_preload(_PRELOADED)
    process = _CONTEXT.Process(
        target=_child,
        args=(target, dict(arguments), dict(environment), str(folder or Path.cwd()), str(output), str(error or output)),
    )
    process.start()
    return process


def _child(
    target: str, arguments: dict[str, Any], environment: dict[str, str], folder: str, output: str, error: str
) -> None:
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    _redirect(output, error)
    if "OMP_NUM_THREADS" in environment:  # read by OpenMP when the server imported torch, with another value perhaps
        import torch

        torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))
    module, _, name = target.partition(":")
    returned = getattr(importlib.import_module(module), name)(**arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    if isinstance(returned, int):
        sys.exit(returned)


def _redirect(output: str, error: str) -> None:
    for path, descriptor in ((os.devnull, 0), (output, 1), (error, 2)):
        opened = os.open(path, os.O_RDONLY if descriptor == 0 else os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(opened, descriptor)
        os.close(opened)
