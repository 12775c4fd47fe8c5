"""`report --follow` writes the page again as a live run's log grows, and ends with the run."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from fastvideo_core.cli.main import main
from fastvideo_core.dispatch.output_dir import LOCK
from fastvideo_tools.report import follow as module
from fastvideo_tools.report.follow import PAUSE, follow, is_live

HOLD = """
import fcntl, sys
file = open(sys.argv[1], "w")
fcntl.lockf(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


class Run:
    """A folder as a run leaves it, and another process that holds its lock until `end`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        config = {"recipe": {"family": "toy", "method": "toy"}, "training": {"max_train_steps": 10}}
        (folder / "run.yaml").write_text(yaml.safe_dump(config))
        command = [sys.executable, "-c", HOLD, str(folder / LOCK)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._process.stdout.readline()

    def log(self, step: int) -> None:
        with (self.folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": step, "total_loss": 1.0}) + "\n")

    def end(self) -> None:
        self._process.communicate()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    run = Run(tmp_path / "run")
    yield run
    run._process.kill()


def test_a_run_is_live_while_its_lock_is_held_and_asking_does_not_take_it(run, tmp_path):
    assert is_live(run.folder)
    run.end()
    assert not is_live(run.folder)
    assert not is_live(tmp_path)
    with (run.folder / LOCK).open("w") as file:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_the_page_is_written_when_the_log_has_grown_and_once_more_at_the_end(run):
    happened: list[object] = []
    moments = iter([lambda: None, lambda: run.log(2), lambda: (run.folder / "checkpoint-000002").mkdir(), run.end])

    def wait(seconds: float) -> None:
        happened.append(seconds)
        next(moments)()

    run.log(1)
    follow(run.folder, happened.append, wait)
    assert happened == [True, PAUSE, PAUSE, True, PAUSE, True, PAUSE, False]


def test_a_page_that_takes_long_is_written_more_rarely(run, monkeypatch):
    times = iter([100.0, 103.0])
    monkeypatch.setattr(module, "time", type("Clock", (), {"monotonic": lambda: next(times)}))
    waited: list[float] = []
    follow(run.folder, lambda live: None, lambda seconds: (waited.append(seconds), run.end()))
    assert waited == [30.0]


def test_the_page_of_a_live_run_reloads_itself_until_the_end(run, monkeypatch, capsys):
    page, seen = run.folder / "report.html", []

    def sleep(seconds: float) -> None:
        seen.append("location.reload()" in page.read_text())
        if len(seen) == 1:
            (run.folder / "validation/step-000003").mkdir(parents=True)
            (
                run.folder / "validation/step-000003/00.mp4"
            ).touch()  # the page is written, and there is nothing new to say
        else:
            run.log(7)
            run.end()

    monkeypatch.setattr(time, "sleep", sleep)
    run.log(3)
    assert main(["report", str(run.folder), "--follow"]) == 0
    assert seen == [True, True]
    assert "location.reload()" not in page.read_text()
    assert "Step 7 of 10" in page.read_text()
    assert capsys.readouterr().out.splitlines() == [
        "report: Step 3 of 10, by its log, total_loss 1.0000.",
        "report: Step 7 of 10, by its log, total_loss 1.0000.",
        str(page),
    ]
    assert not list(run.folder.glob("*.tmp"))


def test_ctrl_c_ends_it_with_130_and_a_page_that_stays(run, monkeypatch, capsys):
    def sleep(seconds: float) -> None:
        run.log(4)
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", sleep)
    assert main(["report", str(run.folder), "--follow"]) == 130
    page = (run.folder / "report.html").read_text()
    assert "Step 4 of 10" in page
    assert "location.reload()" not in page
    assert capsys.readouterr().err == "interrupted\n"


def test_where_no_run_is_going_on_the_page_is_written_once(run, capsys):
    run.end()
    assert main(["report", str(run.folder), "--follow"]) == 0
    first, *_ = capsys.readouterr().out.splitlines()
    assert first == "report: no run is going on in the folder (or its file system has no locks, which tell)"
    assert (run.folder / "report.html").exists()


def test_a_folder_that_is_no_run_is_refused(tmp_path, capsys):
    assert main(["report", str(tmp_path), "--follow"]) == 2
    assert "is not a run's folder" in capsys.readouterr().err
