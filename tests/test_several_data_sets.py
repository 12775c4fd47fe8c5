"""A run on several data sets, as docs/data.md writes it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml

from fastvideo_core.checkpoint.weights import read_role_weights
from fastvideo_data.schema import encode_tensor
from tests.commands import commands, run, text_only, write_rows
from tests.conftest import TEXT_DIM, write_run
from tests.test_docs import example

__all__ = ["commands", "run"]


@pytest.fixture
def sources(run, latent_data, tmp_path):
    """The run of the page, over videos and images."""
    run["training"] |= {**yaml.safe_load(example("docs/data.md", "sources.yaml"))["training"], "num_gpus": 1}
    (tmp_path / "data" / "images").mkdir(parents=True)
    (tmp_path / "data" / "clips").symlink_to(latent_data)
    image = {**encode_tensor("vae_latent", torch.ones(16, 1, 6, 4)), "fps": 0.0}
    write_rows(
        tmp_path / "data/images/a.parquet", *[image | encode_tensor("text_embedding", torch.ones(3, TEXT_DIM))] * 3
    )
    return run


@pytest.mark.slow
def test_a_run_on_several_data_sets_goes_on_to_the_bit(commands, sources, tmp_path):
    file = tmp_path / "run.yaml"
    steps = {"max_train_steps": 6, "training_state_checkpointing_steps": 3, "train_batch_size": 2}
    sources["training"] |= {**steps, "output_dir": "whole"}
    out = commands.works("check", write_run(file, sources))
    assert "data: 24 samples in data/clips (text_embedding, vae_latent), 12 batches per epoch and process" in out
    assert "data: 3 samples in data/images (text_embedding, vae_latent), 2 batches per epoch and process" in out
    assert "data/clips, data/images: 27 samples" in commands.works(write_run(file, sources))
    sources["training"] |= {"output_dir": "again", "dataloader_num_workers": 2}
    commands.works(write_run(file, {**sources, "training": {**sources["training"], "max_train_steps": 3}}))
    commands.works(write_run(file, sources), "--resume", "latest")
    whole, again = (
        read_role_weights(tmp_path / name / "checkpoint-000006", "student", ema=False)["transformer"]
        for name in ("whole", "again")
    )
    assert all(torch.equal(value, again[key]) for key, value in whole.items())
    losses = [
        [json.loads(line)["total_loss"] for line in Path(name, "metrics.jsonl").read_text().splitlines()]
        for name in ("whole", "again")
    ]
    assert losses[0] == losses[1]
    del sources["training"]["data_path"][1]
    error = commands.refuses(
        write_run(file, sources | {"training": sources["training"] | {"max_train_steps": 9}}), "--resume", "latest"
    )
    assert "the run's data is of 1 sources with weights, but the checkpoint's was of 2" in error
    assert "--new-data" in error
    commands.works(file, "--resume", "latest", "--new-data")
    commands.works("report", "again")


def test_problems_of_a_run_name_the_source(commands, sources, tmp_path):
    text_only(tmp_path / "data/images/a.parquet", 16)
    sources["training"]["data_path"].append({"path": "data/none"})
    error = commands.refuses("check", write_run(tmp_path / "run.yaml", sources))
    assert "training.data_path[2].path: there is no 'data/none'" in error
    sources["training"]["data_path"][2]["path"] = "file"
    error = commands.refuses("check", write_run(tmp_path / "run.yaml", sources))
    assert "training.data_path[2].path: file" in error
    del sources["training"]["data_path"][2]
    error = commands.refuses("check", write_run(tmp_path / "run.yaml", sources))
    assert "training.data_path[1].path, batch with sample s0: text_embedding has shape [3, 16]" in error
