"""What a run does when it is asked to stop while it validates, or when the validation fails, and how it counts the time."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import signal

import pytest
import torch
from torch import nn

from fastvideo_core.checkpoint import storage
from fastvideo_core.checkpoint.manager import CheckpointManager
from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_core.contracts.validator import SampledVideo, ValidationPrompt, ValidationRequest
from fastvideo_core.errors import RunStopped
from fastvideo_core.tracking.display import JsonLines, LogLines, Sampling, TerminalBar
from fastvideo_core.tracking.progress import Progress
from fastvideo_core.training.trainer import DistillTrainer
from fastvideo_core.training.validation import ValidationError
from fastvideo_data.video_validator import SamplingValidator

from .one_weight import Linear, config_of, metrics_of, numbers, run

PROMPTS = tuple(ValidationPrompt(caption) for caption in ("a red ball", "a blue ball", "a green ball"))


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x, *, timestep):
        self.calls += 1
        return x


class Sampler:
    """Ten steps with both halves of guidance; `at` is called before a network call (counted from 1, over all prompts)."""

    def __init__(self, at):
        self.at = at
        self.calls = 0

    def sample(self, request, prompt, generator):
        for level in torch.linspace(1000, 100, request.sampling_steps):
            for _ in range(2):
                self.calls += 1
                self.at(self.calls, prompt)
                request.sample_handle.modules["sampled"](torch.zeros(1), timestep=level.expand(1))
        frames = torch.randint(0, 256, (3, 16, 16, 3), generator=generator, dtype=torch.uint8)
        return SampledVideo(frames, fps=8.0)


class Validates(Linear):
    """Samples three prompts after every second step."""

    def __init__(self, folder, at=lambda call, prompt: None, **training):
        super().__init__(config_of(folder, log_validation=True, validation_steps=2, **training))
        self.bundle.roles["sampled"] = RoleHandle("sampled", {"sampled": Network()}, "toy")
        self.sampler = Sampler(at)
        self.validator = SamplingValidator(self.sampler, PROMPTS, seed=0)

    def log_validation(self, iteration):
        super().log_validation(iteration)
        request = ValidationRequest(self.bundle["sampled"], self.validation_dir(iteration), sampling_steps=10)
        self.validator.log_validation(iteration, request)


def sends(number, at):
    def send(call, prompt):
        if call == at:
            os.kill(os.getpid(), number)

    return send


# --- asked to stop ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)], ids=str
)
def test_a_stop_ends_the_sampling_before_the_next_network_call_and_saves(tmp_path, number, status):
    before = signal.getsignal(number)
    method = Validates(tmp_path, sends(number, at=27))
    with pytest.raises(RunStopped) as stopped:
        run(method, numbers(1), 9, every=100)
    assert stopped.value.exit_code == status
    assert str(stopped.value).startswith(f"stopped by {number.name} after step 2, and saved as checkpoint-000002")
    assert method.sampler.calls == 27
    assert method.bundle["sampled"].modules["sampled"].calls == 26
    assert storage.resolve_checkpoint(tmp_path).name == "checkpoint-000002"
    assert method.bundle["sampled"].modules["sampled"].training
    assert signal.getsignal(number) is before


def test_a_sampler_that_catches_everything_does_not_hold_a_stop_up(tmp_path):
    class Careless(Sampler):
        def sample(self, request, prompt, generator):
            while self.calls < 20:
                with contextlib.suppress(Exception):
                    self.calls += 1
                    self.at(self.calls, prompt)
                    request.sample_handle.modules["sampled"](torch.zeros(1), timestep=1.0)
            return SampledVideo(torch.zeros(3, 16, 16, 3, dtype=torch.uint8), fps=8.0)

    method = Validates(tmp_path)
    method.validator._sampler = method.sampler = Careless(sends(signal.SIGTERM, at=2))
    with pytest.raises(RunStopped):
        run(method, numbers(1), 9, every=100)
    assert method.sampler.calls == 2


def test_a_sampler_that_calls_no_role_s_network_is_left_between_prompts(tmp_path):
    class Alone:
        asked = 0

        def sample(self, request, prompt, generator):
            self.asked += 1
            os.kill(os.getpid(), signal.SIGTERM)
            return SampledVideo(torch.zeros(3, 16, 16, 3, dtype=torch.uint8), fps=8.0)

    method = Validates(tmp_path)
    method.validator._sampler = alone = Alone()
    with pytest.raises(RunStopped):
        run(method, numbers(1), 9, every=100)
    assert alone.asked == 1
    assert (tmp_path / "validation/step-000002/00.mp4").exists()


def test_a_stop_in_the_last_step_s_validation_leaves_a_run_that_is_done(tmp_path):
    method = Validates(tmp_path, sends(signal.SIGTERM, at=3))
    run(method, numbers(1), 2, every=100)
    assert storage.resolve_checkpoint(tmp_path).name == "checkpoint-000002"
    assert method.sampler.calls == 3


def test_a_request_to_save_lets_the_validation_go_on(tmp_path):
    method = Validates(tmp_path, sends(signal.SIGUSR1, at=3))
    run(method, numbers(1), 5, every=100)
    assert method.sampler.calls == 2 * 60
    assert [step for step in range(1, 6) if storage.checkpoint_path(tmp_path, step).exists()] == [3, 5]


def test_a_hang_up_that_the_process_was_started_to_ignore_stays_ignored(tmp_path):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        method = Validates(tmp_path, sends(signal.SIGHUP, at=3))
        run(method, numbers(1), 3)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
    assert [number for number, _ in method.seen] == [1, 2, 3]


# --- what fails ---------------------------------------------------------------------------------------------------


def blue_fails(error):
    def fail(call, prompt):
        if prompt.caption == "a blue ball":
            raise error

    return fail


ERRORS = [
    RuntimeError("Overflow when unpacking long long"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 80 GiB"),
    UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"),
    MemoryError(),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_prompt_that_fails_is_told_and_the_others_are_sampled_and_training_goes_on(tmp_path, caplog, error):
    method = Validates(tmp_path, blue_fails(error))
    watch = run(method, numbers(1), 5)
    assert [line["step"] for line in metrics_of(tmp_path)] == [1, 2, 3, 4, 5]
    assert method.validated == watch.of("validation_end") == [2, 4]
    written = sorted(path.name for path in (tmp_path / "validation/step-000004").glob("*.mp4"))
    assert written == ["00.mp4", "02.mp4"]
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(said) == 2
    assert said[1].startswith(f"validation prompt 2 of 3: {type(error).__name__}")
    assert "training goes on (training.on_validation_error: skip); validations that failed: 2" in said[1]


def test_a_validation_that_may_not_fail_ends_the_run_with_its_state_saved(tmp_path):
    method = Validates(tmp_path, blue_fails(RuntimeError("boom")), on_validation_error="error")
    with pytest.raises(ValidationError) as ended:
        run(method, numbers(1), 9, every=100)
    assert "validation prompt 2 of 3: RuntimeError: boom" in str(ended.value)
    assert "checkpoint-000002: the run ends for that; its state after step 2 is saved" in str(ended.value)
    assert ended.value.exit_code == 1
    assert storage.resolve_checkpoint(tmp_path).name == "checkpoint-000002"
    assert method.weight().item() == 2.0 - 2


def test_a_prompt_s_own_place_names_it(tmp_path, caplog):
    method = Validates(tmp_path)
    method.validator.prompts = (ValidationPrompt("x", where="prompts.json, entry 7"),)
    method.sampler.at = lambda call, prompt: 1 / 0
    run(method, numbers(1), 2)
    assert "prompts.json, entry 7: ZeroDivisionError: division by zero" in caplog.text


@pytest.mark.parametrize("broken", ["write_video", "write_contact_sheet"])
def test_a_video_that_cannot_be_written_ends_no_run(tmp_path, caplog, monkeypatch, broken):
    def fails(*args, **options):
        raise RuntimeError("the encoder gave up")

    monkeypatch.setattr(f"fastvideo_data.video_validator.{broken}", fails)
    run(Validates(tmp_path), numbers(1), 3)
    assert caplog.text.count("the encoder gave up") == 3
    assert [line["step"] for line in metrics_of(tmp_path)] == [1, 2, 3]


def test_a_method_s_own_validation_may_fail_too(tmp_path, caplog):
    class Fails(Validates):
        def log_validation(self, iteration):
            raise KeyError("no such thing")

    run(Fails(tmp_path), numbers(1), 3)
    assert "validation: KeyError: 'no such thing'" in caplog.text


def test_a_failed_validation_onto_a_full_disk_tells_of_both(tmp_path, monkeypatch):
    def full(folder, document):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage, "write_document", full)
    method = Validates(tmp_path, blue_fails(RuntimeError("boom")), on_validation_error="error")
    with pytest.raises(ValidationError, match=r"boom[\s\S]*No space left on device"):
        run(method, numbers(1), 9, every=100)


def test_where_an_unknown_error_came_from_is_in_the_debug_log(tmp_path, caplog):
    caplog.set_level(logging.DEBUG, "fastvideo_core")
    run(Validates(tmp_path, blue_fails(RuntimeError("boom"))), numbers(1), 2)
    assert "in fail\n" in caplog.text


# --- time ---------------------------------------------------------------------------------------------------------


class Clock:
    """Time that passes when it is told to."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr("time.perf_counter", lambda: self.now)
        monkeypatch.setattr("time.monotonic", lambda: self.now)


