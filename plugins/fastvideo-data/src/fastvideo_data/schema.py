"""The parquet data set: named tensors as `X_bytes`, `X_shape`, `X_dtype` columns beside the sample's metadata.

The layout is FastVideo's. A tensor X is stored C-contiguous in `X_bytes`, its sizes in `X_shape` and its numpy dtype
name in `X_dtype` ("bfloat16" for bfloat16: raw two-byte payload). A tensor that is empty in all three (`b""`, `[]`, `""`)
is absent. A tensor may have any name that `tensor_name_problem` allows. Which latents are normalised is recorded for each
tensor in the file's key-value metadata under `fastvideo.latents_normalised`.
"""

from __future__ import annotations

import functools
import json
import math
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from fastvideo_core.errors import DataError, Problem

DTYPES: dict[str, torch.dtype] = {
    "float64": torch.float64,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "int64": torch.int64,
    "int32": torch.int32,
    "int16": torch.int16,
    "int8": torch.int8,
    "uint8": torch.uint8,
    "bool": torch.bool,
}
"""Every dtype under the name that is written to a `X_dtype` column; `dtype_name` says what else is read."""

_OF_TORCH = {
    f"torch.{alias}": name
    for alias, value in vars(torch).items()
    if isinstance(value, torch.dtype) and DTYPES.get(name := str(value).removeprefix("torch.")) == value
}
_OF_EITHER = {"float": ("float32", "float64"), "int": ("int32", "int64")}
"""What torch and numpy call alike, and mean differently: how many bytes there are tells."""

TENSOR_NAMES = (
    "vae_latent",
    "text_embedding",
    "clip_feature",
    "first_frame_latent",
    "pil_image",
    "audio_latent",
    "trajectory_latents",
    "trajectory_timesteps",
)
"""FastVideo's tensors, which are read when nobody says which; a data set holds some of them, and always text_embedding."""

_TENSOR_NAME = re.compile(r"[a-z][a-z0-9_]*")
_BATCH_KEYS = re.compile(r"info|data_source|data_loss_weight|.*_(length|normalised)")

METADATA_TYPES: dict[str, pa.DataType] = {
    "id": pa.string(),
    "file_name": pa.string(),
    "caption": pa.string(),
    "media_type": pa.string(),
    "width": pa.int64(),
    "height": pa.int64(),
    "num_frames": pa.int64(),
    "duration_sec": pa.float64(),
    "fps": pa.float64(),
    "audio_sample_rate": pa.int64(),
}
"""Metadata columns; `num_frames` counts LATENT frames, `width` and `height` are pixels."""

TEXT_METADATA = ("id", "caption")
VIDEO_METADATA = tuple(name for name in METADATA_TYPES if name != "audio_sample_rate")
SOUND_METADATA = tuple(METADATA_TYPES)
"""Of videos with sound."""

LATENTS = ("vae_latent", "first_frame_latent", "audio_latent", "trajectory_latents")
"""FastVideo's tensors that are normalised or not; a file may say it of others."""

NORMALISED_KEY = b"fastvideo.latents_normalised"
_NORMALISED_BY_FASTVIDEO = ("first_frame_latent", "trajectory_latents")
SETTINGS_KEY = b"fastvideo.settings"
"""Of a file's metadata: how its rows were made, as JSON."""

ROW_GROUP_BYTES = 32 << 20
"""Rows are grouped up to about this size: large enough to read fast, small enough to shuffle in memory."""


def tensor_name_problem(name: str) -> str:
    """Why a tensor cannot have this name; empty where it can."""
    if not _TENSOR_NAME.fullmatch(name):
        return "a tensor's name is of lower-case letters, digits and _, and begins with a letter"
    if _BATCH_KEYS.fullmatch(name):
        return "batches have keys of their own: info, data_source, data_loss_weight, X_length and X_normalised"
    return ""


def check_tensor_names(names: Iterable[str]) -> None:
    """Tensors can have these names.

    Raises:
        DataError: one of them cannot be a tensor's.
    """
    problems = [
        Problem(f"no tensor can be called {name!r}", allowed=why)
        for name in names
        if (why := tensor_name_problem(name))
    ]
    if problems:
        raise DataError(problems)


def tensors_of(columns: Collection[str]) -> tuple[str, ...]:
    """The names of the tensors that have all their three columns there: FastVideo's first, then others in order."""
    found = [
        name
        for column in columns
        if column.endswith("_bytes")
        and not tensor_name_problem(name := column.removesuffix("_bytes"))
        and all(part in columns for part in tensor_columns(name))
    ]
    return (*(name for name in TENSOR_NAMES if name in found), *sorted(set(found) - set(TENSOR_NAMES)))


def tensor_columns(name: str) -> tuple[str, str, str]:
    """The three columns that hold tensor `name`: bytes, shape, dtype."""
    return f"{name}_bytes", f"{name}_shape", f"{name}_dtype"


