"""The command `trajectories` and what it writes: from prompts to a data set, on tiny pipelines of the installed families."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from fastvideo_core.cli.main import main
from fastvideo_data.data_set import DataSet
from fastvideo_data.schema import decode_tensor
from fastvideo_diffusers.fingerprint import fingerprint
from tests.commands import commands
from tests.conftest import distill, write_run

__all__ = ["commands"]

PROMPTS = ["a red square", "a blue disc", "a green bar", "a grey ring", "a white dot"]
SIZE = ("--height", 32, "--width", 32, "--num-frames", 5)
SHIFTED = [1000.0, 900.0, 750.0, 500.0]
"""1000, 750, 500, 250 at the tiny Wan's flow shift, which is 3."""


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text("\n".join(PROMPTS) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def asked(tiny_wan: Path, prompts: Path) -> list[Any]:
    return [
        "trajectories",
        *("--model", tiny_wan, "--prompts", prompts, "--steps", 8, "--guidance-scale", 3, *SIZE),
        *("--samples-per-file", 2),
    ]


def rows_of(folder: Path) -> dict[str, dict[str, Any]]:
    """By id."""
    rows = [row for part in sorted(folder.glob("*.parquet")) for row in pq.read_table(part).to_pylist()]
    assert len({row["id"] for row in rows}) == len(rows)
    return {row["id"]: row for row in rows}


def states_of(folder: Path) -> dict[str, torch.Tensor]:
    return {name: decode_tensor("trajectory_latents", row) for name, row in rows_of(folder).items()}


def test_the_states_of_the_student_s_schedule_in_fastvideo_s_columns(asked, commands, tiny_wan, tmp_path):
    said = commands.works(*asked, "--output", "out")
    assert "states at 1000, 900, 750, 500 and the clean end" in said
    rows = rows_of(tmp_path / "out")
    assert [row["caption"] for row in rows.values()] == PROMPTS
    assert {row["media_type"] for row in rows.values()} == {"text"}
    for row in rows.values():
        assert decode_tensor("trajectory_timesteps", row).tolist() == pytest.approx([*SHIFTED, 0.0])
        assert decode_tensor("trajectory_latents", row).shape == (5, 16, 2, 4, 4)
    data = DataSet(tmp_path / "out")
    assert data.normalised["trajectory_latents"] is True
    assert data.unsaid_normalisation is None


def test_the_teacher_is_named_in_every_file_by_its_weights(asked, commands, tiny_wan, tmp_path):
    commands.works(*asked, "--output", "out")
    parts = sorted((tmp_path / "out").glob("*.parquet"))
    assert len(parts) == 3
    for part in parts:
        metadata = pq.read_schema(part).metadata
        assert json.loads(metadata[b"fastvideo.teacher"]) == {
            "path": str(tiny_wan),
            "weights": fingerprint(tiny_wan / "transformer", where="tiny"),
        }
        settings = json.loads(metadata[b"fastvideo.settings"])
        assert (settings["steps"], settings["guidance_scale"], settings["seed"]) == (8, 3.0, 0)
        assert settings["encoder"]["text_encoder"] == fingerprint(tiny_wan / "text_encoder", where="tiny")


def test_all_states_hold_those_of_the_schedule_among_them(asked, commands, tmp_path):
    commands.works(*asked, "--output", "few")
    commands.works(*asked, "--output", "all", "--all-states")
    few, every = states_of(tmp_path / "few"), states_of(tmp_path / "all")
    for name, states in few.items():
        assert every[name].shape[0] == 9
        assert torch.equal(states, every[name][[0, 2, 4, 6, 8]])


def test_what_is_there_is_kept_and_the_rest_is_what_it_would_have_been(asked, commands, tmp_path):
    commands.works(*asked, "--output", "whole")
    commands.works(*asked, "--output", "broken")
    lost = sorted((tmp_path / "broken").glob("*.parquet"))[1]
    kept = lost.with_name("part-0000-000000.parquet")
    before = kept.stat().st_mtime_ns
    lost.unlink()
    said = commands.works(*asked, "--output", "broken", "--batch-size", 2)
    assert "3 of 5 prompts are there already" in said
    assert kept.stat().st_mtime_ns == before
    whole, again = states_of(tmp_path / "whole"), states_of(tmp_path / "broken")
    assert whole.keys() == again.keys()
    for name, states in whole.items():
        torch.testing.assert_close(states, again[name], rtol=0, atol=1e-5)


def test_another_teacher_or_other_options_are_refused(asked, commands, tiny_wan, tmp_path):
    commands.works(*asked, "--output", "out")
    said = commands.refuses(*asked, "--output", "out", "--seed", 1)
    assert "was written with other settings: seed was 0, is 1" in said
    assert "name another --output, or delete this one" in said
    assert "dtype was 'float32', is 'float16'" in commands.refuses(*asked, "--output", "out", "--dtype", "float16")
    shutil.copytree(tiny_wan, tmp_path / "other")
    double(tmp_path / "other" / "transformer")
    again = [tmp_path / "other" if argument == tiny_wan else argument for argument in asked]
    assert "teacher was" in commands.refuses(*again, "--output", "out")


def test_another_shift_is_refused_where_the_stored_timesteps_do_not_tell(asked, commands):
    one_step = [*asked, "--output", "out", "--denoising-steps", 1000]
    commands.works(*one_step)
    assert "flow_shift was None, is 5" in commands.refuses(*one_step, "--flow-shift", 5)


def test_prompts_that_were_edited_are_refused_by_name(asked, commands, prompts):
    commands.works(*asked, "--output", "out")
    prompts.write_text("\n".join(["a red cube", *PROMPTS[1:]]) + "\n", encoding="utf-8")
    said = commands.refuses(*asked, "--output", "out")
    assert "'a red cube'" in said
    assert "'a red square'" in said


def test_prompts_that_are_listed_no_longer_are_named_and_new_ones_are_added(asked, commands, prompts, tmp_path):
    commands.works(*asked, "--output", "out")
    prompts.write_text("\n".join([*PROMPTS, "a black star"]) + "\n", encoding="utf-8")
    commands.works(*asked, "--output", "out")
    assert [row["caption"] for row in rows_of(tmp_path / "out").values()] == [*PROMPTS, "a black star"]
    prompts.write_text("\n".join(PROMPTS[:4]) + "\n", encoding="utf-8")
    said = commands.refuses(*asked, "--output", "out")
    assert "holds trajectories of 2 prompts that are listed no longer" in said
    assert "'a black star'" in said


def test_a_run_with_another_text_encoder_is_refused(asked, commands, tiny_wan, tmp_path):
    commands.works(*asked, "--output", "out")
    shutil.copytree(tiny_wan, tmp_path / "other")
    double(tmp_path / "other" / "text_encoder")
    run = {
        "recipe": {"family": "wan", "method": "kd"},
        "roles": {"student": {"path": str(tmp_path / "other"), "trainable": True}},
        "training": {"output_dir": str(tmp_path / "run"), "data_path": str(tmp_path / "out"), "max_train_steps": 1},
    }
    assert "text_encoder" in commands.refuses("check", write_run(tmp_path / "run.yaml", run))
    run["roles"]["student"]["path"] = str(tiny_wan)
    commands.works("check", write_run(tmp_path / "run.yaml", run))


def double(folder: Path) -> None:
    """The weights of a component, twice as large."""
    (weights,) = folder.glob("*.safetensors")
    save_file({name: 2 * tensor for name, tensor in load_file(weights).items()}, weights, {"format": "pt"})


def test_a_schedule_that_the_teacher_s_steps_do_not_meet_names_the_nearest(asked, commands, tmp_path):
    said = commands.refuses(*asked, "--output", "out", "--no-warp")
    assert "the teacher's 8 steps have no state at 250; the nearest are at 500 and 300" in said
    assert not (tmp_path / "out" / ".prompts").exists()


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("1000,x", "--denoising-steps: '1000,x' are no numbers with commas between them"),
        ("1000,nan", "--denoising-steps: '1000,nan': Input should be a finite number"),
        ("1000,500,700", "--denoising-steps: '1000,500,700': steps must fall strictly, from noise to clean"),
        ("500", "--denoising-steps: '500': the first step must be 1000 or 999 (pure noise)"),
    ],
)
def test_a_schedule_that_is_none_is_refused_before_anything_is_encoded(asked, commands, tmp_path, typed, said):
    assert f"{said}\n" in commands.refuses(*asked, "--output", "out", "--denoising-steps", typed)
    assert not (tmp_path / "out" / ".prompts").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--steps", 0], "--steps: is 0"),
        (["--guidance-scale", -1], "--guidance-scale: is -1"),
        (["--flow-shift", 0], "--flow-shift: is 0"),
        (["--guidance-scale", 1, "--negative-prompt", "x"], "nothing is guided at guidance 1"),
        (["--height", 33], "--height, --width, --num-frames: height is 33"),
        (["--all-states", "--no-warp"], "--no-warp: does nothing with --all-states"),
        (["--all-states", "--denoising-steps", "1000,500"], "--denoising-steps: does nothing with --all-states"),
        (["--model", "nowhere"], "there is no such path"),
        (["--prompts", "nowhere.txt"], "there is no such file or folder"),
        (["--output", "file"], "file"),
    ],
    ids=lambda value: str(value[0]) if isinstance(value, list) else "",
)
def test_what_is_typed_wrongly_is_one_clear_message(asked, commands, options, said):
    message = commands.refuses(*asked, "--output", "out", *options)
    assert said in message


