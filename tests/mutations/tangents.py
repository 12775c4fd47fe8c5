"""Mistakes of continuous-time consistency: the tangent, its loss, who is updated, where a rollout stops."""

from __future__ import annotations

from tests.mutations.mutation import Mutation

RCM = "plugins/fastvideo-rcm/src/fastvideo_rcm"
RCM_TESTS = "plugins/fastvideo-rcm/tests"

TANGENT = f"{RCM_TESTS}/test_losses.py::test_the_tangent_of_one_sample"
TWO_ELEMENTS = f"{RCM_TESTS}/test_losses.py::test_the_loss_of_a_sample_of_two_elements_and_its_gradient"
METHOD = f"{RCM_TESTS}/test_method.py"
ORACLE = f"{METHOD}::test_one_term_has_the_loss_and_the_gradient_of_the_oracle"
WARM_UP = f"{METHOD}::test_the_warm_up_scales_the_student_s_own_part_of_the_tangent"
STILL = f"{METHOD}::test_the_consistency_function_of_the_teacher_gets_no_gradient"
UPDATED = f"{METHOD}::test_the_student_alone_in_the_warm_up_then_every_kth_iteration_and_the_critic_in_the_others"
OWN_ROLE = f"{METHOD}::test_each_phase_is_its_own_loss_and_trains_its_own_role"
CALLS = f"{METHOD}::test_an_iteration_makes_the_calls_of_the_page"
LEVELS = f"{METHOD}::test_noise_levels_are_those_of_the_recipe_per_sample_and_not_shifted"
FALLING = f"{METHOD}::test_a_rollout_stops_at_random_times_that_fall_from_pure_noise"
SHARED = f"{METHOD}::test_all_rounds_and_ranks_of_an_iteration_share_the_rollout_s_times"

G = "g = (1 - s) ** 2 / n * towards - warmup * s * (1 - s) * ((1 - 2 * s) / n * towards + n * dv)"


def in_losses(name: str, old: str, new: str, *tests: str) -> Mutation:
    return Mutation(name, f"{RCM}/losses.py", old, new, tests)


def in_term(name: str, old: str, new: str, *tests: str) -> Mutation:
    return Mutation(name, f"{RCM}/consistency.py", old, new, tests)


def in_method(name: str, old: str, new: str, *tests: str) -> Mutation:
    return Mutation(name, f"{RCM}/method.py", old, new, tests)


