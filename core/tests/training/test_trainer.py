"""The training loop alone, with a method of one or two weights: what it calls, how often, and what it logs."""

from __future__ import annotations

import math
import time

import pytest
import torch

from fastvideo_core.callbacks.manager import CallbackManager
from fastvideo_core.checkpoint import storage
from fastvideo_core.training.trainer import DistillTrainer
from fastvideo_core.training.validation import ValidationError

from .one_weight import Linear, Phases, Watch, config_of, metrics_of, numbers, run

# --- how often ----------------------------------------------------------------------------------------------------


def test_a_run_makes_exactly_max_steps_updates(tmp_path):
    method = Linear(config_of(tmp_path))
    watch = run(method, numbers(1), 5)
    assert [iteration for iteration, _ in method.seen] == [1, 2, 3, 4, 5]
    assert watch.of("before_optimizer_step") == watch.of("step_end") == [1, 2, 3, 4, 5]
    assert (watch.of("train_start"), watch.of("train_end")) == ([0], [5])
    assert method.weight().item() == 2.0 - 5


def test_a_resumed_run_goes_on_behind_its_start_step(tmp_path):
    method = Linear(config_of(tmp_path))
    watch = run(method, numbers(1), 5, start=3)
    assert [iteration for iteration, _ in method.seen] == [4, 5]
    assert (watch.of("train_start"), watch.of("train_end")) == ([3], [5])


def test_each_round_takes_the_next_batch(tmp_path):
    method = Linear(config_of(tmp_path, gradient_accumulation_steps=2))
    watch = run(method, numbers(1, 2, 3, 4), 2)
    assert watch.of("before_round") == [1, 1, 2, 2]
    assert [(before, batch.item()) for before, batch in watch.batches] == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert [(iteration, batch.item()) for iteration, batch in method.seen] == [(1, 1.0), (1, 2.0), (2, 3.0), (2, 4.0)]


def test_a_dataloader_that_ends_starts_over(tmp_path):
    method = Linear(config_of(tmp_path))
    run(method, numbers(1, 2, 3), 7)
    assert [batch.item() for _, batch in method.seen] == [1, 2, 3, 1, 2, 3, 1]


def test_a_dataloader_without_a_batch_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="list gave no batch"):
        run(Linear(config_of(tmp_path)), [], 3)


# --- gradients ----------------------------------------------------------------------------------------------------


def test_the_gradient_is_the_mean_over_accumulation_rounds(tmp_path):
    method = Linear(config_of(tmp_path, gradient_accumulation_steps=4))
    run(method, numbers(1, 2, 3, 6), 1)
    assert method.weight().item() == 2.0 - 3.0


def test_the_losses_of_a_batch_count_by_the_weight_of_its_source_and_are_logged_as_they_are(tmp_path):
    class OfSources(Phases):
        def single_train_step(self, batch, iteration, *, current_vsa_sparsity=0.0):
            return super().single_train_step(batch["values"], iteration)

    method = OfSources(config_of(tmp_path, gradient_accumulation_steps=2))
    first, second = (torch.tensor([value]) for value in (1.0, 4.0))
    run(method, [{"values": first, "data_loss_weight": 0.5}, {"values": second}], 1)
    assert method.weight("student").item() == 2.0 - (0.5 * 1 + 4) / 2
    assert method.weight("critic").item() == 2.0 - 10 * (0.5 * 1 + 4) / 2
    assert metrics_of(tmp_path)[0]["student_loss"] == 2.0 * (1 + 4) / 2


def test_each_phase_is_back_propagated_before_the_next_is_made(tmp_path):
    method = Phases(config_of(tmp_path))
    run(method, numbers(3), 1)
    assert method.gradient_before_the_second_phase == [3.0]
    assert method.weight("critic").item() == 2.0 - 30.0


def test_phases_and_rounds_together_average_over_the_rounds_alone(tmp_path):
    method = Phases(config_of(tmp_path, gradient_accumulation_steps=2))
    run(method, numbers(1, 3), 1)
    assert method.weight("student").item() == 2.0 - 2.0
    assert method.weight("critic").item() == 2.0 - 20.0


def test_what_a_role_got_while_it_was_not_due_reaches_no_later_update(tmp_path):
    class Alternating(Phases):
        def due_roles(self, iteration):
            return [self.bundle["critic" if iteration % 2 else "student"]]

    method = Alternating(config_of(tmp_path))
    run(method, numbers(1, 5), 2)
    assert method.weight("critic").item() == 2.0 - 10.0  # of step 1; step 2 left it alone
    assert method.weight("student").item() == 2.0 - 5.0  # of step 2; without the 1 of step 1
    assert method.weight("critic").grad is None
    assert method.weight("student").grad is None


