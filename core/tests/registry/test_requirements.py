"""What a plug-in's distribution asks for and has not: in the list, and in the error of a plug-in that fails for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastvideo_core.cli.main import main
from fastvideo_core.cli.plugins import as_text
from fastvideo_core.errors import PluginError
from fastvideo_core.registry import PluginRegistry
from fastvideo_core.registry.discovery import NOTHING, Unmet, find_installed, pip_command, unmet_of
from fastvideo_testing.fake_packages import CONFIG, ENTRY, METHOD, install, method_spec
from fastvideo_testing.isolation import isolated_registrations


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("FASTVIDEO_DISTILL_PLUGINS", "needy-dist")
    monkeypatch.setenv("COLUMNS", "100")
    with isolated_registrations():
        yield tmp_path


def install_needy(site: Path, package: str, *requires: str, method: str = METHOD, plugin: str = "") -> PluginRegistry:
    sources = {"plugin": plugin + method_spec(package=package), "method": method, "config": CONFIG}
    install(
        site,
        "needy-dist",
        entry_points=ENTRY.format(package=package),
        modules={f"{package}/{name}.py": source for name, source in sources.items()},
        requires=requires,
    )
    return PluginRegistry(find_installed())


def test_a_requirement_that_is_not_met_is_named_with_what_there_is(site: Path) -> None:
    wanted = (
        "pluggy>=99",
        "no-such-thing>=1",
        "pluggy>=1",
        'absent; extra == "more"',
        "absent; python_version < '3'",
        "not a requirement at all",
    )
    install(site, "asking-dist", requires=wanted)
    first, second = unmet_of("asking-dist")
    assert (first.wanted, first.there[0].isdigit()) == ("pluggy>=99", True)
    assert second == Unmet("no-such-thing>=1", NOTHING)
    assert pip_command([first, second]) == "pip install 'pluggy>=99' 'no-such-thing>=1'"


def test_a_distribution_with_damaged_metadata_is_no_requirement_that_is_not_met(site: Path) -> None:
    install(site, "odd-dist", version="of-my-own-making")
    install(site, "asking-dist", requires=("odd-dist>=1",))
    assert unmet_of("asking-dist") == ()
    assert unmet_of("surely-absent") == ()


def test_a_plug_in_whose_dependency_is_missing_is_incomplete_in_the_list(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = install_needy(site, "needy1", "surely-absent>=2", "pluggy")
    (status,) = registry.list()
    assert status.healthy
    text = as_text([status], 100)
    assert text.splitlines()[1].split() == [
        "method",
        "fancy",
        "needy-dist",
        "1.2.0",
        "1.0",
        "incomplete",
        *("roles:", "student"),
    ]
    assert (
        "incomplete needy-dist: needs surely-absent>=2, found nothing\n    fix: pip install 'surely-absent>=2'" in text
    )
    assert main(["plugins", "--json"]) == 0
    (listed,) = json.loads(capsys.readouterr().out)
    assert (listed["healthy"], listed["unmet"]) == (True, [{"wanted": "surely-absent>=2", "found": "nothing"}])


def test_what_it_imports_and_asks_for_is_installed_by_its_pip_name(site: Path) -> None:
    registry = install_needy(site, "needy2", "surely-absent>=2", "pluggy>=99", method="import sa_module\n" + METHOD)
    with pytest.raises(PluginError) as raised:
        registry.resolve(registry.get("methods", "fancy"), "impl")
    said = str(raised.value)
    assert "the plug-in is installed, but 'sa_module', which it imports, is not" in said
    assert said.endswith("fix: pip install 'surely-absent>=2'   (needy-dist needs surely-absent>=2, found nothing)")


def test_an_import_that_fails_beside_an_old_dependency_names_that(site: Path) -> None:
    registry = install_needy(site, "needy3", "pluggy>=99", method="from pluggy import Novelty\n" + METHOD)
    with pytest.raises(PluginError) as raised:
        registry.resolve(registry.get("methods", "fancy"), "impl")
    said = str(raised.value)
    assert "importing needy3.method fails: ImportError: cannot import name 'Novelty'" in said
    assert "fix: pip install 'pluggy>=99'   (needy-dist needs pluggy>=99, found " in said


def test_what_a_plug_in_prints_while_it_is_imported_does_not_spoil_json(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install_needy(site, "needy4", plugin="print('welcome to needy')\n")
    assert main(["plugins", "--json"]) == 0
    printed = capsys.readouterr()
    assert [item["name"] for item in json.loads(printed.out)] == ["fancy"]
    assert printed.err == "welcome to needy\n"
