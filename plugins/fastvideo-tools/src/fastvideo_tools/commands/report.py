"""`fastvideo-distill report RUN_DIR`: one page about a run, live or finished."""

from __future__ import annotations

import argparse
from pathlib import Path

from fastvideo_core.errors import FastVideoError, Problem, UserError, printable
from fastvideo_core.launch.stdio import say
from fastvideo_core.registry.specs import Command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="the run's folder (its output_dir)")
    parser.add_argument("--out", metavar="FILE", help="the page (default: report.html in the run's folder)")


def run(args: argparse.Namespace) -> int:
    from fastvideo_tools.report.page import status, write_report
    from fastvideo_tools.report.read import read_run

    folder = read_run(Path(args.run))
    out = Path(args.out) if args.out else folder.path / "report.html"
    if out.is_dir():
        raise UserError(f"{out}: is a folder\n    fix: name the page's file, as in --out {out / 'report.html'}")
    page = write_report(folder).encode("utf-8", "replace")  # names of files may be no text
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        aside = out.with_name(out.name + ".tmp")
        aside.write_bytes(page)
        aside.replace(out)
    except OSError as error:
        fix = "free space or make the folder writable, or name another file with --out"
        raise FastVideoError(Problem(f"cannot be written: {error.strerror}", str(out), fix=fix)) from error
    say(status(folder))
    for note in folder.notes:
        say(f"note: {printable(note)}")
    say(out)
    return 0


COMMAND = Command(add_arguments, run)
