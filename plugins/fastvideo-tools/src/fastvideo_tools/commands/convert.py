"""`fastvideo-distill convert FILE`: a run of FastVideo's trainer as a run.yaml, and what became of every key."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from fastvideo_core.errors.shown import printable
from fastvideo_core.launch.stdio import say
from fastvideo_core.registry.specs import Command

if TYPE_CHECKING:  # pydantic is imported when a file is converted, not to show help
    from fastvideo_tools.convert.fastvideo import Row

_TITLES = {
    "taken": "taken",
    "renamed": "renamed",
    "added": "written out, as FastVideo does it unasked",
    "same": "dropped, without a difference",
    "dropped": "dropped, and why",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `convert`."""
    parser.add_argument("config", help="a YAML file of FastVideo's trainer (models and method by `_target_`)")
    parser.add_argument(
        "-o", "--out", type=Path, default=Path("run.yaml"), help="file to write (default: run.yaml); must be new"
    )


def run(args: argparse.Namespace) -> int:
    """Writes the file, and says of every key whether it was taken, renamed or dropped, and why."""
    from fastvideo_core.config.document import dump_yaml, read_document
    from fastvideo_core.errors import ConfigError, Problem, foreign_file
    from fastvideo_tools.convert.fastvideo import convert

    with foreign_file(args.config, "file of FastVideo's trainer", ConfigError):
        converted = convert(read_document(args.config))
    dropped = [f"#   {row.key}: {row.note}" for row in converted.rows if row.kind == "dropped"]
    head = [f"# From {args.config} by `fastvideo-distill convert`.{' Not taken over:' if dropped else ''}", *dropped]
    head = [printable(" ".join(line.splitlines())) for line in head]  # keys and paths are the user's own text
    try:
        with args.out.open("x", encoding="utf-8") as file:
            file.write("\n".join([*head, "", dump_yaml(converted.run)]))
    except FileExistsError:
        problem = Problem("there is a file already", where=str(args.out), fix="name another one with --out")
        raise ConfigError(problem) from None
    except OSError as error:
        raise ConfigError(Problem(f"cannot be written: {error.strerror or error}", where=str(args.out))) from None
    for kind, title in _TITLES.items():
        rows = [row for row in converted.rows if row.kind == kind]
        say(f"{title} ({len(rows)}):")
        say("\n".join(f"  {_line(row)}" for row in rows) or "  nothing")
    say(f"{args.out} is written; next: fastvideo-distill check {args.out}")
    return 0


def _line(row: Row) -> str:
    import json

    note = f" ({row.note})" if row.note else ""
    if not row.target:
        return f"{row.key}: {row.note}"
    value = f"{row.target}: {json.dumps(row.value, ensure_ascii=False)}"
    return f"{value}{note}" if row.kind == "added" else f"{row.key} -> {value}{note}"


COMMAND = Command(add_arguments, run)
