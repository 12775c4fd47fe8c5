"""Processes that share the tokens of each sample train as one process does with the whole of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from fastvideo_data.schema import encode_tensor
from fastvideo_ltx.tiny import write_tiny_pipeline as write_ltx
from tests.distributed.split_tokens import train
from tests.methods import sections

pytestmark = pytest.mark.distributed

ADVERSARIAL = {"adversarial_weight": 0.5, "discriminator_weight": 1.0, "r1_weight": 0.1, "r1_sigma": 0.1}
FEW = {"dmd_denoising_steps": [1000, 500]}
LORA = {"rank": 2, "alpha": 3}
EXACT = ("total_loss", "generator_loss", "critic_loss")
"""Losses whose first value is the same bits: others are differences, in which it shows that matrix products round by shape."""
LTX = ("ltx finetune", "ltx dmd2", "ltx2 finetune", "ltx2 dmd2")
PLAIN = ("finetune", "ltx finetune", "ltx2 finetune")
"""Runs of plain steps, sampled at the end."""
TOLERANCES = {"bf16": 0.02, "rcm": 1e-4}


def run_of(
    wan: Path, data: Path, method: str, options: dict[str, Any] | None = None, **training: Any
) -> dict[str, Any]:
    parts = sections(method, lambda role: str(wan), **(options or {}))
    fixed = {"seed": 7, "data_path": str(data), "max_train_steps": 3, "learning_rate": 1e-3, "adam_epsilon": 1e-4}
    return {"recipe": {"family": "wan", "method": method}, **parts, "training": {**fixed, **training}}


@pytest.fixture(scope="module")
def ltx_runs(tmp_path_factory) -> dict[str, dict[str, Any]]:
    """On 12 video tokens, with LTX-2 also 9 of sound, which do not divide. Some samples are given their first frame."""
    folder, generator = tmp_path_factory.mktemp("ltx"), torch.Generator().manual_seed(0)
    sizes = {"vae_latent": (128, 2, 2, 3), "text_embedding": (3, 32), "audio_latent": (8, 9, 16)}
    rows = []
    for number in range(4):
        row: dict[str, Any] = {"id": f"s{number}", "caption": "a cat", "file_name": f"{number}.mp4", "fps": 24.0}
        for name, size in sizes.items():
            row |= encode_tensor(name, torch.randn(*size, generator=generator))
        rows.append(row)
    pq.write_table(pa.Table.from_pylist(rows), folder / "part.parquet")
    found, asked = {}, sampled(folder, 64, 96, 9, at=4)
    for name, generation in (("ltx", 1), ("ltx2", 2)):
        write_ltx(folder / name, generation=generation)
        given = (folder / name, folder / "part.parquet")
        plain = run_of(*given, "finetune", max_train_steps=4, learning_rate=0.1, **asked)
        found |= {f"{name} finetune": {**plain, "sgd": True}, f"{name} dmd2": run_of(*given, "dmd2", FEW)}
    for run in found.values():
        run["recipe"]["family"] = "ltx"
        run["pipeline_config"] |= {"first_frame_probability": 0.5}
    return found


def sampled(folder: Path, height: int, width: int, num_frames: int, *, at: int) -> dict[str, Any]:
    """Training options that sample a video at a step."""
    prompts = folder / "prompts.json"
    prompts.write_text(
        json.dumps({"data": [{"caption": "a", "height": height, "width": width, "num_frames": num_frames}]})
    )
    return {
        "log_validation": True,
        "validation_steps": at,
        "validation_dataset_file": str(prompts),
        "validation_sampling_steps": 2,
        "on_validation_error": "error",
    }


@pytest.fixture(scope="module")
def runs(tiny_wan, latent_data, ltx_runs, tmp_path_factory) -> dict[str, dict[str, Any]]:
    asked = sampled(tmp_path_factory.mktemp("prompts"), 32, 32, 5, at=10)
    saved = {"training_state_checkpointing_steps": 2, "max_train_steps": 4}
    full = {"enable_gradient_checkpointing_type": "full"}
    shared = run_of(tiny_wan, latent_data, "dmd2", {**FEW, **ADVERSARIAL}, **full)
    for role in ("student", "critic"):
        shared["roles"][role] |= {"lora": LORA, "share": "teacher"}
    plain = run_of(tiny_wan, latent_data, "finetune", max_train_steps=10, learning_rate=0.1, **full, **asked)
    return {
        "finetune": {**plain, "sgd": True, "callbacks": {"ema": {"decay": 0.9}}},
        "dmd2": run_of(tiny_wan, latent_data, "dmd2", {**FEW, **ADVERSARIAL}, gradient_accumulation_steps=2),
        "shared": shared,
        **ltx_runs,
        "bf16": run_of(tiny_wan, latent_data, "finetune", mixed_precision="bf16", **saved),
        "rcm": run_of(
            tiny_wan, latent_data, "rcm", {"tangent_warmup_steps": 1}, enable_gradient_checkpointing_type="ops"
        ),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("folder")


@pytest.fixture(scope="module")
def one(runs, folder) -> dict[str, dict[str, Any]]:
    return train(folder / "one", runs, world=1)


@pytest.fixture(scope="module")
def split(runs, folder, one) -> dict[str, dict[str, Any]]:
    """Of `bf16` also how it goes on from one process's second step."""
    resumed = {**runs["bf16"], "training": {**runs["bf16"]["training"]}}
    resumed["training"]["resume_from_checkpoint"] = str(folder / "one" / "bf16" / "checkpoint-000002")
    return train(folder / "split", {**runs, "resumed": resumed}, world=2, size=2)


