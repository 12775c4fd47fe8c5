"""Processes that somebody else started: torchrun, accelerate launch, srun, and what the documentation says of them."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fastvideo_testing.waiting import LIMIT, wait_until
from tests.conftest import write_run
from tests.distributed.forked_launcher import Program
from tests.distributed.test_faults import PLUGIN, ended_after, run_yaml, started, wait_for_step, workers
from tests.test_docs import example

pytestmark = [pytest.mark.distributed, pytest.mark.slow]
PAGE = "docs/multi-node.md"


def environment(**own: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "RANK", "WORLD_SIZE"))}
    return {**kept, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **own}


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def write(folder: Path, fault: str, steps: int = 3, **training: Any) -> list[str]:
    """What comes behind `fastvideo-distill` for a toy run of two processes with a fault."""
    (folder / "plugin.py").write_text(PLUGIN)
    config = write_run(folder / "run.yaml", run_yaml(folder, {"kind": fault}, steps, **training))
    return [str(config), "--plugin", str(folder / "plugin.py")]


def under_torchrun(folder: Path, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return two_under_torchrun(folder, ["-m", "fastvideo_core", *arguments])


def two_under_torchrun(folder: Path, what: list[str]) -> subprocess.CompletedProcess[str]:
    return ended(Program("torch.distributed.run", ["--standalone", "--nproc-per-node=2", *what], folder, environment()))


def ended(process: Program | subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    try:
        out, err = process.communicate(timeout=LIMIT)
    finally:
        process.kill()
    return subprocess.CompletedProcess([], process.returncode or 0, out, err)


@pytest.mark.parametrize("name", ["train.sbatch", "srun.sbatch", "torchrun", "accelerate"])
def test_the_scripts_of_the_page_are_bash(name):
    subprocess.run(["bash", "-n"], input=example(PAGE, name), text=True, check=True)


@pytest.mark.parametrize(
    ("name", "module", "here"),
    [
        (
            "torchrun",
            "torch.distributed.run",
            {"nnodes": "1", "nproc-per-node": "2", "rdzv-endpoint": "127.0.0.1:{port}"},
        ),
        (
            "accelerate",
            "accelerate.commands.launch",
            {"num_machines": "1", "num_processes": "2", "main_process_ip": "127.0.0.1", "main_process_port": "{port}"},
        ),
    ],
)
def test_the_page_s_commands_train(tmp_path, name, module, here):
    """With what belongs to the cluster replaced: one node of two processes, here."""
    command = shlex.split(example(PAGE, name))
    assert command[0] == name
    options = {f"--{option}": value.format(port=free_port()) for option, value in here.items()}
    given = [part.partition("=") for part in command if part.startswith("--")]
    assert options.keys() <= {option for option, _, _ in given}
    parts = [f"{option}={options.get(option, value)}" if value else option for option, _, value in given]
    assert command[-3:] == ["-m", "fastvideo_core", "run.yaml"]
    arguments = write(tmp_path, "none")
    ran = subprocess.run(
        [sys.executable, "-m", module, *parts, *command[-3:-1], *arguments],
        cwd=tmp_path,
        env=environment(HF_HOME=str(tmp_path / "hf")),  # no accelerate configuration of this machine's user
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("done: ") == 1
    assert '"world_size": 2' in (tmp_path / "run" / "checkpoint-000003" / "state.json").read_text()


def test_the_sbatch_script_hands_torchrun_what_it_needs(tmp_path):
    """Run with stand-ins for the commands of the cluster, which note what they are given; of more nodes than a pipe holds."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, body in (("scontrol", "seq -f node%.0f 100000"), ("srun", 'printf "%s\\n" "$@"')):
        path = folder / name
        path.write_text(f"#!/bin/bash\n{body}\n")
        path.chmod(0o755)
    env = environment(PATH=f"{folder}:{os.environ['PATH']}", SLURM_JOB_NODELIST="node[1-2]", SLURM_NNODES="2")
    env["SLURM_JOB_ID"] = "77"
    for earlier in (False, True):
        if earlier:
            (tmp_path / "outputs" / "distill" / "checkpoint-000010").mkdir(parents=True)
        ran = subprocess.run(
            ["bash", "-c", example(PAGE, "train.sbatch")],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            check=True,
        )
        given = ran.stdout.split("\n")
        assert given[:2] == ["torchrun", "--nnodes=2"]
        assert "--rdzv-endpoint=node1:29500" in given
        assert "--rdzv-id=77" in given
        assert given[-4:-1] == (["run.yaml", "--resume", "latest"] if earlier else ["-m", "fastvideo_core", "run.yaml"])