def test_each_optimizer_is_clipped_at_its_own_role_s_norm_else_at_training_s(tmp_path):
    cfg = config_of(tmp_path, roles={"student": {"max_grad_norm": 0.5}, "critic": {}}, max_grad_norm=4.0)
    method = Phases(cfg)
    run(method, numbers(3), 1)
    assert method.weight("student").item() == pytest.approx(2.0 - 0.5, abs=1e-5)
    assert method.weight("critic").item() == pytest.approx(2.0 - 4.0, abs=1e-5)
    assert metrics_of(tmp_path)[0]["grad_norm"] == pytest.approx(math.hypot(3.0, 30.0))  # before clipping


def test_a_role_s_norm_of_zero_turns_its_clipping_off(tmp_path):
    method = Phases(config_of(tmp_path, roles={"student": {"max_grad_norm": 0}, "critic": {}}, max_grad_norm=1.0))
    run(method, numbers(3), 1)
    assert method.weight("student").item() == 2.0 - 3.0
    assert method.weight("critic").item() == pytest.approx(2.0 - 1.0, abs=1e-5)


# --- metrics ------------------------------------------------------------------------------------------------------


def test_metrics_are_averaged_over_the_rounds(tmp_path):
    method = Linear(config_of(tmp_path, gradient_accumulation_steps=2))
    run(method, numbers(1, 4), 1)
    (line,) = metrics_of(tmp_path)
    assert line["batch"] == 2.5
    assert line["total_loss"] == 2.0 * 2.5
    assert line["lr/student"] == 1.0


def test_phases_are_logged_by_the_names_of_their_losses(tmp_path):
    run(Phases(config_of(tmp_path, gradient_accumulation_steps=2)), numbers(1, 3), 1)
    (line,) = metrics_of(tmp_path)
    assert (line["student_loss"], line["critic_loss"]) == (4.0, 40.0)
    assert "total_loss" not in line


def test_metrics_that_only_some_steps_make_are_logged_for_every_update(tmp_path):
    class Every(Linear):
        def single_train_step(self, batch, iteration, *, current_vsa_sparsity=0.0):
            losses, outputs, metrics = super().single_train_step(batch, iteration)
            return losses, outputs, {**metrics, **({"student_loss": batch * iteration} if iteration % 5 == 0 else {})}

    run(Every(config_of(tmp_path, logging_steps=3)), numbers(1), 12)
    logged = {line["step"]: line.get("student_loss") for line in metrics_of(tmp_path)}
    assert logged == {3: None, 6: 5.0, 9: None, 12: 10.0}


def test_the_forward_pass_of_a_method_without_phases_is_in_its_time(tmp_path):
    class Slow(Linear):
        def single_train_step(self, batch, iteration, *, current_vsa_sparsity=0.0):
            time.sleep(0.1)
            return super().single_train_step(batch, iteration)

    run(Slow(config_of(tmp_path)), numbers(1), 2)
    assert all(line["seconds/step"] >= 0.1 for line in metrics_of(tmp_path))


def test_gradient_norms_are_logged_by_role(tmp_path):
    run(Phases(config_of(tmp_path)), numbers(3), 1)
    (line,) = metrics_of(tmp_path)
    assert (line["grad_norm/student"], line["grad_norm/critic"]) == (3.0, 30.0)


def test_metrics_are_logged_every_logging_steps_and_at_the_last_step(tmp_path):
    run(Linear(config_of(tmp_path, logging_steps=3)), numbers(1), 7)
    assert [line["step"] for line in metrics_of(tmp_path)] == [3, 6, 7]


# --- validation and checkpoints -----------------------------------------------------------------------------------


def test_validation_comes_every_validation_steps_between_its_hooks(tmp_path):
    method = Linear(config_of(tmp_path, log_validation=True, validation_steps=2))
    watch = run(method, numbers(1), 5)
    assert method.validated == [2, 4]
    around = [call for call in watch.calls if call[0].startswith("validation")]
    assert around == [("validation_start", 2), ("validation_end", 2), ("validation_start", 4), ("validation_end", 4)]


def test_no_validation_when_it_is_off(tmp_path):
    method = Linear(config_of(tmp_path, validation_steps=1))
    watch = run(method, numbers(1), 2)
    assert method.validated == watch.of("validation_start") == []


def test_a_validation_that_fails_still_calls_its_end(tmp_path):
    class Broken(Linear):
        def log_validation(self, iteration):
            raise RuntimeError("no video")

    watch = Watch()
    cfg = config_of(tmp_path, log_validation=True, validation_steps=2, on_validation_error="error")
    with pytest.raises(ValidationError, match="no video"):
        DistillTrainer(cfg.training, config={}).run(
            Broken(cfg), numbers(1), 5, callbacks=CallbackManager({"watch": watch})
        )
    assert watch.calls[-3:] == [("validation_start", 2), ("validation_end", 2), ("exception", 2)]


def test_a_checkpoint_is_written_when_due_and_at_the_end(tmp_path):
    run(Linear(config_of(tmp_path)), numbers(1), 5, every=2)
    assert [storage.checkpoint_path(tmp_path, step).exists() for step in range(1, 6)] == [
        False,
        True,
        False,
        True,
        True,
    ]