@pytest.mark.parametrize("name", ["finetune", "dmd2", "shared", "bf16", "rcm", *LTX])
def test_two_processes_with_one_sample_are_one(one, split, name):
    assert_alike(one[name], split[name], TOLERANCES.get(name, 1e-5))


def test_shares_go_on_where_one_process_stopped(one, split):
    """With its data and its noise."""
    losses = split["resumed"]["losses"]
    assert losses.keys() == {3, 4}
    assert_alike_losses({step: one["bf16"]["losses"][step] for step in losses}, losses, TOLERANCES["bf16"])


@pytest.mark.parametrize("name", PLAIN)
def test_they_sample_together(folder, split, name):
    assert list((folder / "split" / name).rglob("*.mp4"))


@pytest.mark.parametrize("name", PLAIN)
def test_plain_steps_end_at_the_same_weights(one, split, name):
    whole, shares = one[name]["weights"], split[name]["weights"]
    assert max((whole[name] - shares[name]).abs().max().item() for name in whole) < 1e-6


def test_two_pairs_are_two_processes_with_samples_of_their_own(runs, tmp_path):
    few = {name: runs[name] for name in ("finetune", "dmd2")}
    two = train(tmp_path / "two", few, world=2)
    few["dmd2"] = {**few["dmd2"], "training": {**few["dmd2"]["training"], "hsdp_replicate_dim": 2}}
    four = train(tmp_path / "four", few, world=4, size=2)
    for name in few:
        assert_alike(two[name], four[name], 1e-5)


def assert_alike_losses(whole: dict[int, Any], shares: dict[int, Any], tolerance: float) -> None:
    assert whole.keys() == shares.keys()
    for step, losses in whole.items():
        assert losses == pytest.approx(shares[step], rel=tolerance, abs=tolerance), f"step {step}"


def assert_alike(whole: dict[str, Any], shares: dict[str, Any], tolerance: float) -> None:
    """The first losses to the bit, all others, and the gradients of the first update within `tolerance` of their size."""
    first = [{key: value for key, value in seen["losses"][1].items() if key in EXACT} for seen in (whole, shares)]
    assert first[0] == first[1]
    assert_alike_losses(whole["losses"], shares["losses"], tolerance)
    assert whole["gradients"].keys() == shares["gradients"].keys() != set()
    scale = max(gradient.norm() for gradient in whole["gradients"].values())
    for name, gradient in whole["gradients"].items():
        far = (gradient - shares["gradients"][name]).norm()
        assert far <= tolerance * max(gradient.norm(), 0.1 * scale), f"{name}: {far} of {gradient.norm()}"
