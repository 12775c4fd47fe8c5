"""DESIGN.md's table of what can be wrong with a plug-in, row by row, with the words that the user reads."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from fastvideo_core.contracts.family import open_family
from fastvideo_core.errors import PluginError
from fastvideo_core.registry import PluginRegistry, PluginStatus
from fastvideo_core.registry.discovery import find_installed
from fastvideo_testing.fake_packages import CONFIG, ENTRY, METHOD, install, method_spec
from fastvideo_testing.isolation import isolated_registrations

_numbers = count()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(str(tmp_path))
    with isolated_registrations():
        yield tmp_path


@pytest.fixture
def package() -> str:
    """A module name that no other test has imported."""
    return f"fakeplugin{next(_numbers)}"


def install_fancy(site: Path, package: str, distribution: str = "fancy-dist", **sources: str) -> None:
    """A healthy method `fancy`, but for the given sources."""
    given = {"plugin": method_spec(package=package), "method": METHOD, "config": CONFIG} | sources
    modules = {f"{package}/{name}.py": source for name, source in given.items() if source}
    install(site, distribution, entry_points=ENTRY.format(package=package), modules=modules)


def here(site: Path) -> PluginRegistry:
    """Only what lies in the test's own folder; the machine's plug-ins are not the test's business."""
    known = {folder.name.partition("-")[0].replace("_", "-") for folder in site.glob("*.dist-info")}
    return PluginRegistry([item for item in find_installed() if item.distribution in known])


def failure(registry: PluginRegistry, name: str = "fancy", target: str | None = None) -> str:
    def use() -> None:
        plugin = registry.get("methods", name)
        if target == "config":
            registry.config_class(plugin)
        elif target is not None:
            registry.resolve(plugin, target)

    with pytest.raises(PluginError) as raised:
        use()
    assert raised.value.exit_code == 2
    return str(raised.value)


def status(registry: PluginRegistry, name: str = "fancy") -> PluginStatus:
    return next(item for item in registry.list() if item.provenance.name == name)


def test_a_healthy_plug_in_is_found_with_its_provenance(site: Path, package: str) -> None:
    install_fancy(site, package)
    registry = here(site)
    plugin = registry.get("methods", "fancy")
    assert plugin.spec.roles == ("student",)
    assert (plugin.provenance.distribution, plugin.provenance.version) == ("fancy-dist", "1.2.0")
    assert registry.resolve(plugin, "impl").__name__ == "Fancy"  # type: ignore[attr-defined]
    assert registry.config_class(plugin).__name__ == "FancyConfig"
    assert status(registry).healthy


def test_finding_imports_nothing(site: Path, package: str) -> None:
    install_fancy(site, package, plugin="raise SystemExit('imported')")
    assert here(site).names("methods") == ("fancy",)


# broken plug-in, selected


def test_a_failing_spec_module_names_everything(site: Path, package: str) -> None:
    install_fancy(site, package, plugin="\nvalue = 1 / 0\n")
    assert failure(here(site)) == (
        f"fancy-dist 1.2.0 (entry point fastvideo.methods: fancy = {package}.plugin:PLUGIN): "
        f"the method 'fancy' is broken: importing {package}.plugin fails: "
        f"ZeroDivisionError: division by zero ({site}/{package}/plugin.py:2)\n"
        "    fix: pip install --upgrade --force-reinstall --no-deps fancy-dist, or pip uninstall fancy-dist, "
        "or tell its authors"
    )


def test_a_missing_dependency_is_told_apart_from_a_missing_plug_in(site: Path, package: str) -> None:
    install_fancy(site, package, method="import surely_absent.part\n" + METHOD)
    said = failure(here(site), target="impl")
    assert "the plug-in is installed, but 'surely_absent', which it imports, is not" in said
    assert (
        "fix: install the package that brings the module 'surely_absent', usually `pip install surely_absent`" in said
    )
    assert said.startswith("fancy-dist 1.2.0 (entry point fastvideo.methods: fancy = ")


def test_a_missing_module_of_its_own_is_damage(site: Path, package: str) -> None:
    install_fancy(site, package, plugin="")
    said = failure(here(site))
    assert f"the method 'fancy' is broken: its module {package}.plugin does not exist" in said
    assert "fix: pip install --upgrade --force-reinstall --no-deps fancy-dist" in said


