"""What is said when a pipeline's name leads nowhere, and the hub's own warnings that no user can heed."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastvideo_core.errors import ConfigError, Problem

_OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_OFFLINE_ERRORS = ("LocalEntryNotFoundError", "OfflineModeIsEnabled")
"""What huggingface_hub raises where a file is neither in its cache nor to be had; core does not import it for two names."""


def unreadable_pipeline(path: str, what: str, error: BaseException, *, where: str, allowed: str) -> ConfigError:
    """The error for a part of a pipeline that could not be read.

    Args:
        path: folder or hub id.
        what: the part.
        error: as the library raised it.
        where: how errors name the pipeline.
        allowed: what would be accepted.
    """
    if Path(path).is_dir():
        return ConfigError(Problem(f"cannot read {what}: {_first_line(error)}", where, allowed=allowed))
    switch = next((name for name in _OFFLINE_VARIABLES if _is_on(os.environ.get(name, ""))), None)
    if switch is None and not any(type(cause).__name__ in _OFFLINE_ERRORS for cause in _causes(error)):
        found = f"cannot read {what} (it is no folder here, so it was looked up on the hub): {_first_line(error)}"
        return ConfigError(Problem(found, where, allowed=allowed))
    why = f"{switch} is set" if switch else "the hub cannot be reached from here"
    found = f"cannot read {what}: it is no folder here, the hub's cache lacks it, and this machine is offline ({why})"
    fix = f"where there is a network, call: hf download {path} --local-dir FOLDER, and name that folder"
    return ConfigError(Problem(found, where, allowed=allowed, fix=fix))


@contextmanager
def quiet_hub() -> Iterator[None]:
    """Without the warning that diffusers' calls of a newer huggingface_hub give, which no user can heed."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*local_dir_use_symlinks.*", UserWarning)
        yield


def _is_on(value: str) -> bool:
    return value.upper() in ("1", "ON", "YES", "TRUE")


def _causes(error: BaseException) -> Iterator[BaseException]:
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or current.__context__


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
