"""The known mistakes: where each would be made, and the tests that must notice it."""

from __future__ import annotations

from dataclasses import dataclass

CORE = "core/src/fastvideo_core"
DMD2 = "plugins/fastvideo-dmd2/src/fastvideo_dmd2"
FINETUNE = "plugins/fastvideo-finetune/src/fastvideo_finetune"

TRAINER = "core/tests/test_trainer.py"
FLOW = "core/tests/diffusion/test_flow.py"
EMA = "core/tests/callbacks/test_ema.py"
LOSSES = "plugins/fastvideo-dmd2/tests/test_losses.py"
METHOD = "plugins/fastvideo-dmd2/tests/test_method.py"
UPDATES = "plugins/fastvideo-dmd2/tests/test_updates.py"
ROLLOUT = "plugins/fastvideo-dmd2/tests/test_rollout_equals_sampler.py"
FINETUNE_METHOD = "plugins/fastvideo-finetune/tests/test_method.py"

STUDENT_BY_HAND = f"{UPDATES}::test_the_student_follows_the_difference_of_the_critic_and_the_guided_teacher"
CRITIC_BY_HAND = f"{UPDATES}::test_the_critic_regresses_the_velocity_of_the_student_s_samples"
ROLLOUT_BY_HAND = f"{ROLLOUT}::test_the_finished_training_rollout_is_the_sampler_s"


