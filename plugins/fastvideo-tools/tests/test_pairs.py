"""`plugins --pairs`: what methods need, what families offer, and why a pair does not fit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastvideo_core.cli.main import main
from fastvideo_core.registry import PluginRegistry
from fastvideo_testing import toy_world
from fastvideo_tools.commands.pairs import as_text
from fastvideo_tools.fitting import Fitting, Pair, fitting

PLUGINS = """\
from typing import Any, Protocol

from fastvideo_core import DistillMethod, ModelFamily, PluginConfig, register_method, register_model
from fastvideo_core.contracts.adapter import AddNoise
from fastvideo_testing import ToyAdapter


class Nothing(PluginConfig):
    pass


class Depth(Protocol):
    def predict_depth(self, latents: Any) -> Any: ...


class Needs(AddNoise, Depth, Protocol): ...


@register_method("depth", config=Nothing, roles=("student",), optional_roles=("judge",))
class DepthMethod(DistillMethod[Needs]):
    pass


@register_method("undecided", config=Nothing, roles=())
class Undecided(DistillMethod[Needs]):
    @classmethod
    def needs(cls, cfg: Any) -> tuple[type, ...]:
        raise RuntimeError("no data")


class DepthAdapter(ToyAdapter):
    def predict_depth(self, latents: Any) -> Any:
        return latents


@register_model("deep", config=Nothing)
class DepthFamily(ModelFamily):
    def build(self, cfg: Any) -> Any:
        raise NotImplementedError

    def adapter_class(self) -> type[DepthAdapter]:
        return DepthAdapter


@register_method("nomethod", config=Nothing, roles=())
class NoMethod: ...


@register_model("function", config=Nothing)
def build(cfg: Any) -> Any: ...
"""


@pytest.fixture(autouse=True)
def _plugins(tmp_path: Path) -> Iterator[None]:
    file = tmp_path / "pairs_plugins.py"
    file.write_text(PLUGINS)
    with toy_world(file):
        yield


@pytest.fixture
def found() -> Fitting:
    return fitting(PluginRegistry(installed=[]))


def test_a_pair_fits_where_the_adapter_has_what_the_method_needs(found: Fitting) -> None:
    pairs = {(pair.method, pair.family): pair for pair in found.pairs}
    assert pairs["depth", "deep"] == Pair("depth", "deep", True)
    assert pairs["toy", "toy"].fits
    assert pairs["depth", "toy"].fits is False
    assert pairs["depth", "toy"].reasons == ("lacks the primitive 'predict_depth', which method 'depth' needs",)


def test_primitives_of_other_packages_are_offered_where_a_method_needs_them(found: Fitting) -> None:
    offers = {family.name: family.offers for family in found.families}
    assert "predict_depth" in offers["deep"]
    assert "predict_depth" not in offers["toy"]
    assert {"prepare_batch", "add_noise"} <= set(offers["toy"])
    needs = {method.name: method for method in found.methods}
    assert set(needs["depth"].needs) == {"add_noise", "predict_depth"}
    assert (needs["depth"].roles, needs["depth"].optional_roles) == (("student",), ("judge",))


def test_what_classes_do_not_tell_is_a_question_mark_with_its_reason(found: Fitting) -> None:
    pairs = {(pair.method, pair.family): pair for pair in found.pairs}
    assert pairs["undecided", "toy"].fits is None
    assert pairs["undecided", "toy"].reasons == ("undecided: it depends on the run (RuntimeError: no data)",)
    assert pairs["toy", "function"].reasons == ("function: only building it tells (it does not define adapter_class)",)


def test_broken_plug_ins_are_left_out_with_their_reason(found: Fitting) -> None:
    assert "nomethod" not in [method.name for method in found.methods]
    assert len(found.broken) == 1
    assert "impl is NoMethod, which is no DistillMethod" in found.broken[0]


def test_the_text_has_a_table_of_who_fits_whom(found: Fitting) -> None:
    text = "\n\n".join(as_text(found, 120))
    assert "depth      student, judge (optional)" in text
    rows = [line.split() for line in text[text.index("FITS") :].splitlines()]
    assert rows[0] == ["FITS", "deep", "function", "toy"]
    assert rows[1] == ["depth", "yes", "?", "NO"]
    assert "NO depth on toy:\n    lacks the primitive 'predict_depth', which method 'depth' needs" in text


def test_plugins_pairs_is_this_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "--pairs", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert {"method": "depth", "family": "deep", "fits": True, "reasons": []} in data["pairs"]
    assert set(data) == {"methods", "families", "pairs", "broken"}


def test_strict_is_exit_code_1_where_a_method_or_family_is_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FASTVIDEO_DISTILL_PLUGINS", "fastvideo-tools")
    assert main(["plugins", "--strict"]) == main(["plugins", "--pairs"]) == 0
    assert main(["plugins", "--pairs", "--strict"]) == main(["pairs", "--strict"]) == 1
    assert "impl is NoMethod, which is no DistillMethod" in capsys.readouterr().out
    with toy_world():
        assert main(["plugins", "--pairs", "--strict"]) == 0
