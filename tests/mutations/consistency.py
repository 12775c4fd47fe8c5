"""Mistakes in consistency models: the path, its steps, the target, the loss."""

from __future__ import annotations

from tests.mutations.mutation import CORE, FLOW, Mutation

PACKAGE = "plugins/fastvideo-consistency"
METHOD, SOLVER = (f"{PACKAGE}/src/fastvideo_consistency/{name}.py" for name in ("method", "solver"))
LOSS = f"{PACKAGE}/src/fastvideo_consistency/losses.py"

LOSSES, TESTS, ENDS = (f"{PACKAGE}/tests/test_{name}.py" for name in ("losses", "method", "end_points"))
BY_HAND = f"{LOSSES}::test_one_term_has_the_known_points_loss_and_gradient"
EULER = f"{ENDS}::test_the_student_ends_at_the_euler_composition_from_every_level"
SPREAD = f"{ENDS}::test_euler_loses_7_7_percent_of_the_spread_and_heun_with_its_last_step_0_04"
HEUN = f"{ENDS}::test_heun_s_steps_down_to_almost_0_lose_0_2_percent_and_leave_noise_where_data_does_not_vary"
GUIDED = f"{ENDS}::test_a_guided_teacher_s_student_ends_at_its_guided_field"
TRAINING = f"{ENDS}::test_consistency_training_has_its_known_slope_and_its_known_floor"
SAME_NOISE = f"{ENDS}::test_consistency_training_goes_to_the_next_point_with_the_same_noise"
CALLS = f"{TESTS}::test_an_iteration_makes_the_fewest_calls"
DRAWS = f"{TESTS}::test_steps_of_the_path_are_drawn_alike_for_each_sample_and_differ_between_ranks"
CAPTIONS = f"{TESTS}::test_student_and_target_see_the_caption_and_the_teacher_both_halves"
CONFORMS = f"{PACKAGE}/tests/test_conformance.py::TestWithAnAveragedTarget"
RESUMED = f"{CONFORMS}::test_a_resumed_run_ends_like_one_that_was_never_interrupted"
AVERAGE = f"{TESTS}::test_the_averaged_target_begins_as_the_student_and_follows_its_updates"
WEIGHTS = f"{LOSSES}::test_elements_of_weight_0_take_no_part_and_a_video_twice_as_large_has_the_same_loss"
ALONE = f"{LOSSES}::test_the_gradient_goes_to_the_student_alone_and_descent_moves_it_to_the_target"

