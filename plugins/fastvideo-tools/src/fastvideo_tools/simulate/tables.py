"""The figures of a simulated run as tables, which the terminal and the page both show, and what they assume."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from fastvideo_tools.simulate.figures import USABLE
from fastvideo_tools.simulate.sweep import BEST, Choice

GIB, TERA = 2**30, 1e12
HELD = ("parameters", "gradients", "optimizer", "gathered")
AXES = "hsdp_replicate_dim x hsdp_shard_dim"
TIMES = ("compute", "sending", "overlapped", "apart")


class Table(NamedTuple):
    """Rows under headings; `marked` are those that stand out."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    marked: Sequence[int] = ()


def summary(found: Mapping[str, Any]) -> list[str]:
    """The answer in a few lines: does it fit, how fast is it, how well does it scale, does it start and save in minutes."""
    memory, mean, machine = found["memory"], found["mean"], found["hardware"]
    verdict = "fits" if memory["fits"] else "DOES NOT FIT"
    last, checkpoint = found["scaling"][-1], found["checkpoint"]
    alone, nodes = last["efficiency_apart"], "node" if found["nodes"] == 1 else "nodes"
    sharding = f"{found['replicas']} x {found['shards']} (replicas x shards)"
    if (together := found["sequence_parallel"]) > 1:
        sharding += f", {together} share each sample"
    peak, said, usable = (_gib(memory[key]) for key in ("peak", "check", "usable"))
    seconds, apart = _s(mean["overlapped"]), _s(mean["apart"])
    copied, written = _s(checkpoint["copy"]), _s(checkpoint["write"])
    return [
        f"{found['gpus']} {machine['name']} on {found['nodes']} {nodes}, {sharding}",
        f"memory per GPU: {peak} GiB at its peak (`check` says {said}) of {usable} usable: {verdict}",
        f"an iteration: {seconds} s, {apart} s without overlap; {mean['samples_per_second']:.3g} samples/s",
        f"efficiency against {found['scaling'][0]['gpus']} GPUs: {last['efficiency']:.1%}, {alone:.1%} without overlap",
        f"a checkpoint: {_gib(checkpoint['bytes'])} GiB, copied in {copied} s, written in {written} s",
        f"at the start {_gib(found['start']['bytes'])} GiB of weights are read, in {_s(found['start']['read'])} s",
        f"host memory: {_gib(found['host'])} GiB per node",
    ]


def tables(found: Mapping[str, Any]) -> Iterator[Table]:
    """Memory, iterations, their parts, collectives, and scaling."""
    roles = found["memory"]["roles"]
    yield Table(
        "Memory of a rank, GiB",
        ("role", *HELD),
        [
            [name, *(_gib(held[key]) for key in ("parameters", "gradients", "optimizer", "gathered"))]
            for name, held in roles.items()
        ],
    )
    yield Table(
        "Iterations, seconds",
        ("updates", "of all", "computing", "sending", "with overlap", "without"),
        [
            [
                ", ".join(one["updates"]),
                f"{one['share']:.1%}",
                *(_s(one[key]) for key in ("compute", "sending", "overlapped", "apart")),
            ]
            for one in found["iterations"]
        ],
    )
    yield Table(
        "What each computes",
        ("updates", "role", "part", "calls", "attention TFLOP", "linear TFLOP", "rest TFLOP", "operators", "seconds"),
        [
            [
                ", ".join(one["updates"]),
                part["role"] or "-",
                part["what"],
                "-" if part["calls"] is None else f"{part['calls']:.3g}",
                *(_number(part["flops"].get(kind, 0) / TERA, 4) for kind in ("attention", "linear", "rest")),
                f"{part['operators']:.0f}",
                _s(part["compute"]),
            ]
            for one in found["iterations"]
            for part in one["parts"]
            if part["compute"] >= 1e-3
        ],
    )
    yield Table(
        "What each sends",
        ("updates", "collective", "ranks", "where", "number", "GiB", "seconds"),
        [
            [", ".join(one["updates"]), *key, f"{count:.0f}", _number(size / GIB, 4), _s(seconds)]
            for one in found["iterations"]
            for key, (count, size, seconds) in _collectives(one).items()
        ],
    )
    scaling = found["scaling"]
    yield Table(
        f"On more GPUs, in the same way, against {scaling[0]['gpus']}",
        ("GPUs", "replicas x shards", "iteration, s", "sending, s", "samples/s", "efficiency", "without overlap"),
        [
            [
                str(one["gpus"]),
                f"{one['replicas']} x {one['shards']}",
                _s(one["overlapped"]),
                _s(one["sending"]),
                f"{one['samples_per_second']:.3g}",
                f"{one['efficiency']:.1%}",
                f"{one['efficiency_apart']:.1%}",
            ]
            for one in scaling
        ],
        [len(scaling) - 1],
    )