def arrow_schema(tensors: Sequence[str], metadata: Sequence[str]) -> pa.Schema:
    """The arrow schema of a data set with these tensors and metadata columns: id, tensors, then the other metadata.

    Args:
        tensors: tensor names.
        metadata: names out of METADATA_TYPES, "id" among them.
    """
    fields = [pa.field("id", METADATA_TYPES["id"])]
    for name in tensors:
        data, shape, dtype = tensor_columns(name)
        fields += [pa.field(data, pa.binary()), pa.field(shape, pa.list_(pa.int64())), pa.field(dtype, pa.string())]
    fields += [pa.field(name, METADATA_TYPES[name]) for name in metadata if name != "id"]
    return pa.schema(fields)


def t2v_schema() -> pa.Schema:
    """The schema of text-to-video samples: vae_latent [C, T, H, W] and text_embedding [L, D]."""
    return arrow_schema(("vae_latent", "text_embedding"), VIDEO_METADATA)


def text_schema() -> pa.Schema:
    """The schema of prompts alone: text_embedding [L, D], id and caption."""
    return arrow_schema(("text_embedding",), TEXT_METADATA)


def encode_tensor(name: str, tensor: Tensor) -> dict[str, object]:
    """The three column values that store `tensor` under `name`, in its own dtype.

    Raises:
        DataError: no tensor can have this name, or the tensor's dtype has no name in the schema.
    """
    check_tensor_names([name])
    names = {dtype: text for text, dtype in DTYPES.items()}
    if tensor.dtype not in names:
        raise DataError(
            Problem(f"{name} has dtype {tensor.dtype}", allowed=", ".join(DTYPES), fix="convert the tensor first")
        )
    raw = bytes_of(tensor.detach().cpu().contiguous()).tobytes()
    data, shape, dtype = tensor_columns(name)
    return {data: raw, shape: list(tensor.shape), dtype: names[tensor.dtype]}


def bytes_of(tensor: Tensor) -> npt.NDArray[np.uint8]:
    """The memory of a contiguous CPU tensor as one flat, writable byte array, whatever its dtype."""
    return cast("npt.NDArray[np.uint8]", tensor.reshape(-1).view(torch.uint8).numpy())


def decode_tensor(name: str, row: Mapping[str, Any], *, where: str = "") -> Tensor:
    """Tensor `name` of one row (a mapping from column to value), copied out in its stored dtype.

    Raises:
        DataError: as `check_payload`.
    """
    data, stored_shape, stored_dtype = (row[column] for column in tensor_columns(name))
    shape, dtype = check_payload(name, None if data is None else len(data), stored_shape, stored_dtype, where=where)
    out = torch.empty(shape, dtype=DTYPES[dtype])
    bytes_of(out)[:] = np.frombuffer(data, dtype=np.uint8)
    return out


def check_payload(
    name: str, size: int | None, shape: Sequence[float] | None, dtype: str | None, *, where: object
) -> tuple[tuple[int, ...], str]:
    """The shape, and the name in DTYPES, of a tensor that is stored as `size` bytes.

    `where` names the row in an error; it is written out only then.

    Raises:
        DataError: it is absent, one of the three is null (None), the shape is not of whole numbers, the dtype is unknown,
            or size, shape and dtype contradict each other.
    """
    if not size and is_absent(shape, dtype):
        fix = "remove the row, or keep samples with and without it in separate folders"
        raise DataError(Problem(f"{name} is empty: the row has none", str(where), fix=fix))
    if size is None or shape is None or dtype is None or None in shape:
        missing = [part is None for part in (size, None if shape and None in shape else shape, dtype)]
        column = tensor_columns(name)[missing.index(True)]
        raise DataError(Problem(f"{column} is null", str(where), fix="remove the row or preprocess the sample again"))
    if not all(isinstance(length, int) or length.is_integer() for length in shape):
        raise DataError(Problem(f"{name}_shape is {list(shape)}", str(where), allowed="whole numbers"))
    whole = tuple(map(int, shape))
    count = math.prod(whole)
    named = dtype_name(dtype, size // count if count > 0 else 0)
    if named is None:
        allowed = f"{', '.join(DTYPES)}, or what torch and numpy call them"
        raise DataError(Problem(f"{name}_dtype is {dtype!r}, which is no known dtype", str(where), allowed))
    expected = count * DTYPES[named].itemsize
    if size != expected or min(whole, default=0) < 0:
        raise DataError(
            Problem(
                f"{name}_bytes holds {size} bytes, but shape {list(whole)} of {dtype} needs {expected}",
                str(where),
                fix="the row is damaged or was written with another dtype: preprocess the sample again",
            )
        )
    return whole, named


def is_absent(shape: Sequence[float] | None, dtype: str | None) -> bool:
    """Whether the row has no such tensor: FastVideo writes it as `b""`, `[]` and `""`, others as three nulls."""
    return not shape and not dtype


@functools.lru_cache(maxsize=1024)
def dtype_name(text: str, item_bytes: int = 0) -> str | None:
    """The name in DTYPES of what `torch.float32`, `<f4`, `half`, `numpy.int64` and the like mean; None for anything else.

    Args:
        item_bytes: of one number, as stored: `float` and `int` alone are other dtypes in torch than in numpy.
    """
    plain = text.strip()
    if plain in DTYPES:
        return plain
    if plain.startswith("torch."):
        return _OF_TORCH.get(plain)
    plain = re.sub(r"^(np|numpy)\.", "", plain)
    if plain in DTYPES:
        return plain
    for name in _OF_EITHER.get(plain, ()):
        if DTYPES[name].itemsize == item_bytes:
            return name
    if not re.fullmatch(r"[<=|]?(\?|[a-zA-Z][a-z]*\d{0,2}_?)", plain, re.ASCII):
        return None  # big-endian among them
    try:
        found = np.dtype(plain)
    except TypeError:
        return None
    return found.name if found.name in DTYPES and found.isnative else None


def normalised_latents(metadata: Mapping[bytes, bytes] | None, *, where: str) -> tuple[dict[str, bool], bool]:
    """For each tensor of latents whether a file's are normalised, and whether its key-value metadata says so.

    These are LATENTS, and others that the file names. What it leaves open is taken as FastVideo writes it: vae_latent as the
    VAE gave it, first_frame_latent normalised.

    Raises:
        DataError: the recorded value is none that `key_value_metadata` writes.
    """
    of_fastvideo = {name: name in _NORMALISED_BY_FASTVIDEO for name in LATENTS}
    recorded = (metadata or {}).get(NORMALISED_KEY)
    if recorded is None:
        return of_fastvideo, False
    try:
        value = json.loads(recorded)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, bool):
        return dict.fromkeys(LATENTS, value), True
    if not isinstance(value, dict) or not all(isinstance(state, bool) for state in value.values()):
        found = f"{NORMALISED_KEY.decode()} is {recorded.decode('utf-8', 'replace')[:80]!r}"
        allowed = "'true', 'false', or a JSON object with true or false for each tensor"
        raise DataError(Problem(found, where, allowed=allowed))
    return {**of_fastvideo, **value}, True


