"""Numbers on the command line have ends."""

from __future__ import annotations

import argparse

import pytest

from fastvideo_core.cli.main import main
from fastvideo_core.cli.options import finite, seed, up_to


@pytest.mark.parametrize("text", ["1e300", "-1e10", "nan", "inf", "x", ""])
def test_a_number_that_cannot_be_meant_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError):
        finite(text)


@pytest.mark.parametrize("text", ["11", "9" * 5000])
def test_a_whole_number_above_the_largest_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="is above 10, the largest number"):
        up_to(10)(text)
    assert up_to(10)("10") == 10
    assert up_to(10)("-3") == -3


@pytest.mark.parametrize("text", [str(2**63), "9" * 5000, "-1", "1.5"])
def test_a_seed_that_no_generator_takes_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError):
        seed(text)


@pytest.mark.parametrize(
    "words",
    [
        ["sample", "m", "--height", "32000000"],
        ["sample", "m", "--steps", "1000000000"],
        ["sample", "m", "--guidance-scale", "1e300"],
        ["preprocess", "--family", "f", "--model", "m", "--input", "i", "--output", "o", "--batch-size", "1000000000"],
        ["preprocess", "--family", "f", "--model", "m", "--input", "i", "--output", "o", "--fps", "1e300"],
    ],
    ids=lambda words: words[-2],
)
def test_commands_refuse_them_in_one_message(words, capsys):
    assert main(words) == 2
    said = capsys.readouterr().err
    assert f"argument {words[-2]}: " in said
    refusal = "is no finite number up to 1000000000" if words[-1] == "1e300" else "the largest number that it takes"
    assert refusal in said


@pytest.mark.parametrize("path", ["x" * 300, "x/" * 3000], ids=["name", "path"])
@pytest.mark.parametrize(
    "words",
    [["check"], ["sample", "--prompt", "a"], ["export", "out"], ["plugins", "--plugin"]],
    ids=" ".join,
)
def test_a_path_that_is_too_long_is_one_message(words, path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command, *rest = words
    assert main([command, *rest, path] if command == "plugins" else [command, path, *rest]) == 2
    said = capsys.readouterr().err
    assert "too long" in said
    assert "Traceback" not in said
