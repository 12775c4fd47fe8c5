"""What a run reads of pipelines and data it parses once: each JSON file of a pipeline, each footer of the data."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from fastvideo_core.cli.main import main
from fastvideo_diffusers import pipeline_files
from tests.families import ALL_KINDS, Kind, MakeFamily, tiny_family

__all__ = ["tiny_family"]


def is_ours(depth: int = 2) -> bool:
    """Whether the code that asked to parse is of this project, itself, by `json.load` or by a library's `load_config`."""
    frame = sys._getframe(depth)
    while frame is not None and (
        frame.f_globals.get("__name__") == "json"
        or frame.f_code.co_name in ("_dict_from_json_file", "load_config", "get_config_dict")
    ):
        frame = frame.f_back
    return frame is not None and str(frame.f_globals.get("__name__", "")).startswith("fastvideo_")


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often our code parsed each text of JSON and each footer."""
    found: Counter[str] = Counter()
    loads, open_file, read_metadata = json.loads, pq.ParquetFile.__init__, pq.read_metadata

    def parses(text: Any, *args: Any, **options: Any) -> Any:
        if is_ours():
            found.update([text if isinstance(text, str) else text.decode()])
        return loads(text, *args, **options)

    def opens(self: pq.ParquetFile, source: Any, *args: Any, metadata: Any = None, **options: Any) -> None:
        found.update([] if metadata is not None else [Path(source).name])
        open_file(self, source, *args, metadata=metadata, **options)

    def reads(source: Any, *args: Any, **options: Any) -> Any:
        found.update([Path(source).name])
        return read_metadata(source, *args, **options)

    monkeypatch.setattr(json, "loads", parses)
    monkeypatch.setattr(pq.ParquetFile, "__init__", opens)
    monkeypatch.setattr(pq, "read_metadata", reads)
    return found


@pytest.mark.parametrize("command", [["check"], []], ids=["check", "train"])
@pytest.mark.parametrize("kind", ALL_KINDS, ids=str)
def test_each_file_of_a_pipeline_and_each_footer_is_parsed_once(
    tiny_family: MakeFamily, kind: Kind, command: list[str], tmp_path: Path, parsed: Counter[str]
) -> None:
    made = tiny_family(kind)
    run = {
        "recipe": {"family": made.family, "method": "dmd2"},
        "roles": {
            role: {"path": str(made.base), "trainable": role != "teacher"} for role in ("student", "teacher", "critic")
        },
        "training": {"output_dir": str(tmp_path / "out"), "data_path": str(made.data), "max_train_steps": 1},
        "method_config": {
            "generator_update_interval": 1,
            "dmd_denoising_steps": [1000, 500],
            "rollout_mode": "data_latent",
        },
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    pipeline_files._parsed.cache_clear()
    parsed.clear()
    assert main([*command, str(tmp_path / "run.yaml")]) == 0
    times = {str(file.relative_to(made.base)): parsed[file.read_text()] for file in made.base.rglob("*.json")}
    assert times["model_index.json"] == times["transformer/config.json"] == 1
    assert {name: count for name, count in times.items() if count > 1} == {}
    footers = {file.name: parsed[file.name] for file in made.data.rglob("*.parquet")}
    assert set(footers.values()) == {1}, footers
