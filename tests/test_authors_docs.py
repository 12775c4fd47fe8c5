"""The authors' pages: their single files pass the suites that the pages show, and a planted sign error is caught as they say."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import indent
from typing import Any

import pytest

from fastvideo_testing.isolation import isolated_registrations
from fastvideo_tools.commands.new_plugin import package_files
from tests import new_user

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "authors"
EXAMPLE = re.compile(r"<!-- example: (?P<name>\S+) -->\n```\w+\n(?P<text>.*?)```", re.DOTALL)


def examples(page: str) -> dict[str, str]:
    text = (PAGES / page).read_text(encoding="utf-8")
    return {match["name"]: match["text"] for match in EXAMPLE.finditer(text)}


def suite_on_page(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch, **changes: str) -> Any:
    """The page's files written into `folder`, and an instance of the suite that its test file has."""
    found = examples(page)
    for name, text in found.items():
        (folder / name).write_text(changes.get(name.partition(".")[0], text))
    monkeypatch.chdir(folder)
    test_file = next(name for name in found if name.startswith("test_"))
    names: dict[str, Any] = {"__name__": "docs_example"}
    exec(compile(found[test_file], test_file, "exec"), names)
    return next(value for name, value in names.items() if name.startswith("Test"))()


def checks(suite: Any) -> list[str]:
    return [name for name in dir(suite) if name.startswith("test_") and "two_processes" not in name]


@pytest.mark.parametrize("page", ["write-a-method.md", "write-a-callback.md"])
def test_the_single_file_of_a_page_passes_its_suite(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = suite_on_page(page, tmp_path, monkeypatch)
    ran = 0
    for number, name in enumerate(checks(suite)):
        folder = tmp_path / str(number)
        folder.mkdir()
        function = getattr(suite, name)
        with suite.world():
            try:
                function(*([folder] if "tmp_path" in _parameters(function) else []))
                ran += 1
            except pytest.skip.Exception:
                continue
    assert ran >= len(checks(suite)) - 3  # no spec module; a clock does not come back after a resume


def test_the_planted_sign_error_is_caught_with_the_words_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = examples("write-a-method.md")
    wrong = found["velocity.py"].replace("(prediction - target)", "(prediction + target)")
    assert wrong != found["velocity.py"]
    suite = suite_on_page("write-a-method.md", tmp_path, monkeypatch, velocity=wrong)
    with suite.world(), pytest.raises(AssertionError, match=found["planted.txt"].strip()):
        suite.test_the_student_comes_nearer_to_the_data(tmp_path)


def test_the_metric_of_its_page_passes_the_test_of_its_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = examples("write-a-metric.md")
    (tmp_path / "redness.py").write_text(found["redness.py"])
    monkeypatch.syspath_prepend(tmp_path)
    names: dict[str, Any] = {}
    with isolated_registrations():
        exec(found["test_redness.py"], names)
        test = names["test_redness_of_plain_colours"]
        for colour, value in test.pytestmark[0].args[1]:
            test(colour, value)


def test_the_kits_names_on_the_pages_exist() -> None:
    import fastvideo_testing as kit

    named = set(re.findall(r"`(\w+)(?:\(.*?\))?`", (PAGES / "conformance-kit.md").read_text(encoding="utf-8")))
    offered = named & set(kit.__all__)
    assert {"MethodPluginSuite", "take_step", "InMemoryTracker", "fake_process_group"} <= offered
    for name in kit.__all__:
        assert getattr(kit, name) is not None


SOURCE = re.compile(r"<!-- source: (?P<path>\S+) -->\n```python\n(?P<text>.*?)```", re.DOTALL)


@pytest.mark.parametrize("page", sorted(path.name for path in PAGES.glob("*.md")))
def test_code_of_the_tutorials_packages_stands_there_as_the_page_shows_it(page: str) -> None:
    for match in SOURCE.finditer((PAGES / page).read_text(encoding="utf-8")):
        source = (ROOT / match["path"]).read_text(encoding="utf-8")
        margins = {line[: len(line) - len(line.lstrip())] for line in source.splitlines()}
        assert any(indent(match["text"], margin) in source for margin in margins), f"{match['path']}:\n{match['text']}"


def test_the_page_on_families_shows_code_of_its_package() -> None:
    text = (PAGES / "write-a-family.md").read_text(encoding="utf-8")
    assert len(SOURCE.findall(text)) == text.count("```python") >= 5


def test_the_page_on_the_kit_names_every_attribute_and_capability() -> None:
    from fastvideo_testing import CallbackPluginSuite, MethodPluginSuite, ModelPluginSuite

    text = (PAGES / "conformance-kit.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(\w+)`", text))
    for suite in (MethodPluginSuite, ModelPluginSuite, CallbackPluginSuite):
        attributes = {name for base in suite.__mro__ for name in vars(base).get("__annotations__", {})}
        assert {*attributes, *suite.capabilities} - {"kind", "capabilities"} <= named, suite.__name__
    rows = re.findall(r"^\| (methods|families|callbacks) \| (`.*`) \|$", text, re.MULTILINE)
    suites = {"methods": MethodPluginSuite, "families": ModelPluginSuite, "callbacks": CallbackPluginSuite}
    assert {name: set(re.findall(r"`(\w+)`", row)) for name, row in rows} == {
        name: set(suite.capabilities) for name, suite in suites.items()
    }


