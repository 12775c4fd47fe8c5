"""What the commands over a real family refuse or report."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import diffusers
import pytest

from fastvideo_core.cli.main import main
from tests.commands import SIZE, commands, run, trained
from tests.conftest import write_run

__all__ = ["commands", "run", "trained"]


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
        (("--prompt", "x", "--upsampler", "x2"), "--upsampler: 'wan' samples in one stage"),
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
