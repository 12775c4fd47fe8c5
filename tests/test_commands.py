"""The commands over a real family: what `check` finds before anything is loaded, and what the others refuse or report."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import diffusers
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from fastvideo_core.cli.main import main
from fastvideo_core.config.run import RunConfig
from fastvideo_core.data.schema import encode_tensor
from fastvideo_core.dispatch import preflight
from fastvideo_core.dispatch.load import load_run_config
from fastvideo_core.errors import ConfigError
from fastvideo_core.registry import PluginRegistry
from fastvideo_finetune.config import FinetuneConfig
from fastvideo_wan.adapter import WanAdapter
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


# --- check ----------------------------------------------------------------------------------------------------------


def test_check_accepts_what_trains(commands, run, tmp_path):
    out = commands.works("check", write_run(tmp_path / "run.yaml", run))
    assert "data: 24 samples" in out
    assert "24 batches per epoch and process" in out
    assert out.endswith("ok\n")
    assert not (tmp_path / "run").exists()


def test_check_counts_the_batches_of_each_process(commands, run, tmp_path):
    run["training"] |= {"num_gpus": 4, "train_batch_size": 2}
    assert "3 batches per epoch and process" in commands.works("check", write_run(tmp_path / "run.yaml", run))


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


def test_check_refuses_sparse_attention(commands, run, tmp_path):
    run["training"]["VSA_sparsity"] = 0.5
    error = commands.refuses("check", write_run(tmp_path / "run.yaml", run))
    assert "training.VSA_sparsity: found 0.5, but the family 'wan' has dense attention only" in error


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
    monkeypatch.delattr(WanAdapter, "extract_features")
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
    monkeypatch.setattr(FinetuneConfig, "latents_source", lambda self: source, raising=False)
    run["training"]["data_path"] = str(text_only(tmp_path / "t.parquet"))
    with pytest.raises(ConfigError, match=message):
        preflight.check_run(config(tmp_path, run), PluginRegistry())
    if source == "zeros":
        run["training"] |= {"num_height": 32, "num_width": 32, "num_frames": 5}
        preflight.check_run(config(tmp_path, run), PluginRegistry())


def test_every_latent_shape_of_the_data_is_looked_at(run, tmp_path, monkeypatch):
    monkeypatch.setattr(FinetuneConfig, "latents_source", lambda self: "data", raising=False)
    text = encode_tensor("text_embedding", torch.ones(3, TEXT_DIM))
    shapes = ((16, 1, 4, 4), (16, 1, 3, 4))
    rows = [text | encode_tensor("vae_latent", torch.ones(shape)) for shape in shapes]
    run["training"]["data_path"] = str(write_rows(tmp_path / "t.parquet", *rows))
    with pytest.raises(ConfigError, match=r"sample s1: vae_latent has shape \[16, 1, 3, 4\]"):
        preflight.check_run(config(tmp_path, run), PluginRegistry())


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
        preflight.check_run(config(tmp_path, run), PluginRegistry())


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
    monkeypatch.setattr("fastvideo_wan.components.load_transformer", None)
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

    monkeypatch.setattr("fastvideo_wan.outline.predict_velocity", fails)
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
    monkeypatch.setattr(FinetuneConfig, "latents_source", lambda self: "data", raising=False)
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
    holds = "import sys; from pathlib import Path; from fastvideo_core.dispatch.own_folder import alone_in\n"
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


# --- sample and export ----------------------------------------------------------------------------------------------


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry per call of the network."""
    made: list[int] = []
    original = diffusers.WanTransformer3DModel.forward

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        made.append(1)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(diffusers.WanTransformer3DModel, "forward", forward)
    return made


def prompt_file(folder: Path, *entries: dict[str, Any]) -> Path:
    file = folder / "prompts.json"
    file.write_text(json.dumps({"data": list(entries)}))
    return file


def test_steps_on_the_command_line_hold_for_every_prompt(commands, trained, tmp_path, calls):
    file = prompt_file(tmp_path, {"caption": "a", "num_inference_steps": 3})
    out = commands.works("sample", trained, "--prompts", file, "--steps", "2", "--guidance-scale", "1")
    assert len(calls) == 2
    assert ": 2 steps, guidance 1" in out
    assert "as its prompt says" not in out