TANGENTS: tuple[Mutation, ...] = (
    # --- the tangent
    in_losses("the tangent's sign", "towards = v_teacher - v", "towards = v - v_teacher", TANGENT, ORACLE),
    in_losses("the tangent's sign, all of it", G, G.replace("g = ", "g = -(") + ")", TANGENT, ORACLE),
    in_losses("the derivative's sign", "towards + n * dv)", "towards - n * dv)", TANGENT, STILL),
    in_losses("the warm-up forgotten on the derivative", G, G.replace("- warmup * s", "- s"), TANGENT, WARM_UP),
    in_losses(
        "the warm-up on one half alone, as rCM's code",
        G,
        G.replace("- warmup * s * (1 - s) * (", "- s * (1 - s) * (warmup * ").replace("+ n * dv", "+ n * dv"),
        TANGENT,
        WARM_UP,
    ),
    in_losses("the teacher's part warmed up too", G, G.replace("g = (1", "g = warmup * (1"), TANGENT, WARM_UP),
    in_losses(
        "the tangent normalised over the batch",
        "norm = counted.flatten(1).norm(dim=1)",
        "norm = counted.norm().expand(len(g))",
        f"{RCM_TESTS}/test_losses.py::test_samples_do_not_scale_each_other",
    ),
    in_losses(
        "the tangent not normalised",
        "g / (expand_to(norm, g) + NORMALISER)",
        "g",
        TWO_ELEMENTS,
        ORACLE,
    ),
    in_losses(
        "elements of no weight in the tangent's norm",
        "counted = g if loss_weight is None else g * (loss_weight != 0)",
        "counted = g",
        f"{RCM_TESTS}/test_losses.py::test_elements_of_weight_0_count_nothing",
    ),
    # --- the loss
    in_losses(
        "target of the consistency loss not detached",
        "target = (v + tangent.value.to(wide) / n).detach()",
        "target = v + tangent.value.to(wide) / n",
        TWO_ELEMENTS,
        ORACLE,
    ),
    in_losses(
        "the student pushed away from its target",
        "target = (v + tangent",
        "target = (v - tangent",
        TWO_ELEMENTS,
        ORACLE,
    ),
    in_losses("the length of states left out of the loss", "n**2 * (v - target)", "(v - target)", TWO_ELEMENTS, ORACLE),
    # --- the derivative's direction
    in_term(
        "the tangent's time in units of sigma",
        "torch.full_like(t, length)  #",
        "torch.ones_like(t)  #",
        ORACLE,
        STILL,
    ),
    in_term(
        "the tangent's time scaled twice",
        "torch.full_like(t, length)  #",
        "torch.full_like(t, length**2)  #",
        ORACLE,
        STILL,
    ),
    in_term(
        "the tangent against the flow",
        "direction = flow.to(noisy.dtype), torch",
        "direction = -flow.to(noisy.dtype), torch",
        ORACLE,
        STILL,
    ),
    in_term(
        "the tangent along the student's own flow",
        "velocity, derivative = directional_derivative(student, (noisy, t), direction)",
        "own = student(noisy, t).detach(), direction[1]\n"
        "        velocity, derivative = directional_derivative(student, (noisy, t), own)",
        ORACLE,
    ),
    in_term(
        "noise level and timestep swapped in the tangent",
        "warmup, sigma = self.warmup(iteration), t / length",
        "warmup, sigma = self.warmup(iteration), 1 - t / length",
        ORACLE,
        STILL,
    ),
    in_term(
        "the teacher of the tangent without guidance",
        "scale = self._config.real_score_guidance_scale",
        "scale = 1.0",
        f"{METHOD}::test_the_teacher_is_guided",
    ),
    in_term(
        "the teacher of the tangent with a graph",
        "with torch.no_grad():\n            scale",
        "with torch.enable_grad():\n            scale",
        CALLS,
    ),
    in_term("no warm-up of the tangent", "min(1.0, iteration / steps)", "1.0", WARM_UP),
    in_term("the warm-up never over", "min(1.0, iteration / steps)", "iteration / (iteration + steps)", WARM_UP),
    in_term(
        "the weight of the consistency loss ignored",
        "self._config.consistency_weight * loss,",
        "loss,",
        f"{METHOD}::test_the_losses_have_their_weights",
        ORACLE,
    ),
    # --- noise levels
    in_term("noise levels of the tangent uniform", 'sample_u("logit_normal",', 'sample_u("uniform",', LEVELS),
    in_term(
        "noise levels of the tangent shifted",
        "return u * self._adapter.num_train_timesteps",
        "return self._adapter.shift_and_clamp_timestep(u * self._adapter.num_train_timesteps)",
        LEVELS,
    ),
    # --- who is updated
    in_method(
        "the critic updated along with the student",
        "            return [self.student]\n        return [self.critic]",
        "            return [self.student, self.critic]\n        return [self.critic]",
        UPDATED,
    ),
    in_method(
        "no iterations for the student alone in the warm-up",
        "return self.is_warming_up(iteration) or super().student_is_due(iteration)",
        "return super().student_is_due(iteration)",
        UPDATED,
        OWN_ROLE,
    ),
    in_method(
        "distribution matching in the warm-up",
        "        if self.is_warming_up(iteration):\n            return\n",
        "",
        OWN_ROLE,
        CALLS,
    ),
    in_method(
        "the weight of distribution matching ignored",
        'self.config.dmd_weight * losses["total_loss"]',
        'losses["total_loss"]',
        f"{METHOD}::test_the_losses_have_their_weights",
    ),
    # --- the rollout
    in_method("rollout times that do not fall", "min(times[-1], float(t))", "float(t)", FALLING),
    in_method(
        "rollout times not shifted",
        "t = self.adapter.shift_and_clamp_timestep(u[None] * self.adapter.num_train_timesteps)",
        "t = u[None] * self.adapter.num_train_timesteps",
        FALLING,
    ),
    in_method(
        "rollout times of each rank's own",
        'generator=self.rng.shared("rollout_times")',
        'generator=self.rng.local("rollout_times")',
        SHARED,
    ),
    in_method("rollout times drawn anew in every round", "if self._rollout[0] != iteration:", "if True:", SHARED),
    # --- forward mode
    Mutation(
        "attention whose tangent forgets the softmax's sum",
        f"{RCM}/tangent.py",
        "dp = p_ds - p * p_ds.sum(-1, keepdim=True)",
        "dp = p_ds",
        (f"{RCM_TESTS}/test_tangent.py::test_attention_has_the_tangent_of_the_plain_formula",),
    ),
    Mutation(
        "attention whose tangent forgets the keys",
        f"{RCM}/tangent.py",
        "d_scores = (dq @ key.mT + q @ d_key.mT)",
        "d_scores = (dq @ key.mT)",
        (f"{RCM_TESTS}/test_tangent.py::test_attention_has_the_tangent_of_the_plain_formula",),
    ),
)
