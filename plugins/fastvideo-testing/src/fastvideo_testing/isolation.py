"""Tests that register plug-ins leave nothing behind."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

from fastvideo_core.registry import registration


def isolated_registrations() -> AbstractContextManager[Any]:
    """Registrations made inside are forgotten at the end, and those made before are unseen."""
    return patch.dict(registration.REGISTERED, clear=True)