def test_a_prompt_s_own_steps_are_reported(commands, trained, tmp_path, calls):
    file = prompt_file(tmp_path, {"caption": "a", "num_inference_steps": 3})
    out = commands.works("sample", trained, "--prompts", file, "--guidance-scale", "1")
    assert len(calls) == 3
    assert ": 50 steps, guidance 1" in out
    assert "00.mp4 (3 steps, as its prompt says)" in out


def test_the_size_is_the_run_s_and_is_printed(commands, trained, tmp_path, tiny_wan):
    fast = ("--steps", "1", "--guidance-scale", "1")
    out = commands.works("sample", trained, "--prompt", "x", *fast)
    assert "videos of 5 frames, 32 x 48 pixels (height x width), as the run was configured" in out
    file = prompt_file(tmp_path, {"caption": "a", "width": 32}, {"caption": "b", "num_frames": 9})
    out = commands.works("sample", trained, "--prompts", file, *fast, "--num-frames", "1")
    assert "videos of 1 frames, 32 x 32 pixels" in out
    assert "videos of 1 frames, 32 x 48 pixels" in out
    plain = ("sample", tiny_wan, "--family", "wan", "--prompt", "x", *fast, "--height", "16", "--width", "16")
    out = commands.works(*plain)
    assert "81 frames, 16 x 16 pixels (height x width); not named by prompt or run, so the family's default: " in out
    assert "default: --num-frames\n" in out


def test_a_prompt_that_does_not_fit_is_named_before_any_is_sampled(commands, trained, tmp_path, calls):
    file = prompt_file(tmp_path, {"caption": "a"}, {"caption": "b", "height": 40}, {"caption": "c", "num_frames": 4})
    error = commands.refuses("sample", trained, "--prompts", file, "--steps", "1")
    assert f'{file}, data[1] ("b"): height is 40' in error
    assert f'{file}, data[2] ("c"): num_frames is 4' in error
    assert not calls
    assert not (tmp_path / "samples").exists()


def test_samples_that_could_not_be_written_are_not_made(commands, trained, calls):
    for out in ("file", "file/sub"):
        error = commands.refuses("sample", trained, "--prompt", "x", "--steps", "1", "--out", out)
        assert f"--out ({out}): " in error
        assert "is a file" in error
    assert not calls


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--prompt", " "), "--prompt: the prompt is empty"),
        (("--prompt", "x", "--negative-prompt", "a \ud83d"), "--negative-prompt: is blank, or no UTF-8 text"),
        (("--prompt", "x", "--guidance-scale", "nan"), "'nan' is no finite number"),
        (("--prompt", "x", "--guidance-scale", "inf"), "'inf' is no finite number"),
        (("--prompt", "x", "--timesteps", "nan"), "--timesteps nan: 'nan' is no finite number"),
        (("--prompt", "x", "--timesteps", "1000,x"), "--timesteps 1000,x: 'x' is no finite number"),
        (("--prompt", "x", "--seed", "-1"), "'-1' is no whole number from 0"),
        (("--prompt", "x", "--role", "critic"), "--role critic: "),
        (("--prompt", "x", "--weights", "ema"), "--weights ema: "),
    ],
)
def test_options_that_cannot_be(commands, trained, options, message):
    error = commands.refuses("sample", trained, *options)
    assert message in error
    assert "roles.student" not in error


def test_role_and_weights_belong_to_checkpoints(commands, tiny_wan):
    options = ("--family", "wan", "--prompt", "x", "--role", "student", "--weights", "ema")
    error = commands.refuses("sample", tiny_wan, *options)
    assert f"--role student: is for checkpoints, and {tiny_wan} is none" in error
    assert f"--weights ema: is for checkpoints, and {tiny_wan} is none" in error
    assert "roles." not in error


