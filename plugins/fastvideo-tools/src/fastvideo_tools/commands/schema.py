"""`fastvideo-distill schema NAME`: every option of a section or plug-in, its type, range, default and meaning."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys

from fastvideo_core.cli.table import render_table, terminal_width
from fastvideo_core.launch.stdio import say
from fastvideo_core.registry import PluginRegistry
from fastvideo_core.registry.specs import CONFIGURED, Command
from fastvideo_tools.json_schema import run_schema, section_schema
from fastvideo_tools.options import SECTIONS, Section, all_options, find_sections

WHOLE = "run"
"""The name of the whole file."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    names = f"{WHOLE} (the whole file), {', '.join(SECTIONS)}, or a family, method or callback"
    parser.add_argument("name", help=f"{names} (DISTRIBUTION:NAME picks one)")
    parser.add_argument("--json", action="store_true", help="print JSON schema, for editors")


def run(args: argparse.Namespace) -> int:
    registry: PluginRegistry = args.registry
    if args.json:
        with contextlib.redirect_stdout(sys.stderr):  # what a plug-in prints while it is imported is not of the schema
            whole = args.name == WHOLE
            schema = run_schema(registry) if whole else section_schema(find_sections(args.name, registry))
        print(json.dumps(schema, indent=2))
    else:
        say(_whole(registry) if args.name == WHOLE else "\n\n".join(map(_options, find_sections(args.name, registry))))
    return 0


def _whole(registry: PluginRegistry) -> str:
    families, methods, callbacks = (", ".join(registry.names(kind)) or "none installed" for kind in CONFIGURED)
    rows = [
        *((name, "required", f"schema {name}") for name in SECTIONS),
        ("pipeline_config", "", f"schema FAMILY, one of: {families}"),
        ("pipeline_config_path", "", "a file with pipeline_config instead"),
        ("method_config", "", f"schema METHOD, one of: {methods}"),
        ("callbacks", "", f"schema CALLBACK, of: {callbacks}"),
    ]
    return f"run.yaml\n\n{render_table(('SECTION', '', 'OPTIONS'), rows, terminal_width())}"


def _options(section: Section) -> str:
    """The options as a table."""
    rows = []
    for one in all_options(section.model):
        default = one.default if isinstance(one.default, str) and one.default else json.dumps(one.default)
        rows.append((one.name, one.allowed, "required" if one.required else default, one.meaning))
    if not rows:
        return f"{section.note}{section.title} has no options."
    table = render_table(("OPTION", "ALLOWED", "DEFAULT", "MEANING"), rows, terminal_width())
    return f"{section.note}{section.title}\n\n{table}"


COMMAND = Command(add_arguments, run)