def slurm_tasks(folder: Path, arguments: list[str], **further: str) -> list[subprocess.CompletedProcess[str]]:
    """Two processes as `srun --ntasks=2` starts them on one node."""
    common = {
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_JOB_ID": f"{os.getpid()}",
        "SLURM_STEP_ID": f"{time.time_ns()}",
        **further,
    }
    own = [{"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), "TMPDIR": str(folder)} for rank in range(2)]
    given = [environment(**common, **one) for one in own]
    # Real programs begin at the same time and import for long: one that fails before the other begins is of another launch.
    command, pipes = (
        [sys.executable, "-m", "fastvideo_core", *arguments],
        {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE},
    )
    processes = [subprocess.Popen(command, cwd=folder, env=one, text=True, **pipes) for one in given]
    return [ended(process) for process in processes]


def test_tasks_of_srun_are_one_run(tmp_path):
    tasks = slurm_tasks(tmp_path, write(tmp_path, "none"), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port()))
    assert [task.returncode for task in tasks] == [0, 0], tasks[0].stderr
    assert "".join(task.stdout for task in tasks).count("done: ") == 1
    assert '"world_size": 2' in (tmp_path / "run" / "checkpoint-000003" / "state.json").read_text()


@contextmanager
def started_by_hand(folder: Path, fault: str) -> Iterator[list[Program]]:
    """Two processes that nobody looks after."""
    arguments = write(folder, fault)
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    given = [environment(**common, RANK=str(rank), LOCAL_RANK=str(rank)) for rank in range(2)]
    processes = [Program("fastvideo_core.cli.main", arguments, folder, one) for one in given]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def test_a_process_ends_with_words_when_its_peer_was_killed_before_the_first_step(tmp_path):
    with started_by_hand(tmp_path, "gone") as (survivor, _):
        _, error = survivor.communicate(timeout=LIMIT)
    assert survivor.returncode == 1
    assert error.count("error: process 1 of 2 is gone: it failed or was killed, or its machine was lost") == 1
    assert "--resume latest goes on from the last checkpoint" in error
    assert "Traceback" not in error


def test_a_process_that_waits_for_a_killed_peer_heeds_sigterm_at_once(tmp_path):
    with started_by_hand(tmp_path, "gone unnoticed") as (survivor, killed):
        wait_until((tmp_path / "waits").exists, "the survivor", survivor)
        killed.communicate(timeout=LIMIT)
        assert killed.returncode == -signal.SIGKILL
        survivor.terminate()
        _, error = survivor.communicate(timeout=LIMIT)
    assert survivor.returncode == 128 + signal.SIGTERM
    assert "stopped by SIGTERM before the first step: there is nothing to save" in error


def test_processes_that_were_started_by_hand_leave_in_order(tmp_path):
    with started_by_hand(tmp_path, "none") as processes:
        said = [process.communicate(timeout=LIMIT)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert "gone" not in "".join(said)


def test_tasks_of_srun_that_cannot_meet_say_so_once(tmp_path):
    tasks = slurm_tasks(tmp_path, write(tmp_path, "none"))
    assert [task.returncode for task in tasks] == [2, 2]
    said = "".join(task.stderr for task in tasks)
    assert said.count("srun started 2 processes, but MASTER_ADDR and MASTER_PORT are not set") == 1
    assert "scontrol show hostnames" in said


@pytest.mark.parametrize(
    ("fault", "training", "text"),
    [
        ("raises", {}, "error: the third step's data is missing"),
        ("none", {"num_gpus": 4}, "error: .*training.num_gpus is 4, and the launcher started 2 processes"),
    ],
)
def test_under_torchrun_the_first_error_is_shown_once(tmp_path, fault, training, text):
    ran = under_torchrun(tmp_path, write(tmp_path, fault, **training))
    assert ran.returncode != 0
    assert len(re.findall(text, ran.stderr)) == 1, ran.stderr
    assert "Connection" not in ran.stderr, ran.stderr


def test_under_torchrun_its_processes_count_where_num_gpus_is_left_out(tmp_path):
    arguments = write(tmp_path, "none", hsdp_replicate_dim=2)
    file = tmp_path / "run.yaml"
    file.write_text(file.read_text().replace("  num_gpus: 2\n", ""))
    ran = under_torchrun(tmp_path, arguments)
    assert ran.returncode == 0, ran.stderr
    assert "every role in 1 shards, 2 replicas" in ran.stdout
    assert "num_gpus: 2\n" in (tmp_path / "run" / "run.yaml").read_text()


SCRIPT = """
import json
import torch.distributed as dist
from pathlib import Path
from fastvideo_core import train
from fastvideo_testing import toy_world

roles = {name: {"path": f"toy/{name}", "trainable": name == "student"} for name in ("student", "teacher")}
run = {"recipe": {"family": "toy", "method": "toy"}, "roles": roles}
with toy_world():
    losses = []
    for folder in ("first", "second"):
        steps = train({**run, "training": {"output_dir": folder, "max_train_steps": 2, "learning_rate": 1e-3}})
        losses.append([step["total_loss"] for step in steps])
Path(f"{dist.get_rank()}.json").write_text(json.dumps(losses))
dist.destroy_process_group()
"""


def test_a_script_trains_twice_under_torchrun_and_each_process_gets_the_steps(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    ran = two_under_torchrun(tmp_path, ["script.py"])
    assert ran.returncode == 0, ran.stderr
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first == second
    assert first[0] == first[1]
    assert len(first[0]) == 2
    assert ran.stdout.count("step 2/2") == 2
    assert "num_gpus: 2\n" in (tmp_path / "second" / "run.yaml").read_text()


def test_a_torchrun_that_is_asked_to_end_leaves_a_checkpoint_and_ends_with_1(tmp_path):
    arguments = write(tmp_path, "none", steps=10_000)
    options = ["--standalone", "--nproc-per-node=2", "--shutdown-timeout=60", "-m", "fastvideo_core"]
    process = Program("torch.distributed.run", [*options, *arguments], tmp_path, environment())
    with ended_after(process):
        wait_for_step(tmp_path, 2, process)
        process.terminate()
        _, said = process.communicate(timeout=LIMIT)
    assert process.returncode == 1, said
    assert said.count("stopped by SIGTERM after step") == 1, said
    assert len(list((tmp_path / "run").glob("checkpoint-*"))) == 1


def test_processes_end_in_order_when_their_launcher_is_killed(tmp_path):
    with started(tmp_path, run_yaml(tmp_path, {"kind": "none"})) as process:
        wait_for_step(tmp_path, 2, process)
        own = workers(process)
        assert len(own) == 2
        process.send_signal(signal.SIGKILL)
        process.communicate()
        wait_until(lambda: all(is_zombie(pid) for pid in own), "the processes end after their launcher")
    assert len(list((tmp_path / "run").glob("checkpoint-*"))) == 1


def is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True
