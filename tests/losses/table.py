"""Losses and final weights of ten training steps: `python tests/losses/table.py --out now.json --compare before.json`.

For whoever changes much of the code at once, such as all its names, and has to show that training is the same to the bit. Every
family trains by every method, in one and two processes, from fixed seeds on the CPU. Only public commands are used, and nothing
of the packages is imported, so that this file stays as it is while everything inside of them changes.

Pipelines and data are made anew, and their hashes are compared too: where they differ, losses tell nothing. The numbers hold for
one machine and one set of versions: make the table to compare with there, from the code before the change.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.metadata
import itertools
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "WANDB_MODE": "offline"}
ENVIRONMENT["TOKENIZERS_PARALLELISM"] = "false"
PIPELINES = {"wan": ["wan"], "ltx-video": ["ltx", "generation=1"], "ltx-2": ["ltx", "generation=2"]}
STEPS, SIDE, FRAMES, CLIPS, SAMPLE_RATE = 10, 64, 9, 8, 48000
Json = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """A run of every family: what it has beside the options of all runs, and in how many processes it is run."""

    method: str
    training: Json = field(default_factory=dict)
    method_config: Json = field(default_factory=dict)
    student: Json = field(default_factory=dict)
    average: bool = False
    processes: tuple[int, ...] = (1, 2)


ADVERSARIAL = {"adversarial_weight": 0.1, "discriminator_weight": 0.1, "r1_weight": 0.1, "r1_sigma": 0.1}
RUNS = {
    "finetune": Run("finetune", {"training_cfg_rate": 0.1, "lr_scheduler": "cosine"}, average=True),
    "finetune-lora": Run("finetune", student={"lora": {"rank": 4, "alpha": 8}}, processes=(1,)),
    "dmd2": Run("dmd2", {"gradient_accumulation_steps": 2}, {"warp_denoising_step": True}),
    "dmd2-data": Run("dmd2", method_config={"rollout_mode": "data_latent"}, average=True, processes=(1,)),
    "dmd2-adversarial": Run("dmd2", method_config=ADVERSARIAL, average=True),
    "dmd2-muon": Run("dmd2", {"optimizer": "muon", "weight_decay": 0.01}, processes=(1,)),
}


class CommandFailedError(Exception):
    """A command ended with another status than 0."""


def command(*arguments: str | Path, own_process: bool = False) -> None:
    """`fastvideo-distill`; in this process that spares the ten seconds of imports that each would begin with."""
    words = [str(argument) for argument in arguments]
    if own_process:
        status = subprocess.run([sys.executable, "-m", "fastvideo_core", *words]).returncode
    else:
        (script,) = importlib.metadata.entry_points(group="console_scripts", name="fastvideo-distill")
        status = script.load()(words)
    if status:
        raise CommandFailedError(f"`fastvideo-distill {' '.join(words)}` ended with {status}")


def write_clips(folder: Path) -> None:
    """Squares that move over a gradient, with a tone each; not as H.264, which x264 writes otherwise each time."""
    import av
    import numpy as np

    folder.mkdir()
    for number in range(CLIPS):
        with av.open(str(folder / f"{number}.mp4"), "w") as file:
            video, audio = file.add_stream("mpeg4", rate=24), file.add_stream("aac", rate=SAMPLE_RATE)
            video.width, video.height, video.pix_fmt, video.thread_count = SIDE, SIDE, "yuv420p", 1
            for index in range(26):
                picture = np.zeros((SIDE, SIDE, 3), np.uint8)
                picture[..., number % 3] = np.linspace(0, 25 * (number + 1), SIDE, dtype=np.uint8)
                picture[4 * number : 4 * number + 24, index : index + 24] = 255
                file.mux(video.encode(av.VideoFrame.from_ndarray(picture)))
            file.mux(video.encode())
            tone = np.sin(np.arange(SAMPLE_RATE * 26 // 24) * (number + 1) / 50).astype(np.float32)
            sound = av.AudioFrame.from_ndarray(np.stack([tone, tone / 2]), format="fltp", layout="stereo")
            sound.sample_rate = SAMPLE_RATE
            file.mux([*audio.encode(sound), *audio.encode()])
        (folder / f"{number}.txt").write_text(f"a white square on gradient {number}\n", encoding="utf-8")


def make_inputs(folder: Path, family: str) -> tuple[str, Json]:
    """A tiny pipeline and a data set, where they are not there yet, and their hashes."""
    pipeline, data = folder / family, folder / f"{family}-data"
    with log_to(folder / f"{family}.log"):
        if not data.exists():
            name, *sets = PIPELINES[family]
            command("tiny", name, pipeline, "--seed", "0", *(word for one in sets for word in ("--set", one)))
            size = ["--height", str(SIDE), "--width", str(SIDE), "--num-frames", str(FRAMES)]
            command("preprocess", "--model", pipeline, "--input", folder / "clips", "--output", data, *size)
    return family, {"pipeline": hash_of_weights(pipeline), "data": hash_of_data(data)}


def hash_of_weights(folder: Path) -> str:
    """Of every tensor in the folder's safetensors files, in the order of the names."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        content = path.read_bytes()
        start = 8 + int.from_bytes(content[:8], "little")
        tensors = {name: entry for name, entry in json.loads(content[8:start]).items() if name != "__metadata__"}
        for name, entry in sorted(tensors.items()):
            begin, end = entry["data_offsets"]
            found.update(f"{path.relative_to(folder)} {name} {entry['dtype']} {entry['shape']}\n".encode())
            found.update(content[start + begin : start + end])
    return found.hexdigest()