def test_the_table_of_versions_is_what_the_registry_does() -> None:
    from fastvideo_core.registry import API_VERSION

    text = (PAGES / "versions.md").read_text(encoding="utf-8")
    assert f"now {API_VERSION}" in text
    cores = [tuple(map(int, core)) for core in re.findall(r"core (\d)\.(\d)", text.partition("|---")[0])]
    rows = re.findall(r"^\| `api=\((\d), (\d)\)` \| (.*) \|$", text, re.MULTILINE)
    assert len(rows) == len(cores) == 3
    for major, minor, cells in rows:
        fits = [core[0] == int(major) and int(minor) <= core[1] for core in cores]
        assert [cell == "fits" for cell in cells.split(" | ")] == fits


def test_the_deprecated_callback_of_a_page_says_what_to_use(tmp_path: Path) -> None:
    from fastvideo_core.dispatch.plugin_checks import deprecations
    from fastvideo_core.registry import PluginRegistry
    from fastvideo_testing import load_config, toy_world

    (tmp_path / "timer.py").write_text(examples("versions.md")["deprecated_callback.py"], encoding="utf-8")
    roles = {"student": {"path": "toy/a", "trainable": True}, "teacher": {"path": "toy/b", "trainable": False}}
    run = {"recipe": {"family": "toy", "method": "toy"}, "roles": roles, "callbacks": {"timer": {"hours": 2.0}}}
    with toy_world(tmp_path / "timer.py"):
        cfg = load_config(tmp_path, {**run, "training": {"output_dir": "out", "max_train_steps": 1}})
        told = list(deprecations(cfg, PluginRegistry()))
    assert [text.partition(" is ")[2] for text in told] == [
        "deprecated since 0.3: use deadline of fastvideo-deadline",
        "deprecated since 0.2: use callbacks.timer.minutes",
    ]


SHOWN = ("step 1/2 | total_loss 0.5", "...", "done: output")


@pytest.mark.parametrize(
    ("printed", "missing"),
    [
        ("step 1/2 | total_loss 0.7\nstep 2/2\n\ndone: output\n", ""),
        ("step 1/2 | total_lost 0.5\ndone: output", "step 1/2 | total_loss 0.5"),
        ("a word before\nstep 1/2 | total_loss 0.5\ndone: output", "step 1/2 | total_loss 0.5"),
        ("step 1/2 | total_loss 0.5\nnothing else", "done: output"),
        ("step 1/2 | total_loss 0.5\ndone: output\nTraceback", "(the end, but there is: Traceback)"),
    ],
)
def test_a_transcript_differs_where_words_do_and_not_where_numbers_do(printed: str, missing: str) -> None:
    assert new_user.differs(SHOWN, printed) == missing


def test_a_diff_of_a_transcript_must_fit_at_one_place() -> None:
    diff = " a\n-b\n+c\n"
    assert new_user.edited("a\nb\nb\n", diff) == "a\nc\nb\n"
    for text, times in (("b\na\n", 0), ("a\nb\na\nb\n", 2)):
        with pytest.raises(new_user.TranscriptError, match=f"stand {times} times in the file"):
            new_user.edited(text, diff)


def test_the_diffs_of_the_transcript_fit_the_scaffold_and_the_page_s_file() -> None:
    files = {
        "velocity.py": examples("write-a-method.md")["velocity.py"],
        "src/fastvideo_velocity/method.py": package_files("velocity", "method", "fastvideo-velocity", "mit", "me")[
            "src/fastvideo_velocity/method.py"
        ],
    }
    edits = [
        step
        for step in new_user.STEP.finditer((PAGES / "from-an-empty-folder.md").read_text(encoding="utf-8"))
        if step["kind"] == "edit"
    ]
    assert [step["what"] for step in edits] == ["velocity.py"] * 2 + ["src/fastvideo_velocity/method.py"] * 3
    for step in edits:
        files[step["what"]] = new_user.edited(files[step["what"]], step["text"])
    compile(files["src/fastvideo_velocity/method.py"], "method.py", "exec")
    assert files["velocity.py"] == examples("write-a-method.md")["velocity.py"]


def _parameters(function: Any) -> list[str]:
    import inspect

    return list(inspect.signature(function).parameters)


@pytest.mark.parametrize("page", sorted(path.name for path in PAGES.glob("*.md")))
def test_links_between_the_pages_lead_somewhere(page: str) -> None:
    index = (PAGES.parent / "index.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:\n]+)\)", (PAGES / page).read_text(encoding="utf-8")):
        written_by_the_build = (
            target.startswith("../reference/") and target[3:].removesuffix(".md") in index.splitlines()
        )
        assert written_by_the_build or (PAGES / target).exists(), target
