"""What a run says: before the first step, at every logged step, and after the last."""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import io
import itertools
import json
import logging
import os
import re
import shlex
import struct
import termios
from pathlib import Path
from typing import Any

import pytest

from fastvideo_core.cli.console import Console
from fastvideo_core.cli.main import main
from fastvideo_core.dispatch import summary
from fastvideo_core.dispatch.runtime import DistillRuntime
from fastvideo_core.launch.stdio import drop_unwritten
from fastvideo_core.tracking.display import JsonLines, LoggedStep, LogLines, TerminalBar, display_for
from fastvideo_core.tracking.progress import Progress
from fastvideo_testing.runs import build_run, toy_family, toy_world
from tests.conftest import write_run

METRICS = {
    "total_loss": 0.25,
    "lr/student": 1e-3,
    "lr/critic": 1e-3,
    "x0/mean": 0.125,
    "seconds_per_step": 2.0,
    "samples_per_second": 4.0,
    "peak_memory_bytes": 2.0**31,
}


@pytest.fixture(autouse=True)
def own_logging():
    """A command sets up the process's logging; in a test that must not stay."""
    root, core = logging.getLogger(), logging.getLogger("fastvideo_core")
    handlers, level, core_level = root.handlers[:], root.level, core.level
    root.handlers = []
    yield
    root.handlers, root.level = handlers, level
    core.setLevel(core_level)


