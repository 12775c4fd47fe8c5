"""`check --resume` says what the run itself would refuse; `--new-data` goes on with other data."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from fastvideo_core import register_model
from fastvideo_core.checkpoint.weights import read_role_weights
from fastvideo_core.cli.main import main
from fastvideo_core.config.run import RunConfig
from fastvideo_core.contracts.family import RoleOutline
from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_data.family import ParquetFamily
from fastvideo_testing.runs import toy_world
from fastvideo_testing.toy import ToyConfig, ToyNetwork, build_toy_components

WIDTH = {"now": 16}


class Stored(ParquetFamily):
    def build(self, cfg: RunConfig) -> Any:
        return replace(build_toy_components(cfg), dataloader=self.loader(cfg))

    def outline(self, cfg: RunConfig, role: str, *, latents_source: Any) -> RoleOutline:
        with torch.device("meta"):
            network = ToyNetwork(2, WIDTH["now"], 1)
        return RoleOutline(RoleHandle(role, {"transformer": network}, trainable=cfg.roles[role].trainable))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(WIDTH, "now", 16)
    with toy_world():
        register_model("stored", config=ToyConfig)(Stored)
        yield tmp_path


def write_data(name: str, seed: int, rows: int = 6) -> None:
    Path("data").mkdir(exist_ok=True)
    generator = np.random.default_rng(seed)
    made = []
    for number in range(rows):
        row: dict[str, Any] = {"id": f"s{number}", "caption": "a ball"}
        for tensor, shape in (("vae_latent", [2]), ("text_embedding", [1, 2])):
            values = generator.standard_normal(shape).astype(np.float32)
            row |= {f"{tensor}_bytes": values.tobytes(), f"{tensor}_shape": shape, f"{tensor}_dtype": "float32"}
        made.append(row)
    table = pa.Table.from_pylist(made).replace_schema_metadata({"fastvideo.latents_normalised": "false"})
    pq.write_table(table, Path("data", name))


def write_run(steps: int, changes: dict[str, Any] | None = None) -> str:
    changes = changes or {}
    run: dict[str, Any] = {
        "recipe": {"family": "stored", "method": "toy"},
        "roles": {
            "student": {"path": "toy/student", "trainable": True},
            "teacher": {"path": "toy/teacher", "trainable": False},
        },
        "training": {
            "output_dir": "out",
            "data_path": "data",
            "max_train_steps": steps,
            "train_batch_size": 2,
            **changes.get("training", {}),
        },
        "callbacks": {"ema": {"decay": 0.9}},
        **{key: value for key, value in changes.items() if key != "training"},
    }
    Path("run.yaml").write_text(yaml.safe_dump(run))
    return "run.yaml"


def trained(steps: int = 2) -> None:
    write_data("a.parquet", 0)
    write_data("b.parquet", 1)
    assert main([write_run(steps), "--quiet"]) == 0


def one_more_file() -> None:
    write_data("c.parquet", 2)


def one_file_less() -> None:
    Path("data/b.parquet").unlink()


def swapped_files() -> None:
    first, second = Path("data/a.parquet"), Path("data/b.parquet")
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)


def another_width() -> None:
    WIDTH["now"] = 12


ROLES = {
    "student": {"path": "toy/student", "trainable": True},
    "teacher": {"path": "toy/teacher", "trainable": True},
}
SIBLINGS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "seed": (None, {"training": {"seed": 5}}, "the loader's seed is 5, but the checkpoint was made with 0"),
    "new file": (one_more_file, {}, "the data set changed since the checkpoint: c.parquet is new"),
    "lost file": (one_file_less, {}, "the data set changed since the checkpoint: b.parquet is gone"),
    "swapped files": (swapped_files, {}, "a.parquet holds other data; b.parquet holds other data"),
    "another role trained": (None, {"roles": ROLES}, "it has no saved role teacher, which this run has"),
    "no averages": (None, {"callbacks": {}}, "the checkpoint holds the state of callback 'ema'"),
    "another network": (
        another_width,
        {"pipeline_config": {"width": 12}},
        "'net.0.weight' is float32[16, 4] in the checkpoint and float32[12, 4] in this run",
    ),
}


@pytest.mark.parametrize("name", SIBLINGS)
@pytest.mark.parametrize("command", [["check"], ["--dry-run"], []], ids=["check", "dry-run", "train"])
def test_check_says_what_the_run_refuses(capsys: pytest.CaptureFixture[str], command: list[str], name: str) -> None:
    change, run, message = SIBLINGS[name]
    trained()
    if change is not None:
        change()
    capsys.readouterr()
    assert main([*command, write_run(4, run), "--resume", "latest"]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert "ok" not in said.out.split()


def test_check_says_ok_where_the_run_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    trained()
    for command in (["check"], ["--dry-run"], []):
        assert main([*command, write_run(4), "--resume", "latest"]) == 0, capsys.readouterr().err


def test_an_estimate_without_activations_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    write_data("a.parquet", 0)
    assert main(["check", write_run(2)]) == 0
    said = capsys.readouterr().out
    assert ", without activations\n" in said
    assert (
        "activations are not estimated: the family does not say how a network is called (RoleOutline.evaluate" in said
    )


@pytest.mark.parametrize("change", [one_more_file, one_file_less, swapped_files])
def test_new_data_keeps_all_but_the_position_in_the_data(capsys: pytest.CaptureFixture[str], change: Any) -> None:
    trained(3)
    before = read_role_weights("out/checkpoint-000003", "student", ema=False)["transformer"]
    change()
    run = write_run(4, {"training": {"learning_rate": 0.0, "weight_decay": 0.0}})
    assert main([run, "--resume", "latest", "--quiet"]) == 2
    assert "--new-data" in capsys.readouterr().err
    assert main(["check", run, "--resume", "latest", "--new-data"]) == 0
    assert "resume: after step 3, the data starts afresh" in capsys.readouterr().out
    assert main([run, "--resume", "latest", "--new-data", "--quiet"]) == 0
    after = read_role_weights("out/checkpoint-000004", "student", ema=False)["transformer"]
    assert all(torch.equal(after[name], value) for name, value in before.items())
    steps = [json.loads(line)["step"] for line in Path("out/metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4]
    # The next start goes on in the new data.
    assert main([write_run(5), "--resume", "latest", "--quiet"]) == 0


def test_another_folder_of_data_may_be_named_with_new_data() -> None:
    trained()
    Path("data").rename("elsewhere")
    write_data("a.parquet", 7, rows=3)
    Path("data").rename("other")
    run = write_run(3, {"training": {"data_path": "other"}})
    assert main(["check", run, "--resume", "latest"]) == 2
    assert main([run, "--resume", "latest", "--new-data", "--quiet"]) == 0


@pytest.mark.parametrize("command", [["check"], []], ids=["check", "train"])
def test_new_data_without_resume_is_an_error(capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    write_data("a.parquet", 0)
    assert main([*command, write_run(1), "--new-data"]) == 2
    error = capsys.readouterr().err
    assert "new data for a run that goes on, but it starts anew" in error
    assert "add --resume latest" in error