class Shown:
    """A display that keeps what it is given."""

    def __init__(self):
        self.logged = []
        self.samplings = []

    def show(self, logged):
        self.logged.append(logged)

    def validating(self, sampling):
        self.samplings.append(sampling)

    def close(self): ...


def test_speed_and_time_left_are_those_of_training(tmp_path, monkeypatch):
    clock = Clock(monkeypatch)

    class Timed(Validates):
        def single_train_step(self, batch, iteration, *, current_vsa_sparsity=0.0):
            clock.now += 9.0 if iteration == 1 else 1.0  # the first one warms up
            return super().single_train_step(batch, iteration)

        def log_validation(self, iteration):
            clock.now += 100.0

    class Saves(CheckpointManager):
        def save(self, step):
            clock.now += 10.0
            return super().save(step)

    settings = {"training_state_checkpointing_steps": 4, "async_checkpointing": False}
    method, shown = Timed(tmp_path, **settings), Shown()
    manager = Saves(method.cfg, {})
    DistillTrainer(method.cfg.training, config={}, display=shown).run(method, numbers(1), 8, checkpoint_manager=manager)
    lines = metrics_of(tmp_path)
    assert [line["seconds_per_step"] for line in lines] == [9, 1, 1, 1, 1, 1, 1, 1]
    assert [line["samples_per_second"] for line in lines] == pytest.approx([1 / 9, *[1] * 7])
    assert [line.get("seconds/validation") for line in lines] == [None, None, 100, None, 100, None, 100, None]
    assert [line.get("seconds/checkpoint") for line in lines] == [None, None, None, None, 10, None, None, None]
    # After step 3: five steps, three validations (4, 6, 8); after step 5 also the last checkpoint.
    assert [round(one.remaining) for one in shown.logged][2:] == [305, 304, 213, 212, 111, 110]


