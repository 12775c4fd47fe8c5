"""What `new-plugin` writes works together: a scaffold's method trains a scaffold's family, and its videos are sampled."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from fastvideo_core import train
from fastvideo_core.cli.main import main
from fastvideo_data.video_files import write_video
from fastvideo_testing.fake_packages import install
from fastvideo_tools.commands.new_plugin import package_files


def installed(folder: Path, name: str, kind: str) -> None:
    """The package that `new-plugin NAME --kind KIND` writes, as pip would install it."""
    files = package_files(name, kind, f"fastvideo-{name}", "none", "")
    groups = re.findall(r'^\[project\.entry-points\."(.*)"\]\n(\S+) = "(.*)"$', files["pyproject.toml"], re.MULTILINE)
    entry_points = "".join(f"[{group}]\n{key} = {value}\n" for group, key, value in groups)
    modules = {
        path.removeprefix("src/"): text for path, text in files.items() if path.endswith(".py") and "src/" in path
    }
    install(folder, f"fastvideo-{name}", entry_points=entry_points, modules=modules)


def test_a_scaffolds_method_trains_a_scaffolds_family_and_both_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    installed(tmp_path / "site", "shed", "model")
    installed(tmp_path / "site", "craft", "method")
    assert main(["tiny", "shed", "base"]) == 0
    frames = np.random.default_rng(0).integers(0, 255, (9, 32, 48, 3), dtype=np.uint8)
    write_video(Path("clips/a.mp4"), frames, 16)
    Path("clips/a.txt").write_text("a red square")
    size = ["--height", "32", "--width", "48", "--num-frames", "5"]
    assert (
        main(["preprocess", "--family", "shed", "--model", "base", "--input", "clips", "--output", "data", *size]) == 0
    )
    Path("prompts.txt").write_text("a red square\n")
    validation = {"log_validation": True, "validation_steps": 1, "validation_dataset_file": "prompts.txt"}
    run = {
        "recipe": {"family": "shed", "method": "craft"},
        "roles": {name: {"path": "base", "trainable": name == "student"} for name in ("student", "teacher")},
        "training": {
            "output_dir": "run",
            "data_path": "data",
            "max_train_steps": 1,
            "validation_sampling_steps": "2",
            **validation,
        },
    }
    Path("run.yaml").write_text(yaml.safe_dump(run))
    assert main(["check", "run.yaml"]) == 0
    assert len(train(run, quiet=True)) == 1
    assert list(Path("run/validation/step-000001").glob("*.mp4"))
