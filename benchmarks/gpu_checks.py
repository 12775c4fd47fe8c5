"""Whether what needs a GPU works: one row for each check, ok or failed; on a CPU the same checks of the same code.

    python benchmarks/gpu_checks.py [--tiny] [--leave-out compile,torchrun]

Networks are small: this is about being right, not about cost. Kernels are torch's deterministic ones, without which two
equal runs on a GPU differ in the last bits.
"""

from __future__ import annotations

import argparse
import gc
import logging
import math
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from dmd2_step import networks_of
from gpu_runs import CPU, WAN_1_3B, Runs, Variant, build, foretold_peak, train
from safetensors.torch import save_file
from saved_bytes import SavedBytes, weights_of
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from fastvideo_core.checkpoint.storage import checkpoint_path
from fastvideo_core.checkpoint.weights import describe, read_role_weights
from fastvideo_rcm.tangent import directional_derivative

SIZES = {"num_layers": 6, "num_heads": 4, "head_dim": 64, "ffn_dim": 1024, "text_dim": 64}
SMALL = Variant("small Wan", SIZES, 17, 128, 128, None, 0)
WIDE = Variant("wide Wan", {**WAN_1_3B, "num_layers": 6, "text_dim": 64}, 17, 256, 448, None, 0)
"""So large that what kernels take for themselves is little."""

STEPS = 8

PEAK = """
import sys
from fastvideo_core import load_run_config
from fastvideo_core.dispatch.examine import examine
from fastvideo_core.registry import PluginRegistry
from fastvideo_tools.simulate.simulation import simulate
registry = PluginRegistry()
print(simulate(examine(load_run_config(sys.argv[1], registry), registry, starts=False)[0]).peak)
"""
"""Prints the most bytes that a run takes on one rank, as `simulate` foretells it."""

Check = Callable[[Runs, Variant], str]
CHECKS: dict[str, tuple[str, Check]] = {}


def named(name: str, title: str) -> Callable[[Check], Check]:
    """Adds a check: it returns what it found, or raises."""

    def add(check: Check) -> Check:
        CHECKS[name] = (title, check)
        return check

    return add