def test_a_path_that_is_not_there(commands):
    for command in (("sample", "nope", "--prompt", "x"), ("export", "nope", "out")):
        error = commands.refuses(*command)
        assert "nope: there is no such path" in error
        assert "or a hub id (org/name)" in error
    assert "a hub id (org/name) does not say its family" in commands.refuses("sample", "org/name", "--prompt", "x")


def test_a_wrong_path_below_a_folder_that_is_here_is_no_hub_id(commands, tmp_path):
    (tmp_path / "runs").mkdir()
    for options in ((), ("--family", "wan")):
        assert "runs/dmd3: there is no such path" in commands.refuses("sample", "runs/dmd3", "--prompt", "x", *options)
    (tmp_path / "runs" / "empty").mkdir()
    assert "runs/empty: holds neither a checkpoint" in commands.refuses("sample", "runs/empty", "--prompt", "x")


def test_model_index_names_the_family(commands, tiny_wan, tmp_path):
    assert "1 steps" in commands.works("sample", tiny_wan, "--prompt", "x", "--steps", "1", *SIZE)
    (tmp_path / "prompts.txt").write_text("a cat\n")
    commands.works("preprocess", "--model", tiny_wan, "--input", "prompts.txt", "--output", "out")
    other = shutil.copytree(tiny_wan, tmp_path / "other")
    index = json.loads((other / "model_index.json").read_text())
    (other / "model_index.json").write_text(json.dumps({**index, "_class_name": "CogVideoXPipeline"}))
    error = commands.refuses("sample", other, "--prompt", "x")
    assert f"{other}: is a CogVideoXPipeline, which no installed family names" in error
    assert "wan: WanPipeline" in error
    (other / "model_index.json").write_text("[")
    assert "model_index.json: is no valid pipeline index" in commands.refuses("sample", other, "--prompt", "x")


def test_init_writes_before_model_and_data_are_there(commands, tiny_wan, latent_data, tmp_path):
    said = commands.works("init", "wan", "finetune")
    assert "put your own paths in place of path/to/model and path/to/latents, then" in said
    error = commands.refuses("check", "run.yaml")
    assert error.count("there is no 'path/to/") == 2
    text = (tmp_path / "run.yaml").read_text().replace("path/to/model", str(tiny_wan))
    (tmp_path / "run.yaml").write_text(text.replace("path/to/latents", str(latent_data)))
    commands.works("check", "run.yaml")


def test_tiny_ltx_says_which_generation(commands):
    assert "one: LTX-Video (generation 1; --set generation=2 writes LTX-2)" in commands.works("tiny", "ltx", "one")


def test_export_and_tiny_need_a_folder_that_can_be_made(commands, trained, tmp_path):
    for command in (("export", trained), ("tiny", "wan")):
        assert f"file/sub: {tmp_path / 'file'} is a file" in commands.refuses(*command, "file/sub")
        assert "file: there is something already" in commands.refuses(*command, "file")


def test_a_tiny_model_has_layers(commands, tmp_path):
    error = commands.refuses("tiny", "wan", "new", "--set", "num_layers=0")
    assert "num_layers: is 0" in error
    assert not (tmp_path / "new").exists()


# --- preprocess -----------------------------------------------------------------------------------------------------


def test_options_of_videos_are_refused_for_prompts_alone(commands, tiny_wan, tmp_path):
    (tmp_path / "prompts.txt").write_text("a cat\n")
    common = ("preprocess", "--family", "wan", "--model", tiny_wan, "--input", "prompts.txt", "--output", "out")
    given = ("--fps", "8", "--clips", "all", "--fps-policy", "keep", "--height", "32")
    error = commands.refuses(*common, *given)
    assert "prompts.txt holds prompts alone; --height, --fps-policy, --fps, --clips are for videos" in error
    assert not (tmp_path / "out").exists()
    assert "1 samples in 1 files" in commands.works(*common)


