"""What `check` finds before anything is loaded, with a real family."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys

import pytest
import torch

from fastvideo_core.errors import ConfigError
from fastvideo_data.schema import encode_tensor
from fastvideo_finetune.method import FinetuneMethod
from fastvideo_testing.runs import resolve_run
from fastvideo_wan.adapter import WanAdapter
from tests.commands import commands, run, text_only, trained, write_rows
from tests.conftest import TEXT_DIM, write_run

__all__ = ["commands", "run", "trained"]


def test_check_accepts_what_trains(commands, run, tmp_path):
    out = commands.works("check", write_run(tmp_path / "run.yaml", run))
    assert "data: 24 samples" in out
    assert "24 batches per epoch and process" in out
    assert out.endswith("ok\n")
    assert not (tmp_path / "run").exists()


def test_check_counts_the_batches_of_each_process(commands, run, tmp_path):
    run["training"] |= {"num_gpus": 4, "train_batch_size": 2}
    assert "3 batches per epoch and process" in commands.works("check", write_run(tmp_path / "run.yaml", run))


def test_check_refuses_to_share_what_does_not_divide(commands, run, tmp_path):
    """The network has 2 heads, the data 12 tokens; a prompt of 16 pixels and 5 frames has 2."""
    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps({"data": [{"caption": "a", "height": 16, "width": 16, "num_frames": 5}]}))
    run["training"] |= {"num_gpus": 8, "sequence_parallel": 8, "validation_dataset_file": str(prompts)}
    run["training"] |= {"log_validation": True, "validation_steps": 1}
    error = commands.refuses("check", write_run(tmp_path / "run.yaml", run))
    heads = f"2 heads of transformer in {run['roles']['student']['path']} cannot be shared evenly by 8 processes"
    assert f"training.sequence_parallel: {heads}\n      fix: take a number that divides them\n" in error
    assert "training.sequence_parallel: 12 tokens cannot be shared evenly by 8 processes" in error
    assert f'{prompts}, data[0] ("a"): 2 tokens cannot be shared evenly by 8 processes' in error
    run["training"] |= {"num_gpus": 2, "sequence_parallel": 2}
    assert "24 batches per epoch and process" in commands.works("check", write_run(tmp_path / "run.yaml", run))


def test_check_finds_everything_at_once(commands, run, tmp_path):
    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps({"data": [{"caption": "a"}, {"caption": "tall", "height": 33}]}))
    run["training"] |= {"output_dir": "file/sub", "data_path": str(text_only(tmp_path / "t.parquet", 16))}
    run["training"] |= {"log_validation": True, "validation_steps": 1, "validation_dataset_file": str(prompts)}
    error = commands.refuses("check", write_run(tmp_path / "run.yaml", run))
    assert "3 problems" in error
    assert f"training.output_dir (file/sub): {tmp_path / 'file'} is a file" in error
    assert f'{prompts}, data[1] ("tall"): height is 33' in error
    assert "use 32 or 48" in error
    assert "batch with sample s0: text_embedding has shape [3, 16]" in error
    assert f"allowed: [tokens, {TEXT_DIM}]" in error


def test_check_needs_data_of_a_family_without_a_loader(commands, run, tmp_path):
    del run["training"]["data_path"]
    error = commands.refuses("check", write_run(tmp_path / "run.yaml", run))
    assert "training.data_path: missing; the family 'wan' brings no data loader of its own" in error
    assert "fastvideo-distill preprocess" in error


def test_check_refuses_a_sparsity_that_does_nothing(commands, run, tmp_path):
    run["training"]["VSA_sparsity"] = 0.5
    error = commands.refuses("check", write_run(tmp_path / "run.yaml", run))
    assert "training.VSA_sparsity: found 0.5, and the student's attention is dense" in error


def test_sizes_that_the_data_has_not_are_told(commands, run, tmp_path):
    """The data is 32 pixels; that a run asks for 64 was silently nothing."""
    run["training"] |= {"num_height": 64, "num_width": 32, "num_frames": 9}
    out = commands.works("check", write_run(tmp_path / "run.yaml", run))
    assert "warning: training.num_height is 64, and the data's videos have 32: training takes the data as it is" in out
    assert "num_width is" not in out
    assert "num_frames is" not in out


def test_check_needs_the_features_that_an_adversarial_run_reads(commands, run, tiny_wan, tmp_path, monkeypatch):
    run["recipe"]["method"] = "dmd2"
    run["method_config"] = {"generator_update_interval": 1, "adversarial_weight": 0.1}
    roles = {
        "teacher": {"path": str(tiny_wan), "trainable": False},
        "critic": {"path": str(tiny_wan), "trainable": True},
    }
    run["roles"] |= roles
    file = write_run(tmp_path / "run.yaml", run)
    commands.works("check", file)
    for owner in [parent for parent in WanAdapter.__mro__ if "extract_features" in vars(parent)]:
        monkeypatch.delattr(owner, "extract_features")
    error = commands.refuses("check", file)
    assert "WanAdapter: lacks the primitive 'extract_features', which method 'dmd2' needs" in error
    run["method_config"]["adversarial_weight"] = 0
    commands.works("check", write_run(file, run))


@pytest.mark.parametrize(
    ("scheduler", "said"),
    [
        ({"_class_name": "UniPCMultistepScheduler"}, "UniPCMultistepScheduler states no fixed shift"),
        ({"_class_name": "DDPMScheduler", "shift": 3.0}, "scheduler: is a DDPMScheduler"),
    ],
)
def test_check_finds_a_scheduler_that_the_run_cannot_use(commands, run, tiny_wan, tmp_path, scheduler, said):
    """The second would have ended the run at its first validation."""
    other = shutil.copytree(tiny_wan, tmp_path / "other")
    (other / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a cat\n")
    run["roles"]["student"]["path"] = str(other)
    run["training"] |= {"log_validation": True, "validation_steps": 1, "validation_dataset_file": str(prompts)}
    file = write_run(tmp_path / "run.yaml", run)
    for command in (["check", file], [file]):
        assert said in commands.refuses(*command)


def test_check_names_lora_targets_that_no_layer_has(commands, run, tmp_path):
    run["roles"]["student"]["lora"] = {"rank": 2, "targets": ["to_q", "no_such_layer"]}
    assert "no_such_layer" in commands.refuses("check", write_run(tmp_path / "run.yaml", run))


@pytest.mark.parametrize(("source", "message"), [("data", "captions but no vae_latent"), ("zeros", "needs a size")])
def test_data_without_latents_must_fit_the_method(run, tmp_path, monkeypatch, source, message):
    monkeypatch.setattr(FinetuneMethod, "latents_source", lambda cfg: source)
    run["training"]["data_path"] = str(text_only(tmp_path / "t.parquet"))
    with pytest.raises(ConfigError, match=message):
        resolve_run(tmp_path, run)
    if source == "zeros":
        run["training"] |= {"num_height": 32, "num_width": 32, "num_frames": 5}
        resolve_run(tmp_path, run)


def test_every_latent_shape_of_the_data_is_looked_at(run, tmp_path, monkeypatch):
    monkeypatch.setattr(FinetuneMethod, "latents_source", lambda cfg: "data")
    text = encode_tensor("text_embedding", torch.ones(3, TEXT_DIM))
    shapes = ((16, 1, 4, 4), (16, 1, 3, 4))
    rows = [text | encode_tensor("vae_latent", torch.ones(shape)) for shape in shapes]
    run["training"]["data_path"] = str(write_rows(tmp_path / "t.parquet", *rows))
    with pytest.raises(ConfigError, match=r"sample s1: vae_latent has shape \[16, 1, 3, 4\]"):
        resolve_run(tmp_path, run)


def test_roles_of_different_latent_spaces_are_found_without_weights(run, tiny_wan, tmp_path):
    other = shutil.copytree(tiny_wan, tmp_path / "other")
    vae = json.loads((other / "vae" / "config.json").read_text())
    vae["latents_mean"][0] += 1
    (other / "vae" / "config.json").write_text(json.dumps(vae))
    run["recipe"]["method"] = "dmd2"
    run["method_config"] = {"generator_update_interval": 1}
    roles = {"teacher": {"path": str(other), "trainable": False}, "critic": {"path": str(tiny_wan), "trainable": True}}
    run["roles"] |= roles
    with pytest.raises(ConfigError, match=r"roles\.teacher\.path .*differ from those of student"):
        resolve_run(tmp_path, run)


@pytest.mark.parametrize("file", ["tokenizer/tokenizer.json", "transformer/diffusion_pytorch_model.safetensors"])
def test_check_names_damaged_files_and_the_role(commands, run, tiny_wan, tmp_path, file):
    damaged = shutil.copytree(tiny_wan, tmp_path / "damaged")
    (damaged / file).write_bytes((damaged / file).read_bytes()[:-9])
    run["roles"]["student"]["path"] = str(damaged)
    error = commands.refuses("check", write_run(tmp_path / "run.yaml", run))
    assert f"roles.student.path ({damaged}): {file}: is no" in error
    assert error.count(file) == 1


@pytest.mark.parametrize(
    ("file", "changes", "said"),
    [
        ("transformer/config.json", {"num_layers": 3}, "missing tensors: blocks.2."),
        ("transformer/config.json", {"num_layers": 1}, "unexpected tensors: blocks.1."),
        ("transformer/config.json", {"ffn_dim": 99}, "mismatched tensors: blocks.0.ffn.net.0.proj.bias (["),
        ("text_encoder/config.json", {"vocab_size": 1000}, "mismatched tensors: shared.weight (["),
        ("tokenizer/tokenizer.json", {"model": {}}, "is no valid tokenizer"),
        ("vae/config.json", {"base_dim": 99}, "mismatched tensors: "),
    ],
)
def test_weights_that_are_not_what_their_configuration_says(
    commands, run, tiny_wan, tmp_path, monkeypatch, file, changes, said
):
    """check and the start say the same, before weights are loaded; the VAE is looked at in runs that validate alone."""
    monkeypatch.setattr("fastvideo_wan.loading.load_transformer", None)
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a cat\n")
    run["training"] |= {"log_validation": True, "validation_steps": 1, "validation_dataset_file": str(prompts)}
    other = shutil.copytree(tiny_wan, tmp_path / "other").resolve()
    (other / file).write_text(json.dumps(json.loads((other / file).read_text()) | changes))
    run["roles"]["student"]["path"] = str(other)
    path = write_run(tmp_path / "run.yaml", run)
    error = commands.refuses("check", path)
    assert f"roles.student.path ({other}/{file.partition('/')[0]}): " in error
    assert said in error
    assert commands.refuses(path) == error
    if file.startswith("vae"):
        run["training"]["log_validation"] = False
        commands.works("check", write_run(path, run))


def test_check_tells_of_a_network_that_cannot_be_called(commands, run, tmp_path, monkeypatch):
    def fails(*_args, **_kwargs):
        raise RuntimeError("shapes do not fit\nin kernel x")

    monkeypatch.setattr("fastvideo_wan.family.predict_velocity", fails)
    said = commands.works("check", write_run(tmp_path / "run.yaml", run))
    assert "memory is not estimated" in said
    assert "RuntimeError: shapes do not fit\n" in said


def test_check_and_resume(commands, run, trained, tmp_path):
    again = copy.deepcopy(run)
    again["training"]["output_dir"] = str(trained)
    file = write_run(tmp_path / "run.yaml", again)
    assert f"output_dir {trained} already holds checkpoint-000001" in commands.refuses("check", file)
    assert "the checkpoint is at step 1" in commands.refuses("check", file, "--resume", "latest")
    again["training"]["max_train_steps"] = 2
    write_run(file, again)
    assert "resume: after step 1" in commands.works("check", file, "--resume", "latest")
    for command in (["check"], []):
        error = commands.refuses(*command, file, "--resume", "")
        assert "resume_from_checkpoint" in error
        assert "found ''" in error or "empty" in error


def test_a_dry_run_prepares_a_batch_and_writes_nothing(commands, run, tmp_path, monkeypatch):
    monkeypatch.setattr(FinetuneMethod, "latents_source", lambda cfg: "data")
    file = write_run(tmp_path / "run.yaml", run)
    assert "everything was built and a batch prepared; training would start at step 1" in commands.works(
        file, "--dry-run"
    )
    assert not (tmp_path / "run").exists()
    run["training"]["data_path"] = str(text_only(tmp_path / "t.parquet"))
    assert "no vae_latent" in commands.refuses(write_run(file, run), "--dry-run")


@pytest.mark.slow
def test_a_second_run_in_the_folder_of_a_live_one_is_refused_and_looking_at_it_is_not(commands, run, trained, tmp_path):
    run["training"] |= {"output_dir": str(trained), "max_train_steps": 2}
    file = write_run(tmp_path / "run.yaml", run)
    holds = "import sys; from pathlib import Path; from fastvideo_core.dispatch.output_dir import alone_in\n"
    holds += "with alone_in(Path(sys.argv[1])): print('in', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", holds, str(trained)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as live:
        assert live.stdout.readline() == b"in\n"
        for options in ((), ("--dry-run",)):
            error = commands.refuses(file, "--resume", "latest", *options)
            assert f"another run is going on in it: process {live.pid} on " in error
        assert "resume: after step 1" in commands.works("check", file, "--resume", "latest")
        commands.works("report", trained)
        live.kill()
    commands.works(file, "--resume", "latest", "--dry-run")