@pytest.fixture
def run_file(tmp_path: Path, tiny_wan: Path, latent_data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    run: dict[str, Any] = {
        "recipe": {"family": "wan", "method": "finetune"},
        "roles": {"student": {"path": str(tiny_wan), "trainable": True, "lora": {"rank": 2}}},
        "training": {
            "output_dir": "run",
            "data_path": str(latent_data),
            "max_train_steps": 3,
            "train_batch_size": 2,
            "gradient_accumulation_steps": 2,
            "checkpoints_total_limit": 2,
        },
    }
    return write_run(tmp_path / "run.yaml", run)


def test_a_run_says_what_will_happen_and_what_was_written(run_file, capsys):
    assert main([str(run_file)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("finetune of wan: 3 steps\n")
    assert "0.03 M parameters, 0.00 M trained (adapters of rank 2), from" in out
    for line in (
        "precision    float32",
        "processes    1, on CPU",
        "batch        4 samples a step (2 a process x 2 rounds)",
        "24 samples, 6.0 steps an epoch, 0.5 epochs in all",
        "checkpoints  at the end, the newest 2 kept, in run",
        "validation   none",
    ):
        assert line in out, out
    assert out.count("step 3/3 | total_loss") == 1
    end = out[out.index("done: run") :]
    assert "log         run/metrics.jsonl" in end
    assert "checkpoint  run/checkpoint-000003" in end
    assert 'next        fastvideo-distill sample run --prompt "..."' in end


def test_what_a_run_says_at_its_end_names_only_commands_that_the_family_has(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = {
        "recipe": {"family": "toy", "method": "finetune"},
        "roles": {"student": {"path": "toy/base", "trainable": True}},
        "training": {"output_dir": "run", "max_train_steps": 1, "learning_rate": 1e-3},
    }
    with toy_family():
        assert main([str(write_run(tmp_path / "run.yaml", run))]) == 0
    end = capsys.readouterr().out.partition("done: run")[2]
    assert "fastvideo-distill report run" in end
    assert "fastvideo-distill sample" not in end
    assert "fastvideo-distill export" not in end


def test_the_next_command_it_names_works(run_file, capsys):
    assert main([str(run_file), "--quiet"]) == 0
    assert main(["report", "run"]) == 0
    environment = json.loads(Path("run/environment.json").read_text())
    assert set(environment["versions"]) == {"torch", "fastvideo-core", "fastvideo-wan", "fastvideo-finetune"}
    assert "fastvideo-wan" in Path("run/run.yaml").read_text().splitlines()[0]
    assert environment["python"] in Path("run/report.html").read_text()


def test_quiet_says_where_the_run_is_and_no_more(run_file, capsys):
    assert main([str(run_file), "--quiet"]) == 0
    assert capsys.readouterr().out == "done: run\n"


def test_verbose_shows_every_metric(run_file, capsys):
    assert main([str(run_file), "--verbose"]) == 0
    steps = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step ")]
    assert len(steps) == 3
    assert all("data_x0/mean" in line for line in steps)


def test_json_is_one_object_a_line(run_file, capsys):
    assert main([str(run_file), "--json"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    told = [event["event"] for event in events if event["event"] != "log"]
    assert told == ["start", "step", "step", "step", "done"]
    logged = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert [event["total_loss"] for event in events if event["event"] == "step"] == [
        one["total_loss"] for one in logged
    ]
    assert events[-1]["checkpoint"] == "run/checkpoint-000003"


def test_two_ways_of_speaking_at_once_are_refused(run_file, capsys):
    assert main([str(run_file), "--quiet", "--json"]) == 2
    assert "not allowed with argument" in capsys.readouterr().err


def test_a_resumed_run_says_after_which_step(run_file, capsys):
    assert main([str(run_file), "--quiet"]) == 0
    run_file.write_text(run_file.read_text().replace("max_train_steps: 3", "max_train_steps: 4"))
    assert main([str(run_file), "--resume", "latest"]) == 0
    assert "finetune of wan: 4 steps, goes on after step 3" in capsys.readouterr().out


def test_a_line_holds_losses_rates_speed_and_the_time_left():
    stream = io.StringIO()
    LogLines(stream).show(LoggedStep(5, 10, METRICS, 3661.0))
    assert stream.getvalue() == (
        "step 5/10 | total_loss 0.2500 | lr/student 1.00e-03 | lr/critic 1.00e-03 | 2.00 s/it | 4.00 samples/s | "
        "mem 2.00 GiB | ETA 1:01:01\n"
    )


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_the_bar_is_rewritten_in_place():
    stream = Terminal()
    display = display_for(stream)
    assert isinstance(display, TerminalBar)
    for step in (8, 9, 10):
        display.show(LoggedStep(step, 10, METRICS, 1.0))
    display.close()
    shown = stream.getvalue()
    assert "10/10 |" in shown
    assert "total_loss 0.2500" in shown
    assert shown.count("\n") == 1
    assert shown.count("\r") >= 3
    assert "| ETA 0:00:01 | total_loss" in shown  # first, as the terminal's edge cuts off the end
    assert isinstance(display_for(io.StringIO()), LogLines)


def test_a_terminal_without_a_width_gets_lines():
    controller, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 0, 0, 0, 0))
    with os.fdopen(controller, "rb"), os.fdopen(terminal, "w") as stream:
        assert isinstance(display_for(stream), LogLines)
        fcntl.ioctl(stream, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        assert isinstance(display_for(stream), TerminalBar)


def test_a_log_message_has_a_line_of_its_own_beside_the_bar(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # pytest's own
    out = Console()
    out.set_up_logging()
    display = out.display()
    display.show(LoggedStep(1, 10, METRICS, 1.0))
    logging.getLogger("fastvideo_core").warning("step 2 is skipped")
    display.close()
    shown = re.split(r"[\r\n]+", terminal.getvalue())
    assert "step 2 is skipped" in shown
    assert shown[-2].startswith("1/10 |")


CALLBACK = """
from fastvideo_core import Callback, PluginConfig, register_callback

class NoConfig(PluginConfig):
    pass

@register_callback("nothing", config=NoConfig)
class Nothing(Callback):
    pass
"""


def test_next_commands_work_for_paths_with_spaces_and_plug_ins_from_files(run_file, tmp_path, capsys):
    run_file.write_text(run_file.read_text().replace("output_dir: run", "output_dir: a run"))
    plugin = tmp_path / "my plugin.py"
    plugin.write_text(CALLBACK)
    assert main([str(run_file), "--plugin", str(plugin)]) == 0
    end = capsys.readouterr().out
    commands = [
        shlex.split(line.partition("fastvideo-distill ")[2]) for line in end.splitlines() if "-distill " in line
    ]
    assert commands == [
        ["sample", "a run", "--prompt", "...", "--plugin", str(plugin)],
        ["export", "a run", "OUT", "--plugin", str(plugin)],
        ["report", "a run"],
    ]


def test_json_has_no_numbers_that_are_not_finite():
    stream = io.StringIO()
    JsonLines(stream).show(LoggedStep(1, 2, {**METRICS, "total_loss": float("nan")}, 1.0))
    assert json.loads(stream.getvalue())["total_loss"] == "nan"


class Broken(io.StringIO):
    """A stream whose reader goes after some writes."""

    def __init__(self, writes: int) -> None:
        super().__init__()
        self._left = writes

    def write(self, text: str) -> int:
        self._left -= 1
        if self._left < 0:
            raise BrokenPipeError(32, "Broken pipe")
        return super().write(text)


@pytest.mark.parametrize(("mode", "writes"), [("", 0), ("", 20), ("--verbose", 20), ("--json", 0), ("--json", 4)])
def test_a_run_goes_on_when_nobody_reads_its_output(run_file, monkeypatch, mode, writes):
    error = io.StringIO()
    monkeypatch.setattr("sys.stdout", Broken(writes))
    monkeypatch.setattr("sys.stderr", error)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # pytest's own
    assert main([str(run_file), *([mode] if mode else [])]) == 0
    assert Path("run/checkpoint-000003").is_dir()
    said = error.getvalue()
    assert said.count("the run's steps cannot be shown: BrokenPipeError") <= 1
    assert "standard output cannot be written ([Errno 32] Broken pipe); the run goes on without it" in said
    assert "Traceback" not in said


def test_a_run_goes_on_when_nobody_reads_its_messages(run_file, monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr", Broken(0))
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # pytest's own
    assert main([str(run_file), "--resume", "none"]) == 2
    assert main([str(run_file)]) == 0
    assert "step 3/3" in capsys.readouterr().out


def test_a_display_that_fails_is_reported_once_and_tried_again(caplog):
    stream = Broken(1)
    progress = Progress(3, 0, 1, LogLines(stream), {})
    for step in (1, 2, 3):
        progress.measure(step)
        progress.show(step, METRICS)
    assert stream.getvalue().count("step 1/3") == 1
    assert [record.getMessage().partition(" (")[0] for record in caplog.records] == [
        "the run's steps cannot be shown: BrokenPipeError: [Errno 32] Broken pipe"
    ]
    stream._left = 1
    progress.show(3, METRICS)
    assert "step 3/3" in stream.getvalue()


def test_what_a_full_disk_does_not_take_is_given_up(monkeypatch):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr("sys.stdout", full)
        print("step 1")
        with pytest.raises(OSError, match="No space left"):
            full.flush()
        drop_unwritten()
        full.flush()  # as Python does when it ends


def test_a_message_that_cannot_be_made_is_shown_as_logging_shows_it(monkeypatch):
    error = io.StringIO()
    monkeypatch.setattr("sys.stderr", error)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # pytest's own
    Console().set_up_logging()
    logging.getLogger("fastvideo_core").warning("%d steps", "three")
    assert "--- Logging error ---" in error.getvalue()


def test_a_full_disk_before_the_first_step_is_one_message_and_loses_no_file(run_file, capsys, monkeypatch):
    folder = Path("run")
    folder.mkdir()
    (folder / "run.yaml").write_text("an earlier start's")
    write_text = Path.write_text

    def full(path: Path, text: str, **options: Any) -> int:
        if path.name == ".run.yaml.tmp":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return write_text(path, text, **options)

    monkeypatch.setattr(Path, "write_text", full)
    assert main([str(run_file)]) == 1
    error = capsys.readouterr().err
    assert "error: run/run.yaml: cannot be written: No space left on device" in error
    assert "fix: free space" in error
    assert "Traceback" not in error
    assert {path.name for path in folder.iterdir()} == {".run.lock", "run.yaml"}
    assert (folder / "run.yaml").read_text() == "an earlier start's"


def test_a_run_says_that_a_loader_keeps_no_position(tmp_path, caplog):
    def started(steps: int, **training: Any) -> DistillRuntime:
        training |= {"output_dir": str(tmp_path / "run"), "max_train_steps": steps}
        roles = {"student": {"path": "toy/base", "trainable": True}}
        recipe = {"family": "toy", "method": "finetune"}
        made = build_run(tmp_path, {"recipe": recipe, "roles": roles, "training": training})
        assert summary.plan(made)["data"] == "the family's own"
        return dataclasses.replace(made, dataloader=list(itertools.islice(made.dataloader, 2)))

    with toy_world():
        first = started(1)
        assert summary.plan(first)["data"] == "the family's own; it keeps no position: a resumed run starts it over"
        first.train()
        assert not caplog.records
        started(2, resume_from_checkpoint="latest").train()
    assert "keeps no position (it has no state_dict): its data starts over" in caplog.text
