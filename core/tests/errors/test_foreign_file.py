"""Files that somebody else made: whatever is wrong with one is a message that names it."""

from __future__ import annotations

import errno
import json
import os

import pytest

from fastvideo_core.errors import CheckpointError, ConfigError, DataError, foreign_file


def test_any_failure_of_a_parser_becomes_one_message_that_names_the_file():
    expected = pytest.raises(DataError, match=r"a\.json: is no valid list: Expecting value")
    with expected as caught, foreign_file("a.json", "list"):
        json.loads("nothing\x00")
    assert isinstance(caught.value.__cause__, json.JSONDecodeError)
    with (
        pytest.raises(ConfigError, match="b: is no valid thing: KeyError 'x'"),
        foreign_file("b", "thing", ConfigError),
    ):
        {}["x"]


def test_an_error_without_words_is_named_by_its_kind():
    with pytest.raises(DataError, match="c: is no valid thing: AssertionError"), foreign_file("c", "thing"):
        raise AssertionError


def test_deep_nesting_is_said_in_words():
    with pytest.raises(DataError, match="d: is no valid list: it is nested too deeply"), foreign_file("d", "list"):
        json.loads("[" * 100_000)


def test_too_many_open_files_is_no_fault_of_the_file():
    with (
        pytest.raises(DataError, match="ulimit -n") as caught,
        foreign_file("e", "parquet file", fix="copy the file again"),
    ):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), "e")
    assert "copy the file again" not in str(caught.value)


def test_errors_of_this_project_and_interrupts_pass_as_they_are():
    with pytest.raises(CheckpointError, match="mine"), foreign_file("f", "thing"):
        raise CheckpointError("mine")
    with pytest.raises(KeyboardInterrupt), foreign_file("f", "thing"):
        raise KeyboardInterrupt


def test_a_library_in_rust_that_gives_up_is_a_message_too():
    panic = type("PanicException", (BaseException,), {})
    with pytest.raises(DataError, match="g: is no valid thing: PanicException"), foreign_file("g", "thing"):
        raise panic
