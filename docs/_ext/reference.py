"""Writes docs/reference: run-yaml.md from the config classes, commands.md from the commands' parsers, names.md from docstrings.

The pages are made anew by every build and are not in the repository, so that they cannot disagree with the code.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from names import names_page
from pydantic import BaseModel

from fastvideo_core.cli.main import COMMANDS, PROG, find_command
from fastvideo_core.registry import PluginRegistry
from fastvideo_tools.options import SECTIONS, all_options

if TYPE_CHECKING:
    from sphinx.application import Sphinx

PLUGIN_SECTIONS = (
    ("models", "pipeline_config", "family"),
    ("methods", "method_config", "method"),
    ("callbacks", "callbacks", "callback"),
)


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("builder-inited", _write)
    return {"parallel_read_safe": True}


def _write(app: Sphinx) -> None:
    folder = Path(app.srcdir) / "reference"
    folder.mkdir(exist_ok=True)
    for name, page in PAGES.items():
        path, text = folder / name, page()
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def run_yaml_page() -> str:
    """Every option of run.yaml: core's sections, then those of the installed plug-ins."""
    lines = [
        "# run.yaml",
        "",
        "Every option, from the classes that read it. `fastvideo-distill schema NAME` prints the same for what is installed",
        "on your machine.",
        "",
    ]
    for place, model in SECTIONS.values():
        lines += _section(f"`{place}`", model)
    registry = PluginRegistry()
    for kind, section, noun in PLUGIN_SECTIONS:
        for name in sorted(registry.names(kind)):
            place = f"`{section}.{name}`" if kind == "callbacks" else f"`{section}` of {noun} `{name}`"
            lines += _section(place, registry.config_class(registry.get(kind, name)))
    return "\n".join(lines)


def _section(title: str, model: type[BaseModel]) -> list[str]:
    lines = [f"## {title}", ""]
    if not model.model_fields:
        return [*lines, "It has no options.", ""]
    lines += ["| option | allowed | default | meaning |", "|---|---|---|---|"]
    for option in all_options(model):
        default = "**required**" if option.required else f"`{_yaml(option.default)}`"
        lines.append(f"| `{option.name}` | {_cell(option.allowed)} | {default} | {_cell(option.meaning)} |")
    return [*lines, ""]


def _yaml(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_yaml, value))}]"
    return '""' if value == "" else str(value)


def _cell(text: str, *, code: bool = False) -> str:
    text = " ".join(text.split()).replace("|", "\\|")
    return text if code else text.replace("<", "&lt;")


def commands_page() -> str:
    """Every command with its arguments, as --help shows them."""
    lines = ["# Commands", "", "What `--help` prints, in one place.", ""]
    registry = PluginRegistry()
    for name in (*COMMANDS, *registry.names("commands")):
        parser = argparse.ArgumentParser(prog=f"{PROG} {name}")
        command, meaning = find_command(name, registry)
        command.add_arguments(parser)
        lines += [f"## {name}", "", f"{meaning[0].upper()}{meaning[1:]}.", "", *_arguments(parser), ""]
    return "\n".join([*lines, *_exit_codes()])


def _arguments(parser: argparse.ArgumentParser) -> Iterator[str]:
    actions: Sequence[argparse.Action] = [action for action in parser._actions if action.dest != "help"]
    if not actions:
        yield "It takes no arguments."
        return
    yield "| argument | default | meaning |"
    yield "|---|---|---|"
    for action in actions:
        value = action.metavar or ("" if action.nargs == 0 else action.dest.upper())
        if action.choices:
            value = "{" + ",".join(map(str, action.choices)) + "}"
        name = _cell(" ".join([*action.option_strings[-1:], *([str(value)] if value else [])]), code=True)
        shown = action.default not in (None, False, argparse.SUPPRESS, []) and action.option_strings
        default = f"`{action.default}`" if shown else ""
        yield f"| `{name}` | {default} | {_cell((action.help or '') % {'default': action.default, 'prog': parser.prog})} |"


def _exit_codes() -> list[str]:
    return [
        "## Exit codes",
        "",
        "| code | meaning |",
        "|---:|---|",
        "| 0 | done |",
        "| 2 | the input is wrong: one message says where, what was found, what is allowed |",
        "| 1 | anything else |",
        "| 129, 130, 143 | hung up, interrupted, terminated; all after a checkpoint |",
        "",
        "`--debug` shows the traceback of an error, `--plugin FILE.py` loads plug-ins from a file; every command has both.",
        "",
    ]


PAGES = {"run-yaml.md": run_yaml_page, "commands.md": commands_page, "names.md": names_page}
"""What is written below docs/reference."""
