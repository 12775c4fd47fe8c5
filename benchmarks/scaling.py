"""What a run's processes open, send and write, against their number.

    python benchmarks/scaling.py [--files 10000]

A data set of many small files is opened by one process of N: what its peers found is made before, so that the work of one of
512 is measured on one machine, in processor seconds. Then a toy is trained on 1, 2 and 4 gloo processes, which count the
collectives of a step beside those of networks (the verdict whether all is finite, and the log), the files of a checkpoint, and
the safetensors files that a process opens for the index of that checkpoint when it goes on from it.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import pickle
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from safetensors import safe_open

from fastvideo_core.checkpoint.stored_state import StoredState
from fastvideo_core.tracking.metrics import to_floats
from fastvideo_core.training import trainer, updates
from fastvideo_data.loading import file_scan
from fastvideo_data.loading.file_scan import scan_files
from fastvideo_data.schema import encode_tensor, key_value_metadata, t2v_schema, write_part
from fastvideo_testing.runs import build_run, toy_family
from fastvideo_tools.simulate.meter import Meter, Part

GLOO, RANKS, STEPS = (1, 2, 4), (1, 2, 4, 8, 64, 512), 4
TOY = {
    "recipe": {"family": "toy", "method": "finetune"},
    "roles": {"student": {"path": "toy/student", "trainable": True}},
}


# --- the loader -------------------------------------------------------------------------------------------------------


def write_files(folder: Path, number: int) -> None:
    """So many data files of two rows, all alike."""
    values = {"vae_latent": torch.zeros(16, 1, 4, 4), "text_embedding": torch.zeros(8, 16)}
    row: dict[str, Any] = {"file_name": "", "caption": "", "media_type": "video", "width": 32, "height": 32}
    row |= {"num_frames": 1, "duration_sec": 1 / 16, "fps": 16.0}
    for name, value in values.items():
        row |= encode_tensor(name, value)
    folder.mkdir()
    first = folder / "part-000000.parquet"
    write_part(
        first, [row | {"id": str(n)} for n in range(2)], t2v_schema(), key_value_metadata(normalised=True, settings={})
    )
    for n in range(1, number):
        (folder / f"part-{n:06}.parquet").write_bytes(first.read_bytes())


class OneOf:
    """What the scan asks of `distributed.context`, for rank 0 of `size` whose peers have looked at their shares already."""

    def __init__(self, size: int, shares: list[bytes]) -> None:
        self._size, self._shares = size, shares

    def rank(self) -> int:
        return 0

    def world_size(self) -> int:
        return self._size

    def told_by_main(self, look: Any) -> Any:
        return look()

    def gathered(self, value: Any) -> list[Any]:
        return [value, *(pickle.loads(one) for one in self._shares[1:])]


def opened_by_one_of(folder: Path, sizes: tuple[int, ...]) -> Iterator[tuple[int, int, int, float]]:
    """For each number of processes: files that one opens, bytes that it is told, its processor seconds."""
    files = scan_files(folder)
    for size in sizes:
        shares = [pickle.dumps(list(files[rank::size])) for rank in range(size)]
        opened = Counter[str]()
        scan = file_scan.scan

        def counted(path: Path, opened: Counter[str] = opened, scan: Any = scan) -> Any:
            opened["files"] += 1
            return scan(path)

        with patch.object(file_scan, "context", OneOf(size, shares)), patch.object(file_scan, "scan", counted):
            start = time.process_time()
            assert len(scan_files(folder, together=True)) == len(files)
            seconds = time.process_time() - start
        yield size, opened["files"], sum(map(len, shares[1:])), seconds


# --- a run on gloo ----------------------------------------------------------------------------------------------------


@contextmanager
def counted_headers(found: Counter[str]) -> Iterator[None]:
    """Counts the safetensors files that this process opens."""

    def opens(*args: Any, **kwargs: Any) -> Any:
        found["headers"] += 1
        return safe_open(*args, **kwargs)

    with patch("safetensors.safe_open", opens):
        yield


def of_run(rank: int, size: int, port: int, folder: Path) -> None:
    """Trains a toy and goes on from its checkpoint; writes what this process counted."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank)}
    torch.set_num_threads(1)
    logging.disable()
    if size > 1:
        dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=size)
    counts = Counter[str]()
    meter = Meter()
    agreed, floats = updates._agreed, to_floats

    def within(part: str, work: Any) -> Any:
        def counted(*args: Any) -> Any:
            with meter.of(Part("", part)):
                return work(*args)

        return counted

    training = {
        "seed": 0,
        "max_train_steps": STEPS,
        "learning_rate": 1e-3,
        "num_gpus": size,
        "output_dir": str(folder / "run"),
    }
    with ExitStack() as stack:
        stack.enter_context(patch.object(updates, "_agreed", within("verdict", agreed)))
        stack.enter_context(patch.object(trainer, "to_floats", within("log", floats)))
        stack.enter_context(toy_family())
        place = folder / f"of-{rank}"
        place.mkdir()
        runtime = build_run(place, {**TOY, "training": {**training, "training_state_checkpointing_steps": STEPS}})
        with meter, open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            runtime.train()
    for part, cost in meter.costs.items():
        for _, (number, sent) in cost.sent.items():
            counts[f"{part.what} collectives"] += int(number)
            counts[f"{part.what} bytes"] += int(sent)
    checkpoint = next((folder / "run").glob("checkpoint-*"))
    with counted_headers(counts):
        StoredState(checkpoint, runtime.training_args)
    counts["files"] = sum(path.is_file() for path in checkpoint.rglob("*"))
    counts["own files"] = sum(f"rank-{rank:05d}" in path.name for path in checkpoint.rglob("*"))
    (folder / f"{rank}.json").write_text(json.dumps(counts))
    if size > 1:
        dist.barrier()
        dist.destroy_process_group()


def counts_of(size: int) -> list[dict[str, int]]:
    """What each process of a run counted, by rank."""
    with tempfile.TemporaryDirectory() as name, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        start = multiprocessing.get_context("spawn").Process
        processes = [start(target=of_run, args=(rank, size, port, Path(name))) for rank in range(size)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        if any(process.exitcode for process in processes):
            raise SystemExit(f"a process of {size} failed")
        return [json.loads((Path(name) / f"{rank}.json").read_text()) for rank in range(size)]


def main() -> int:
    """Print both tables; 1 where what grows must not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=10000, help="files of the data set")
    files = parser.parse_args().files
    print("| processes | data files that one opens | told by the others, KiB | its processor seconds |")
    print("|---:|---:|---:|---:|")
    good = True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "data"
        write_files(folder, files)
        for size, opened, told, seconds in opened_by_one_of(folder, RANKS):
            good &= opened == -(-files // size)
            print(f"| {size} | {opened} | {told / 1024:.0f} | {seconds:.2f} |", flush=True)
    print(
        "\n| gloo processes | verdict of a step | log of a step | files of a checkpoint | of one process | headers | of another |"
    )
    print("|---:|---:|---:|---:|---:|---:|---:|")
    for size in GLOO:
        main_one, *others = counts_of(size)
        sent = [
            f"{main_one.get(f'{part} collectives', 0) / STEPS:g} ({main_one.get(f'{part} bytes', 0) / STEPS:g} bytes)"
            for part in ("verdict", "log")
        ]
        headers = [one.get("headers", 0) for one in others]
        good &= not any(headers)
        files_of = f"{main_one['files']} | {main_one['own files']} | {main_one['headers']}"
        print(f"| {size} | {' | '.join(sent)} | {files_of} | {max(headers) if headers else ''} |", flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
