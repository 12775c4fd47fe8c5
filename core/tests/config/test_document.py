"""YAML is read by the 1.2 core schema, safely, and every value knows its place."""

from __future__ import annotations

import math

import pytest

from fastvideo_core.config.document import dotted, dump_yaml, key_path, parse_document
from fastvideo_core.errors import ConfigError


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("2e-6", 2e-6),
        ("2.0e-6", 2e-6),
        ("1E5", 1e5),
        (".5", 0.5),
        ("-3", -3),
        ("010", 10),
        ("0x1f", 31),
        ("0o17", 15),
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("~", None),
        ("", None),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("'3'", "3"),
        ("!!str 3", "3"),
        (".inf", math.inf),
    ],
)
def test_scalars_follow_yaml_1_2(written: str, value: object) -> None:
    read = parse_document(f"key: {written}\n", "f").data["key"]
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize("text", ["1e5", "no", "2e-6", "0o7", "010", "", "~", "true", "3", "a: b", "- x", "<<", "ü\n"])
def test_dumped_texts_read_back_as_texts(text: str) -> None:
    assert parse_document(dump_yaml({"key": text, "list": [text]}), "f").data == {"key": text, "list": [text]}


def test_positions_are_lines_and_columns_of_keys_and_items() -> None:
    document = parse_document("# head\na:\n  - x\n  - {b: 1}\n", "f.yaml")
    assert document.positions[("a",)] == (2, 1)
    assert document.positions[("a", 0)] == (3, 5)
    assert document.positions[("a", 1, "b")] == (4, 6)
    assert document.where(("a", 1, "b")) == "f.yaml:4 a[1].b"
    assert document.where(("a", 1, "absent", "deeper")) == "f.yaml:4 a[1].absent.deeper"


def test_anchors_and_merge_keys_work_and_own_keys_win() -> None:
    document = parse_document("base: &b {x: 1, y: 2}\nrole:\n  <<: *b\n  y: 3\n", "f")
    assert document.data["role"] == {"x": 1, "y": 3}
    assert document.position(("role", "x")) == (1, 11)
    assert document.position(("role", "y")) == (4, 3)
    assert document.problems == ()


def test_a_small_file_cannot_expand_without_end() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 8)]
    with pytest.raises(ConfigError, match="f: more than 100000 values once its anchors are expanded"):
        parse_document("\n".join(lines), "f")


def test_code_in_yaml_is_refused_and_not_run() -> None:
    document = parse_document("a: !!python/object/apply:os.system ['exit 1']\nb: 1\n", "f")
    assert document.data == {"a": None, "b": 1}
    assert str(document.problems[0][1]).startswith("f:1 a: the YAML tag !!python/object/apply:os.system is not allowed")


def test_keys_and_paths_are_inverse() -> None:
    for path in [("a",), ("roles", "student", "betas", 0), ("a", 1, 2, "b")]:
        assert key_path(dotted(path)) == path
