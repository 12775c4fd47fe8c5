"""The recipes' run.yaml files are right as they stand, but for the paths."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from fastvideo_core.cli.main import main
from fastvideo_data.schema import encode_tensor
from tests.families import Kind, tiny_family
from tests.test_docs import BLOCK, ROOT

__all__ = ["tiny_family"]

RECIPES = sorted((ROOT / "docs/recipes").glob("*.md"))
RUNS = [(page, match["text"]) for page in RECIPES for match in BLOCK.finditer(page.read_text()) if match["name"]]


VARIANTS = {"T2V-A14B": "a14b", "I2V-14B": "i2v", "TI2V-5B": "ti2v"}
"""By a part of a pipeline's name, what stands for it; of others the tiny one of text-to-video."""


def prompts_data(folder: Path) -> Path:
    rows = [
        {"id": str(number), "caption": "a cat", **encode_tensor("text_embedding", torch.randn(4, 32))}
        for number in range(8)
    ]
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), folder / "part-0.parquet")
    return folder


@pytest.mark.parametrize(("page", "text"), RUNS, ids=[page.stem for page, _ in RUNS])
def test_a_recipe_s_run_passes_check(page, text, tmp_path, tiny_wan, latent_data, capsys, monkeypatch, tiny_family):
    monkeypatch.setenv("WANDB_MODE", "offline")  # a recipe logs to wandb, where nobody is logged in here
    run = yaml.safe_load(text)
    base, data = tiny_wan, latent_data
    paths = " ".join(role["path"] for role in run["roles"].values())
    if variant := next((own for part, own in VARIANTS.items() if part in paths), None):
        tiny = tiny_family(Kind("wan", {"variant": variant}))
        base, data = tiny.base, tiny.data
    for role in run["roles"].values():
        role["path"] = str(base)
    prompts = tmp_path / "prompts.json"
    prompts.write_text('{"data": [{"caption": "a cat", "height": 32, "width": 32, "num_frames": 9}]}')
    run["training"]["output_dir"] = str(tmp_path / "out")
    run["training"]["data_path"] = str(prompts_data(tmp_path / "data") if "from-prompts" in page.stem else data)
    if "validation_dataset_file" in run["training"]:
        run["training"]["validation_dataset_file"] = str(prompts)
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(run))
    status = main(["check", str(path)])
    printed = capsys.readouterr()
    assert status == 0, printed.err
    assert printed.out.rstrip().endswith("ok")


def test_every_recipe_with_a_run_is_checked():
    assert {page.stem for page, _ in RUNS} == {page.stem for page in RECIPES} - {"moving-from-fastvideo"}