def test_trajectories_of_a_checkpoint_are_those_of_its_network(asked, commands, tiny_wan, trained_wan, tmp_path):
    commands.works(*asked, "--output", "base")
    of_checkpoint = [trained_wan if argument == tiny_wan else argument for argument in asked]
    said = commands.works(*of_checkpoint, "--output", "trained")
    assert "raw weights" in said
    base, trained = states_of(tmp_path / "base"), states_of(tmp_path / "trained")
    for name, states in base.items():
        assert torch.equal(states[0], trained[name][0])  # the noise
        assert not torch.equal(states[-1], trained[name][-1])


@pytest.fixture
def trained_wan(tiny_wan: Path, latent_data: Path, tmp_path: Path) -> Path:
    """A run of one large step."""
    training = {"output_dir": str(tmp_path / "run"), "data_path": str(latent_data), "max_train_steps": 1}
    training |= {"learning_rate": 0.1, "max_grad_norm": 0.0}
    roles = {"student": {"path": str(tiny_wan), "trainable": True}}
    recipe = {"family": "wan", "method": "finetune"}
    assert main([str(write_run(tmp_path / "run.yaml", {"recipe": recipe, "roles": roles, "training": training}))]) == 0
    return tmp_path / "run"


@pytest.mark.slow
@pytest.mark.distributed
def test_two_processes_write_what_one_writes(asked, commands, tmp_path):
    commands.works(*asked, "--output", "one")
    done = distill(*map(str, [*asked, "--output", "two", "--num-gpus", 2]), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    parts = sorted(path.name for path in (tmp_path / "two").glob("*.parquet"))
    assert {name[:9] for name in parts} == {"part-0000", "part-0001"}
    one, two = states_of(tmp_path / "one"), states_of(tmp_path / "two")
    assert one.keys() == two.keys()
    for name, states in one.items():
        assert torch.equal(states, two[name])


def test_prompts_may_be_encoded_before(asked, commands, prompts, tiny_wan, tmp_path):
    commands.works(*asked, "--output", "out")
    commands.works("preprocess", "--model", tiny_wan, "--input", prompts, "--output", "encoded")
    again = [tmp_path / "encoded" if argument == prompts else argument for argument in asked]
    commands.works(*again, "--output", "again")
    one, other = states_of(tmp_path / "out"), states_of(tmp_path / "again")
    for name, states in one.items():
        assert torch.equal(states, other[name])
    assert not (tmp_path / "again" / ".prompts").exists()


def test_prompts_that_another_text_encoder_encoded_are_refused(asked, commands, prompts, tiny_wan, tmp_path):
    shutil.copytree(tiny_wan, tmp_path / "other")
    double(tmp_path / "other" / "text_encoder")
    commands.works("preprocess", "--model", tmp_path / "other", "--input", prompts, "--output", "encoded")
    again = [tmp_path / "encoded" if argument == prompts else argument for argument in asked]
    said = commands.refuses(*again, "--output", "again")
    assert "was made with text_encoder" in said
    assert "preprocess the prompts with --model" in said