def test_a_submodule_that_it_lacks_is_damage_too(site: Path, package: str) -> None:
    install_fancy(site, package, method=f"import {package}.absent\n" + METHOD)
    said = failure(here(site), target="impl")
    assert f"importing {package}.method fails: ModuleNotFoundError: No module named '{package}.absent'" in said


def test_a_missing_attribute_is_named(site: Path, package: str) -> None:
    install_fancy(site, package, method="class Other: pass\n")
    said = failure(here(site), target="impl")
    assert f"its `impl` is declared as {package}.method:Fancy, but {package}.method has no 'Fancy'" in said


def test_a_syntax_error_names_its_line(site: Path, package: str) -> None:
    install_fancy(site, package, method="x = 1\nclass Fancy(:\n")
    assert f"SyntaxError: invalid syntax ({site}/{package}/method.py:2)" in failure(here(site), target="impl")


def test_an_exit_while_importing_is_an_error_like_any_other(site: Path, package: str) -> None:
    install_fancy(site, package, plugin="import sys\nsys.exit(3)\n")
    assert "SystemExit: 3" in failure(here(site))


def test_a_config_that_is_no_plug_in_config_is_named(site: Path, package: str) -> None:
    install_fancy(site, package, config="class FancyConfig: pass\n")
    said = failure(here(site), target="config")
    assert "not a subclass of fastvideo_core.PluginConfig" in said


def test_an_impl_that_is_no_class_is_named(site: Path, package: str) -> None:
    install_fancy(site, package, method="Fancy = 3\n")
    assert f"its `impl` {package}.method:Fancy is 3, not a class" in failure(here(site), target="impl")


FAMILIES = """from fastvideo_core import ModelFamily

class Fam(ModelFamily):
    def build(self, cfg): ...
    def tiny(self, out, *, seed): ...

class Other(ModelFamily):
    def build(self, cfg): ...
    def export(self, base_path, out, modules, *, pipeline_config, student_schedule): ...
"""


def test_something_that_a_family_does_not_offer(site: Path, package: str) -> None:
    spec = f"ModelPlugin(name='fam', api=(1, 0), impl='{package}.m:Fam', config='{package}.m:c')"
    source = f"from fastvideo_core.registry.specs import ModelPlugin\nPLUGIN = {spec}\n"
    entry = f"[fastvideo.models]\nfam = {package}.plugin:PLUGIN\n"
    install(site, "fam-dist", entry_points=entry, modules={f"{package}/plugin.py": source})
    other = source.replace("'fam'", "'other'").replace(":Fam", ":Other")
    entry = f"[fastvideo.models]\nother = {package}.other:PLUGIN\n"
    install(site, "other-dist", entry_points=entry, modules={f"{package}/other.py": other, f"{package}/m.py": FAMILIES})
    registry = here(site)
    with pytest.raises(PluginError) as raised:
        open_family("fam", registry, "export")
    said = "the model family 'fam' does not offer `export`\n    allowed: tiny\n    fix: take a family that does: other"
    assert said in str(raised.value)
    with pytest.raises(PluginError) as raised:
        open_family("fam", registry, "sampler")
    assert str(raised.value).endswith("does not offer `sampler`\n    allowed: tiny")


# broken plug-in, not selected


def test_a_broken_plug_in_is_listed_and_blocks_nothing(site: Path, package: str) -> None:
    install_fancy(site, package)
    bad = f"[fastvideo.methods]\nbad = {package}bad:PLUGIN\n[fastvideo.models]\nworse = {package}worse:PLUGIN\n"
    modules = {f"{package}bad.py": "raise RuntimeError('no luck')\n", f"{package}worse.py": "PLUGIN = 3\n"}
    install(site, "bad-dist", entry_points=bad, modules=modules)
    registry = here(site)
    assert registry.get("methods", "fancy").name == "fancy"
    states = {item.provenance.name: item for item in registry.list()}
    assert states["fancy"].healthy
    assert "RuntimeError: no luck" in str(states["bad"].problem)
    assert "the entry point gives int 3, but fastvideo.models takes ModelPlugin" in str(states["worse"].problem)


def test_the_list_sees_a_missing_module_without_importing_it(site: Path, package: str) -> None:
    install_fancy(site, package, method="", config="raise SystemExit('imported')")
    found = status(here(site))
    assert not found.healthy
    assert f"its `impl` is declared as {package}.method:Fancy, and that module does not exist" in str(found.problem)