def test_it_says_which_prompt_and_step(tmp_path):
    method, shown = Validates(tmp_path), Shown()
    DistillTrainer(method.cfg.training, config={}, display=shown).run(method, numbers(1), 2)
    texts = [str(sampling) for sampling in shown.samplings]
    assert len(texts) == 3 * 20 // 2 + 1  # both halves of guidance are one step
    assert texts[0] == "validating 1/3, step 1/10"
    assert texts[-2] == "validating 3/3, step 10/10"
    assert texts[-1].startswith("validated 3 videos in ")


SAMPLING = Sampling(50, 200, label="teacher", prompt=2, prompts=5, sampling_step=12, sampling_steps=50)
OVER = Sampling(50, 200, prompts=5, seconds=27.04)


def test_a_log_has_a_line_now_and_then(monkeypatch):
    clock, stream = Clock(monkeypatch), io.StringIO()
    display = LogLines(stream)
    for seconds in (0, 1, 29, 31, 32):
        clock.now = float(seconds)
        display.validating(SAMPLING)
    display.validating(OVER)
    display.validating(SAMPLING)
    line = "step 50/200 | validating teacher 2/5, step 12/50"
    assert stream.getvalue().splitlines() == [line, line, "step 50/200 | validated 5 videos in 27.0 s", line]


def test_json_has_an_object_for_every_prompt():
    stream = io.StringIO()
    display = JsonLines(stream)
    for step in (1, 2, 3):
        display.validating(Sampling(50, 200, prompt=1, prompts=5, sampling_step=step, sampling_steps=3))
    display.validating(OVER)
    begun, over = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert begun == {
        "event": "validating",
        "step": 50,
        "label": "",
        "prompt": 1,
        "prompts": 5,
        "sampling_steps": 3,
    }
    assert over == {"event": "validated", "step": 50, "videos": 5, "seconds": 27.04}


def test_the_bar_says_it_and_then_what_it_said_before():
    stream = io.StringIO()
    bar = TerminalBar(stream)
    bar.validating(SAMPLING)
    bar.validating(OVER)
    progress = Progress(200, 50, 1, bar, {})
    progress.show(51, {"total_loss": 0.5, "lr/student": 1e-3, **progress.measure(51)})
    progress.validating(SAMPLING)
    progress.validating(OVER)
    bar.close()
    shown = [part.strip() for part in stream.getvalue().replace("\r", "\n").splitlines()]
    assert any(part.startswith("50/200 |") and part.endswith("validating teacher 2/5, step 12/50") for part in shown)
    assert "total_loss 0.5000 | lr/student 1.00e-03" in shown[-1]
