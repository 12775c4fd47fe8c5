"""Seeded damage to files: what disks, editors, other programs and attackers leave. Equal seeds give equal damage."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from copy import deepcopy
from random import Random
from typing import Any

import yaml

DEEP = "@deep@"
"""Stands for a value that is nested deeper than any parser goes: no encoder writes such a one."""

VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -(2**63) - 1, 10**400, 1e-320, 1e308, math.inf, -math.inf, math.nan,
    "", " ", "x", "0", "null", "latest", "~", "..", "../../x", "/", "/etc/passwd", "a\0b", "\x1b[31m\r", "\u2028", "\ud83d",
    "é" * 200, "x" * 5000, "a/" * 3000, [], [[]], [None], {}, {"": None}, {"a": {}}, ["x"] * 1000, [1.5, "x", None], DEEP,
)  # fmt: skip
KEYS = ("", "_class_name", "auto_map", "x" * 300, "a.b[0]", "\x1b", "<<", "../x", "\0")
PIECES = (
    b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\x1b[2J", b"\xed\xa0\x80", b"\r", b"\n\n", b"\t", b'"', b"'", b"{", b"}", b"[", b"]",
    b",", b":", b"- ", b"&a ", b"*a", b"!!python/name:os.system ", b"9" * 5000, b"[" * 3000, b"\xe2\x80\xa8", b"\\u0000",
)  # fmt: skip

Damage = Callable[[bytes, Random], bytes]


def of_bytes(data: bytes, random: Random) -> bytes:
    """Bits flipped, parts cut, repeated, zeroed, swapped or put in."""
    for _ in range(random.choice((1, 1, 1, 2, 5))):
        at = random.randrange(len(data) + 1)
        length = random.choice((1, 4, 64, 512, 4096))
        part = data[at : at + length]
        kind = random.randrange(7)
        if kind == 0 and part:
            data = data[:at] + bytes([part[0] ^ (1 << random.randrange(8))]) + data[at + 1 :]
        elif kind == 1:
            data = data[:at]
        elif kind == 2:
            data = data[:at] + data[at + length :]
        elif kind == 3:
            data = data[:at] + part + data[at:]
        elif kind == 4:
            data = data[:at] + bytes(len(part)) + data[at + length :]
        elif kind == 5:
            data = data[:at] + random.choice(PIECES) + data[at:]
        else:
            data = data[:at] + random.randbytes(len(part)) + data[at + length :]
    return data


def of_json(data: bytes, random: Random) -> bytes:
    """Values and keys replaced, removed or added; now and then bytes."""
    if random.random() < 0.25:
        return of_bytes(data, random)
    content = of_values(json.loads(data), random)
    return json.dumps(content).replace(f'"{DEEP}"', "[" * 5000 + "]" * 5000).encode()


def of_lines(data: bytes, random: Random) -> bytes:
    """One of several lines of JSON damaged; now and then bytes of all."""
    lines = data.splitlines(keepends=True)
    number = random.randrange(len(lines))
    lines[number] = of_json(lines[number], random) + b"\n"
    return b"".join(lines)


def of_yaml(data: bytes, random: Random) -> bytes:
    """As `of_json`, for YAML."""
    if random.random() < 0.35:
        return of_bytes(data, random)
    content = of_values(yaml.safe_load(data), random)
    # JSON is YAML; its escapes reach what a YAML writer would refuse to write.
    return json.dumps(content, indent=1).replace(f'"{DEEP}"', "[" * 5000 + "]" * 5000).encode()


def of_values(content: Any, random: Random) -> Any:
    """Plain data with one to three places damaged."""
    for _ in range(random.choice((1, 1, 2, 3))):
        places = _places(content)
        if not places:
            return _value(random)
        holder, key = random.choice(places)
        kind = random.randrange(6)
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, dict):
            holder[random.choice(KEYS)] = _value(random)
        elif kind == 2 and isinstance(holder, dict):
            holder[random.choice(KEYS)] = holder.pop(key)
        elif random.random() < 0.02:
            return _value(random)
        else:
            holder[key] = _value(random)
    return content


def _value(random: Random) -> Any:
    return deepcopy(random.choice(VALUES))


def _places(content: Any) -> list[tuple[Any, Any]]:
    keys = list(content) if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else []
    return [(content, key) for key in keys] + [place for key in keys for place in _places(content[key])]