# same name twice


def test_the_same_name_from_two_distributions_is_an_error_when_used(site: Path, package: str) -> None:
    install_fancy(site, package, "fancy-dist")
    install_fancy(site, f"{package}b", "other-dist")
    registry = here(site)
    said = failure(registry)
    assert said.startswith("2 plug-ins are named 'fancy': ")
    assert f"fancy-dist 1.2.0 (entry point fastvideo.methods: fancy = {package}.plugin:PLUGIN)" in said
    assert f"other-dist 1.2.0 (entry point fastvideo.methods: fancy = {package}b.plugin:PLUGIN)" in said
    assert "allowed: fancy-dist:fancy or other-dist:fancy" in said or "other-dist:fancy or fancy-dist:fancy" in said
    assert "fix: write one of these instead of the name, or uninstall the other" in said
    assert [item.healthy for item in registry.list()] == [False, False]


def test_dist_colon_name_picks_one(site: Path, package: str) -> None:
    install_fancy(site, package, "fancy-dist")
    install_fancy(site, f"{package}b", "other-dist")
    registry = here(site)
    assert registry.get("methods", "other-dist:fancy").provenance.value == f"{package}b.plugin:PLUGIN"
    assert registry.get("methods", "Fancy_Dist:fancy").provenance.value == f"{package}.plugin:PLUGIN"
    said = failure(registry, "othr-dist:fancy")
    assert said.startswith("no distribution 'othr-dist' offers the method 'fancy'")
    assert "fix: did you mean 'other-dist'?" in said


def test_identical_distribution_and_value_is_one(site: Path, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    install_fancy(site, package)
    again = site / "again"
    install_fancy(again, package)
    monkeypatch.syspath_prepend(str(again))
    registry = here(site)
    assert len(registry.list()) == 1
    assert registry.get("methods", "fancy").name == "fancy"


def test_a_repeated_line_in_one_distribution_is_one(site: Path, package: str) -> None:
    install_fancy(site, package)
    entries = site / "fancy_dist-1.2.0.dist-info" / "entry_points.txt"
    entries.write_text(entries.read_text() + f"fancy = {package}.plugin:PLUGIN\n")
    assert here(site).get("methods", "fancy").name == "fancy"


# API mismatch


@pytest.mark.parametrize(
    ("api", "said", "fix"),
    [
        ((2, 0), "made for API 2.0, this core has API 1.0", "pip install --upgrade fastvideo-core   (or: {plugin})"),
        ((1, 1), "made for API 1.1, this core has API 1.0", "pip install --upgrade fastvideo-core   (or: {plugin})"),
        ((0, 9), "made for API 0.9, this core has API 1.0", "{plugin}   (or: pip install --upgrade fastvideo-core)"),
    ],
)
def test_an_api_mismatch_prints_both_upgrades(
    site: Path, package: str, api: tuple[int, int], said: str, fix: str
) -> None:
    install_fancy(site, package, plugin=method_spec(package=package, api=str(api)))
    text = failure(here(site))
    assert f"the method 'fancy' is {said}\n    allowed: 1.0\n" in text
    assert text.endswith("fix: " + fix.format(plugin="pip install --upgrade fancy-dist"))


def test_an_older_minor_of_the_same_major_fits(site: Path, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastvideo_core.registry.registry.API_VERSION", (1, 3))
    install_fancy(site, package, plugin=method_spec(package=package, api="(1, 2)"))
    assert here(site).get("methods", "fancy").spec.api == (1, 2)
    monkeypatch.setattr("fastvideo_core.registry.registry.API_VERSION", (1, 1))
    assert "allowed: 1.0 to 1.1" in failure(here(site))


# unknown name


def test_an_unknown_name_says_what_there_is_and_what_was_meant(site: Path, package: str) -> None:
    install_fancy(site, package)
    assert failure(here(site), "fanci") == (
        "no method 'fanci' is installed (installed: fancy)\n    fix: did you mean 'fancy'?"
    )


@pytest.mark.parametrize(
    ("kind", "name", "fix"),
    [
        ("models", "wan", "pip install fastvideo-wan"),
        ("models", "ltx", "pip install fastvideo-ltx"),
        ("methods", "dmd2", "pip install fastvideo-dmd2"),
        ("methods", "finetune", "pip install fastvideo-finetune"),
        ("methods", "dmd", "did you mean 'dmd2'? pip install fastvideo-dmd2"),
        ("models", "zzz", "see `fastvideo-distill plugins`, or install the package that brings it"),
    ],
)
def test_first_party_names_come_with_their_pip_command(kind: str, name: str, fix: str) -> None:
    with isolated_registrations(), pytest.raises(PluginError) as raised:
        PluginRegistry(installed=()).get(kind, name)  # type: ignore[call-overload]
    assert str(raised.value).endswith(f"(installed: none)\n    fix: {fix}")


# spec name differs from entry-point name, wrong type


def test_a_spec_of_another_name_is_an_error(site: Path, package: str) -> None:
    install_fancy(site, package, plugin=method_spec("plain", package))
    assert "the entry point is named 'fancy' but its spec is named 'plain'" in failure(here(site))


def test_a_spec_of_another_kind_is_an_error(site: Path, package: str) -> None:
    source = "from fastvideo_core.registry.specs import CallbackPlugin\n"
    install_fancy(site, package, plugin=source + "PLUGIN = CallbackPlugin('fancy', (1, 0), 'a:b', 'a:c')\n")
    said = failure(here(site))
    assert "the entry point gives CallbackPlugin" in said
    assert "but fastvideo.methods takes MethodPlugin" in said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"impl": "'pkg.method'"}, "impl is 'pkg.method', not a text of the form 'module:attr'"),
        ({"config": "int"}, "config is <class 'int'>, not a text of the form 'module:attr'"),
        ({"roles": "'student'"}, "roles is 'student', not a tuple of names"),
        ({"optional_roles": "['a']"}, "optional_roles is ['a'], not a tuple of names"),
        ({"optional_roles": "('student',)"}, "roles and optional_roles name student twice"),
        ({"roles": "('a', 'a')"}, "roles and optional_roles name a twice"),
        ({"api": "'1.0'"}, "api is '1.0', not (major, minor) as in api=(1, 0)"),
    ],
)
def test_a_spec_with_wrong_fields_is_an_error(site: Path, package: str, change: dict[str, str], said: str) -> None:
    install_fancy(site, package, plugin=method_spec(package=package, **change))
    assert f"its MethodPlugin is wrong: {said}" in failure(here(site))


