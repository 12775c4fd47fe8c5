"""What is allowed is told in words."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import Field, Strict, ValidationError

from fastvideo_core import FloatPair, IntTuple, PluginConfig, StrTuple
from fastvideo_core.config.describe import allowed_at, keys_at
from fastvideo_core.config.problems import validation_problems


class Inner(PluginConfig):
    size: int = Field(2, ge=2, le=4, description="Size.")


class Options(PluginConfig):
    flag: bool = False
    small: float = Field(0.5, gt=0, lt=1)
    kind: Literal["a", "b"] | None = None
    pair: FloatPair = (0.0, 1.0)
    names: StrTuple = ()
    steps: Annotated[tuple[int, ...], Strict(False), Field(min_length=1)] = (1,)
    exactly: Annotated[IntTuple, Field(min_length=2, max_length=2)] = (1, 2)
    inner: Inner = Inner()
    table: dict[str, Inner] = Field(default_factory=dict)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("flag", "true or false"),
        ("small", "a number > 0 and < 1"),
        ("kind", "one of a, b, or null"),
        ("pair", "a list of 2 (each a number)"),
        ("names", "a list (each text)"),
        ("steps", "a list of at least 1 (each a whole number)"),
        ("exactly", "a list of 2 (each a whole number)"),
        ("inner", "a mapping"),
    ],
)
def test_types_and_ranges_in_words(name: str, words: str) -> None:
    assert allowed_at(Options, (name,)) == words


def test_what_is_allowed_inside_lists_and_nested_sections() -> None:
    assert allowed_at(Options, ("pair", 1)) == "a number"
    assert allowed_at(Options, ("inner", "size")) == "a whole number from 2 to 4"
    assert allowed_at(Options, ("table", "x", "size")) == "a whole number from 2 to 4"


def test_problems_in_nested_sections_name_the_whole_path() -> None:
    data = {"table": {"x": {"siez": 3, "size": 9}}, "inner": {"sise": 2}}
    with pytest.raises(ValidationError) as raised:
        Options.model_validate(data)
    found = {path: str(problem) for path, problem in validation_problems(raised.value, Options, data, "method_config")}
    assert found[("table", "x", "size")] == "found 9 (a whole number)\n    allowed: a whole number from 2 to 4"
    assert found[("inner", "sise")] == "unknown key 'sise'\n    allowed: size\n    fix: did you mean 'size'?"
    assert found[("table", "x", "siez")].endswith("fix: remove it"), "size is there already"


def test_an_error_of_the_whole_section_stands_at_the_section() -> None:
    class Pair(PluginConfig):
        low: int = 0
        high: int = 1

        def model_post_init(self, context: object) -> None:
            if self.low > self.high:
                raise ValueError("low must not be above high")

    with pytest.raises(ValidationError) as raised:
        Pair.model_validate({"low": 2})
    assert [(path, str(p)) for path, p in validation_problems(raised.value, Pair, {"low": 2}, "x")] == [
        ((), "low must not be above high")
    ]


@pytest.mark.parametrize("value", [True, "3", 3.0, None, float("inf")])
def test_plug_in_configs_take_no_value_of_another_type(value: object) -> None:
    with pytest.raises(ValidationError):
        Inner.model_validate({"size": value})


class Ring(PluginConfig):
    form: Literal["ring"] = Field("ring", description="Form.")
    width: int = Field(description="Width.")


class Disc(PluginConfig):
    form: Literal["disc"] = Field("disc", description="Form.")


class Deep(PluginConfig):
    either: Annotated[Ring | Disc, Field(discriminator="form")] = Field(Disc(), description="Either.")


def test_the_keys_of_one_of_several_classes_are_known() -> None:
    assert keys_at(Deep, ("either",)) == ["form", "width"]
