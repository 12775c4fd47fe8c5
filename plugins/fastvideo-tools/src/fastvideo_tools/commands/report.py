"""`fastvideo-distill report RUN_DIR`: one page about a run, live or finished."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from fastvideo_core.errors import UserError, printable
from fastvideo_core.launch.stdio import say
from fastvideo_core.registry.specs import Command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="the run's folder (its output_dir)")
    follow = "write the page anew whenever the run's log has grown, until the run ends or Ctrl-C"
    parser.add_argument("--follow", action="store_true", help=follow)
    parser.add_argument("--out", metavar="FILE", help="the page (default: report.html in the run's folder)")


def run(args: argparse.Namespace) -> int:
    from fastvideo_tools.pages.html import save
    from fastvideo_tools.report.follow import follow, is_live
    from fastvideo_tools.report.page import status, write_report
    from fastvideo_tools.report.read import read_run

    path = Path(args.run)
    out = Path(args.out) if args.out else path / "report.html"
    if out.is_dir():
        raise UserError(f"{out}: is a folder\n    fix: name the page's file, as in --out {out / 'report.html'}")

    said: list[str] = []

    def write(live: bool) -> None:
        folder = read_run(path)
        save(out, write_report(folder, live=live))
        text = f"report: {status(folder)}" if args.follow else status(folder)
        if text not in said[-1:] or not live:  # while it validates, only the videos change
            say(text, flush=True)
        said.append(text)
        if not live:
            for note in folder.notes:
                say(f"note: {printable(note)}")
            say(out)

    if args.follow:
        if not is_live(path):
            say("report: no run is going on in the folder (or its file system has no locks, which tell)")
        follow(path, write, time.sleep)
    else:
        write(False)
    return 0


COMMAND = Command(add_arguments, run)
