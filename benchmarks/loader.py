"""Bandwidth of the data loader against reading the same bytes with pyarrow and numpy, and its memory by rows.

    python benchmarks/loader.py [--gb 1.0] [--batch-size 4] [--repeats 5] [--cpu] [--foreign]

Both sides read the same files from a warm cache in alternating order, and both end with batches of both tensors: the
baseline reads row group by row group, in the files' order, stacks neighbouring latents and pads neighbouring texts; the
loader shuffles, pads, checks and carries metadata. The ratio is to "batches" as pyarrow reads by default; what it costs
without making batches, without the texts, and from mapped files (which end the process when one shrinks, so the loader
does not) is shown beside it. A data set of three latent shapes, a file of each in turn as `preprocess --buckets` writes them, is
read by the loader in the order of a source with a weight, and compared with the same reader on it; so are both data sets
together as two sources, with the reader on the first. The files are as `preprocess` writes them, and the loader reads their
tensors straight to its batches; with --foreign they are as pyarrow writes them by default (compressed, with dictionaries), and
pyarrow reads them for both. Figures are medians over the repeats; with --cpu they are of this process's processor time, on a
machine that does other things, too. Memory is the growth of the peak over the state before the first batch, each in a process
of its own, for the data set and for one with twice the rows.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from fastvideo_core import DataSource
from fastvideo_data.data_set import DataSet
from fastvideo_data.data_sources import DataSources
from fastvideo_data.loading.loader import ParquetLoader
from fastvideo_data.loading.sources import SourcesLoader
from fastvideo_data.schema import encode_tensor, key_value_metadata, t2v_schema, write_part

LATENT = (16, 16, 32, 32)
SHAPES = (LATENT, (16, 16, 24, 40), (16, 9, 32, 56))
TEXT_WIDTH = 512
ROWS_PER_FILE = 64
TARGET = 0.8
TENSORS = ("vae_latent", "text_embedding")


def write_data_set(
    root: Path, gigabytes: float, shapes: Sequence[tuple[int, ...]] = (LATENT,), *, foreign: bool = False
) -> int:
    """Write latents of about `gigabytes` GB with captions beside them, files of these shapes in turn; returns the rows."""
    generator = torch.Generator().manual_seed(0)
    row_bytes = 4 * int(np.prod(LATENT))
    rows = max(ROWS_PER_FILE, round(gigabytes * 1e9 / row_bytes))
    root.mkdir()
    for number, start in enumerate(range(0, rows, ROWS_PER_FILE)):
        part = []
        latent = shapes[number % len(shapes)]
        for i in range(start, min(start + ROWS_PER_FILE, rows)):
            row: dict[str, object] = {"id": f"sample-{i}", "file_name": f"{i}.mp4", "caption": f"caption {i}"}
            row |= {"media_type": "video", "width": 256, "height": 256, "num_frames": latent[1]}
            row |= {"duration_sec": 4.0, "fps": 16.0}
            row |= encode_tensor("vae_latent", torch.randn(latent, generator=generator))
            row |= encode_tensor("text_embedding", torch.randn(16 + i % 48, TEXT_WIDTH, generator=generator))
            part.append(row)
        path = root / f"part-{number:05d}.parquet"
        if foreign:
            pq.write_table(pa.Table.from_pylist(part, schema=t2v_schema()), path)
        else:
            write_part(path, part, t2v_schema(), key_value_metadata(normalised=False, settings={}))
    return rows


def read_plainly(root: Path, batch_size: int, *, batched: Sequence[str] = TENSORS, mapped: bool = False) -> int:
    """Read every tensor with pyarrow and numpy, and make batches of some; returns the bytes of all.

    One process, one thread.
    """
    columns = [f"{name}_{part}" for name in TENSORS for part in ("bytes", "shape", "dtype")]
    total = 0
    for path in sorted(root.glob("*.parquet")):
        with pq.ParquetFile(path, memory_map=mapped) as handle:
            for group in range(handle.num_row_groups):
                table = handle.read_row_group(group, columns=columns, use_threads=False)
                for name in TENSORS:
                    arrays = plain_arrays(table, name)
                    total += sum(array.nbytes for array in arrays)
                    for i in range(0, len(arrays) if name in batched else 0, batch_size):
                        plain_batch(arrays[i : i + batch_size])
    return total


def plain_batch(arrays: list[np.ndarray]) -> np.ndarray:
    """The arrays stacked; padded with zeros where their first dimension differs."""
    longest = max(len(array) for array in arrays)
    if all(len(array) == longest for array in arrays):
        return np.stack(arrays)
    batch = np.zeros((len(arrays), longest, *arrays[0].shape[1:]), arrays[0].dtype)
    for row, array in zip(batch, arrays, strict=True):
        row[: len(array)] = array
    return batch


def plain_arrays(table: object, name: str) -> list[np.ndarray]:
    """The tensors of one column as numpy views on arrow's memory."""
    arrays = []
    shapes, dtypes = (table.column(f"{name}_{part}").to_pylist() for part in ("shape", "dtype"))
    for chunk in table.column(f"{name}_bytes").chunks:
        _, offsets, data = chunk.buffers()
        starts = np.frombuffer(offsets, np.int32)[chunk.offset : chunk.offset + len(chunk) + 1].tolist()
        for start, end in itertools.pairwise(starts):
            dtype = np.dtype(dtypes[len(arrays)])
            flat = np.frombuffer(data, dtype, (end - start) // dtype.itemsize, start)
            arrays.append(flat.reshape(shapes[len(arrays)]))
    return arrays


def read_with_loader(loader: ParquetLoader | SourcesLoader, batches: int) -> int:
    """So many batches; returns the bytes of the tensors without padding."""
    total = 0
    for _ in range(batches):
        batch = next(loader)
        total += batch["vae_latent"].nbytes + int(batch["text_embedding_length"].sum()) * TEXT_WIDTH * 4
    loader.close()  # each call starts with nothing read ahead
    return total


def bandwidth(work: Callable[[], int], clock: Callable[[], float]) -> float:
    """GB/s of one call."""
    started = clock()
    total = work()
    return total / (clock() - started) / 1e9


def sources(*folders: Path) -> DataSources:
    """Data sets of equal weights."""
    return DataSources({folder.name: DataSource(path=str(folder), weight=1) for folder in folders})


def peak_growth(root: Path, batch_size: int, workers: int, batches: int) -> float:
    """MB by which the peak memory of a fresh process grows over reading so many batches."""
    command = [sys.executable, __file__, "--measure", str(root), str(batch_size), str(workers), str(batches)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure(root: Path, batch_size: int, workers: int, batches: int) -> None:
    """Print the growth of this process's peak memory in MB."""
    loader = DataSet(root).loader(batch_size=batch_size, seed=0, num_workers=workers)
    before = own_memory()
    peak = max(own_memory() for _ in itertools.islice(loader, batches))
    loader.close()
    print(peak - before)


def own_memory() -> float:
    """MB that only this process holds: without the page cache that mapped files show as resident memory."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("RssAnon:")[1].split()[0]) / 1024


def main() -> int:
    """Run the benchmark; 0 when the targets are met, 1 when not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gb", type=float, default=1.0, help="size of the latents (default: 1.0)")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--measure", nargs=4, metavar=("ROOT", "BATCH", "WORKERS", "BATCHES"), help=argparse.SUPPRESS)
    parser.add_argument("--cpu", action="store_true", help="measure processor time in place of time")
    parser.add_argument("--foreign", action="store_true", help="files as pyarrow writes them by default")
    args = parser.parse_args()
    if args.measure:
        root, batch_size, workers, batches = args.measure
        measure(Path(root), int(batch_size), int(workers), int(batches))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        data, shapes, double = Path(folder, "data"), Path(folder, "shapes"), Path(folder, "double")
        rows = write_data_set(data, args.gb, foreign=args.foreign)
        write_data_set(shapes, args.gb, SHAPES, foreign=args.foreign)
        plain, of_shapes = "pyarrow + numpy, batches", "the same, three shapes"
        works: dict[str, Callable[[], int]] = {
            "pyarrow + numpy, views only": lambda: read_plainly(data, args.batch_size, batched=()),
            "pyarrow + numpy, only latents": lambda: read_plainly(data, args.batch_size, batched=("vae_latent",)),
            plain: lambda: read_plainly(data, args.batch_size),
            of_shapes: lambda: read_plainly(shapes, args.batch_size),
            "the same, memory-mapped": lambda: read_plainly(data, args.batch_size, mapped=True),
        }
        for workers in (0, 2):
            cases = {"": DataSet(data), ", three shapes": sources(shapes), ", two sources": sources(data, shapes)}
            for case, opened in cases.items():
                loader = opened.loader(batch_size=args.batch_size, seed=0, num_workers=workers)
                batches = rows * (2 if case == ", two sources" else 1) // args.batch_size
                read = functools.partial(read_with_loader, loader, batches)
                works[f"loader, {workers} workers{case}"] = read
        clock = time.process_time if args.cpu else time.perf_counter
        for work in works.values():
            work()
        speeds = {name: [] for name in works}
        for _ in range(args.repeats):
            for name, work in works.items():
                speeds[name].append(bandwidth(work, clock))
        middle = {name: statistics.median(values) for name, values in speeds.items()}
        bases = {name: middle[of_shapes if name.endswith("three shapes") else plain] for name in works}
        print(f"{rows} rows, {args.gb:g} GB of latents, batch {args.batch_size}, {args.repeats} repeats, median GB/s")
        print(f"{'of processor time' if args.cpu else '':34}{'GB/s':>8}{'ratio':>8}{'min':>8}{'max':>8}")
        for name, value in middle.items():
            spread = f"{min(speeds[name]):8.2f}{max(speeds[name]):8.2f}"
            print(f"{name:34}{value:8.2f}{value / bases[name]:8.2f}{spread}")
        write_data_set(double, 2 * args.gb, foreign=args.foreign)
        fast = all(middle[name] / bases[name] >= TARGET for name in works if name.startswith("loader"))
        print(f"\n{'peak memory growth, MB':30}{'N rows':>8}{'2N rows':>9}")
        flat = True
        for workers in (0, 2):
            batches = rows // args.batch_size
            once = peak_growth(data, args.batch_size, workers, batches)
            twice = peak_growth(double, args.batch_size, workers, 2 * batches)
            flat = flat and twice <= 1.25 * once + 32
            print(f"{f'loader, {workers} workers':30}{once:8.0f}{twice:9.0f}")
    print(f"\nbandwidth at least {TARGET} of the baseline: {'yes' if fast else 'NO'}")
    print(f"memory flat in the number of rows: {'yes' if flat else 'NO'}")
    return 0 if fast and flat else 1


if __name__ == "__main__":
    sys.exit(main())
