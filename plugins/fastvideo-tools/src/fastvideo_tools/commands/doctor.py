"""`fastvideo-distill doctor`: is this machine ready, and if not, what to do."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from fastvideo_core.cli.table import render_table, terminal_width
from fastvideo_core.launch.stdio import say
from fastvideo_core.registry.specs import Command

if TYPE_CHECKING:
    from fastvideo_core.registry import PluginRegistry
    from fastvideo_tools.doctor.findings import Finding

MARKS = {"ok": "ok", "note": "note", "bad": "BAD"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--folder", default=".", help="where runs will be written (default: the current folder)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """0 when nothing is bad, else 1."""
    findings = list(examine(args.registry, Path(args.folder)))
    if args.json:
        import json

        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        say(as_text(findings, terminal_width()))
    return 1 if any(finding.state == "bad" for finding in findings) else 0


def examine(registry: PluginRegistry, folder: Path) -> Iterator[Finding]:
    """Every check, in the order in which they matter."""
    from fastvideo_tools.doctor import machine, software

    yield software.check_python()
    yield from machine.check_torch()
    yield from software.check_distributions(registry)
    yield from software.check_combinations()
    yield from software.check_plugins(registry)
    yield machine.check_video()
    yield machine.check_disk(folder)
    yield machine.check_wandb()


def as_text(findings: list[Finding], width: int) -> str:
    """A table, and below it what to do."""
    rows = [(MARKS[finding.state], finding.about, finding.found) for finding in findings]
    lines = [render_table(("STATE", "WHAT", "FOUND"), rows, width)]
    for state, title in (("bad", "To mend:"), ("note", "If you need it:")):
        fixes = [finding for finding in findings if finding.state == state and finding.fix]
        if fixes:
            lines += ["", title, *(f"  {finding.about}: {finding.fix}" for finding in fixes)]
    if not any(finding.state == "bad" for finding in findings):
        lines += ["", "Everything that is installed can work."]
    return "\n".join(lines)


COMMAND = Command(add_arguments, run)