# FASTVIDEO_DISTILL_PLUGINS


@pytest.mark.parametrize("group", ["fastvideo.method", "fastvideo_methods"])
def test_a_misspelt_group_is_told_in_the_list_and_where_the_name_is_used(site: Path, package: str, group: str) -> None:
    install(site, "fancy-dist", entry_points=f"[{group}]\nfancy = {package}.plugin:PLUGIN\n")
    said = failure(here(site))
    assert said == (
        f"fancy-dist 1.2.0: the method 'fancy' is in the entry-point group {group!r}, which nothing reads\n"
        '    fix: write [project.entry-points."fastvideo.methods"] in its pyproject.toml, and install it again'
    )
    assert str(status(here(site)).problem) == said


def test_a_misspelt_attribute_is_guessed(site: Path, package: str) -> None:
    install_fancy(site, package, method="class Fancyy: pass\n")
    assert f"{package}.method has no 'Fancy'; did you mean 'Fancyy'?" in failure(here(site), target="impl")


def test_an_empty_allow_list_loads_none_and_says_so(site: Path, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    install_fancy(site, package, plugin="raise SystemExit('imported')")
    monkeypatch.setenv("FASTVIDEO_DISTILL_PLUGINS", "")
    assert find_installed() == ()
    assert PluginRegistry().list() == ()
    assert failure(PluginRegistry()) == (
        "no method 'fancy' is installed (installed: none; FASTVIDEO_DISTILL_PLUGINS may hide more)\n"
        "    fix: see `fastvideo-distill plugins`, or install the package that brings it"
    )


def test_an_allow_list_names_distributions(site: Path, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    install_fancy(site, package)
    install_fancy(site, f"{package}b", "other-dist")
    monkeypatch.setenv("FASTVIDEO_DISTILL_PLUGINS", "Other_Dist, surely-absent")
    assert [item.distribution for item in find_installed()] == ["other-dist"]
    assert PluginRegistry().get("methods", "fancy").provenance.distribution == "other-dist"
