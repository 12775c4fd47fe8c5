"""What a raw batch holds besides tensors and their metadata, and how errors name it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SOURCE = "data_source"
"""Key of what messages call the batch's data set, where the run has several."""
LOSS_WEIGHT = "data_loss_weight"
"""Key of what the batch's losses are multiplied by, where it is not 1; the trainer reads it."""


def place(raw_batch: Mapping[str, Any]) -> str:
    """How errors name a batch: by its first sample."""
    source = raw_batch.get(SOURCE, "training.data_path")
    info = raw_batch.get("info") or [{}]
    name = info[0].get("id") or info[0].get("file_name")
    return f"{source}, batch with sample {name}" if name else source
