"""Do the installed packages work where there is no repository? `python -P tests/smoke.py PART`, in the environment to test.

The parts follow each other, each with more packages installed: `core` (fastvideo-core alone), `training` (with fastvideo-wan,
-dmd2, -finetune), `tools` (with fastvideo-tools). Everything happens in an empty temporary folder. The light commands and one
training run are processes of their own, through the installed console script; the other ones share this process, because most of
a heavy command is imports.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
PROGRAM = "fastvideo-distill"
FAMILY_AND_METHODS = {"models": {"wan"}, "methods": {"finetune", "dmd2"}, "commands": {"preprocess"}}
WATCHING_CALLBACKS = {"grad_norm", "throughput", "profiler", "early_stop"}
TOOLS = ("demo", "report", "doctor", "init", "new-plugin", "convert", "pairs", "schema", "tiny", "fits", "simulate")
OPTIONAL = {"wandb", "tensorboard", "peft"}
DATA_LIBRARIES = {"pyarrow", "av", "pillow"}
HEIGHT, WIDTH, FRAMES, CLIPS = 32, 48, 9, 3
LIMIT_SECONDS = 90
"""What one part may take."""


class SmokeError(Exception):
    """Something that an installed package must do does not work."""


def require(holds: bool, message: str) -> None:
    """Raises SmokeError with the message when something does not hold."""
    if not holds:
        raise SmokeError(message)


def ended(*arguments: str) -> subprocess.CompletedProcess[str]:
    """How a process of the installed console script ended."""
    print(f"$ {PROGRAM} {' '.join(arguments)}", flush=True)
    script = shutil.which(PROGRAM, path=sysconfig.get_path("scripts"))
    require(script is not None, f"there is no {PROGRAM} beside {sys.executable}")
    return subprocess.run([str(script), *arguments], text=True, capture_output=True)


def process(*arguments: str) -> str:
    """The output of a process that works."""
    done = ended(*arguments)
    ending = f"{done.stdout[-1500:]}{done.stderr[-1500:]}"
    require(done.returncode == 0, f"`{PROGRAM} {' '.join(arguments)}` ended with {done.returncode}:\n{ending}")
    return done.stdout


def check_not_installed(command: str, package: str) -> None:
    """A command that is not there names the package that brings it."""
    done = ended(command, "x")
    said = done.stderr.startswith(f"error: no command {command!r} is installed (installed: ")
    said = said and done.stderr.endswith(f"\n    fix: pip install {package}\n")
    require(done.returncode == 2 and said, f"it ended with {done.returncode}: {done.stderr}")
    listed = [line.split(maxsplit=1) for line in process("--help").splitlines()]
    require([command, f"pip install {package}"] in listed, f"--help does not say how to get {command}")


def command(*arguments: str) -> None:
    """The same command in this process."""
    from fastvideo_core.cli.main import main as run

    print(f"$ {PROGRAM} {' '.join(arguments)}", flush=True)
    code = run(arguments)
    require(code == 0, f"`{PROGRAM} {' '.join(arguments)}` ended with {code}; its message is above")


def check_that_wheels_are_used() -> None:
    """Nothing is imported from the repository."""
    import fastvideo_core

    inside = [path for path in sys.path if path and _below(Path(path), REPOSITORY) and "site-packages" not in path]
    require(not inside, f"the repository is on sys.path: {inside}; run with `python -P`")
    location = str(fastvideo_core.__file__)
    require("site-packages" in location, f"fastvideo_core is imported from {location}, not from an installed wheel")


def check_plugins(expected: dict[str, set[str]]) -> None:
    """Everything that is installed is there and healthy."""
    process("plugins")
    listed: list[dict[str, Any]] = json.loads(process("plugins", "--json"))
    broken = [f"{plugin['name']}: {plugin['reason']}" for plugin in listed if not plugin["healthy"]]
    require(not broken, f"plug-ins are broken: {'; '.join(broken)}")
    unmet = [f"{plugin['name']}: {plugin['unmet']}" for plugin in listed if plugin["unmet"]]
    require(not unmet, f"plug-ins are incomplete: {'; '.join(unmet)}")
    for kind, names in expected.items():
        found = {plugin["name"] for plugin in listed if plugin["kind"] == kind}
        require(names <= found, f"of {kind}, {sorted(names - found)} is missing; found {sorted(found)}")


def import_every_module(package: str) -> None:
    """All that a package imports is there; what its extras bring may be missing."""
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
        if not module.name.endswith("__main__"):
            try:
                importlib.import_module(module.name)
            except ModuleNotFoundError as error:
                require(error.name in OPTIONAL, f"{module.name} needs {error.name}, which is not there")


def check_core_alone() -> None:
    """Every module of core is imported where there is nothing else, and no command of another package is there."""
    installed = {str(distribution.name).lower() for distribution in metadata.distributions()}
    require(not DATA_LIBRARIES & installed, f"core brings {sorted(DATA_LIBRARIES & installed)}")
    require({name for name in installed if name.startswith("fastvideo")} == {"fastvideo-core"}, f"found {installed}")
    import_every_module("fastvideo_core")
    check_plugins({"callbacks": {"ema"}})
    for name in TOOLS:
        check_not_installed(name, "fastvideo-tools")
    check_not_installed("preprocess", "fastvideo-data")


def check_training() -> None:
    """A family and methods, that bring all they need and no tools."""
    check_plugins(FAMILY_AND_METHODS)
    owners = {
        name.lower()
        for distribution in metadata.distributions()
        if (name := str(distribution.name)).startswith("fastvideo")
        if any(line.startswith("pyarrow") for line in distribution.requires or ())
    }
    require(owners == {"fastvideo-data"}, f"pyarrow comes with {sorted(owners)}")
    check_not_installed("report", "fastvideo-tools")
    check_the_path_from_clips_to_an_exported_student()


def check_tools() -> None:
    """Commands of fastvideo-tools."""
    check_plugins({"commands": {*TOOLS, "preprocess"}, "callbacks": WATCHING_CALLBACKS})
    for name in TOOLS:
        process(name, "--help")
    for name, lines in {"training": 30, "wan": 3, "finetune": 3, "dmd2": 3}.items():
        require(len(process("schema", name).splitlines()) > lines, f"schema {name} says next to nothing")
    process("doctor")
    command("tiny", "wan", "base")
    command("init", "wan", "dmd2", "--model", "base", "--data", "data")
    Path("run").mkdir()
    Path("run.yaml").rename("run/run.yaml")
    Path("run/metrics.jsonl").write_text('{"step": 1, "total_loss": 2.0}\n{"step": 2, "total_loss": 1.0}\n')
    command("report", "run")
    require("total_loss" in Path("run/report.html").read_text(encoding="utf-8"), "the report does not show the loss")
    command("new-plugin", "fresh", "--kind", "method")
    require(Path("fastvideo-fresh/pyproject.toml").is_file(), "new-plugin wrote no package")
    import_every_module("fastvideo_tools")  # the demo itself takes minutes: tests/test_demo.py


def write_clips(folder: Path) -> None:
    """Squares that move over a gradient, with captions."""
    import numpy as np

    from fastvideo_data.video_files import write_video

    for number in range(CLIPS):
        frames = np.zeros((2 * FRAMES, HEIGHT, WIDTH, 3), np.uint8)
        frames[..., number % 3] = np.linspace(0, 200, WIDTH, dtype=np.uint8)
        for index, frame in enumerate(frames):
            frame[8:20, index : index + 12] = 255
        write_video(folder / f"{number}.mp4", frames, 16.0)
        (folder / f"{number}.txt").write_text(f"a white square on gradient {number}\n", encoding="utf-8")


def write_run(path: Path, method: str, roles: dict[str, dict[str, Any]], method_config: dict[str, Any]) -> None:
    """A run.yaml of two steps."""
    import yaml

    training = {"output_dir": method, "data_path": "data", "max_train_steps": 2, "train_batch_size": 2}
    training |= {"num_height": HEIGHT, "num_width": WIDTH, "num_frames": FRAMES, "learning_rate": 1e-3}
    run = {"recipe": {"family": "wan", "method": method}, "roles": roles, "training": training}
    run |= {"method_config": method_config, "callbacks": {"ema": {"decay": 0.5}}}
    path.write_text(yaml.safe_dump(run), encoding="utf-8")


def check_the_path_from_clips_to_an_exported_student() -> None:
    """From a tiny pipeline: preprocess, finetune, dmd2, sample, export."""
    from fastvideo_core.contracts.family import open_family
    from fastvideo_core.registry import PluginRegistry

    size = ("--height", str(HEIGHT), "--width", str(WIDTH), "--num-frames", str(FRAMES))
    open_family("wan", PluginRegistry(), "tiny").tiny(Path("base"), seed=0)
    write_clips(Path("clips"))
    command("preprocess", "--family", "wan", "--model", "base", "--input", "clips", "--output", "data", *size)
    require(json.loads(Path("data/report.json").read_text())["samples"] == CLIPS, "preprocess lost clips")

    write_run(Path("finetune.yaml"), "finetune", {"student": {"path": "base", "trainable": True}}, {})
    process("finetune.yaml")
    roles: dict[str, dict[str, Any]] = {
        name: {"path": "finetune", "trainable": name != "teacher", "checkpoint_role": "student"}
        for name in ("student", "teacher", "critic")
    }
    steps = {"dmd_denoising_steps": [1000, 500], "generator_update_interval": 1}
    write_run(Path("dmd2.yaml"), "dmd2", roles, steps)
    command("dmd2.yaml")
    for method, losses in (("finetune", ("total_loss",)), ("dmd2", ("student_loss", "critic_loss"))):
        lines = [json.loads(line) for line in Path(method, "metrics.jsonl").read_text().splitlines()]
        require(len(lines) == 2, f"{method} logged {len(lines)} steps instead of 2")
        require(all(name in line for line in lines for name in losses), f"{method} did not log {losses}: {lines}")

    command("sample", "dmd2", "--prompt", "a white square", "--out", "samples", *size)
    from fastvideo_data.video_files import read_frames

    shape = read_frames("samples/00.mp4").shape
    require(shape == (FRAMES, HEIGHT, WIDTH, 3), f"samples/00.mp4 holds frames {shape}")
    command("export", "dmd2", "exported")
    require(Path("exported/model_index.json").is_file(), "the exported folder has no model_index.json")


def _below(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder)


PARTS = {"core": check_core_alone, "training": check_training, "tools": check_tools}


def main(part: str) -> int:
    """0 when everything works; else 1 and one message."""
    started = time.perf_counter()
    before = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="fastvideo-smoke-") as folder:
        os.chdir(folder)
        try:
            check_that_wheels_are_used()
            PARTS[part]()
        except SmokeError as error:
            print(f"\nsmoke test failed: {error}", file=sys.stderr)
            return 1
        finally:
            os.chdir(before)
    seconds = time.perf_counter() - started
    late = f" (more than the {LIMIT_SECONDS} s it should take at most)" if seconds > LIMIT_SECONDS else ""
    print(f"\nsmoke test of {part} passed in {seconds:.0f} s{late}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
