"""The commands over a real family, as tests type them: what they print, and runs for them to work on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from fastvideo_core.cli.main import main
from fastvideo_core.config.run import RunConfig
from fastvideo_core.dispatch.load_run_config import load_run_config
from fastvideo_core.registry import PluginRegistry
from fastvideo_data.schema import encode_tensor
from tests.conftest import TEXT_DIM, write_run

SIZE = ("--height", "32", "--width", "32", "--num-frames", "5")


class Commands:
    """Runs commands in this process and keeps what they print."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def works(self, *arguments: str | Path) -> str:
        return self.works_and_tells(*arguments)[0]

    def works_and_tells(self, *arguments: str | Path) -> tuple[str, str]:
        code, out, error = self._run(*arguments)
        assert code == 0, out + error
        return out, error

    def refuses(self, *arguments: str | Path) -> str:
        code, out, error = self._run(*arguments)
        assert code == 2, out + error
        assert "Traceback" not in error
        return error

    def _run(self, *arguments: str | Path) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        captured = self._capsys.readouterr()
        return code, captured.out, captured.err


@pytest.fixture
def commands(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Commands:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    return Commands(capsys)


@pytest.fixture
def run(tiny_wan: Path, latent_data: Path, tmp_path: Path) -> dict[str, Any]:
    """A fine-tuning run that is fine."""
    return {
        "recipe": {"family": "wan", "method": "finetune"},
        "roles": {"student": {"path": str(tiny_wan), "trainable": True}},
        "training": {"output_dir": str(tmp_path / "run"), "data_path": str(latent_data), "max_train_steps": 1},
    }


@pytest.fixture(scope="module")
def trained(tiny_wan: Path, latent_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of one step, with sizes of its own."""
    folder = tmp_path_factory.mktemp("trained")
    training = {"output_dir": str(folder / "run"), "data_path": str(latent_data), "max_train_steps": 1}
    training |= {"num_height": 32, "num_width": 48, "num_frames": 5}
    roles = {"student": {"path": str(tiny_wan), "trainable": True}}
    recipe = {"family": "wan", "method": "finetune"}
    file = write_run(folder / "run.yaml", {"recipe": recipe, "roles": roles, "training": training})
    assert main([str(file)]) == 0
    return folder / "run"


def write_rows(path: Path, *rows: dict[str, Any]) -> Path:
    pq.write_table(pa.Table.from_pylist([{"id": f"s{i}", "caption": "x", **row} for i, row in enumerate(rows)]), path)
    return path


def text_only(path: Path, width: int = TEXT_DIM) -> Path:
    return write_rows(path, encode_tensor("text_embedding", torch.ones(3, width)))


def config(tmp_path: Path, run: dict[str, Any]) -> RunConfig:
    return load_run_config(write_run(tmp_path / "run.yaml", run), PluginRegistry())