CONSISTENCY: tuple[Mutation, ...] = (
    # --- the path
    Mutation(
        "shift forgotten in the path's levels",
        METHOD,
        "return self.adapter.shift_and_clamp_timestep(u * total).float()",
        "return (u * total).float()",
        (EULER, f"{TESTS}::test_the_path_begins_at_pure_noise_ends_clean_and_is_shifted"),
    ),
    Mutation(
        "path runs from clean to noise", METHOD, "torch.arange(count, -1, -1,", "torch.arange(0, count + 1,", (EULER,)
    ),
    Mutation(
        "a step of the path drawn once for the micro-batch",
        METHOD,
        "torch.randint(self.config.solver_steps, (size,), generator=generator, device=generator.device)",
        "torch.randint(self.config.solver_steps, (1,), generator=generator, device=generator.device).expand(size)",
        (DRAWS,),
    ),
    Mutation(
        "the last step of the path, to clean, never drawn",
        METHOD,
        "torch.randint(self.config.solver_steps, (size,)",
        "torch.randint(self.config.solver_steps - 1, (size,)",
        (DRAWS,),
    ),
    Mutation(
        "times of a step swapped", METHOD, "return both[:, 0], both[:, 1]", "return both[:, 1], both[:, 0]", (DRAWS,)
    ),
    # --- the teacher's step
    Mutation(
        "teacher's step in the wrong direction",
        f"{CORE}/diffusion/flow.py",
        "return x0 + ratio * (noisy.to(x0.dtype) - x0)",
        "return x0 + (2 - ratio) * (noisy.to(x0.dtype) - x0)",
        (BY_HAND, EULER, f"{FLOW}::test_moving_along_the_line_is_an_euler_step_of_the_velocity_and_ends_at_x0"),
    ),
    Mutation(
        "levels of the teacher's step swapped",
        SOLVER,
        "return move_along(x, x0, t, next_t)",
        "return move_along(x, x0, next_t, t)",
        (BY_HAND, EULER),
    ),
    Mutation(
        "teacher asked at the next level",
        SOLVER,
        "x0 = predict_x0(x, t)",
        "x0 = predict_x0(x, next_t)",
        (BY_HAND, EULER),
    ),
    Mutation(
        "Heun's second slope at the first level",
        SOLVER,
        "predict_x0(second_x, second_t)",
        "predict_x0(second_x, t)",
        (HEUN, SPREAD),
    ),
    Mutation(
        "Heun's second slope at the first point",
        SOLVER,
        "(second_x - second_x0) / second",
        "(x - second_x0) / second",
        (HEUN, SPREAD),
    ),
    Mutation(
        "Heun's slopes added, not averaged",
        SOLVER,
        "(slope + second_slope) / 2",
        "(slope + second_slope)",
        (HEUN, SPREAD),
    ),
    Mutation(
        "Heun's last step is Euler's",
        SOLVER,
        "(slope + second_slope) / 2, second_slope)",
        "(slope + second_slope) / 2, slope)",
        (SPREAD,),
    ),
    Mutation(
        "Heun's last step almost to 0",
        SOLVER,
        "torch.where(next_t > 0, next_t, t / 2)",
        "torch.where(next_t > 0, next_t, t / 1000)",
        (SPREAD, HEUN),
    ),
    Mutation(
        "teacher's guidance left out",
        METHOD,
        "batch, guidance_scale=scale)",
        "batch, guidance_scale=1.0)",
        (GUIDED, CALLS),
    ),
    # --- without a teacher
    Mutation(
        "fresh noise at the next point",
        METHOD,
        "return self.adapter.add_noise(batch.latents, noise, next_t)",
        'return self.adapter.add_noise(batch.latents, self.noise_like(noise, "fresh").to(noise), next_t)',
        (SAME_NOISE, TRAINING),
    ),
    Mutation(
        "the next point at the same level",
        METHOD,
        "return self.adapter.add_noise(batch.latents, noise, next_t)",
        "return self.adapter.add_noise(batch.latents, noise, t)",
        (SAME_NOISE,),
    ),
    # --- the target
    Mutation(
        "target with a graph",
        METHOD,
        "with torch.no_grad():\n            ahead",
        "with torch.enable_grad():\n            ahead",
        (CALLS,),
    ),
    Mutation(
        "no stop-gradient at the target",
        LOSS,
        "target.detach()",
        "target",
        (ALONE,),
    ),
    Mutation(
        "target at the same level as the student",
        METHOD,
        "self.clean_end(self.target, ahead, next_t, batch)",
        "self.clean_end(self.target, ahead, t, batch)",
        (BY_HAND, EULER),
    ),
    Mutation(
        "target is what the teacher sees",
        METHOD,
        "self.clean_end(self.target, ahead, next_t, batch)",
        "ahead",
        (BY_HAND, EULER),
    ),
    Mutation(
        "the student in place of its average",
        METHOD,
        "self.clean_end(self.target, ahead,",
        "self.clean_end(self.student, ahead,",
        (CALLS,),
    ),
    Mutation(
        "the average's decay turned round",
        f"{CORE}/optim/average.py",
        "torch._foreach_lerp_(averages, weights, 1 - decay)",
        "torch._foreach_lerp_(averages, weights, decay)",
        (AVERAGE, "core/tests/optim/test_average.py::test_the_average_of_one_two_three_from_zero_is_the_known_one"),
    ),
    Mutation(
        "the average not saved",
        f"{CORE}/contracts/method.py",
        "copied.saved = True",
        "copied.saved = None",
        (
            AVERAGE,
            RESUMED,
        ),
    ),
    Mutation(
        "student and target without the caption",
        METHOD,
        "conditional=True, attn_kind",
        "conditional=False, attn_kind",
        (CAPTIONS,),
    ),
    # --- the loss
    Mutation(
        "loss weights ignored", LOSS, "mean_per_sample(squares, loss_weight)", "mean_per_sample(squares)", (WEIGHTS,)
    ),
    Mutation(
        "pseudo-Huber over the batch",
        LOSS,
        "return ((means + huber_constant**2).sqrt() - huber_constant).mean()",
        "return (means.mean() + huber_constant**2).sqrt() - huber_constant",
        (f"{LOSSES}::test_the_pseudo_huber_loss_of_a_sample_is_its_norm_less_a_constant",),
    ),
)
