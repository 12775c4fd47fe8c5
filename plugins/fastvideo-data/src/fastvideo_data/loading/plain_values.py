"""Byte strings that lie as they are in a file, read straight to where they belong.

pyarrow copies every value twice, from the file to a page and from there to an array, before it can be copied to its batch. In
an uncompressed column without dictionary and nulls, as `schema.write_part` writes it, each value follows four bytes with its
length, and the sizes that the rows' shapes tell say where. Nothing is taken for granted: where a page is not as long as its
values, or a length is another one, pyarrow has to read. The format: https://parquet.apache.org/docs/file-format/.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from operator import itemgetter
from typing import Any, TypeAlias

import numpy as np

from fastvideo_data.loading.batch_buffers import Bytes
from fastvideo_data.loading.epoch_order import IntArray

_PREFIX = 4
_LARGEST = 2**31 - 1
_HEADER_BYTES = 9 << 10
"""Of a page's header at most: arrow writes the least and the largest value into it, where they have up to 4 KiB."""
_DATA_PAGE, _PLAIN, _RLE = 0, 0, 3
_GAP_BYTES = 16 << 10
"""So many bytes between two values are read with them, and dropped, rather than have a call for each."""
_CALL_BYTES = 64 << 20
_CALL_PARTS = 1000  # the system takes 1024

_NOTHING: Bytes = np.empty(0, np.uint8)

_Fields: TypeAlias = dict[int, Any]


def value_places(file: int, footer: Any, group: int, column: str, sizes: Sequence[int]) -> IntArray | None:
    """Where each value of a row group's column begins in its file; None where it does not lie there as it is.

    Args:
        file: descriptor of the file.
        footer: arrow's FileMetaData.
        group: number of the row group in the file.
        column: its name.
        sizes: bytes of each row's value.

    Raises:
        OSError: the file cannot be read.
    """
    if column not in footer.schema.names or max(sizes) > _LARGEST:
        return None
    number = footer.schema.names.index(column)
    leaf, chunk = footer.schema.column(number), footer.row_group(group).column(number)
    found = (leaf.path, leaf.physical_type, leaf.max_repetition_level, chunk.compression)
    if found != (column, "BYTE_ARRAY", 0, "UNCOMPRESSED") or leaf.max_definition_level > 1:
        return None
    ends: IntArray = np.cumsum(np.array(sizes, np.int64) + _PREFIX)
    places: IntArray = ends - np.array(sizes, np.int64)  # from the first value's length on
    at, row = int(chunk.data_page_offset), 0
    while row < len(sizes):
        page = _page(os.pread(file, _HEADER_BYTES, at), leaf.max_definition_level)
        if page is None:
            return None
        values, end, count = page
        before = int(ends[row - 1]) if row else 0
        if row + count > len(sizes) or end - values != ends[row + count - 1] - before:
            return None
        places[row : row + count] += at + values - before
        at, row = at + end, row + count
    return places


def read_values(file: int, places: IntArray, sizes: Sequence[int], wanted: Sequence[tuple[int, Bytes]]) -> bool:
    """Read some values of a column to where they belong; False where one of all its values has another length.

    Lengths of all of them are looked at so that a row group is read or not whichever of its rows are wanted.

    Args:
        file: descriptor of the file.
        places: of `value_places`.
        sizes: bytes of each row's value.
        wanted: numbers of rows, ascending, and their memory; repeats are allowed.

    Raises:
        OSError: the file cannot be read.
    """
    unwanted = set(range(len(sizes))).difference(row for row, _ in wanted)
    all_rows = sorted([*wanted, *((row, _NOTHING) for row in unwanted)], key=itemgetter(0))
    lengths = np.zeros(len(all_rows), "<u4")
    dropped = memoryview(bytearray(_GAP_BYTES))
    parts: list[Any] = []
    start = end = 0
    for i, (row, memory) in enumerate(all_rows):
        place = int(places[row])
        gap = place - _PREFIX - end
        if not 0 <= gap <= _GAP_BYTES or end - start > _CALL_BYTES or len(parts) > _CALL_PARTS - 3:
            if parts and os.preadv(file, parts, start) != end - start:
                return False
            parts, start, gap = [], place - _PREFIX, 0
        parts += [dropped[:gap], lengths[i : i + 1], memory]
        end = place + len(memory)
    if os.preadv(file, parts, start) != end - start:
        return False
    return lengths.tolist() == [sizes[row] for row, _ in all_rows]


def _page(data: bytes, levels: int) -> tuple[int, int, int] | None:
    """Of a page of plain values without nulls: where its values begin and end, from its header on, and how many there are."""
    try:
        header, values = _struct(data, 0)
        size, told = header[2], header[5]
        count = told[1]
        if (header[1], header[3], told[2], told[3]) != (_DATA_PAGE, size, _PLAIN, _RLE) or count < 1:
            return None
        end = values + size
        if levels:  # their length, and one run of ones
            run, last = _varint(data, values + 4)
            if (run, data[last]) != (2 * count, 1) or int.from_bytes(
                data[values : values + 4], "little"
            ) != last - values - 3:
                return None
            values = last + 1
    except (IndexError, KeyError, TypeError, ValueError, RecursionError):
        return None
    return values, end, count


def _struct(data: bytes, at: int) -> tuple[_Fields, int]:
    """A struct in Thrift's compact protocol: its fields of numbers and structs, and where it ends."""
    fields: _Fields = {}
    number = 0
    while head := data[at]:
        step, kind = divmod(head, 16)
        number, at = number + step, at + 1
        if not step or kind not in (1, 2, 5, 6, 8, 12):
            raise ValueError(kind)
        if kind == 12:
            fields[number], at = _struct(data, at)
        elif kind > 2:
            value, at = _varint(data, at)
            if kind == 8:
                at += value
            else:
                fields[number] = value >> 1 ^ -(value & 1)
    return fields, at + 1


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        shift += 7
        at += 1
        if data[at - 1] < 128:
            return value, at