@dataclass(frozen=True)
class Mutation:
    """One mistake.

    Args:
        name: what is wrong, in a few words.
        file: path from the repository's root.
        old: the text that is right; stands in the file exactly once.
        new: the mistake.
        tests: pytest node ids; every one of them must fail, a parametrised one in at least one case.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


MUTATIONS: tuple[Mutation, ...] = (
    # --- the student's loss
    Mutation(
        "sign of g",
        f"{DMD2}/losses.py",
        "difference = fake - real",
        "difference = real - fake",
        (f"{LOSSES}::test_the_hand_computed_sample", STUDENT_BY_HAND),
    ),
    Mutation(
        "target of the student's loss not detached",
        f"{DMD2}/losses.py",
        "target = (x - gradient.to(wide)).detach()",
        "target = x - gradient.to(wide)",
        (f"{LOSSES}::test_the_hand_computed_sample", STUDENT_BY_HAND),
    ),
    Mutation(
        "normaliser over the batch",
        f"{DMD2}/losses.py",
        "normaliser = mean_per_sample((x - real).abs(), loss_weight)",
        "normaliser = mean_per_sample((x - real).abs(), loss_weight).mean().expand(len(x))",
        (f"{LOSSES}::test_samples_of_a_batch_are_normalised_on_their_own", STUDENT_BY_HAND),
    ),
    Mutation(
        "normalised by the fake score",
        f"{DMD2}/losses.py",
        "normaliser = mean_per_sample((x - real).abs(), loss_weight)",
        "normaliser = mean_per_sample((x - fake).abs(), loss_weight)",
        (STUDENT_BY_HAND,),
    ),
    Mutation(
        "no floor under the normaliser",
        f"{DMD2}/losses.py",
        ".clamp(min=NORMALISER_FLOOR)",
        "",
        (f"{LOSSES}::test_identical_scores_and_a_perfect_sample_stay_finite_through_the_floor",),
    ),
    Mutation(
        "teacher and critic scored with a graph",
        f"{DMD2}/method.py",
        'with torch.no_grad():\n            t = self.score_timesteps(batch.batch_size, "student_score")',
        'with torch.enable_grad():\n            t = self.score_timesteps(batch.batch_size, "student_score")',
        (f"{METHOD}::test_a_student_iteration_makes_one_rollout_and_one_call_of_each_score",),
    ),
    Mutation(
        "conditional and unconditional swapped in guidance",
        f"{CORE}/flow_adapter.py",
        "flow.guided(conditional, unconditional, guidance_scale)",
        "flow.guided(unconditional, conditional, guidance_scale)",
        (STUDENT_BY_HAND,),
    ),
    Mutation(
        "the fake score asked of the teacher",
        f"{DMD2}/method.py",
        "fake = self.adapter.predict_x0(self.critic,",
        "fake = self.adapter.predict_x0(self.teacher,",
        (STUDENT_BY_HAND,),
    ),
    Mutation(
        "guidance formula one off (c + w (c - u))",
        f"{CORE}/diffusion/flow.py",
        "return unconditional + scale * (conditional - unconditional)",
        "return conditional + scale * (conditional - unconditional)",
        (f"{FLOW}::test_guidance_moves_away_from_the_unconditional_prediction", STUDENT_BY_HAND),
    ),
    # --- the critic
    Mutation(
        "critic trained through the student",
        f"{DMD2}/method.py",
        "x = x.detach()\n        else",
        "pass\n        else",
        (f"{METHOD}::test_each_phase_gives_gradients_to_its_own_role_only",),
    ),
    Mutation(
        "student sampled with a graph when it is not due",
        f"{DMD2}/method.py",
        "with torch.no_grad():\n                x = self.student_sample",
        "with torch.enable_grad():\n                x = self.student_sample",
        (f"{METHOD}::test_an_iteration_without_the_student_makes_no_student_graph_and_no_teacher_call",),
    ),
    Mutation(
        "critic sees other samples than the student's",
        f"{DMD2}/method.py",
        "noisy = self.adapter.add_noise(x, noise, t)\n        prediction",
        "noisy = self.adapter.add_noise(batch.latents, noise, t)\n        prediction",
        (CRITIC_BY_HAND,),
    ),
    # --- noise levels
    Mutation(
        "shift missing in the scores' timesteps",
        f"{DMD2}/method.py",
        "self.adapter.shift_and_clamp_timestep(u * total)",
        "u * total",
        (f"{METHOD}::test_score_timesteps_go_through_the_family_s_shift",),
    ),
    Mutation(
        "one score timestep for the whole micro-batch",
        f"{DMD2}/method.py",
        "u = torch.rand(batch_size, generator=generator, device=generator.device)",
        "u = torch.rand(1, generator=generator, device=generator.device).expand(batch_size)",
        (f"{METHOD}::test_score_timesteps_are_per_sample_and_inside_the_bounds",),
    ),
    Mutation(
        "scores' timesteps not held inside their bounds",
        f"{DMD2}/method.py",
        "return t.clamp(self.config.min_timestep_ratio * total, self.config.max_timestep_ratio * total)",
        "return t",
        (f"{METHOD}::test_score_timesteps_are_per_sample_and_inside_the_bounds",),
    ),
    # --- the rollout
    Mutation(
        "transition to the same noise level instead of the next",
        f"{CORE}/diffusion/rollout.py",
        "schedule.sigma(index + 1), kind=kind",
        "schedule.sigma(index), kind=kind",
        (ROLLOUT_BY_HAND,),
    ),
    Mutation(
        "rollout one step short of its exit",
        f"{DMD2}/method.py",
        "exit_index=index,",
        "exit_index=max(0, index - 1),",
        (
            f"{METHOD}::test_only_the_steps_up_to_the_exit_are_run",
            f"{ROLLOUT}::test_a_rollout_that_leaves_early_is_the_sampler_s_up_to_there",
        ),
    ),
    Mutation(
        "the last call of the schedule never drawn as exit",
        f"{DMD2}/method.py",
        "torch.randint(len(self.schedule), ()",
        "torch.randint(max(1, len(self.schedule) - 1), ()",
        (f"{METHOD}::test_only_the_steps_up_to_the_exit_are_run",),
    ),
    Mutation(
        "exit step drawn anew in every accumulation round",
        f"{DMD2}/method.py",
        "if self._exit[0] != iteration:",
        "if True:",
        (f"{METHOD}::test_all_accumulation_rounds_of_an_iteration_share_the_exit_step",),
    ),
    Mutation(
        "sde draws from another stream than its generator",
        f"{CORE}/diffusion/rollout.py",
        "torch.randn(x0.shape, generator=generator, device",
        "torch.randn(x0.shape, device",
        (ROLLOUT_BY_HAND,),
    ),
    Mutation(
        "training always rolls out with ode",
        f"{DMD2}/method.py",
        "kind=self.sampler_kind,\n            generator",
        'kind="ode",\n            generator',
        (ROLLOUT_BY_HAND,),
    ),
    Mutation(
        "warp_denoising_step ignored",
        f"{DMD2}/config.py",
        "warp=warp if self.warp_denoising_step else None",
        "warp=None",
        (ROLLOUT_BY_HAND,),
    ),
    # --- flow matching
    Mutation(
        "sign of the velocity",
        f"{CORE}/diffusion/flow.py",
        "return noise.to(wide) - clean.to(wide)",
        "return clean.to(wide) - noise.to(wide)",
        (f"{FLOW}::test_x0_velocity_and_noise_convert_into_each_other_to_1e_10", CRITIC_BY_HAND),
    ),
    Mutation(
        "sign of the x0 conversion",
        f"{CORE}/diffusion/flow.py",
        "return x_t - s * wide_v",
        "return x_t + s * wide_v",
        (f"{FLOW}::test_x0_velocity_and_noise_convert_into_each_other_to_1e_10", STUDENT_BY_HAND),
    ),
    Mutation(
        "loss weight ignored by every loss",
        f"{CORE}/diffusion/reduce.py",
        "if weight is None:",
        "if True:",
        (f"{LOSSES}::test_elements_of_weight_zero_take_no_part", STUDENT_BY_HAND, CRITIC_BY_HAND),
    ),
    Mutation(
        "loss weight not handed to the student's loss",
        f"{DMD2}/method.py",
        "dmd_loss(x, gradient.value, batch.loss_weight)",
        "dmd_loss(x, gradient.value)",
        (STUDENT_BY_HAND,),
    ),
    Mutation(
        "loss weight not handed to the critic's loss",
        f"{DMD2}/method.py",
        "self.adapter.prediction_target(x, noise, t), batch.loss_weight)",
        "self.adapter.prediction_target(x, noise, t))",
        (CRITIC_BY_HAND,),
    ),
    Mutation(
        "weighting of noise levels ignored in fine-tuning",
        f"{FINETUNE}/losses.py",
        "level_weight.float() * ",
        "",
        (f"{FINETUNE_METHOD}::test_the_loss_weighting_is_separate_from_the_sampling",),
    ),
    # --- captions
    Mutation(
        "the same captions dropped each time",
        f"{CORE}/method.py",
        'generator = self.rng.local("caption_dropout")',
        "generator = torch.Generator().manual_seed(0)",
        (
            f"{FINETUNE_METHOD}::test_captions_are_dropped_anew_each_time_at_the_configured_rate",
            f"{UPDATES}::test_dropped_captions_reach_the_networks_as_the_negative_conditioning",
        ),
    ),
    Mutation(
        "positive and negative swapped where captions are dropped",
        f"{CORE}/batch.py",
        "torch.where(mask, self.negative_conditioning[key], value)",
        "torch.where(mask, value, self.negative_conditioning[key])",
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
        f"{CORE}/method.py",
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
        "if average.stepped_by(optimizers):",
        "if True:",
        (
            f"{EMA}::test_iterations_that_only_step_the_critic_leave_the_average_alone",
            f"{UPDATES}::test_the_average_follows_the_student_s_updates_only",
        ),
    ),
    Mutation(
        "student's schedule sized in iterations",
        f"{DMD2}/method.py",
        "steps // self.config.generator_update_interval",
        "steps",
        (
            f"{METHOD}::test_schedulers_are_sized_in_the_updates_that_each_role_makes",
            f"{UPDATES}::test_each_role_has_its_own_schedule_and_warm_up_in_its_own_updates",
        ),
    ),
    Mutation(
        "every scheduler stepped, due or not",
        f"{CORE}/method.py",
        "for handle in self.due_roles(iteration) for scheduler in",
        "for handle in self.bundle for scheduler in",
        (
            f"{METHOD}::test_schedulers_are_sized_in_the_updates_that_each_role_makes",
            f"{UPDATES}::test_each_role_has_its_own_schedule_and_warm_up_in_its_own_updates",
        ),
    ),
    Mutation(
        "a role's own warm-up ignored",
        f"{CORE}/optim/schedule.py",
        "warmup=training.lr_warmup_steps if own.lr_warmup_steps is None else own.lr_warmup_steps",
        "warmup=training.lr_warmup_steps",
        (f"{UPDATES}::test_each_role_has_its_own_schedule_and_warm_up_in_its_own_updates",),
    ),
    Mutation(
        "a role's explicit learning rate of 0 taken for none",
        f"{CORE}/optim/optimizer.py",
        "training.learning_rate if role.learning_rate is None else role.learning_rate",
        "role.learning_rate or training.learning_rate",
        (f"{UPDATES}::test_every_optimizer_setting_is_the_role_s_own_else_training_s",),
    ),
    Mutation(
        "a role's own betas ignored",
        f"{CORE}/optim/optimizer.py",
        "betas=training.betas if role.betas is None else role.betas",
        "betas=training.betas",
        (f"{UPDATES}::test_every_optimizer_setting_is_the_role_s_own_else_training_s",),
    ),
    Mutation(
        "a role's own weight decay ignored",
        f"{CORE}/optim/optimizer.py",
        "weight_decay=training.weight_decay if role.weight_decay is None else role.weight_decay",
        "weight_decay=training.weight_decay",
        (f"{UPDATES}::test_every_optimizer_setting_is_the_role_s_own_else_training_s",),
    ),
    Mutation(
        "a role's own max_grad_norm ignored",
        f"{CORE}/method.py",
        "return self.cfg.training.max_grad_norm if own is None else own",
        "return self.cfg.training.max_grad_norm",
        (
            f"{TRAINER}::test_each_optimizer_is_clipped_at_its_own_role_s_norm_else_at_training_s",
            f"{UPDATES}::test_each_role_is_clipped_at_its_own_norm",
        ),
    ),
    Mutation(
        "gradient not divided by the accumulation rounds",
        f"{CORE}/trainer.py",
        "method.backward(loss_map, outputs, grad_accum_rounds=rounds)",
        "method.backward(loss_map, outputs)",
        (
            f"{TRAINER}::test_the_gradient_is_the_mean_over_accumulation_rounds",
            f"{UPDATES}::test_accumulated_rounds_give_the_gradients_of_one_large_batch",
        ),
    ),
    Mutation(
        "only the gradients of due roles dropped",
        f"{CORE}/method.py",
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
        f"{CORE}/trainer.py",
        "range(start_step + 1, max_steps + 1)",
        "range(start_step, max_steps + 1)",
        (f"{TRAINER}::test_a_run_makes_exactly_max_steps_updates",),
    ),
    Mutation(
        "a step that diverged is saved",
        f"{CORE}/trainer.py",
        "require_finite(to_floats(metrics), step)\n                    checkpoint_manager",
        "checkpoint_manager",
        (f"{TRAINER}::test_a_loss_that_is_no_number_stops_the_run_and_is_not_saved",),
    ),
    Mutation(
        "all phases made before the first is back-propagated",
        f"{CORE}/trainer.py",
        "phases = iter([result]) if isinstance(result, tuple) else result",
        "phases = [result] if isinstance(result, tuple) else list(result)",
        (f"{TRAINER}::test_each_phase_is_back_propagated_before_the_next_is_made",),
    ),
    Mutation(
        "metrics summed over the rounds",
        f"{CORE}/tracking/metrics.py",
        "total / self._counts[name]",
        "total",
        (f"{TRAINER}::test_metrics_are_averaged_over_the_rounds",),
    ),
    Mutation(
        "validation's end not told when sampling fails",
        f"{CORE}/trainer.py",
        "finally:\n            callbacks.hook.validation_end",
        "except ZeroDivisionError:\n            callbacks.hook.validation_end",
        (f"{TRAINER}::test_a_validation_that_fails_still_calls_its_end",),
    ),
)
