"""The command `evaluate` on tiny Wan checkpoints: what it makes, goes on with, and refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastvideo_core.cli.main import main
from fastvideo_core.registry import PluginRegistry
from fastvideo_data.video_files import read_frames, write_video
from fastvideo_evaluate.command.models import open_candidates
from tests.commands import Commands, commands
from tests.conftest import distill, write_run

__all__ = ["commands"]

PROMPTS = ["a red square", "a blue disc"]
SIZE = ("--height", 32, "--width", 32, "--num-frames", 5)
TEACHER, LAST = "teacher", "run-000002-ema"
METRICS = "brightness,contrast,motion,diversity,frame_energy,latent_energy,latent_prompt_energy,paired_latents"
RAW = ["run-000001-raw", "run-000002-raw"]


@pytest.fixture(scope="module")
def trained(tiny_wan: Path, latent_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student's two checkpoints, with EMA weights, and prompts beside them."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "prompts.txt").write_text("\n".join(PROMPTS) + "\n", encoding="utf-8")
    training = {"output_dir": str(folder / "run"), "data_path": str(latent_data), "max_train_steps": 2}
    training |= {"training_state_checkpointing_steps": 1, "learning_rate": 0.01}
    run = {
        "recipe": {"family": "wan", "method": "consistency"},
        "roles": {name: {"path": str(tiny_wan), "trainable": name == "student"} for name in ("student", "teacher")},
        "training": training,
        "pipeline_config": {"sampler_kind": "sde"},
        "callbacks": {"ema": {"decay": 0.5}},
    }
    assert main([str(write_run(folder / "run.yaml", run))]) == 0
    return folder


@pytest.fixture(scope="module")
def asked(trained: Path) -> list[Any]:
    return [
        *("evaluate", trained / "run", "--prompts", trained / "prompts.txt", "--seeds", 2),
        *("--against-steps", 3, "--against-guidance-scale", 2, *SIZE, "--metrics", METRICS),
    ]


@pytest.fixture(scope="module")
def whole(asked: list[Any], trained: Path) -> Path:
    """All of it, made in one go by one process."""
    out = trained / "whole"
    assert main([*map(str, asked), "--output", str(out)]) == 0
    return out


def results_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return found


def models_of(folder: Path) -> dict[str, dict[str, Any]]:
    return {model["name"]: model for model in results_of(folder)["models"]}


@pytest.mark.slow
def test_teacher_and_checkpoints_with_raw_and_averaged_weights(whole: Path) -> None:
    models = models_of(whole)
    assert list(models) == [TEACHER, "run-000001-raw", "run-000001-ema", "run-000002-raw", LAST]
    assert models[TEACHER]["sampling"] == {"steps": 3, "guidance_scale": 2.0}
    assert models[LAST]["sampling"]["guidance_scale"] == 1
    assert len(models[LAST]["sampling"]["timesteps"]) == 4
    for model in models.values():
        assert len(list((whole / "videos" / model["name"]).glob("*.mp4"))) == 4
        assert np.shape(model["metrics"]["brightness"]["videos"]) == (2, 2)
    assert np.shape(models[LAST]["metrics"]["paired_latents"]["videos"]) == (2, 2)
    assert "latent_energy" in models[LAST]["metrics"]
    assert results_of(whole)["best"]["by"] == "latent_prompt_energy"
    assert models[TEACHER]["metrics"]["latent_prompt_energy"]["value"] == 0
    latents = np.load(whole / "videos" / LAST / "0000-0.npy")
    assert latents.shape == (16, 2, 4, 4)
    assert not np.array_equal(latents, np.load(whole / "videos" / LAST / "0000-1.npy"))
    page = (whole / "index.html").read_text(encoding="utf-8")
    assert 'src="data:video/mp4' in page
    assert "<svg" in page
    assert "http" not in page.replace("http://www.w3.org", "")


@pytest.mark.slow
def test_a_run_s_best_beside_the_run_is_sampled_once(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = tmp_path / "best"  # as the quality watch keeps it
    shutil.copytree(trained / "run" / "checkpoint-000001", best)
    paths = [str(best), str(trained / "run" / "checkpoint-000001"), str(trained / "run" / "checkpoint-000002")]
    found = open_candidates(paths, PluginRegistry(), family=None, role=None, weights="raw")
    assert [one.step for one in found] == [1, 2]
    assert f"checkpoint-000001 is the same checkpoint as {best}, and sampled once" in "".join(capsys.readouterr())


def test_what_is_missing_is_made_again_and_nothing_else(asked, whole: Path, commands: Commands, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "part")
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "part/videos").rglob("*.mp4") if "0000" in path.name}
    for path in (tmp_path / "part/videos").rglob("0001*"):
        path.unlink()
    said = commands.works(*asked, "--output", "part")
    assert "20 videos of 5 models, 10 there already" in said
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    for name in ("results.json", "index.html"):
        assert (tmp_path / "part" / name).read_bytes() == (whole / name).read_bytes()
    changed = commands.refuses(*asked, "--output", "part", "--steps", 2)
    assert "run-000001-raw: steps was None, is 2" in changed
    assert "fix: name another --output" in changed


@pytest.mark.slow
@pytest.mark.distributed
def test_two_processes_make_what_one_makes(asked, whole: Path, tmp_path: Path) -> None:
    done = distill(*asked, "--output", "two", "--num-processes", 2, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for name in ("results.json", "index.html", "evaluation.json"):
        assert (tmp_path / "two" / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.slow
def test_a_student_that_makes_one_still_picture_comes_last(
    asked, whole: Path, commands: Commands, tmp_path: Path
) -> None:
    shutil.copytree(whole, tmp_path / "planted")
    for path in (tmp_path / "planted/videos" / RAW[1]).glob("*.mp4"):
        write_video(path, np.full_like(read_frames(path), 40), 16.0)
        np.save(path.with_suffix(".npy"), np.full_like(np.load(path.with_suffix(".npy")), 0.5))
    commands.works(*asked, "--output", "planted")
    models = models_of(tmp_path / "planted")
    places = {name: model["mean_place"] for name, model in models.items() if name != TEACHER}
    assert max(places, key=lambda name: places[name]) == RAW[1]
    assert models[RAW[1]]["metrics"]["diversity"]["value"] == 0
    assert models[RAW[1]]["best_in"] == 0
    assert results_of(tmp_path / "planted")["best"]["name"] != RAW[1]


@pytest.mark.slow
def test_an_exported_student_beside_a_checkpoint_as_its_teacher(trained: Path, commands: Commands, tmp_path) -> None:
    commands.works("export", trained / "run", "exported")
    told = commands.works(
        *("evaluate", "exported", "--against", trained / "run/checkpoint-000001", "--against-steps", 2, "--seeds", 1),
        *("--prompts", trained / "prompts.txt", *SIZE, "--metrics", "brightness,paired_latents", "--output", "out"),
    )
    assert "4 videos of 2 models, 0 there already" in told
    models = models_of(tmp_path / "out")
    assert list(models) == [TEACHER, "exported"]
    assert models["exported"]["step"] is None
    assert len(models["exported"]["sampling"]["timesteps"]) == 4
    assert models[TEACHER]["sampling"]["steps"] == 2
    assert "checkpoint-000001" in models[TEACHER]["source"]
    assert models["exported"]["metrics"]["paired_latents"]["value"] > 0


@pytest.mark.slow
def test_real_clips_in_the_place_of_a_teacher(trained: Path, whole: Path, commands: Commands, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "out")  # nothing is sampled again
    (tmp_path / "real").mkdir()
    lines = ["video,caption"]
    for prompt, caption in enumerate(PROMPTS):
        for seed in range(2):  # what one of the students makes of the prompt, of the other noise, larger and for longer
            frames = read_frames(whole / f"videos/{RAW[0]}/{prompt:04d}-{1 - seed}.mp4")
            larger = np.concatenate([frames, frames]).repeat(2, axis=1).repeat(2, axis=2)
            write_video(tmp_path / f"real/{prompt}-{seed}.mp4", larger, 16.0)
            lines.append(f"{prompt}-{seed}.mp4,{caption}")
    (tmp_path / "real/metadata.csv").write_text("\n".join(lines) + "\n")
    call = ["evaluate", trained / "run", "--prompts", trained / "prompts.txt", "--against-clips", "real", *SIZE]
    told = commands.works(*call, "--seeds", 2, "--output", "out")
    assert "16 videos of 4 models, 16 there already" in told
    assert "latent_energy reads latents, and clips have none" in told
    results, models = results_of(tmp_path / "out"), models_of(tmp_path / "out")
    assert list(models) == ["clips", "run-000001-raw", "run-000001-ema", "run-000002-raw", LAST]
    assert results["best"]["name"] == RAW[0]
    assert results["best"]["by"] == "frame_prompt_energy"
    assert "between its videos and the clips of the same prompt" in results["best"]["rule"]
    assert models[RAW[0]]["metrics"]["brightness"]["drift"]["value"] == pytest.approx(0, abs=0.02)  # coded twice
    assert read_frames(tmp_path / "out/videos/clips/0001-0.mp4").shape == (5, 32, 32, 3)
    assert "compared with as many real clips of real" in (tmp_path / "out/index.html").read_text()
    many = commands.refuses(*call, "--seeds", 3, "--output", "other")
    assert "has 2 clips of 'a red square', and 3 are compared" in many
    assert "--against: is of a teacher" in commands.refuses(*call, "--against", trained, "--output", "other")
    (tmp_path / "real/1-1.mp4").unlink()
    assert "has 1 clip of 'a blue disc', and 2 are compared" in commands.refuses(*call, "--output", "out")


@pytest.fixture
def plain(tiny_wan: Path, commands: Commands, tmp_path: Path) -> list[Any]:
    """Of a folder, without a teacher."""
    (tmp_path / "prompts.txt").write_text("a red square\n", encoding="utf-8")
    return ["evaluate", tiny_wan, "--prompts", "prompts.txt", "--output", "out"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--metrics", "brigtness"], "did you mean 'brightness'"),
        (["--metrics", "frame_energy"], "frame_energy needs a teacher, and no run names one"),
        (["--metrics", "diversity", "--seeds", "1"], "diversity needs two seeds of a prompt"),
        (["--seeds", "0"], "--seeds: is 0"),
        (["--prompts", "missing.txt"], "missing.txt: there is no such"),
        (["--against", "nowhere/at/all"], "there is no such path"),
        (["--num-processes", "0"], "--num-processes: is 0"),
    ],
)
def test_wrong_input_is_one_message(plain, commands: Commands, tmp_path: Path, arguments, message) -> None:
    assert message in commands.refuses(*plain, *arguments)
    assert not (tmp_path / "out").exists()


def test_folders_that_cannot_be_used(plain, commands: Commands, tiny_wan: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "empty" in commands.refuses("evaluate", "empty", *plain[2:])
    (tmp_path / "run").mkdir()
    (tmp_path / "run/run.yaml").write_text("")
    assert "is not a checkpoint, and holds none" in commands.refuses("evaluate", "run", *plain[2:])
    assert "is named twice" in commands.refuses("evaluate", tiny_wan, tiny_wan, *plain[2:])
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.txt").write_text("")
    assert "holds something that is no evaluation: thesis.txt" in commands.refuses(*plain)