def hash_of_data(folder: Path) -> str:
    """Of every tensor and caption in the folder's parquet files."""
    import pyarrow.parquet as pq

    found = hashlib.sha256()
    for path in sorted(folder.rglob("*.parquet")):
        for row in sorted(pq.read_table(path).to_pylist(), key=lambda row: str(row["id"])):
            kept = {name: row[name] for name in sorted(row) if name.endswith(("_bytes", "_shape", "_dtype", "caption"))}
            found.update(repr(kept).encode())
    return found.hexdigest()


def train(inputs: Path, folder: Path, cell: str) -> tuple[str, Json]:
    """The losses of every step, and the hashes of the weights at the end."""
    family, name, processes = cell.split()
    run, out = RUNS[name], folder / cell.replace(" ", "-")
    data = inputs / f"{family}-data" / ("with_sound" if family == "ltx-2" else "")
    training = {"seed": 3, "output_dir": str(out / "run"), "data_path": str(data), "max_train_steps": STEPS}
    training |= {"train_batch_size": 2, "learning_rate": 1e-3, "num_gpus": int(processes), "logging_steps": 1}
    training |= {"num_height": SIDE, "num_width": SIDE, "num_frames": FRAMES, **run.training}
    method_config = dict(run.method_config)
    roles = {"student": {"path": str(inputs / family), "trainable": True, **run.student}}
    if run.method == "dmd2":
        others = {"teacher": False, "critic": True}
        roles |= {role: {"path": str(inputs / family), "trainable": trained} for role, trained in others.items()}
        method_config |= {"dmd_denoising_steps": [1000, 750, 500], "generator_update_interval": 2}
    recipe = {"family": PIPELINES[family][0], "method": run.method}
    config = {"recipe": recipe, "roles": roles, "training": training, "method_config": method_config}
    if recipe == {"family": "ltx", "method": "finetune"}:
        config["pipeline_config"] = {"first_frame_probability": 0.3}
    config["callbacks"] = {"grad_norm": {}} | ({"ema": {"decay": 0.9}} if run.average else {})
    out.mkdir()
    (out / "run.yaml").write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
    with log_to(folder / f"{out.name}.log"):
        command(out / "run.yaml", own_process=processes != "1")
        weights = {}
        for role, kind in (("student", "raw"), ("student", "ema"), ("critic", "raw")):
            if role in roles and (kind == "raw" or run.average):
                exported = out / f"{role}-{kind}"
                command("export", out / "run", exported, "--role", role, "--weights", kind)
                weights[f"{role} {kind}"] = hash_of_weights(exported)
    lines = [json.loads(line) for line in (out / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    kept = [{key: line[key] for key in sorted(line) if key.endswith("_loss") or key == "grad_norm"} for line in lines]
    return cell, {"steps": kept, "weights": weights}


@contextlib.contextmanager
def log_to(path: Path) -> Iterator[None]:
    """What this process and those below it print goes to a file, whose end is shown when something fails."""
    sys.stdout.flush()
    before = [os.dup(1), os.dup(2)]
    with path.open("w") as file:
        _ = [os.dup2(file.fileno(), number) for number in (1, 2)]
    try:
        yield
    except Exception as error:
        sys.stdout.flush()
        raise CommandFailedError(f"{error}\n{path.read_text()[-3000:]}") from None
    finally:
        sys.stdout.flush()
        _ = [os.dup2(kept, number) for number, kept in enumerate(before, 1)]


def shown(cell: str, result: Json) -> str:
    """A row for each step, and the hashes."""
    rows = [f"  {n:2} " + " ".join(f"{k} {v!r}" for k, v in step.items()) for n, step in enumerate(result["steps"], 1)]
    return "\n".join([f"{cell} process(es)", *rows, *(f"  {k}: {v[:16]}" for k, v in result["weights"].items())])


def differences(before: Json, now: Json) -> list[str]:
    """What is not the same in this table, and where it begins."""
    found = []
    for family, hashes in now["inputs"].items():
        old = before["inputs"].get(family, {})
        found += [f"INPUT {family}: another {name}" for name, value in hashes.items() if old.get(name) != value]
    for cell, result in now["cells"].items():
        old = before["cells"].get(cell, {"steps": [], "weights": {}})
        pairs = enumerate(itertools.zip_longest(old["steps"], result["steps"], fillvalue={}), 1)
        for number, (was, is_) in [(number, pair) for number, pair in pairs if pair[0] != pair[1]][:1]:
            names = [name for name in sorted({**was, **is_}) if was.get(name) != is_.get(name)]
            told = ", ".join(f"{name} {was.get(name)!r} -> {is_.get(name)!r}" for name in names)
            found.append(f"{cell}: losses from step {number} on: {told}")
        names = [name for name, value in result["weights"].items() if old["weights"].get(name) != value]
        found += [f"{cell}: other weights: {', '.join(names)}"] * bool(names)
    return found


def main() -> int:
    """0, or 1 where the tables differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--compare", type=Path, help="JSON file of an earlier call; exit code 1 where it differs")
    parser.add_argument("--only", default="", help="only cells whose name holds this, such as 'wan dmd2' or ' 2'")
    parser.add_argument("--keep", type=Path, help="folder of pipelines and data, made there if it holds none yet")
    options = parser.parse_args()
    os.environ.update(ENVIRONMENT)
    import diffusers

    _ = diffusers.WanPipeline, diffusers.LTXPipeline, diffusers.LTX2Pipeline  # imported once, for every process below
    started = time.perf_counter()
    every = [(family, name, n) for n in (2, 1) for family in PIPELINES for name in RUNS if n in RUNS[name].processes]
    cells = [cell for cell in map("{0[0]} {0[1]} {0[2]}".format, every) if options.only in cell]
    families = sorted({cell.split()[0] for cell in cells})
    fork = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory(prefix="losses-") as temporary, fork.Pool(2, maxtasksperchild=1) as pool:
        inputs = (options.keep or Path(temporary) / "inputs").resolve()
        inputs.mkdir(parents=True, exist_ok=True)
        if not (inputs / "clips").exists():
            pool.apply(write_clips, (inputs / "clips",))
        now: Json = {"inputs": dict(pool.map(partial(make_inputs, inputs), families, 1)), "cells": {}}
        for cell, result in pool.imap(partial(train, inputs, Path(temporary)), cells):
            now["cells"][cell] = result
            print(shown(cell, result), flush=True)
    print(f"\n{len(cells)} cells in {time.perf_counter() - started:.0f} s")
    if options.out:
        options.out.write_text(json.dumps(now, indent=1) + "\n", encoding="utf-8")
    if not options.compare:
        return 0
    found = differences(json.loads(options.compare.read_text(encoding="utf-8")), now)
    print("\n".join(found) or f"equal to {options.compare}: losses, weights and inputs")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
