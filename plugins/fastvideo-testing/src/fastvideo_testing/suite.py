"""What the three suites share: capabilities that are opted out of with a reason, and the checks of every plug-in."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_args

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from fastvideo_core.config.base import PluginConfig, plain
from fastvideo_core.errors import UserError
from fastvideo_core.registry import Kind, Plugin, PluginRegistry
from fastvideo_core.registry.specs import SINGULAR
from fastvideo_testing.ranks import absolute
from fastvideo_testing.registration import wrong_in_the_list, wrong_when_loaded
from fastvideo_testing.runs import load_config, toy_world

Check = TypeVar("Check", bound=Callable[..., None])

UNKNOWN_KEY = "no_plugin_has_this_option"


def _without_a_meaning(model: type[BaseModel], place: str = "", above: tuple[type, ...] = ()) -> Iterator[str]:
    """Names of the options of a class, and of those inside of it, that have no description."""
    for name, info in model.model_fields.items():
        if not (info.description or "").strip():
            yield place + name
        types = [info.annotation]
        for one in types:  # grows by what each is made of
            types += get_args(one)
            if isinstance(one, type) and issubclass(one, BaseModel) and one not in (*above, model):
                yield from _without_a_meaning(one, f"{place}{name}.", (*above, model))


def needs(capability: str) -> Callable[[Check], Check]:
    """Marks a check as one that a suite with an entry for `capability` in `unsupported` skips, with its reason."""

    def mark(check: Check) -> Check:
        @functools.wraps(check)
        def run(self: PluginSuite, *args: Any, **kwargs: Any) -> None:
            self.require(capability)
            check(self, *args, **kwargs)

        return run  # type: ignore[return-value]

    return mark


class PluginSuite:
    """Base of the suites: subclass `MethodPluginSuite`, `ModelPluginSuite` or `CallbackPluginSuite` instead.

    Attributes:
        plugin: the name under which the plug-in is found (`distribution:name` where several have it).
        plugin_file: the file that registers it, for single-file research; None for an installed package.
        config: options of its own section of run.yaml; {} tests it with its defaults.
        unsupported: capability -> why this plug-in does not have it. Its checks are skipped and show the reason.
        capabilities: what may be opted out of, with its meaning.
    """

    kind: ClassVar[Kind]
    capabilities: ClassVar[Mapping[str, str]] = {}

    plugin: ClassVar[str]
    plugin_file: ClassVar[str | Path | None] = None
    config: ClassVar[Mapping[str, Any]] = {}
    unsupported: ClassVar[Mapping[str, str]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__module__.startswith("fastvideo_testing."):
            return
        checks = {name for base in cls.__mro__ if _of_the_kit(base) for name in vars(base) if name.startswith("test_")}
        redefined = sorted(checks & set(vars(cls)))
        if redefined:
            raise TypeError(
                f"{cls.__name__} redefines {', '.join(redefined)}: a check of the kit is not changed; where the plug-in "
                f"cannot do something, say so in `unsupported`, with the reason"
            )
        for capability, reason in cls.unsupported.items():
            if capability not in cls.capabilities:
                known = "; ".join(f"{name} ({meaning})" for name, meaning in cls.capabilities.items())
                raise TypeError(f"{cls.__name__}.unsupported names {capability!r}; there are: {known or 'none'}")
            if not isinstance(reason, str) or len(reason.split()) < 3:
                raise TypeError(
                    f"{cls.__name__}.unsupported[{capability!r}] is {reason!r}; say in a few words why the plug-in "
                    "cannot do it"
                )

    def require(self, capability: str) -> None:
        """Skips the running check, with the reason, when the plug-in does not have the capability."""
        if capability in self.unsupported:
            pytest.skip(f"{self.plugin} does not support {capability}: {self.unsupported[capability]}")

    # --- the world that a check runs in -------------------------------------------------------------------------------

    @contextmanager
    def world(self) -> Iterator[None]:
        """Inside, the plug-in, the toy family and the toy method can be named in a run."""
        with toy_world(*([] if self.plugin_file is None else [self.plugin_file])):
            yield

    @pytest.fixture(autouse=True)
    def _world(self) -> Iterator[None]:
        with self.world(), _without_debug_logs():
            yield

    def found(self) -> tuple[PluginRegistry, Plugin]:
        """The registry and the plug-in."""
        registry = PluginRegistry()
        return registry, registry.get(self.kind, self.plugin)

    def config_class(self) -> type[PluginConfig]:
        """The class of the plug-in's section of run.yaml."""
        registry, plugin = self.found()
        return registry.config_class(plugin)

    def section(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Top-level sections of run.yaml with `values` as the plug-in's own."""
        raise NotImplementedError

    def run(self, folder: Path, **training: Any) -> dict[str, Any]:
        """A small run.yaml with this plug-in, as data."""
        raise NotImplementedError

    # --- checks of every plug-in --------------------------------------------------------------------------------------

    def test_it_is_healthy_in_the_list_of_plug_ins(self) -> None:
        registry, plugin = self.found()
        wrong = next(wrong_in_the_list(plugin, registry), "")
        assert not wrong, wrong

    def test_spec_and_config_load_without_torch(self) -> None:
        _, plugin = self.found()
        if not plugin.provenance.installed:
            pytest.skip("a single file has no spec module")
        wrong = next(wrong_when_loaded(plugin), "")
        assert not wrong, wrong

    def test_every_option_says_what_it_means(self) -> None:
        model = self.config_class()
        silent = list(_without_a_meaning(model))
        assert not silent, (
            f"{model.__name__} has options without a meaning: {', '.join(silent)}; declare them with "
            "Field(..., description=...), which `fastvideo-distill schema` shows"
        )

    def test_the_config_survives_being_written_and_read(self) -> None:
        model = self.config_class()
        try:
            before = model.model_validate(dict(self.config))
        except ValidationError as error:
            raise AssertionError(f"`config` of this suite is not accepted by {model.__name__}:\n{error}") from error
        try:
            text = yaml.safe_dump(plain(before))
            after = model.model_validate(yaml.safe_load(text))
        except (yaml.YAMLError, ValidationError) as error:
            message = f"{model.__name__} does not survive the run.yaml that the run's folder keeps: {error}"
            raise AssertionError(message) from error
        assert after == before, f"{model.__name__} read back is another configuration: {before!r} became {after!r}"

    def test_an_unknown_option_is_refused_by_name(self, tmp_path: Path) -> None:
        run = {**self.run(tmp_path), **self.section({**self.config, UNKNOWN_KEY: 1})}
        try:
            load_config(tmp_path, run)
        except UserError as error:
            said = str(error)
        else:
            raise AssertionError(
                f"{self.config_class().__name__} accepts the unknown option {UNKNOWN_KEY}: a misspelt option would be "
                "dropped in silence; do not set extra='allow' or 'ignore'"
            )
        assert UNKNOWN_KEY in said, f"the error does not name the unknown option {UNKNOWN_KEY}:\n{said}"

    # --- for the suites -----------------------------------------------------------------------------------------------

    def file_arguments(self) -> list[str]:
        """The plug-in's file as another process can read it."""
        file = absolute(self.plugin_file)
        return [] if file is None else [file]

    def called(self) -> str:
        """What messages call the plug-in."""
        return f"{SINGULAR[self.kind]} '{self.plugin}'"


@contextmanager
def _without_debug_logs() -> Iterator[None]:
    # torch's checkpoints log every tensor, behind which pytest's report of a failed check would not be found.
    before = logging.root.manager.disable
    logging.disable(max(before, logging.DEBUG))
    try:
        yield
    finally:
        logging.disable(before)


def _of_the_kit(base: type) -> bool:
    return base.__module__.startswith("fastvideo_testing.")