def choices(found: Sequence[Choice]) -> Table:
    """What a sweep found, the best three first."""
    rows = []
    for one in found:
        changes = dict(one.changes)
        batch, replicas, shards = (
            changes.pop(key) for key in ("train_batch_size", "hsdp_replicate_dim", "hsdp_shard_dim")
        )
        together = changes.pop("sequence_parallel")
        rows.append(
            [
                f"{replicas} x {shards}",
                str(together),
                str(batch),
                ", ".join(changes) or "-",
                _gib(one.peak),
                "yes" if one.fits else "no",
                _s(one.seconds),
                f"{one.samples_per_second:.3g}",
                f"{one.efficiency:.1%}",
            ]
        )
    options = (AXES, "sequence_parallel", "train_batch_size", "also")
    headings = (*options, "peak GiB", "fits", "iteration, s", "samples/s", "efficiency")
    best = [number for number, one in enumerate(found) if one.fits][:BEST]
    return Table("Other ways to run it, the best first", headings, rows, best)


def assumptions(found: Mapping[str, Any], storage_gbs: float) -> list[str]:
    """What the figures rest on, a sentence each."""
    one, base = found["hardware"], found["scaling"][0]["gpus"]
    text = f"""
Bytes, collectives and FLOPs are counted: rank 0 of the real sharding and method, on tensors without values. FLOPs are all
that a GPU computes, recomputation too; the bytes of a collective are those of its larger side.

Computing: {one["tflops"]:g} TFLOP/s in dense bfloat16, of which {one["compute_achieved"]:.0%} are achieved, in attention
and linear layers alike, and no operator in less than {one["microseconds_per_operator"]:g} µs (42% and 30 µs are measured, of Wan
1.3B on one H200).

Links: {one["nvlink_gbs"]:g} GB/s inside a node, {one["network_gbs"]:g} GB/s per GPU between nodes, {one["host_gbs"]:g} GB/s
to the host; {one["links_achieved"]:.0%} of that is achieved, a collective takes {one["microseconds_per_collective"]:g} µs
besides, and {one["microseconds_per_hop"]:g} µs for each further node (assumed). Collectives are rings, the network has no
narrow place, and no GPU is slower than another.

With overlap: what a pass sends, or copies from and to the host, hides behind what it computes, but for the first block's
weights and the last one's gradients, and tokens that processes exchange, for which attention waits. Without: one after the other.

Efficiency is samples per second and GPU against those of {base} GPUs that run in the same way, with the same batch per GPU.

Memory: {USABLE:.0%} of {one["memory_gb"]:g} GB are usable. The VAE, the text encoder and validation are not among what is
used.

Storage: {storage_gbs:g} GB/s for all processes together. Every replica reads the networks' weights once, in the dtype that
they are held in; text encoder and VAE come on top. A checkpoint is copied to the host while training waits, and written
while it goes on.

The loader is never waited for.
"""
    return [" ".join(part.split()) for part in text.strip().split("\n\n")]


def _collectives(one: Mapping[str, Any]) -> dict[tuple[str, str, str], tuple[float, float, float]]:
    result: dict[tuple[str, str, str], tuple[float, float, float]] = defaultdict(lambda: (0.0, 0.0, 0.0))
    for part in one["parts"]:
        for sent in part["collectives"]:
            key = sent["kind"], str(sent["ranks"]), sent["where"]
            count, size, seconds = result[key]
            result[key] = count + sent["count"], size + sent["bytes"], seconds + sent["seconds"]
    return dict(result)


def _gib(size: float) -> str:
    return f"{size / GIB:.2f}"


def _s(seconds: float) -> str:
    return _number(seconds, 3)


def _number(value: float, digits: int) -> str:
    """With so many digits, without an exponent."""
    if 0 < value < 1e-3:
        return "< 0.001"
    return f"{value:.{digits}g}" if value < 1000 else f"{value:,.0f}"