def test_preprocess_refuses_what_cannot_be_before_it_encodes(commands, tiny_wan, tmp_path):
    (tmp_path / "prompts.txt").write_text("a cat\n")
    common = ("preprocess", "--family", "wan", "--model", tiny_wan, "--input", "prompts.txt", "--output")
    assert f"file: {tmp_path / 'file'} is a file" in commands.refuses(*common, "file")
    assert "'nan' is no finite number" in commands.refuses(*common, "out", "--fps", "nan")
    assert ".: is the folder of the raw samples (prompts.txt)" in commands.refuses(*common, ".")
    assert "File name too long" in commands.refuses(*common, "out", "--input", "x" * 5000)


# --- few-step students ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def student(tiny_wan: Path, latent_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of dmd2 that would show its teacher with guidance 5."""
    folder = tmp_path_factory.mktemp("student")
    training = {"output_dir": str(folder / "run"), "data_path": str(latent_data), "max_train_steps": 1}
    training |= {"num_height": 32, "num_width": 32, "num_frames": 5}
    run = {
        "recipe": {"family": "wan", "method": "dmd2"},
        "roles": {
            name: {"path": str(tiny_wan), "trainable": name != "teacher"} for name in ("student", "teacher", "critic")
        },
        "training": training,
        "pipeline_config": {"sampler_kind": "sde"},
        "method_config": {"dmd_denoising_steps": [1000, 400], "generator_update_interval": 1},
    }
    assert main([str(write_run(folder / "run.yaml", run))]) == 0
    return folder / "run"


NOTE = "note: this student was distilled for guidance 1 and 2 steps at 1000, 400 (sde); "


@pytest.mark.parametrize("exported", [False, True], ids=["checkpoint", "exported"])
def test_a_student_s_guidance_is_1_and_other_settings_than_its_own_are_told(commands, student, tmp_path, exported):
    model: tuple[str | Path, ...] = (student,)
    if exported:
        commands.works("export", student, tmp_path / "exported")
        model = (tmp_path / "exported", "--family", "wan")
    size = ("--height", "16", "--width", "16", "--num-frames", "1", "--prompt", "x")
    for options, how, departs in (
        ((), "2 steps at 1000, 400 (sde), guidance 1", False),
        (("--steps", "3"), "3 steps, guidance 1", True),
        (("--guidance-scale", "5"), "2 steps at 1000, 400 (sde), guidance 5", True),
        (("--timesteps", "1000,400"), "2 steps at 1000, 400 (sde), guidance 1", False),
        (("--timesteps", "1000"), "1 steps at 1000 (sde), guidance 1", True),
        (("--sampler", "ode"), "2 steps at 1000, 400 (ode), guidance 1", True),
    ):
        out, error = commands.works_and_tells("sample", *model, *size, *options)
        assert f": {how}\n" in out
        assert (NOTE in error) is departs, options


def test_a_negative_prompt_that_nothing_takes_is_refused(commands, student, trained, tmp_path, calls):
    size = ("--height", "16", "--width", "16", "--num-frames", "1", "--prompt", "x")
    error = commands.refuses("sample", student, *size, "--negative-prompt", "blurred")
    assert "--negative-prompt: nothing is guided at guidance 1" in error
    assert not calls
    sheets = []
    for text in ("blurred", "sharp", "blurred"):
        guided = ("--steps", "1", "--guidance-scale", "5", "--negative-prompt", text)
        commands.works("sample", trained, *size, *guided, "--out", f"videos-{len(sheets)}")
        sheets.append((tmp_path / f"videos-{len(sheets)}" / "00.png").read_bytes())
    assert sheets[0] == sheets[2] != sheets[1]


def test_going_on_with_another_negative_prompt_is_told(run, tmp_path, caplog):
    for steps, text in ((1, ""), (2, ""), (3, "default")):
        run["training"] |= {"max_train_steps": steps, "resume_from_checkpoint": "latest" if steps > 1 else None}
        run["pipeline_config"] = {"negative_prompt": text}
        caplog.clear()
        assert main([str(write_run(tmp_path / "run.yaml", run))]) == 0
        told = [record.getMessage() for record in caplog.records if "negative_prompt" in record.getMessage()]
        assert len(told) == (steps == 3)
    assert 'was trained with "", and the run goes on with "色调艳丽' in told[0]
    assert "set it to the former to go on as before" in told[0]