@named("resume", "a resumed run of dmd2 is the uninterrupted one, to the bit")
def resume(runs: Runs, variant: Variant) -> str:
    options: dict[str, Any] = {"max_train_steps": STEPS, "training_state_checkpointing_steps": STEPS // 2}
    whole = build(runs.write("dmd2", variant, rows=4, **options))
    train(whole)
    folder = Path(whole.training_args.output_dir)
    start = checkpoint_path(folder, STEPS // 2)
    again = build(runs.write("dmd2", variant, rows=4, **options, resume_from_checkpoint=str(start)))
    train(again)
    ends = [checkpoint_path(Path(run.training_args.output_dir), STEPS) for run in (whole, again)]
    differing, count = [], 0
    for role in describe(ends[0]).roles:
        one, other = (flat(read_role_weights(end, role, ema=False)) for end in ends)
        differing += [f"{role}.{name}" for name, value in one.items() if not torch.equal(value, other[name])]
        count += len(one)
    require(not differing, f"{len(differing)} of {count} tensors differ, first {differing[:1]}")
    moved = flat(read_role_weights(start, "student", ema=False))
    end = flat(read_role_weights(ends[1], "student", ema=False))
    require(any(not torch.equal(value, end[name]) for name, value in moved.items()), "nothing was trained")
    return f"{count} tensors, {STEPS // 2} + {STEPS // 2} steps"


@named("bf16", "bfloat16: frozen weights, float32 trained ones, losses near float32's")
def bfloat16(runs: Runs, variant: Variant) -> str:
    losses = {}
    for precision in ("no", "bf16"):
        runtime = build(runs.write("dmd2", variant, max_train_steps=4, mixed_precision=precision))
        losses[precision] = losses_of(train(runtime, saving=False), "critic_loss")
        if precision == "bf16":
            dtypes = {role: {p.dtype for p in network.parameters()} for role, network in networks_of(runtime).items()}
            require(torch.bfloat16 in dtypes["teacher"], f"the teacher is {dtypes['teacher']}")
            for role in ("student", "critic"):
                require(dtypes[role] == {torch.float32}, f"the {role} is {dtypes[role]}")
    return close(losses["bf16"], losses["no"], 0.05)


@named("checkpointing", "activation checkpointing: full, ops and block_skip have the same losses in less memory")
def checkpointing(runs: Runs, variant: Variant) -> str:
    found = {}
    for kind in (None, "full", "ops", "block_skip"):
        options = {"max_train_steps": 3, "enable_gradient_checkpointing_type": kind}
        runtime = build(runs.write("finetune", variant, **options))
        network = {"student": runtime.method.bundle["student"].modules["transformer"]}
        saved = SavedBytes(weights_of(network))
        with saved.counting():
            losses = losses_of(train(runtime, saving=False), "total_loss")
        found[kind] = (losses, saved.peak)
    for kind in ("full", "ops", "block_skip"):
        close(found[kind][0], found[None][0], 1e-3)
        require(found[kind][1] < found[None][1], f"{kind} saves {found[kind][1]} bytes of {found[None][1]}")
    return ", ".join(f"{kind or 'none'} {saved / 2**20:.1f} MiB" for kind, (_, saved) in found.items())


@named("compile", "compiled block by block: the losses of the same run without")
def compiled(runs: Runs, variant: Variant) -> str:
    losses = {}
    for compiling in (False, True):
        options = {"max_train_steps": 3, "enable_torch_compile": compiling, "mixed_precision": "no"}
        losses[compiling] = losses_of(
            train(build(runs.write("finetune", variant, **options)), saving=False), "total_loss"
        )
    return close(losses[True], losses[False], 1e-3)


@named(
    "methods", "consistency and rcm: the losses of a second run of each are those of the first, and move the student"
)
def methods(runs: Runs, variant: Variant) -> str:
    found = {method: repeated(runs, method, variant, steps) for method, steps in (("consistency", 3), ("rcm", 6))}
    return ", ".join(f"{method} {loss:.4g}" for method, loss in found.items())


@named(
    "kinds",
    "dmd2 of Wan 2.2 A14B, I2V and TI2V: the losses of a second run are those of the first, and move the student",
)
def kinds(runs: Runs, variant: Variant) -> str:
    found = {kind: repeated(runs, "dmd2", replace(variant, kind=kind), 2) for kind in ("a14b", "i2v", "ti2v")}
    return ", ".join(f"{kind} {loss:.4g}" for kind, loss in found.items())


def repeated(runs: Runs, method: str, variant: Variant, steps: int) -> float:
    """The last loss of two runs that have the same ones."""
    lines = []
    for _ in range(2):
        runtime = build(runs.write(method, variant, rows=4, max_train_steps=steps, learning_rate=1e-3))
        before = [p.detach().clone() for p in runtime.method.bundle["student"].trainable_parameters()]
        metrics = train(runtime, saving=False)
        lines.append(all_losses(metrics))
        after = runtime.method.bundle["student"].trainable_parameters()
        require(any(not torch.equal(one, other) for one, other in zip(before, after, strict=True)), "nothing moved")
    require(lines[0] == lines[1], f"{method}, {variant.kind}: {lines[0]} and {lines[1]}")
    require(all(map(math.isfinite, lines[0])), f"{method}, {variant.kind}: {lines[0]}")
    return lines[0][-1]


@named("merged", "a LoRA file merged into the weights: on the device is what the host adds to the stored ones")
def merged(runs: Runs, variant: Variant) -> str:
    stored = WanTransformer3DModel.from_pretrained(runs.pipeline(variant.sizes), subfolder="transformer").state_dict()
    name, generator = "blocks.0.attn1.to_q", torch.Generator().manual_seed(1)
    up = torch.randn(len(stored[f"{name}.weight"]), 4, generator=generator)
    down = torch.randn(4, stored[f"{name}.weight"].shape[1], generator=generator)
    file = runs.folder / "lora.safetensors"
    save_file({f"transformer.{name}.lora_A.weight": down, f"transformer.{name}.lora_B.weight": up}, file)
    student = {"merge_lora": [{"path": str(file), "scale": 0.5}]}
    runtime = build(runs.write("finetune", variant, max_train_steps=1, roles={"student": student}))
    found = runtime.method.bundle["student"].modules["transformer"].state_dict()
    stored[f"{name}.weight"] += 0.5 * up @ down
    off = max(float((found[key].cpu() - value).abs().max()) for key, value in stored.items())
    require(off < 1e-5, f"off by {off:.2e}")
    require(bool(losses_of(train(runtime, saving=False), "total_loss")), "it does not train")
    return f"off by {off:.1g}"


@named("shared", "student and critic as adapters on the teacher's networks: the losses of three networks, to the bit")
def shared(runs: Runs, variant: Variant) -> str:
    lines = {}
    for share in (False, True):
        adapters = {"lora": {"rank": 4}, **({"share": "teacher"} if share else {})}
        options = {"max_train_steps": 4, "learning_rate": 1e-3, "enable_gradient_checkpointing_type": "full"}
        runtime = build(runs.write("dmd2", variant, roles=dict.fromkeys(("student", "critic"), adapters), **options))
        lines[share] = all_losses(train(runtime, saving=False))
        networks = [handle.modules["transformer"] for handle in runtime.method.bundle]
        require(len(set(map(id, networks))) == (1 if share else 3), "the networks are not shared as asked")
    require(lines[True] == lines[False], f"{lines[True]} and {lines[False]}")
    return f"4 steps, losses to {lines[True][-1]:.4g}"


@named("waiting", "frozen blocks, and the inputs of recomputed ones, in host memory: the same losses in less memory")
def waiting(runs: Runs, variant: Variant) -> str:
    peaks, lines = {}, {}
    for name, options in {
        "on the device": {},
        "blocks": {"offload_blocks": variant.sizes["num_layers"]},
        "inputs": {"offload_activations": True},
    }.items():
        gc.collect()
        before = torch.cuda.memory_allocated() if torch.cuda.is_available() else 0
        config = runs.write(
            "finetune",
            variant,
            roles={"student": {"lora": {"rank": 4}}},
            max_train_steps=3,
            learning_rate=1e-3,
            enable_gradient_checkpointing_type="full",
            **options,
        )
        runtime = build(config)
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        lines[name] = all_losses(train(runtime, saving=False))
        if torch.cuda.is_available():
            peaks[name] = torch.cuda.max_memory_allocated() - before
    for name, losses in lines.items():
        require(losses == lines["on the device"], f"{name}: {losses} and {lines['on the device']}")
        require(
            not peaks or name == "on the device" or peaks[name] < peaks["on the device"], f"no less memory: {peaks}"
        )
    return (
        ", ".join(f"{name} {peak / 2**20:.1f} MiB" for name, peak in peaks.items()) or "equal; no allocator to ask here"
    )


@named("fp8", "a base in fp8 under adapters: losses near bfloat16's, and half of the base's bytes")
def fp8(runs: Runs, variant: Variant) -> str:
    losses, held = {}, {}
    for precision in ("bf16", "fp8"):
        student = {"lora": {"rank": 4}, "base_precision": precision}
        runtime = build(runs.write("finetune", variant, roles={"student": student}, max_train_steps=4))
        weights = runtime.method.bundle["student"].modules["transformer"].named_parameters()
        held[precision] = sum(p.nbytes for name, p in weights if ".lora_" not in name and "blocks." in name)
        losses[precision] = losses_of(train(runtime, saving=False), "total_loss")
    require(held["fp8"] < 0.7 * held["bf16"], f"{held} bytes")
    return f"{close(losses['fp8'], losses['bf16'], 0.05)}, {held['fp8'] / held['bf16']:.2f} of the bytes"


@named("tangent", "forward mode: torch's own attention in chunks has the tangent of the one that keeps all scores")
def tangent(runs: Runs, variant: Variant) -> str:
    found = []
    for precision, most in (("no", 1e-3), ("bf16", 5e-2)):
        method = build(runs.write("finetune", variant, max_train_steps=1, mixed_precision=precision)).method
        method.adapter.on_train_start()
        batch = method.prepare_batch(next(iter(build(runs.write("finetune", variant, max_train_steps=1)).dataloader)))
        generator = torch.Generator().manual_seed(1)
        noise = torch.randn(batch.latents.shape, generator=generator).to(batch.latents.device)
        t = torch.full((len(noise),), 600.0, device=noise.device)
        where = method.adapter.add_noise(batch.latents, noise, t), t
        direction = noise - batch.latents, torch.full_like(t, 1000)

        def predict(x: Tensor, t: Tensor, method: Any = method, batch: Any = batch) -> Tensor:
            out: Tensor = method.adapter.predict_noise(method.bundle["student"], x, t, batch, conditional=True)
            return out

        _, chunked = directional_derivative(predict, where, direction)
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            _, whole = torch.func.jvp(predict, where, direction)
        off = float((chunked.double() - whole.double()).norm() / whole.double().norm())
        require(off < most, f"{precision}: off by {off:.2e}")
        found.append(f"{'float32' if precision == 'no' else precision} {off:.1e}")
    return ", ".join(found)


@named("skipped", "a step whose gradient is not finite changes nothing, decided on the device")
def skipped(runs: Runs, variant: Variant) -> str:
    runtime = build(runs.write("finetune", variant, max_train_steps=2, max_grad_norm=1.0))
    before = {id(p): p.detach().clone() for p in runtime.method.bundle["student"].trainable_parameters()}
    runtime.method.bundle["student"].trainable_parameters()[0].register_hook(lambda gradient: gradient * math.nan)
    metrics = train(runtime, saving=False)
    require([line["skipped_steps"] for line in metrics] == [1, 1], f"skipped {metrics}")
    moved = [p for p in runtime.method.bundle["student"].trainable_parameters() if not torch.equal(p, before[id(p)])]
    require(not moved, f"{len(moved)} parameters changed")
    return f"2 steps, {len(before)} parameters"


@named("estimate", "the memory that `check` foretells, against the peak of the allocator")
def estimate(runs: Runs, variant: Variant) -> str:
    if torch.cuda.is_available():
        variant = WIDE
    config = runs.write("finetune", variant, max_train_steps=3, enable_gradient_checkpointing_type="full")
    return beside_the_allocator(config, foretold_peak(config), "foretold")


@named("watched", "the quality watch looks at every second step: the losses of the run without it, to the bit")
def watched(runs: Runs, variant: Variant) -> str:
    lines, looks = {}, 0
    options: dict[str, Any] = {"train_batch_size": 4, "max_train_steps": 10}  # the watch first waits for 32 rows
    for callbacks in ({}, {"quality_watch": {"every": 2, "reference_steps": 4}}):
        metrics = train(build(runs.write("dmd2", variant, rows=4, callbacks=callbacks, **options)), saving=False)
        lines[bool(callbacks)] = all_losses(metrics)
        looks = sum(math.isfinite(line.get("quality/drift", math.nan)) for line in metrics)
    require(looks == 2, f"{looks} looks")
    require(lines[True] == lines[False], f"{lines[True]} and {lines[False]}")
    return f"10 steps, {looks} looks, losses to {lines[True][-1]:.4g}"


@named("simulated", "the memory that `simulate` foretells, against the peak of the allocator")
def simulated(runs: Runs, variant: Variant) -> str:
    if torch.cuda.is_available():
        variant = WIDE
    config = runs.write("dmd2", variant, max_train_steps=4)
    # in a process of its own: this one may be of a group, which fake ranks cannot join
    ran = subprocess.run([sys.executable, "-c", PEAK, str(config)], capture_output=True, text=True, check=False)
    require(ran.returncode == 0, f"status {ran.returncode}: {ran.stderr[-300:]}")
    return beside_the_allocator(config, int(ran.stdout), "simulated")


@named("torchrun", "joined under torchrun, with the backend of the device")
def torchrun(runs: Runs, variant: Variant) -> str:
    config = runs.write("finetune", variant, max_train_steps=2)
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1", "-m", "fastvideo_core", str(config)]
    ran = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False, timeout=300)
    require(ran.returncode == 0, f"status {ran.returncode}: {ran.stderr[-300:]}")
    return "1 process, " + ("nccl" if torch.cuda.is_available() else "gloo")


def beside_the_allocator(config: Path, told: int, how: str) -> str:
    """Trains the run; the bytes that were told must be the allocator's peak within a fifth, where there is a GPU."""
    if not torch.cuda.is_available():
        return f"{told / 2**20:.1f} MiB; no allocator to ask here"
    gc.collect()
    before = torch.cuda.memory_allocated()
    runtime = build(config)
    torch.cuda.reset_peak_memory_stats()
    train(runtime, saving=False)
    measured = torch.cuda.max_memory_allocated() - before
    found = f"{told / 2**20:.1f} MiB {how}, {measured / 2**20:.1f} measured"
    require(abs(told / measured - 1) < 0.2, found)
    return found


def flat(weights: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
    return {f"{module}.{name}": value for module, named in weights.items() for name, value in named.items()}


def losses_of(metrics: Sequence[dict[str, float]], name: str) -> list[float]:
    return [line[name] for line in metrics if name in line]


def all_losses(metrics: Sequence[dict[str, float]]) -> list[float]:
    return [line[name] for line in metrics for name in sorted(line) if name.endswith("_loss")]


def close(found: Sequence[float], wanted: Sequence[float], tolerance: float) -> str:
    require(bool(found) and len(found) == len(wanted), f"{len(found)} losses, {len(wanted)} wanted")
    furthest = max(abs(one - other) / abs(other) for one, other in zip(found, wanted, strict=True))
    require(furthest <= tolerance, f"losses differ by {furthest:.2g}, allowed {tolerance:g}")
    return f"losses within {furthest:.1g}"


def require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)


def main() -> int:
    """Makes every check; 0 when all are ok, 1 when not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="on a tiny network")
    parser.add_argument("--leave-out", type=lambda text: text.split(","), default=[], help=f"of {', '.join(CHECKS)}")
    arguments = parser.parse_args()
    if unknown := set(arguments.leave_out) - set(CHECKS):
        parser.error(f"there is no check {', '.join(sorted(unknown))}; there are {', '.join(CHECKS)}")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # of deterministic matrix products
    logging.basicConfig(level=logging.ERROR)
    torch.use_deterministic_algorithms(True)
    failed = 0
    print("| check | | seconds | |\n|---|---|---:|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, (title, check) in CHECKS.items():
            if name in arguments.leave_out:
                continue
            started = time.perf_counter()
            try:
                found, result = check(Runs(Path(folder, name).resolve()), CPU if arguments.tiny else SMALL), "ok"
            except Exception as error:
                failed += 1
                result, found = "**failed**", f"{type(error).__name__}: {error}".splitlines()[0]
                traceback.print_exc()
            print(f"| {title} | {result} | {time.perf_counter() - started:.0f} | {found} |", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
