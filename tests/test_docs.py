"""The documentation's examples run as they stand."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from fastvideo_core.cli.main import main
from fastvideo_core.dispatch.load_run_config import load_run_config
from fastvideo_core.registry import PluginRegistry
from fastvideo_data.video_files import write_video
from fastvideo_dmd2.config import DMD2Config
from fastvideo_testing.fake_packages import install
from fastvideo_testing.isolation import isolated_registrations
from fastvideo_testing.runs import build_run, toy_family
from tests.docs_extension import docs_extension

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"(?:<!-- example: (?P<name>\S+) -->\n)?```(?P<language>\w+)\n(?P<text>.*?)```", re.DOTALL)


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return [match["text"] for match in BLOCK.finditer(text) if match["language"] == language]


def example(page: str, name: str) -> str:
    text = (ROOT / page).read_text(encoding="utf-8")
    return next(match["text"] for match in BLOCK.finditer(text) if match["name"] == name)


def test_the_readme_s_run_yaml_is_valid_with_local_paths(tmp_path, tiny_wan, latent_data, monkeypatch):
    run = yaml.safe_load(example("README.md", "run.yaml"))
    prompts = tmp_path / "prompts.json"
    prompts.write_text('{"data": [{"caption": "a cat"}]}')
    for role in run["roles"].values():
        role["path"] = str(tiny_wan)
    run["training"] |= {"data_path": str(latent_data), "validation_dataset_file": str(prompts)}
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(run))
    cfg = load_run_config(path, PluginRegistry())
    assert cfg.training.num_gpus == 8
    assert cfg.training.validation_sampling_steps == (8,)


def test_the_ltx_page_s_runs_train_on_a_tiny_pipeline(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["tiny", "ltx", "base", "--set", "generation=2"]) == 0
    tone = np.sin(np.arange(24000) / 20)[None].astype(np.float32)
    for number in range(2):
        frames = np.random.default_rng(number).integers(0, 255, (12, 64, 64, 3), dtype=np.uint8)
        write_video(tmp_path / "clips" / f"{number}.mp4", frames, 24, audio=0.3 * tone[:, :12000], sample_rate=24000)
        (tmp_path / "clips" / f"{number}.txt").write_text(f"clip number {number}")
    size = ["--height", "64", "--width", "64", "--num-frames", "9"]
    where = ["--family", "ltx", "--model", "base", "--input", "clips", "--output", "data"]
    assert main(["preprocess", *where, *size]) == 0
    for name, folder in (("ltx.yaml", "ltx"), ("distilled.yaml", "ltx-distilled")):
        run = yaml.safe_load(example("docs/ltx.md", name))
        for role in run["roles"].values():
            role["path"] = "base"
        run["training"]["max_train_steps"] = 1
        if folder == "ltx-distilled":
            run["method_config"]["generator_update_interval"] = 1
        (tmp_path / name).write_text(yaml.safe_dump(run))
        assert main([name]) == 0
        assert (tmp_path / "outputs" / folder / "checkpoint-000001").is_dir()


def test_the_data_page_s_commands_make_a_data_set_of_many_sizes_that_trains(tmp_path, monkeypatch, tiny_wan, capsys):
    monkeypatch.chdir(tmp_path)
    for name, frames, size in (("wide", 14, (32, 56)), ("tall", 6, (48, 28)), ("short", 3, (32, 56))):
        noise = np.random.default_rng(0).integers(0, 255, (frames, *size, 3), dtype=np.uint8)
        write_video(tmp_path / "clips" / f"{name}.mp4", noise, 16)
        (tmp_path / "clips" / f"{name}.txt").write_text(name)
    Image.fromarray(noise[0]).save(tmp_path / "clips" / "image.png")
    (tmp_path / "clips" / "image.txt").write_text("an image")
    (one,), (several,) = (blocks("docs/data.md", language) for language in ("sh", "bash"))
    tiny = {"480x832": "32x48", "1,33,81": "1,5,9", "Wan-AI/Wan2.1-T2V-1.3B-Diffusers": str(tiny_wan), "\\\n": ""}

    def works(command, changes):
        for old, new in {**tiny, **changes}.items():
            assert old in command
            command = command.replace(old, new)
        assert main(shlex.split(command)[1:]) == 0

    works(one, {})
    sizes = {path.name for path in Path("data").iterdir() if path.is_dir()}
    assert sizes == {"32x48x9", "32x48x5", "32x48x1", "48x32x5"}
    _, array = several.split("\n", 1)
    for task in ("1", "0"):
        assert not Path("shares/report.json").exists()
        of_task = {"$SLURM_ARRAY_TASK_ID": task, "$SLURM_ARRAY_TASK_COUNT": "2"}
        works(array, {**of_task, " --num-processes 8": "", "--output data": "--output shares"})
    assert json.loads(Path("shares/report.json").read_text())["samples"] == 4
    run = yaml.safe_load(example("docs/recipes/finetune-on-your-clips.md", "finetune.yaml"))
    run["roles"]["student"] = {"path": str(tiny_wan), "trainable": True}
    run["training"] = {"output_dir": "run", "data_path": "data", "train_batch_size": 2, "max_train_steps": 5}
    run["training"] |= {"learning_rate": 1e-3, "log_validation": False}
    Path("run.yaml").write_text(yaml.safe_dump(run))
    assert main(["run.yaml"]) == 0


@pytest.mark.slow
def test_the_quickstart_runs_from_its_first_command_to_plain_diffusers(tmp_path):
    (install,) = blocks("docs/quickstart.md", "sh")
    names = {re.findall('^name = "(.*)"', file.read_text(), re.M)[0] for file in ROOT.glob("*/**/pyproject.toml")}
    assert set(install.split()[2:]) <= names
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, program in (("python", ""), ("fastvideo-distill", "-m fastvideo_core ")):
        (commands / name).write_text(f'#!/bin/sh\nexec {sys.executable} {program}"$@"\n')
        (commands / name).chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{commands}:{os.environ['PATH']}",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    for script in blocks("docs/quickstart.md", "bash"):
        done = subprocess.run(
            ["bash", "-e", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "samples" / "00.mp4").stat().st_size > 0
    check = blocks("docs/quickstart.md", "python")[0] + "\nassert video.shape == (9, 32, 32, 3)\n"
    done = subprocess.run(
        [sys.executable, "-c", check], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_page_on_python_trains_samples_and_raises_as_it_says(tmp_path, monkeypatch, tiny_wan, latent_data):
    monkeypatch.chdir(tmp_path)
    Path("tiny-wan").symlink_to(tiny_wan)
    Path("latents").symlink_to(latent_data)
    cells = blocks("docs/python.md", "python")
    names = {}
    for cell in cells:
        exec(compile(cell, "docs/python.md", "exec"), names)
    assert len([line for line in cells[0].splitlines() if line]) <= 10
    assert len(names["losses"]) == 3
    assert names["videos"][0].stat().st_size > 0
    assert names["parameters"] > 0
    (shown,) = blocks("docs/python.md", "text")
    assert names["message"].startswith(shown)


def test_the_plug_in_guide_s_method_and_callback_train(tmp_path):
    for name in ("my_method.py", "my_callback.py"):
        (tmp_path / name).write_text(example("docs/plugins.md", name))
    run = {
        "recipe": {"family": "toy", "method": "velocity"},
        "roles": {
            "student": {"path": "org/student", "trainable": True},
            "teacher": {"path": "org/teacher", "trainable": False},
        },
        "training": {
            "output_dir": str(tmp_path / "out"),
            "max_train_steps": 200,
            "train_batch_size": 32,
            "learning_rate": 1e-2,
        },
        "callbacks": {"count": {}},
    }
    with isolated_registrations(), toy_family():
        registry = PluginRegistry()
        for name in ("my_method.py", "my_callback.py"):
            registry.load_plugin_file(tmp_path / name)
        runtime = build_run(tmp_path, run)
        runtime.train()
        assert runtime.callbacks.callbacks["count"].state_dict() == {"steps": 200}
    losses = [
        yaml.safe_load(line)["total_loss"] for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()
    ]
    assert sum(losses[-20:]) < 0.2 * sum(losses[:20])


def test_the_plug_in_guide_s_command_runs(tmp_path, monkeypatch, capsys):
    entry = "[fastvideo.commands]\nwords = my_package.plugin:PLUGIN\n"
    modules = {"my_package/plugin.py": example("docs/plugins.md", "my_command.py")}
    install(tmp_path, "my-package", entry_points=entry, modules=modules)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main(["words", "a red ball"]) == 0
    assert capsys.readouterr().out == "3 words\n"


def test_the_adversarial_options_of_the_dmd2_page_are_valid():
    options = yaml.safe_load(example("docs/dmd2.md", "adversarial.yaml"))["method_config"]
    assert DMD2Config.model_validate(options).adversarial_weight == 0.005
    page = (ROOT / "docs/dmd2.md").read_text(encoding="utf-8")
    named = [name for name in DMD2Config.model_fields if name.startswith(("adversarial", "discriminator", "r1"))]
    assert [name for name in named if f"`{name}`" not in page] == []


@pytest.fixture(scope="module")
def made_pages() -> dict[Path, str]:
    """The pages that are in no checkout: building the documentation makes them."""
    return {ROOT / "docs/reference" / name: page() for name, page in docs_extension("reference").PAGES.items()}


PAGES = ["README.md", *(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize(
    "page", sorted(page for page in PAGES if not page.startswith(("docs/reference", "docs/_build")))
)
def test_links_between_pages_lead_somewhere(page, made_pages):
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text):
        path = Path(os.path.normpath((ROOT / page).parent / target))
        assert path in made_pages or (path.exists() and path.parent.name != "reference"), target


def test_the_pages_that_are_made_name_every_section_and_command(made_pages):
    options, commands, names = made_pages.values()
    assert "## `training`" in options
    assert "## `method_config` of method `dmd2`" in options
    assert "## preprocess" in commands
    assert "| `DistillMethod` | A training algorithm over roles. |" in names


def test_the_map_of_the_folders_and_the_house_name_what_is_there():
    where = (ROOT / "docs/concepts.md").read_text(encoding="utf-8").partition("## Where is what?")[2]
    house = (ROOT / "docs/design.md").read_text(encoding="utf-8").partition("## The house")[2].partition("\n## ")[0]
    core = ROOT / "core/src/fastvideo_core"
    homes = [ROOT, core, core / "contracts", *ROOT.glob("plugins/*/src/*")]
    named = re.findall(r"`([\w./-]+(?:/|\.py)|plugins/[\w-]+|examples/[\w-]+)`", where + house)
    assert len(named) > 50
    assert [name for name in named if not any((home / name).exists() for home in homes)] == []
    folders = {path.name for path in core.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert {name.rstrip("/") for name in re.findall(r"^\| `(\w+/)` \|", house, re.MULTILINE)} == folders
