"""Mistakes in what a step computes: losses, noise levels, rollouts, conversions."""

from __future__ import annotations

from mutation import (
    CORE,
    CRITIC_BY_HAND,
    DMD2,
    FINETUNE,
    FINETUNE_METHOD,
    FLOW,
    LOSSES,
    METHOD,
    METRICS,
    ROLLOUT,
    ROLLOUT_BY_HAND,
    STUDENT_BY_HAND,
    Mutation,
)

STUDENT_METRICS = f"{METRICS}::test_the_student_s_metrics_are_those_of_its_scores_and_samples"
FINETUNE_METRICS = f"{FINETUNE_METHOD}::test_the_log_tells_the_noise_levels_and_the_latents"

MATHEMATICS: tuple[Mutation, ...] = (
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
    Mutation(
        "scores' timesteps clamped before they are shifted",
        f"{DMD2}/method.py",
        "t: Tensor = self.adapter.shift_and_clamp_timestep(u * total)\n"
        "        return t.clamp(self.config.min_timestep_ratio * total, self.config.max_timestep_ratio * total)",
        "bounded = (u * total).clamp(self.config.min_timestep_ratio * total, self.config.max_timestep_ratio * total)\n"
        "        return self.adapter.shift_and_clamp_timestep(bounded)",
        (f"{METHOD}::test_score_timesteps_are_shifted_first_and_clamped_then",),
    ),
    Mutation(
        "scores' timesteps squeezed into their bounds",
        f"{DMD2}/method.py",
        "return t.clamp(self.config.min_timestep_ratio * total, self.config.max_timestep_ratio * total)",
        "low, high = self.config.min_timestep_ratio, self.config.max_timestep_ratio\n"
        "        return low * total + (high - low) * t",
        (f"{METHOD}::test_score_timesteps_are_shifted_first_and_clamped_then",),
    ),
    # --- metrics
    Mutation(
        "the distance of the scores taken from the sample",
        f"{DMD2}/losses.py",
        "distance = mean_per_sample(difference.abs(), loss_weight)",
        "distance = mean_per_sample((x - real).abs(), loss_weight)",
        (STUDENT_METRICS,),
    ),
    Mutation(
        "a deviation logged as the samples' mean",
        f"{DMD2}/method.py",
        '"student_x0/mean": samples.mean()',
        '"student_x0/mean": samples.std()',
        (STUDENT_METRICS,),
    ),
    Mutation(
        "a mean logged as the samples' deviation",
        f"{DMD2}/method.py",
        "samples.flatten(1).std(dim=1, correction=0).mean()",
        "samples.flatten(1).mean(dim=1).mean()",
        (STUDENT_METRICS,),
    ),
    Mutation(
        "the difference between channels hides a collapse",
        f"{CORE}/diffusion/reduce.py",
        ".sort(dim=0).values[-2]",
        ".sort(dim=0).values[-1]",
        (f"{METRICS}::test_a_collapse_to_solid_colours_shows_in_the_variation_whichever_dim_the_channels_are_in",),
    ),
    Mutation(
        "the histogram of timesteps over another range",
        f"{CORE}/diffusion/timesteps.py",
        "t.float() * bins / num_train_timesteps",
        "t.float() * bins",
        (STUDENT_METRICS, f"{METRICS}::test_the_critic_s_metrics_tell_its_timesteps", FINETUNE_METRICS),
    ),
    Mutation(
        "the exit step told one too low",
        f"{DMD2}/method.py",
        '"rollout/exit_step": index + 1',
        '"rollout/exit_step": index',
        (f"{METRICS}::test_every_iteration_tells_where_its_rollout_ended",),
    ),
    Mutation(
        "critic loss in the dtype of the prediction",
        f"{DMD2}/losses.py",
        "return mean_per_sample((prediction.to(wide) - target.to(wide)) ** 2",
        "return mean_per_sample((prediction - target.to(prediction.dtype)) ** 2",
        (f"{LOSSES}::test_the_critic_loss_of_a_bfloat16_prediction_is_in_float32",),
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
)
