"""Every option of a config class, in order, with those inside of it."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field

from fastvideo_core import PluginConfig, RoleConfig, TrainingArgs
from fastvideo_core.config.run import RecipeConfig
from fastvideo_tools.options import all_options


@pytest.mark.parametrize("model", [TrainingArgs, RoleConfig, RecipeConfig])
def test_every_option_of_core_has_a_meaning_and_a_type(model: type[BaseModel]) -> None:
    bare = [option.name for option in all_options(model) if not option.meaning or not option.allowed]
    assert bare == []


class Inner(PluginConfig):
    size: int = Field(2, ge=2, le=4, description="Size.")


class Shape(Enum):
    ROUND = "round"


class Ring(PluginConfig):
    form: Literal["ring"] = Field("ring", description="Form.")
    width: int = Field(description="Width.")


class Disc(PluginConfig):
    form: Literal["disc"] = Field("disc", description="Form.")


class Knot(PluginConfig):
    """Holds itself."""

    next: Knot | None = Field(None, description="Next.")


class Deep(PluginConfig):
    many: tuple[Inner, ...] = Field((), strict=False, description="Many.")
    table: dict[str, Inner] = Field(default_factory=dict, description="Table.")
    either: Annotated[Ring | Disc, Field(discriminator="form")] = Field(Disc(), description="Either.")
    where: Path = Field(Path("x"), strict=False, description="Where.")
    shape: Shape = Field(Shape.ROUND, strict=False, description="Shape.")
    tags: frozenset[str] = Field(frozenset({"a"}), strict=False, description="Tags.")


def test_options_inside_options_are_shown_below_them() -> None:
    rows = {option.name: option for option in all_options(Deep)}
    assert list(rows)[:4] == ["many", "many[].size", "table", "table.<key>.size"]
    assert rows["many[].size"].allowed == "a whole number from 2 to 4"
    assert (rows["table.<key>.size"].default, rows["table.<key>.size"].meaning) == (2, "Size.")
    assert rows["either"].allowed == "a mapping"
    assert rows["either.width"].required
    assert [option.allowed for option in all_options(Deep) if option.name == "either.form"] == ["ring", "disc"]


def test_defaults_are_as_json_knows_them() -> None:
    defaults = {option.name: option.default for option in all_options(Deep)}
    assert (defaults["where"], defaults["shape"], defaults["tags"]) == ("x", "round", ["a"])


def test_a_class_that_holds_itself_is_shown_once() -> None:
    assert [option.name for option in all_options(Knot)] == ["next", "next.next"]
    assert all_options(Knot)[0].allowed == "a mapping or null"
