"""Which options a plug-in reads: one that it never does is one that does nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from fastvideo_core.config.base import PluginConfig

_OTHERS = ("pydantic", "fastvideo_core.config.", "fastvideo_core.dispatch.", "fastvideo_testing.", "copy")
"""Modules that read every option of every plug-in, and use none."""

_ALL = ("model_dump", "model_dump_json", "model_copy", "dict", "json", "__dict__")


@contextmanager
def options_read(model: type[PluginConfig]) -> Iterator[set[str]]:
    """The names of the class's options that are read inside; those that `check_run` alone reads do not count."""
    read: set[str] = set()
    plain, fields = model.__getattribute__, set(model.model_fields)

    def reading(self: PluginConfig, name: str) -> object:
        if name in fields or name in _ALL:
            frame = sys._getframe(1)
            module = frame.f_globals.get("__name__", "")
            if not module.startswith(_OTHERS) and frame.f_code.co_name != "check_run":
                read.update(fields if name in _ALL else (name,))
        return plain(self, name)

    with mock.patch.object(model, "__getattribute__", reading):
        yield read