def key_value_metadata(
    *, normalised: bool | Mapping[str, bool], settings: Mapping[str, object], **more: object
) -> dict[bytes, bytes]:
    """Key-value metadata of a file: normalisation state, settings and `more` (keys get the prefix "fastvideo.").

    All is stored as JSON with sorted keys, so that equal settings are equal bytes.

    Args:
        normalised: of all LATENTS, or of each tensor of latents by name.
    """
    state = normalised
    if not isinstance(normalised, bool) and set(normalised) <= set(LATENTS) and len(set(normalised.values())) == 1:
        state = next(iter(normalised.values()))
    entries = {NORMALISED_KEY: _json(state), SETTINGS_KEY: _json(settings)}
    entries.update({f"fastvideo.{key}".encode(): _json(value) for key, value in more.items()})
    return entries


def write_part(
    path: Path, rows: Sequence[Mapping[str, object]], schema: pa.Schema, metadata: Mapping[bytes, bytes]
) -> None:
    """Write one parquet file so that it is complete or absent: aside, synced to disk, then renamed.

    Args:
        path: the file to write; its folder exists.
        rows: one mapping from column to value per sample, as `encode_tensor` and the metadata give them.
        schema: columns and their types.
        metadata: key-value metadata of the file.
    """
    payloads = [field.name for field in schema if pa.types.is_binary(field.type)]
    others = [field.name for field in schema if field.name not in payloads]
    with (
        published(path) as aside,
        open(aside, "wb") as sink,
        pq.ParquetWriter(
            sink,
            schema.with_metadata(dict(metadata)),
            compression={name: "NONE" if name in payloads else "SNAPPY" for name in _leaf_paths(schema)},
            use_dictionary=others,
            write_statistics=others,
        ) as writer,
    ):
        for group in _row_groups(rows, payloads):
            writer.write_table(pa.Table.from_pylist([dict(row) for row in group], schema=schema))


@contextmanager
def published(path: Path) -> Iterator[Path]:
    """Gives a place to write a file; when all is well, it is synced to disk and gets its name, else nothing is left.

    Afterwards a crash cannot lose the file. No reader takes what a kill leaves for data.
    """
    aside = path.with_name(f".{path.name}.partial")
    aside.unlink(missing_ok=True)  # a link there would be written through
    try:
        yield aside
        with open(aside, "rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _row_groups(rows: Sequence[Mapping[str, object]], payloads: Sequence[str]) -> list[Sequence[Mapping[str, object]]]:
    groups: list[Sequence[Mapping[str, object]]] = []
    start, size = 0, 0
    for i, row in enumerate(rows):
        value_sizes = (len(value) for name in payloads if isinstance(value := row[name], bytes))
        row_size = sum(value_sizes)
        if i > start and size + row_size > ROW_GROUP_BYTES:
            groups.append(rows[start:i])
            start, size = i, 0
        size += row_size
    return [*groups, rows[start:]] if rows else groups


def _leaf_paths(schema: pa.Schema) -> list[str]:
    return [f"{field.name}.list.element" if pa.types.is_list(field.type) else field.name for field in schema]


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, ensure_ascii=False).encode()
