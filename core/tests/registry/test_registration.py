"""Plug-ins that running code registers: the same checks, the same messages, no installation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fastvideo_core import PluginConfig
from fastvideo_core.contracts.family import ModelFamily, open_family
from fastvideo_core.errors import PluginError
from fastvideo_core.registry import (
    PluginRegistry,
    Provenance,
    register_callback,
    register_method,
    register_model,
)
from fastvideo_testing.isolation import isolated_registrations


class Config(PluginConfig):
    pass


@pytest.fixture
def registry() -> Iterator[PluginRegistry]:
    with isolated_registrations():
        yield PluginRegistry(installed=())


MINE = """\
from fastvideo_core import PluginConfig
from fastvideo_core.registry import register_method

class MyConfig(PluginConfig):
    pass

@register_method("mine", config=MyConfig, roles=("student",))
class Mine:
    number = {number}
"""


def test_a_decorated_class_is_found_and_left_as_it_is(registry: PluginRegistry) -> None:
    @register_method("local", config=Config, roles=("student", "teacher"))
    class Local: ...

    plugin = registry.get("methods", "local")
    assert plugin.spec.roles == ("student", "teacher")
    assert registry.resolve(plugin, "impl") is Local
    assert registry.config_class(plugin) is Config
    assert plugin.provenance.distribution == "test_registration.py"
    assert registry.list()[0].healthy


def test_a_decorated_function_is_a_family_that_builds_and_offers_nothing(registry: PluginRegistry) -> None:
    @register_model("fam", config=Config)
    def build(cfg: object) -> object:
        return cfg

    family = open_family("fam", registry)
    assert family.build("a run") == "a run"  # type: ignore[arg-type, comparison-overlap]
    assert family.offers() == ()
    with pytest.raises(PluginError, match="the model family 'fam' does not offer `export`"):
        open_family("fam", registry, "export")


def test_a_decorated_class_offers_what_it_defines(registry: PluginRegistry) -> None:
    @register_model("fam", config=Config, pipelines=("FamPipeline",))
    class Fam(ModelFamily):
        def build(self, cfg: object) -> None: ...  # type: ignore[override]

        def tiny(self, out: object, *, seed: int) -> None: ...  # type: ignore[override]

    assert Fam.offers() == ("tiny",)
    assert registry.get("models", "fam").spec.pipelines == ("FamPipeline",)
    assert isinstance(open_family("fam", registry, "tiny"), Fam)


def test_what_a_plug_in_brings_to_the_demo_can_be_registered(registry: PluginRegistry) -> None:
    def show() -> None: ...

    register_method("shown", config=Config, roles=("student",), demo=show)(type("Shown", (), {}))
    assert registry.resolve(registry.get("methods", "shown"), "demo") is show


def test_registering_again_replaces_as_a_notebook_cell_does(registry: PluginRegistry) -> None:
    for number in (1, 2):

        @register_callback("cell", config=Config)
        class Cell:
            value = number

    assert registry.resolve(registry.get("callbacks", "cell"), "impl").value == 2  # type: ignore[attr-defined]
    assert len(registry.list()) == 1


def test_two_classes_of_one_name_are_ambiguous(registry: PluginRegistry) -> None:
    @register_callback("twin", config=Config)
    class First: ...

    @register_callback("twin", config=Config)
    class Second: ...

    with pytest.raises(PluginError, match=r"2 plug-ins are named 'twin': .*First registered by .*Second registered by"):
        registry.get("callbacks", "twin")


def test_a_registered_name_does_not_hide_an_installed_one(registry: PluginRegistry) -> None:
    @register_method("dmd2", config=Config, roles=("student",))
    class Mine: ...

    installed = Provenance("methods", "dmd2", "some-dist", "1.0", "some_module:PLUGIN")
    both = PluginRegistry([installed])
    with pytest.raises(PluginError, match=r"allowed: some-dist:dmd2 or test_registration.py:dmd2"):
        both.get("methods", "dmd2")
    assert both.resolve(both.get("methods", "test_registration.py:dmd2"), "impl") is Mine


def test_wrong_registrations_fail_where_they_stand(registry: PluginRegistry) -> None:
    with pytest.raises(PluginError, match="the method 'x' is registered wrongly: roles is 'student', not a tuple"):
        register_method("x", config=Config, roles="student")(type("X", (), {}))  # type: ignore[arg-type]
    with pytest.raises(PluginError, match=r"the decorated object is <function .*, not a class"):
        register_method("x", config=Config, roles=("student",))(lambda: None)  # type: ignore[type-var]
    with pytest.raises(PluginError, match=r"the decorated object is 3, neither a class nor a function"):
        register_model("x", config=Config)(3)  # type: ignore[type-var]
    assert registry.list() == ()


def test_a_class_that_is_no_family_is_an_error_when_it_is_used(registry: PluginRegistry) -> None:
    register_model("x", config=Config)(type("X", (), {}))
    with pytest.raises(PluginError, match=r"its `impl` .*X'>, not a subclass of fastvideo_core.ModelFamily"):
        open_family("x", registry)


def test_a_config_of_another_type_is_an_error(registry: PluginRegistry) -> None:
    register_method("x", config=int, roles=("student",))(type("X", (), {}))
    with pytest.raises(PluginError, match=r"its `config` builtins:int is <class 'int'>, not a subclass of"):
        registry.config_class(registry.get("methods", "x"))


def test_a_newer_api_is_refused_in_process_too(registry: PluginRegistry) -> None:
    register_method("x", config=Config, roles=("student",), api=(9, 0))(type("X", (), {}))
    with pytest.raises(PluginError, match=r"the method 'x' is made for API 9.0, this core has API 1.0"):
        registry.get("methods", "x")


def test_registrations_in_isolation_do_not_leak(registry: PluginRegistry) -> None:
    with isolated_registrations():
        register_method("x", config=Config, roles=("student",))(type("X", (), {}))
    assert registry.names("methods") == ()


def test_a_plug_in_file_registers(registry: PluginRegistry, tmp_path: Path) -> None:
    file = tmp_path / "my_method.py"
    file.write_text(MINE.format(number=1))
    (added,) = registry.load_plugin_file(file)
    assert (added.name, added.distribution) == ("mine", "my_method.py")
    assert registry.resolve(registry.get("methods", "mine"), "impl").number == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["my-method.py", "my method.py", "2nd.method.py"])
def test_a_plug_in_file_may_have_any_name(registry: PluginRegistry, tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.write_text(MINE.format(number=1))
    assert registry.load_plugin_file(file)[0].name == "mine"
    assert registry.resolve(registry.get("methods", "mine"), "impl").number == 1  # type: ignore[attr-defined]


def test_loading_a_changed_file_again_replaces(registry: PluginRegistry, tmp_path: Path) -> None:
    file = tmp_path / "my_method.py"
    for number in (1, 23):
        file.write_text(MINE.format(number=number))
        registry.load_plugin_file(file)
    assert registry.resolve(registry.get("methods", "mine"), "impl").number == 23  # type: ignore[attr-defined]


def test_files_of_the_same_name_do_not_collide(registry: PluginRegistry, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "m.py").write_text(MINE.format(number=1).replace('"mine"', f'"mine_{folder}"'))
        registry.load_plugin_file(tmp_path / folder / "m.py")
    assert registry.names("methods") == ("mine_a", "mine_b")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("x = 1\n", "the file registers no plug-in\n    fix: decorate your class with @register_method"),
        ("x = 1\nx.absent\n", "the file fails: AttributeError: 'int' object has no attribute 'absent' ({file}:2)"),
        ("def f(:\n", "the file fails: SyntaxError: invalid syntax ({file}:1)"),
        ("import surely_absent\n", "fix: install the package that brings the module 'surely_absent'"),
    ],
)
def test_a_wrong_plug_in_file_is_explained(registry: PluginRegistry, tmp_path: Path, source: str, said: str) -> None:
    file = tmp_path / "wrong.py"
    file.write_text(source)
    with pytest.raises(PluginError) as raised:
        registry.load_plugin_file(file)
    assert str(raised.value).startswith(f"{file}: ")
    assert said.format(file=file) in str(raised.value)


def test_a_plug_in_file_that_is_not_there(registry: PluginRegistry, tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="there is no such file"):
        registry.load_plugin_file(tmp_path / "none.py")
    with pytest.raises(PluginError, match="this is not a Python file"):
        registry.load_plugin_file(tmp_path)
