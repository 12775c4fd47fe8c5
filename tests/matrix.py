"""Every installed method on every installed family: `python -P tests/matrix.py`, in an empty folder and the environment to test.

Nothing here knows a family or a method by name: a tiny pipeline, data made from procedural clips, `init`, `check`, and two
steps, all through the command line.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

from fastvideo_core.cli.main import main as command
from fastvideo_core.registry import PluginRegistry
from fastvideo_core.testing.families import Clip, write_clips


def run(*arguments: str) -> None:
    """A command in this process, which must end well."""
    print(f"$ fastvideo-distill {' '.join(arguments)}", flush=True)
    code = command(arguments)
    if code != 0:
        raise SystemExit(f"`fastvideo-distill {' '.join(arguments)}` ended with {code}")


def prepare(family: str, registry: PluginRegistry) -> None:
    """A tiny pipeline and its data, in folders named after the family."""
    import torch

    run("tiny", family, f"{family}/base")
    encoder = registry.resolve(registry.get("models", family), "preprocess")(  # type: ignore[operator]
        f"{family}/base", device=torch.device("cpu")
    )
    clip = Clip.smallest(encoder.geometry)
    write_clips(Path(family, "clips"), clip, encoder.geometry.fps)
    size = ("--height", str(clip.height), "--width", str(clip.width), "--num-frames", str(clip.num_frames))
    where = ("--input", f"{family}/clips", "--output", f"{family}/data")
    run("preprocess", "--family", family, "--model", f"{family}/base", *where, *size, "--fps-policy", "keep")


def train(family: str, method: str) -> None:
    """Two steps of a run.yaml that `init` writes and `check` accepts."""
    import yaml

    file = Path(family, f"{method}.yaml")
    run("init", family, method, "--model", f"{family}/base", "--data", f"{family}/data", "--out", str(file))
    run("check", str(file))
    config = yaml.safe_load(file.read_text(encoding="utf-8"))
    config["training"] |= {"output_dir": f"{family}/{method}", "max_train_steps": 10}
    config["training"] |= {"training_state_checkpointing_steps": 2}
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    run(str(file))
    lines = Path(family, method, "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    last = json.loads(lines[-1])
    if last["step"] != 10:
        raise SystemExit(f"{method} on {family} ended at step {last['step']}")


def main() -> int:
    """0 when every pair trains."""
    registry = PluginRegistry()
    families, methods = registry.names("models"), registry.names("methods")
    before = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="fastvideo-matrix-") as folder:
        os.chdir(folder)
        try:
            for family in families:
                prepare(family, registry)
                for method in methods:
                    train(family, method)
        finally:
            os.chdir(before)
    print(f"\n{len(families) * len(methods)} passed: {', '.join(methods)} x {', '.join(families)}")
    return 0 if families and methods else 1


if __name__ == "__main__":
    sys.exit(main())
