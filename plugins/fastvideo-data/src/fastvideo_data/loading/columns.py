"""The types that columns of a parquet file may have, whoever wrote it, and how byte strings are taken from them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.types as kinds

from fastvideo_core.errors import Problem
from fastvideo_data.schema import METADATA_TYPES, tensor_columns

_BYTES = "binary, large_binary, binary_view, fixed_size_binary, a list of uint8, or a dictionary of one of them"
_SHAPE = "a list of whole numbers"
_TEXT = "string, large_string, string_view, or a dictionary of one of them"
_NUMBER = "a type of integers or floats"


def tensor_types(name: str) -> dict[str, str]:
    """The types that the three columns of tensor `name` may have, in words, by column."""
    data, shape, dtype = tensor_columns(name)
    return {data: _BYTES, shape: _SHAPE, dtype: _TEXT}


def metadata_types() -> dict[str, str]:
    """The types that the metadata columns may have, in words, by column."""
    return {
        name: f"{_TEXT}, or integers" if kinds.is_string(kind) else _NUMBER for name, kind in METADATA_TYPES.items()
    }


def column_problems(path: Path, schema: pa.Schema, allowed: Mapping[str, str]) -> list[Problem]:
    """What is wrong with the columns of a file.

    Args:
        path: the file, for the messages.
        schema: of the file.
        allowed: of `tensor_types` or `metadata_types`; of columns that the file does not have, nothing is said.
    """
    problems = []
    for field in schema:
        if field.name in allowed and not _fits(field.type, allowed[field.name]):
            fix = "write the column again with one of these types"
            found = f"column {field.name} has the type {str(field.type)[:200]}"
            problems.append(Problem(found, str(path), allowed[field.name], fix))
    twice = sorted({name for name in schema.names if schema.names.count(name) > 1 and name in allowed})
    problems += [Problem(f"has several columns {name}", str(path), fix="keep one of them") for name in twice]
    return problems


def _fits(kind: Any, allowed: str) -> bool:
    if kinds.is_null(kind):  # no row has a value
        return True
    if allowed == _SHAPE:
        number = kind.value_type if _is_list(kind) else pa.string()
        return bool(kinds.is_integer(number) or kinds.is_floating(number) or kinds.is_null(number))
    if kinds.is_dictionary(kind):
        kind = kind.value_type
    if allowed == _BYTES:
        binary = _is_any(kind, "binary", "large_binary", "binary_view", "fixed_size_binary")
        return binary or (_is_list(kind) and kind.value_type == pa.uint8())
    if allowed == _NUMBER:
        return bool(kinds.is_integer(kind) or kinds.is_floating(kind))
    return _is_any(kind, "string", "large_string", "string_view") or (allowed != _TEXT and bool(kinds.is_integer(kind)))


def _is_any(kind: pa.DataType, *names: str) -> bool:
    """Whether it is one of the types; arrow 15 has no views."""
    return any(getattr(kinds, f"is_{name}")(kind) for name in names if hasattr(kinds, f"is_{name}"))


def _is_list(kind: pa.DataType) -> bool:
    return bool(kinds.is_list(kind) or kinds.is_large_list(kind) or kinds.is_fixed_size_list(kind))


class ByteStrings:
    """An arrow array of byte strings, of any type that a column of them may have.

    Those of binary and large_binary stay in arrow's memory (arrow's own scalars would copy every one of them).

    Raises:
        pa.ArrowInvalid: a list of uint8 has a null in it.
    """

    def __init__(self, array: Any) -> None:
        if not (kinds.is_binary(array.type) or kinds.is_large_binary(array.type)):
            array = _as_bytes(array)
        self._valid = array.is_valid().to_pylist() if array.null_count else None
        _, offsets, *_, data = array.buffers()
        width = np.int32 if kinds.is_binary(array.type) else np.int64
        self._offsets = np.frombuffer(offsets, width)[array.offset : array.offset + len(array) + 1].tolist()
        if kinds.is_large_list(array.type):
            self._data: npt.NDArray[np.uint8] = array.values.to_numpy()
        else:
            self._data = np.empty(0, np.uint8) if data is None else np.frombuffer(data, np.uint8)

    def view(self, row: int) -> npt.NDArray[np.uint8] | None:
        """The bytes of one row; None for null."""
        if self._valid is not None and not self._valid[row]:
            return None
        return self._data[self._offsets[row] : self._offsets[row + 1]]


def _as_bytes(array: Any) -> Any:
    """The array as one of binary or large_binary, or of large lists of uint8."""
    if kinds.is_dictionary(array.type):
        array = array.dictionary_decode()
    if not _is_list(array.type):
        return array if kinds.is_binary(array.type) else array.cast(pa.large_binary())
    array = array.cast(pa.large_list(pa.uint8()))
    if array.values.null_count:
        raise pa.ArrowInvalid("a list of bytes has a null in it")
    return array
