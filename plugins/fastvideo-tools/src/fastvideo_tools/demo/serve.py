"""The other side of `demo`'s worker processes: commands come in one by one, exit codes go out; no command itself."""

from __future__ import annotations

import json
import os
import sys

from fastvideo_core.cli.main import main


def serve() -> None:
    """Runs `{"arguments": [...], "log": path}`, one a line of standard input; answers with one exit code a line.

    What a command prints goes into its log.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    for line in sys.stdin:
        task = json.loads(line)
        with open(task["log"], "w", encoding="utf-8") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            status = main(task["arguments"])
            sys.stdout.flush()
            sys.stderr.flush()
        answers.write(f"{status}\n")
        answers.flush()


if __name__ == "__main__":
    serve()
