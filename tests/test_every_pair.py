"""Every installed method on every installed family, from `init` to a sample. Pairs come from what is installed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import yaml

from fastvideo_core.cli.main import main
from fastvideo_core.registry import PluginRegistry
from fastvideo_data.video_files import probe
from tests.families import ALL_KINDS, FURTHER, tiny_family
from tests.methods import ON_TRAJECTORIES

__all__ = ["tiny_family"]

METHODS = PluginRegistry().names("methods")
SHORT: Mapping[str, Mapping[str, Any]] = {
    "dmd2": {"generator_update_interval": 1},
    "consistency": {"solver": "heun", "target": "average"},
    "rcm": {"generator_update_interval": 2, "tangent_warmup_steps": 0},
}
"""What of a method's options must be other than init's in runs of so few steps, or is put to the test besides."""
IMAGES: Mapping[str, tuple[str, ...]] = {
    "i2v": ("--image",),
    "flf2v": ("--image", "--last-image"),
    "i2v_a14b": ("--image",),
}
"""What a video of further kinds is given; the frames of the clips are their data's."""
SLOW = [(FURTHER["flf2v"], "dmd2"), (FURTHER["i2v_a14b"], "dmd2")]
"""The method with most roles, rollouts and few steps, where two images are attended to, and where two networks are given one.
What trains at all is seen in test_wan_images.py, test_wan_a14b.py and test_wan_ti2v.py: every method on every kind."""
PAIRS = [*product(ALL_KINDS, METHODS), *(pytest.param(*pair, marks=pytest.mark.slow) for pair in SLOW)]
OPTIONAL_ROLES = {"consistency": ("teacher",)}


def run(*arguments: str | Path | int) -> None:
    assert main([str(argument) for argument in arguments]) == 0


def test_there_are_pairs_to_test() -> None:
    assert {"wan", "ltx-generation1", "ltx-generation2"} <= set(map(str, ALL_KINDS))
    assert {"dmd2", "finetune"} <= set(METHODS)


@pytest.mark.parametrize(("kind", "method"), PAIRS, ids=str)
def test_two_steps_then_two_more_then_a_sample(tiny_family, tmp_path, monkeypatch, kind, method) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fastvideo_evaluate.watch.callback.DATA_ROWS", 2)
    tiny = tiny_family(kind)
    clip = tiny.clip
    size = ("--height", clip.height, "--width", clip.width, "--num-frames", clip.num_frames)
    data = tiny.trajectories() if method in ON_TRAJECTORIES else tiny.data
    run("init", kind.family, method, "--model", tiny.base, "--data", data, "--out", "run.yaml")
    config = yaml.safe_load(Path("run.yaml").read_text(encoding="utf-8"))
    config["training"] |= {"output_dir": "out", "logging_steps": 1}
    config["method_config"] = {**(config.get("method_config") or {}), **SHORT.get(method, {})}
    config["roles"] |= {role: {"path": str(tiny.base), "trainable": False} for role in OPTIONAL_ROLES.get(method, ())}
    config["callbacks"] = {"quality_watch": {"every": 1, "prompts": 1}}
    config["training"]["max_train_steps"] = 2
    Path("run.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    run("check", "run.yaml")
    for steps, more in ((2, ()), (4, ("--resume", "latest"))):
        config["training"]["max_train_steps"] = steps
        Path("run.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        run("run.yaml", *more)
    lines = [json.loads(line) for line in Path("out/metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert all(math.isfinite(line["quality/drift"]) for line in lines[1:])
    steps = ("--steps", 2) if method == "finetune" else ()
    PIL.Image.new("RGB", (clip.width, clip.height), "red").save("red.png")
    images = [part for option in IMAGES.get(kind.options.get("variant", ""), ()) for part in (option, "red.png")]
    run("sample", "out", "--prompt", "a red square", *size, *steps, *images, "--out", "videos")
    info = probe("videos/00.mp4")
    assert (info.frames, info.height, info.width) == (clip.num_frames, clip.height, clip.width)
    assert info.has_audio == tiny.sound
