"""What happens to a run of two processes when it is asked to stop, or when one of them fails; with the real command."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from fastvideo_core.checkpoint import storage
from fastvideo_core.launch.signals import ENDED_AT_ONCE
from fastvideo_testing.waiting import LIMIT, wait_until
from tests.conftest import write_run
from tests.distributed.forked_launcher import Program

pytestmark = [pytest.mark.slow, pytest.mark.distributed]

PLUGIN = '''
import errno, os, signal, threading, time
import torch
from fastvideo_data import video_validator
from fastvideo_core.checkpoint import storage
from fastvideo_core.launch import peers
from fastvideo_core.contracts.validator import ValidationPrompt
from fastvideo_core.contracts.validator import SampledVideo
from fastvideo_data.video_validator import SamplingValidator
from fastvideo_core.errors import DataError
from fastvideo_core import Callback, PluginConfig, hookimpl, register_callback, register_model
from fastvideo_testing.toy import ToyConfig, build_toy_components

register_model("toy", config=ToyConfig)(build_toy_components)

class Shared:
    """A sampler of a sharded network: all processes take part in every video."""

    def sample(self, request, prompt, generator):
        torch.distributed.all_reduce(torch.ones(7))
        return SampledVideo(torch.zeros(3, 16, 16, 3, dtype=torch.uint8), 8.0)

@register_model("validated", config=ToyConfig)
def build_validated(cfg):
    components = build_toy_components(cfg)
    components.validator = SamplingValidator(Shared(), [ValidationPrompt("x")], seed=0)
    return components

def no_video(path, *args, **options):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

def full_disk(folder, document, original=storage.write_document):
    if document.step == 60:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    original(folder, document)

def hang(rank):
    """Leaves a file when it begins to hang, and another one when it has heard of a first interrupt."""
    open(f"hangs-{rank}", "w").close()
    signals = signal.getsignal(signal.SIGINT).__self__
    while not signals.request:
        time.sleep(0.01)
    open(f"heard-{rank}", "w").close()
    time.sleep(1000)

class FaultConfig(PluginConfig):
    kind: str
    at: int = 3
    rank: int = 1

@register_callback("fault", config=FaultConfig)
class Fault(Callback):
    """Something that happens to one rank after a step; the others go on."""

    @hookimpl
    def train_start(self):
        if self.config.kind == "full":
            storage.write_document = full_disk
        if self.config.kind == "no video":
            video_validator.write_video = no_video
        if self.config.kind in ("gone", "gone unnoticed"):
            peers._GRACE = 1 if self.config.kind == "gone" else 10_000
            if int(os.environ["RANK"]) == self.config.rank:
                os.kill(os.getpid(), signal.SIGKILL)
            open("waits", "w").close()

    @hookimpl
    def step_end(self, step):
        time.sleep(0.05)
        if self.config.kind == "hangs" and step == self.config.at:
            hang(os.environ.get("RANK", "0"))  # all of them
        if self.config.kind == "one hangs" and step == self.config.at and os.environ["RANK"] == "0":
            hang(0)
        if self.config.kind == "full" and step == 62:
            while any(thread.name == "fastvideo-checkpoint" for thread in threading.enumerate()):
                time.sleep(0.01)  # the failed checkpoint of step 60 comes to its end
        if step != self.config.at or int(os.environ.get("RANK", 0)) != self.config.rank:
            return
        if self.config.kind == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.config.kind == "raises":
            raise DataError("the third step's data is missing")
        if self.config.kind == "crashes":
            raise RuntimeError("something is broken")
        if self.config.kind == "terminated":
            os.kill(os.getpid(), signal.SIGTERM)

    @hookimpl
    def checkpoint_saved(self, path):
        if self.config.kind == "late":
            time.sleep(3)  # on the main process alone
            (path / "heard").touch()

    @hookimpl
    def before_optimizer_step(self, method, step):
        if self.config.kind == "nan" and step in (3, 4) and int(os.environ.get("RANK", 0)) == self.config.rank:
            for parameter in method.bundle["student"].trainable_parameters():
                local = parameter.grad.to_local() if hasattr(parameter.grad, "to_local") else parameter.grad
                local.fill_(float("nan"))
'''


def run_yaml(folder: Path, fault: dict[str, Any], steps: int = 10_000, **training: Any) -> dict[str, Any]:
    return {
        "recipe": {"family": "toy", "method": "finetune"},
        "roles": {"student": {"path": "toy/base", "trainable": True}},
        "training": {
            "output_dir": str(folder / "run"),
            "max_train_steps": steps,
            "learning_rate": 1e-2,
            "num_gpus": 2,
            **training,
        },
        "callbacks": {"fault": fault, "ema": {"decay": 0.9}},
    }


ENVIRONMENT = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def written(folder: Path, run: dict[str, Any]) -> list[str]:
    """What comes behind `python -m fastvideo_core` for this run."""
    plugin = folder / "plugin.py"
    plugin.write_text(PLUGIN)
    return [str(write_run(folder / "run.yaml", run)), "--plugin", str(plugin)]


@contextmanager
def started(folder: Path, run: dict[str, Any]) -> Iterator[Program]:
    """The launcher and its processes, forked."""
    process = Program("fastvideo_core.cli.main", written(folder, run), folder, {**os.environ, **ENVIRONMENT})
    with ended_after(process):
        yield process


@contextmanager
def started_as_programs(folder: Path, run: dict[str, Any], *before: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*before, sys.executable, "-m", "fastvideo_core", *written(folder, run)],
        cwd=folder,
        env={**os.environ, **ENVIRONMENT},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with ended_after(process):
        yield process


@contextmanager
def ended_after(process: Program | subprocess.Popen[str]) -> Iterator[None]:
    try:
        yield
    finally:
        for pid in workers(process) if process.poll() is None else []:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)  # one that was stopped would hold the pipes open for ever
        process.kill()
        process.communicate()


def steps_of(folder: Path) -> list[dict[str, Any]]:
    path = folder / "run" / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def wait_for_step(folder: Path, step: int, process: Program | subprocess.Popen[str] | None = None) -> None:
    wait_until(lambda: any(line["step"] >= step for line in steps_of(folder)), f"step {step}", process)


def workers(process: Program | subprocess.Popen[str]) -> list[int]:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(pid) for pid in children]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_a_stop_reaches_all_processes_at_the_same_step(tmp_path, number, status):
    with started(tmp_path, run_yaml(tmp_path, {"kind": "none"})) as process:
        wait_for_step(tmp_path, 2, process)
        process.send_signal(number)
        _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == status, err
    latest = storage.resolve_checkpoint(tmp_path / "run")
    last = steps_of(tmp_path)[-1]["step"]
    assert latest.name == f"checkpoint-{last:06d}"
    assert err.count(f"stopped by {number.name} after step {last}, and saved as {latest.name}") == 1
    assert "Traceback" not in err


def test_the_main_process_ends_its_work_when_the_others_have_left(tmp_path):
    with started(tmp_path, run_yaml(tmp_path, {"kind": "late"})) as process:
        wait_for_step(tmp_path, 2, process)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 143, err
    assert (storage.resolve_checkpoint(tmp_path / "run") / "heard").exists()
    assert err.count("stopped by SIGTERM after step") == 1


def test_a_checkpoint_that_only_the_main_process_knows_to_have_failed_ends_the_run_on_all(tmp_path):
    run = run_yaml(tmp_path, {"kind": "full"}, training_state_checkpointing_steps=60)
    with started(tmp_path, run) as process:
        _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 1, err
    latest = storage.resolve_checkpoint(tmp_path / "run").name
    assert "checkpoint-000060 (process 0): the checkpoint could not be written: No space left on device" in err
    assert f"{latest}: the run ends for that" in err
    assert int(latest[-6:]) < 120  # where the next one is due
    assert steps_of(tmp_path)[-1]["step"] == int(latest[-6:])
    assert "Traceback" not in err


def test_a_validation_that_cannot_be_written_ends_for_all_alike_and_training_goes_on(tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("x")
    validation = {"log_validation": True, "validation_steps": 2, "validation_dataset_file": str(prompts)}
    run = run_yaml(
        tmp_path,
        {"kind": "no video"},
        5,
        **validation,
        validation_sampling_steps="2,3",
        validation_guidance_scale="1,1",
    )
    run["recipe"]["family"] = "validated"
    with started(tmp_path, run) as process:
        _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, err
    assert [line["step"] for line in steps_of(tmp_path)] == [1, 2, 3, 4, 5]
    assert err.count("a sampled video could not be written: No space left on device") == 2
    assert err.count("training goes on") == 2


def test_a_signal_to_one_process_stops_all_of_them(tmp_path):
    with started(tmp_path, run_yaml(tmp_path, {"kind": "terminated"})) as process:
        _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 143, err
    assert storage.resolve_checkpoint(tmp_path / "run").name == "checkpoint-000004"
    assert err.count("stopped by SIGTERM after step 4") == 1


def test_under_nohup_a_hang_up_ends_neither_the_launcher_nor_its_processes(tmp_path):
    with started_as_programs(tmp_path, run_yaml(tmp_path, {"kind": "none"}), "nohup") as process:
        wait_for_step(tmp_path, 2)
        for pid in (process.pid, *workers(process)):
            os.kill(pid, signal.SIGHUP)
        wait_for_step(tmp_path, steps_of(tmp_path)[-1]["step"] + 3)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 143, err


def test_sigusr1_saves_on_all_processes_and_the_run_goes_on(tmp_path):
    with started(tmp_path, run_yaml(tmp_path, {"kind": "none"})) as process:
        wait_for_step(tmp_path, 2, process)
        process.send_signal(signal.SIGUSR1)
        wait_until(lambda: list((tmp_path / "run").glob("checkpoint-*")), "the checkpoint asked for", process)
        saved = int(storage.resolve_checkpoint(tmp_path / "run").name[-6:])
        wait_for_step(tmp_path, saved + 3, process)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=LIMIT)
    assert process.returncode == 143


def interrupt_twice_while_it_hangs(process: Program | subprocess.Popen[str], folder: Path, processes: int) -> None:
    """The second one comes when the first one has reached the processes: two at once would be one to them."""
    wait_until(lambda: len(list(folder.glob("hangs-*"))) == processes, "a step that does not end", process)
    process.send_signal(signal.SIGINT)
    wait_until(lambda: len(list(folder.glob("heard-*"))) == processes, "the first interrupt is heard", process)
    process.send_signal(signal.SIGINT)


def status_of(pid: int, name: str) -> str:
    """What the system says of a process; empty when it is gone."""
    try:
        found = re.search(rf"^{name}:\s*(\w+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return found[1] if found is not None else ""


def is_pending(pid: int, number: signal.Signals) -> bool:
    """Whether a signal was sent to a process that has not taken it yet; sure to be seen of a stopped process alone."""
    return bool(int(status_of(pid, "ShdPnd") or "0", 16) >> (number - 1) & 1)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_second_interrupt_ends_a_step_that_does_not_end(tmp_path, processes):
    with started(tmp_path, run_yaml(tmp_path, {"kind": "hangs"}, num_gpus=processes)) as process:
        interrupt_twice_while_it_hangs(process, tmp_path, processes)
        _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 130, err
    assert steps_of(tmp_path)[-1]["step"] <= 3
    assert err.count(ENDED_AT_ONCE) == 1
    assert "rror" not in err, err


@pytest.mark.parametrize("processes", [1, 2])
def test_a_second_interrupt_needs_nobody_who_reads(tmp_path, processes):
    """As with `| tee log`, which the first one ends."""
    with started_as_programs(tmp_path, run_yaml(tmp_path, {"kind": "hangs"}, num_gpus=processes)) as process:
        wait_for_step(tmp_path, 2, process)
        for stream in (process.stdout, process.stderr):
            stream.close()
        interrupt_twice_while_it_hangs(process, tmp_path, processes)
        assert process.wait(timeout=LIMIT) == 130
        process.stdout = process.stderr = None


def test_what_a_process_meets_when_a_second_interrupt_ended_its_peer_is_no_error_of_the_run(tmp_path):
    """The launcher has two interrupts; one process has two, and the other one, which waits for it inside a collective, one."""
    with started(tmp_path, run_yaml(tmp_path, {"kind": "one hangs"})) as process:
        wait_until(lambda: (tmp_path / "hangs-0").exists(), "a step that does not end", process)
        first, late = workers(process)
        for pid in (first, late):
            os.kill(pid, signal.SIGSTOP)
        # An interrupt that comes before a process has stopped is taken, and never seen to be pending.
        wait_until(lambda: status_of(first, "State") == status_of(late, "State") == "T", "both have stopped", process)
        process.send_signal(signal.SIGINT)
        wait_until(
            lambda: all(is_pending(pid, signal.SIGINT) for pid in (first, late)), "both are interrupted", process
        )
        process.send_signal(signal.SIGINT)  # handed on to processes that have one pending, it adds none
        wait_until(lambda: not is_pending(process.pid, signal.SIGINT), "the launcher has the second one", process)
        os.kill(late, signal.SIGCONT)
        wait_until(lambda: not is_pending(late, signal.SIGINT), "the late one has it", process)
        with suppress(ProcessLookupError):  # the launcher was slow to hand it on: the late one has both, and has ended
            os.kill(first, signal.SIGCONT)
            gone = ("", "Z")
            wait_until(
                lambda: (tmp_path / "heard-0").exists() or status_of(first, "State") in gone, "the first one has it"
            )
            os.kill(first, signal.SIGINT)
        _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 130, err
    assert "stopped by" not in err
    assert err.count(ENDED_AT_ONCE) == 1
    assert "rror" not in err, err


@pytest.mark.parametrize(
    ("kind", "status", "text"),
    [
        ("raises", 2, "error: the third step's data is missing"),
        ("crashes", 1, "callback 'fault' failed in its hook 'step_end': RuntimeError: something is broken"),
        ("killed", 137, "error: process 1 of 2 (pid "),
    ],
)
def test_the_first_error_is_shown_once_and_ends_the_others_quickly(tmp_path, kind, status, text):
    with started(tmp_path, run_yaml(tmp_path, {"kind": kind})) as process:
        wait_for_step(tmp_path, 2, process)  # it happens after step 3
        _, err = process.communicate(timeout=LIMIT)  # long before gloo would give up
    assert process.returncode == status, err
    assert err.count(text) == 1
    assert "Connection" not in err, err  # what the other process noticed
    assert "ChildFailedError" not in err
    assert "torch/distributed/elastic" not in err
    if kind == "killed":
        assert "was killed by the system with SIGKILL; the others were ended" in err
        assert "fewer dataloader_num_workers" in err


def test_the_newest_checkpoint_counts_also_where_a_kill_left_it_put_aside(tmp_path):
    run = run_yaml(tmp_path, {"kind": "none"}, steps=6, training_state_checkpointing_steps=3)
    with started(tmp_path, run) as process:
        _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, err
    folder = tmp_path / "run"
    (folder / "checkpoint-000006").rename(folder / ".checkpoint-000006.replaced")
    run["training"] |= {"max_train_steps": 8, "resume_from_checkpoint": "latest"}
    with started(tmp_path, run) as process:
        _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, err
    assert [line["step"] for line in steps_of(tmp_path)] == list(range(1, 9))
    assert storage.resolve_checkpoint(folder).name == "checkpoint-000008"
    assert (folder / "checkpoint-000006").is_dir()


def test_a_gradient_that_one_process_spoils_is_skipped_by_all(tmp_path):
    run = run_yaml(tmp_path, {"kind": "nan"}, steps=6)
    with started(tmp_path, run) as process:
        _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, err
    assert [line["skipped_steps"] for line in steps_of(tmp_path)] == [0, 0, 1, 1, 0, 0]
    assert err.count("step 3 is skipped: grad_norm is nan, grad_norm/student is nan (1 in a row, 1 in all)") == 1
