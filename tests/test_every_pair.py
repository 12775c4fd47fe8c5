"""Every installed method on every installed family: two steps, going on, a sample. Pairs come from what is installed."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import pytest
import torch
import yaml

from fastvideo_core.cli.main import main
from fastvideo_core.data.media import probe
from fastvideo_core.registry import PluginRegistry
from fastvideo_core.testing.families import Clip, write_clips

VARIANTS = {"ltx": ("generation=1", "generation=2")}
"""Families of which `tiny` makes several kinds."""

SHORT = {"dmd2": {"generator_update_interval": 1}}
"""What of a method's options must be other than init's in runs of so few steps."""

REGISTRY = PluginRegistry()
FAMILIES = [(family, kind) for family in REGISTRY.names("models") for kind in VARIANTS.get(family, ("num_layers=2",))]


def run(*arguments: str | Path) -> None:
    assert main([str(argument) for argument in arguments]) == 0


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory):
    """By family and kind: a tiny pipeline, and what preprocess makes of some clips."""
    made: dict[tuple[str, str], tuple[Path, Clip]] = {}

    def prepare(family: str, kind: str) -> tuple[Path, Clip]:
        if (family, kind) not in made:
            folder = tmp_path_factory.mktemp(f"{family}-{kind.replace('=', '')}")
            run("tiny", family, folder / "base", "--set", kind)
            make_encoder = REGISTRY.resolve(REGISTRY.get("models", family), "preprocess")
            geometry = make_encoder(str(folder / "base"), device=torch.device("cpu")).geometry
            clip = Clip.smallest(geometry)
            write_clips(folder / "clips", clip, geometry.fps)
            size = ("--height", clip.height, "--width", clip.width, "--num-frames", clip.num_frames)
            where = ("--model", folder / "base", "--input", folder / "clips", "--output", folder / "data")
            run("preprocess", "--family", family, *map(str, where), *map(str, size))
            made[family, kind] = folder, clip
        return made[family, kind]

    return prepare


def test_there_are_pairs_to_test() -> None:
    assert {"wan", "ltx"} <= {family for family, _ in FAMILIES}
    assert {"dmd2", "finetune"} <= set(REGISTRY.names("methods"))


@pytest.mark.parametrize(
    ("family", "kind", "method"),
    [(family, kind, method) for (family, kind), method in product(FAMILIES, REGISTRY.names("methods"))],
)
def test_two_steps_then_two_more_then_a_sample(prepared, tmp_path, monkeypatch, family, kind, method) -> None:
    monkeypatch.chdir(tmp_path)
    folder, clip = prepared(family, kind)
    run("init", family, method, "--model", folder / "base", "--data", folder / "data", "--out", "run.yaml")
    config = yaml.safe_load(Path("run.yaml").read_text(encoding="utf-8"))
    config["training"] |= {"output_dir": "out", "logging_steps": 1}
    config["method_config"] = {**(config.get("method_config") or {}), **SHORT.get(method, {})}
    if family in VARIANTS and not list((folder / "data").rglob("with_sound/*.parquet")):
        config["pipeline_config"] = {"streams": ["video"]}  # the clips are silent
    for steps, more in ((2, ()), (4, ("--resume", "latest"))):
        config["training"]["max_train_steps"] = steps
        Path("run.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        run("run.yaml", *more)
    lines = [json.loads(line) for line in Path("out/metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    size = ("--height", clip.height, "--width", clip.width, "--num-frames", clip.num_frames)
    steps = ("--steps", 2) if method == "finetune" else ()
    run("sample", "out", "--prompt", "a red square", *map(str, size), *map(str, steps), "--out", "videos")
    info = probe("videos/00.mp4")
    assert (info.frames, info.height, info.width) == (clip.num_frames, clip.height, clip.width)
