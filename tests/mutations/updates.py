"""Mistakes in what a run does with it: captions, updates, the training loop."""

from __future__ import annotations

from tests.mutations.mutation import (
    CORE,
    DMD2,
    EMA,
    FINETUNE_METHOD,
    METHOD,
    TRAINER,
    TRAINER_FAULTS,
    UPDATES,
    Mutation,
)

UPDATES_AND_LOOP: tuple[Mutation, ...] = (
    # --- captions
    Mutation(
        "the same captions dropped each time",
        f"{CORE}/contracts/method.py",
        'generator = self.rng.local("caption_dropout")',
        "generator = torch.Generator().manual_seed(0)",
        (
            f"{FINETUNE_METHOD}::test_captions_are_dropped_anew_each_time_at_the_configured_rate",
            f"{UPDATES}::test_dropped_captions_reach_the_networks_as_the_negative_conditioning",
        ),
    ),
    Mutation(
        "positive and negative swapped where captions are dropped",
        f"{CORE}/contracts/batch.py",
        "torch.where(mask, without[key], value)",
        "torch.where(mask, value, without[key])",
        (
            f"{FINETUNE_METHOD}::test_captions_are_dropped_anew_each_time_at_the_configured_rate",
            f"{UPDATES}::test_dropped_captions_reach_the_networks_as_the_negative_conditioning",
        ),
    ),
    # --- updates
    Mutation(
        "student updated one iteration late",
        f"{DMD2}/method.py",
        "return iteration % self.config.generator_update_interval == 0",
        "return iteration % self.config.generator_update_interval == 1",
        (
            f"{METHOD}::test_the_student_is_updated_every_kth_iteration_and_the_critic_always",
            f"{UPDATES}::test_the_student_s_weights_move_on_its_own_iterations_only",
        ),
    ),
    Mutation(
        "critic not updated together with the student",
        f"{DMD2}/method.py",
        "[self.student, self.critic] if",
        "[self.student] if",
        (
            f"{METHOD}::test_the_student_is_updated_every_kth_iteration_and_the_critic_always",
            f"{UPDATES}::test_the_student_s_weights_move_on_its_own_iterations_only",
        ),
    ),
    Mutation(
        "every optimizer stepped, due or not",
        f"{CORE}/contracts/method.py",
        "for handle in self.due_roles(iteration) for optimizer in",
        "for handle in self.bundle for optimizer in",
        (
            f"{TRAINER}::test_what_a_role_got_while_it_was_not_due_reaches_no_later_update",
            f"{UPDATES}::test_the_average_follows_the_student_s_updates_only",
        ),
    ),
    Mutation(
        "average moved on the critic's iterations as well",
        f"{CORE}/callbacks/ema.py",
        "if not set(optimizers).isdisjoint(average.handle.optimizers.values()):",
        "if True:",
        (
            f"{EMA}::test_iterations_that_only_step_the_critic_leave_the_average_alone",
            f"{UPDATES}::test_the_average_follows_the_student_s_updates_only",
        ),
    ),
    Mutation(
        "student's schedule sized in iterations",
        f"{DMD2}/method.py",
        "counts = self.config.student_updates(steps), ",
        "counts = steps, ",
        (
            f"{METHOD}::test_schedulers_are_sized_in_the_updates_that_each_role_makes",
            f"{UPDATES}::test_each_role_has_its_own_schedule_and_warm_up_in_its_own_updates",
        ),
    ),
    Mutation(
        "every scheduler stepped, due or not",
        f"{CORE}/contracts/method.py",
        "for handle in self.due_roles(iteration) for scheduler in",
        "for handle in self.bundle for scheduler in",
        (
            f"{METHOD}::test_schedulers_are_sized_in_the_updates_that_each_role_makes",
            f"{UPDATES}::test_each_role_has_its_own_schedule_and_warm_up_in_its_own_updates",
        ),
    ),
    Mutation(
        "a role's own warm-up ignored",
        f"{CORE}/optim/optimizer.py",
        'warmup: int = cfg.role_setting(role, "lr_warmup_steps")',
        "warmup: int = cfg.training.lr_warmup_steps",
        (f"{UPDATES}::test_each_role_has_its_own_schedule_and_warm_up_in_its_own_updates",),
    ),
    Mutation(
        "a role's explicit learning rate of 0 taken for none",
        f"{CORE}/config/run.py",
        "return getattr(self.training, name) if own is None else own",
        "return own or getattr(self.training, name)",
        (f"{UPDATES}::test_every_optimizer_setting_is_the_role_s_own_else_training_s",),
    ),
    Mutation(
        "a role's own betas ignored",
        f"{CORE}/optim/optimizer.py",
        'cfg.role_setting(role, "betas")',
        "cfg.training.betas",
        (f"{UPDATES}::test_every_optimizer_setting_is_the_role_s_own_else_training_s",),
    ),
    Mutation(
        "a role's own weight decay ignored",
        f"{CORE}/optim/optimizer.py",
        'cfg.role_setting(role, "weight_decay")',
        "cfg.training.weight_decay",
        (f"{UPDATES}::test_every_optimizer_setting_is_the_role_s_own_else_training_s",),
    ),
    Mutation(
        "a role's own max_grad_norm ignored",
        f"{CORE}/contracts/method.py",
        'self.cfg.role_setting(owners[0] if owners else "", "max_grad_norm")',
        "self.cfg.training.max_grad_norm",
        (
            f"{TRAINER}::test_each_optimizer_is_clipped_at_its_own_role_s_norm_else_at_training_s",
            f"{UPDATES}::test_each_role_is_clipped_at_its_own_norm",
        ),
    ),
    Mutation(
        "gradient not divided by the accumulation rounds",
        f"{CORE}/training/trainer.py",
        "method.backward(weighted, outputs, grad_accum_rounds=rounds)",
        "method.backward(weighted, outputs)",
        (
            f"{TRAINER}::test_the_gradient_is_the_mean_over_accumulation_rounds",
            f"{UPDATES}::test_accumulated_rounds_give_the_gradients_of_one_large_batch",
        ),
    ),
    Mutation(
        "only the gradients of due roles dropped",
        f"{CORE}/contracts/method.py",
        "for handle in self.bundle:\n            for optimizer in handle.optimizers.values():\n                optimizer.zero",
        "for handle in self.due_roles(iteration):\n            for optimizer in handle.optimizers.values():\n"
        "                optimizer.zero",
        (
            f"{METHOD}::test_no_gradient_survives_an_iteration",
            f"{TRAINER}::test_what_a_role_got_while_it_was_not_due_reaches_no_later_update",
            f"{UPDATES}::test_a_student_gradient_left_from_elsewhere_does_not_reach_its_next_update",
        ),
    ),
    # --- the loop
    Mutation(
        "one step too many",
        f"{CORE}/training/trainer.py",
        "range(start_step + 1, max_steps + 1)",
        "range(start_step, max_steps + 1)",
        (f"{TRAINER}::test_a_run_makes_exactly_max_steps_updates",),
    ),
    Mutation(
        "a step that is not finite is applied",
        f"{CORE}/training/updates.py",
        "if skipped:\n",
        "if skipped and False:\n",
        (f"{TRAINER_FAULTS}::test_a_step_that_is_not_finite_changes_nothing_and_is_counted",),
    ),
    Mutation(
        "skipped steps are counted on after a good one",
        f"{CORE}/training/updates.py",
        "self._in_row = 0\n            self._method",
        "self._method",
        (f"{TRAINER_FAULTS}::test_skipped_steps_with_good_ones_between_them_do_not_end_the_run",),
    ),
    Mutation(
        "all phases made before the first is back-propagated",
        f"{CORE}/training/trainer.py",
        "phases = iter([result]) if isinstance(result, tuple) else result",
        "phases = [result] if isinstance(result, tuple) else list(result)",
        (f"{TRAINER}::test_each_phase_is_back_propagated_before_the_next_is_made",),
    ),
    Mutation(
        "metrics summed over the rounds",
        f"{CORE}/tracking/metrics.py",
        "sum(values) / len(values)",
        "sum(values)",
        (f"{TRAINER}::test_metrics_are_averaged_over_the_rounds",),
    ),
    Mutation(
        "validation's end not told when sampling fails",
        f"{CORE}/training/validation.py",
        "        finally:\n            self.callbacks.hook.validation_end",
        "        else:\n            self.callbacks.hook.validation_end",
        (f"{TRAINER}::test_a_validation_that_fails_still_calls_its_end",),
    ),
)
