"""`fastvideo-distill plugins`: what is installed, where from, and whether it is healthy, incomplete or BROKEN, and why."""

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from fastvideo_core.cli.main import find_command
from fastvideo_core.cli.table import render_table, terminal_width
from fastvideo_core.launch.stdio import say
from fastvideo_core.registry import MethodPlugin, ModelPlugin, PluginRegistry, PluginStatus
from fastvideo_core.registry.discovery import ALLOWED, pip_command
from fastvideo_core.registry.specs import SINGULAR


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")
    pairs = "which methods and families fit each other, and why others do not (needs fastvideo-tools; imports torch)"
    parser.add_argument("--pairs", action="store_true", help=pairs)
    strict = "exit status 1 when anything is BROKEN or incomplete; with --pairs, or cannot be imported"
    parser.add_argument("--strict", action="store_true", help=strict)


def run(args: argparse.Namespace) -> int:
    registry: PluginRegistry = args.registry
    with contextlib.redirect_stdout(sys.stderr):  # what a plug-in prints while it is imported is not of the list
        statuses = registry.list()
    wrong = int(args.strict and any(status.provenance.unmet or not status.healthy for status in statuses))
    if args.pairs:
        return max(wrong, find_command("pairs", registry)[0].run(args))
    if args.json:
        print(json.dumps([as_data(status) for status in statuses], indent=2))
    else:
        say(as_text(statuses, terminal_width()))
        if ALLOWED in os.environ:
            say(f"\n{ALLOWED} hides the plug-ins of all distributions but: {os.environ[ALLOWED] or 'none'}")
    return wrong


def as_data(status: PluginStatus) -> dict[str, Any]:
    """One plug-in for --json."""
    spec = status.plugin.spec if status.plugin else None
    return {
        **asdict(status.provenance),
        **{name: getattr(spec, name, None) for name in ("api", "roles", "optional_roles", "pipelines", "deprecated")},
        "healthy": status.healthy,
        "unmet": [{"wanted": item.wanted, "found": item.there} for item in status.provenance.unmet],
        "reason": str(status.problem) if status.problem is not None else None,
    }


def as_text(statuses: Sequence[PluginStatus], width: int) -> str:
    """The table, then why something is BROKEN or incomplete, then what to install when a kind is missing."""
    parts = []
    if statuses:
        header = ("KIND", "NAME", "PACKAGE", "API", "STATE", "DETAILS")
        parts.append(render_table(header, [_row(status) for status in statuses], width))
    reasons = (f"BROKEN {item.provenance.name}: {item.problem}" for item in statuses if not item.healthy)
    parts += dict.fromkeys(reasons)  # two of one name have one reason
    specs = [item.plugin.spec for item in statuses if item.plugin]
    parts += [f"{spec.name} is deprecated {spec.deprecated}" for spec in specs if spec.deprecated]
    incomplete = {item.provenance.distribution: item.provenance.unmet for item in statuses if item.provenance.unmet}
    for distribution, unmet in incomplete.items():
        parts.append(f"incomplete {distribution}: {'; '.join(map(str, unmet))}\n    fix: {pip_command(unmet)}")
    kinds = {status.provenance.kind for status in statuses}
    if "models" not in kinds:
        parts.append("No model family is installed. Get one with: pip install fastvideo-wan")
    if "methods" not in kinds:
        parts.append("No method is installed. Get one with: pip install fastvideo-finetune fastvideo-dmd2")
    return "\n\n".join(parts)


def _row(status: PluginStatus) -> tuple[str, ...]:
    provenance, spec = status.provenance, status.plugin.spec if status.plugin else None
    package = f"{provenance.distribution} {provenance.version}".strip()
    api = f"{spec.api[0]}.{spec.api[1]}" if spec is not None else "-"
    details = f"roles: {spec.roles_in_words()}" if isinstance(spec, MethodPlugin) else ""
    if isinstance(spec, ModelPlugin):
        details = f"reads: {', '.join(spec.pipelines) or 'folders of its own'}"
    state = "deprecated" if spec is not None and spec.deprecated else "ok"
    state = "BROKEN" if not status.healthy else "incomplete" if status.provenance.unmet else state
    return SINGULAR[provenance.kind], provenance.name, package, api, state, details
