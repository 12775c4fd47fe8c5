"""Pipelines that are named by their id on the model hub: what such a name looks like."""

from __future__ import annotations

import re
from pathlib import Path

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def is_hub_id(path: str) -> bool:
    """Whether a path that does not exist may be an id (org/name): not where its first part is a folder here."""
    return _HUB_ID.fullmatch(path) is not None and not Path(path.partition("/")[0]).is_dir()
