"""Mistakes in knowledge distillation: its states, its targets, and the sampling that writes what it learns from."""

from __future__ import annotations

from tests.mutations.mutation import Mutation

KD = "plugins/fastvideo-kd/src/fastvideo_kd"
TESTS = "plugins/fastvideo-kd/tests"
DATA = "plugins/fastvideo-data/src/fastvideo_data"
ORACLES, STATES, METHOD = f"{TESTS}/test_oracles.py", f"{TESTS}/test_states.py", f"{TESTS}/test_method.py"
EXACT = f"{ORACLES}::test_the_student_of_one_path_is_the_exact_map_with_no_loss_left"
GUIDED_ENDS = f"{ORACLES}::test_guidance_moves_the_ends_of_trajectories_as_u_plus_w_c_minus_u"
SHORT = f"{ORACLES}::test_a_teacher_of_48_euler_steps_at_shift_5_ends_short_of_the_data_s_spread"
SHIFTS = f"{ORACLES}::test_the_teacher_s_steps_are_moved_through_the_shift"
CHORD = f"{ORACLES}::test_two_euler_steps_merge_into_one_of_their_chord"
NUMBERS = f"{STATES}::test_every_call_has_the_state_of_its_own_timestep_and_the_end_is_last"

DISTILLATION: tuple[Mutation, ...] = (
    Mutation(
        "the state after the one that the timestep belongs to",
        f"{KD}/method.py",
        "call = self.steps.numbers(t) - 1",
        "call = self.steps.numbers(t) - 1 + (t > 900).long()",
        (EXACT,),
    ),
    Mutation(
        "the state before the end as the clean end",
        f"{KD}/method.py",
        "trajectory.states[:, -1]",
        "trajectory.states[:, -2]",
        (EXACT,),
    ),
    Mutation(
        "noise of its own in place of the trajectory's state",
        f"{KD}/method.py",
        "state, _ = self.states_at(trajectory, t)",
        "state = self.noise_like(trajectory.states[:, 0], 'noise')",
        (EXACT,),
    ),
    Mutation(
        "the nearest state without saying so",
        f"{KD}/states.py",
        "> TOLERANCE:",
        "> 1000:",
        (f"{STATES}::test_a_state_that_is_not_there_is_an_error_that_names_those_that_are",),
    ),
    Mutation(
        "the end taken by its stored timestep",
        f"{KD}/states.py",
        "near = min(range(last),",
        "near = min(range(last + 1),",
        (f"{STATES}::test_the_end_is_the_last_state_whatever_its_timestep_is",),
    ),
    Mutation(
        "the first sample's states for all",
        f"{KD}/states.py",
        "torch.arange(len(numbers), ",
        "0 * torch.arange(len(numbers), ",
        (NUMBERS,),
    ),
    Mutation(
        "slope of a step with its sign turned",
        f"{KD}/losses.py",
        "slope = (state - later)",
        "slope = (later - state)",
        (CHORD, f"{STATES}::test_the_ends_of_a_line_are_on_it"),
    ),
    Mutation(
        "slope over the wrong piece of the noise axis",
        f"{KD}/losses.py",
        "/ (level - later_level)",
        "/ level",
        (CHORD,),
    ),
    Mutation(
        "times of the two states swapped",
        f"{KD}/method.py",
        "line_ends(state, later, t / total, self.next_timesteps(t) / total)",
        "line_ends(state, later, self.next_timesteps(t) / total, t / total)",
        (f"{TESTS}/test_conformance.py::TestVelocity::test_the_student_comes_nearer_to_the_data",),
    ),
    Mutation(
        "the next step of the slope is its own",
        f"{KD}/method.py",
        "return levels[self.steps.numbers(t)]",
        "return levels[self.steps.numbers(t) - 1]",
        (f"{METHOD}::test_the_slope_of_the_last_step_leads_to_the_clean_end",),
    ),
    Mutation(
        "masks of kd forgotten",
        f"{KD}/losses.py",
        "** 2, loss_weight).mean()",
        "** 2).mean()",
        (f"{METHOD}::test_elements_without_weight_count_nothing",),
    ),
    Mutation(
        "the student's schedule not shifted",
        f"{KD}/method.py",
        "warp=warp if config.warp_denoising_step else None",
        "warp=None",
        (f"{METHOD}::test_the_schedule_is_moved_through_the_family_s_shift_unless_told_otherwise",),
    ),
    Mutation(
        "the student itself as its guided teacher, without a stop-gradient",
        f"{KD}/method.py",
        'with torch.no_grad():\n            target = self.adapter.predict_noise_guided(\n                self.bundle["teacher"],',
        "with torch.enable_grad():\n            target = self.adapter.predict_noise_guided(\n                self.student,",
        (f"{METHOD}::test_guidance_of_the_teacher_is_in_the_target",),
    ),
    Mutation(
        "a graph in the guided target",
        f"{KD}/method.py",
        "with torch.no_grad():\n            target",
        "with torch.enable_grad():\n            target",
        (f"{METHOD}::test_the_guided_target_has_no_graph",),
    ),
    Mutation(
        "the student's target from a conditional teacher alone",
        f"{KD}/method.py",
        "guidance_scale=self.config.teacher_guidance_scale",
        "guidance_scale=1.0",
        (f"{METHOD}::test_guidance_of_the_teacher_is_in_the_target",),
    ),
    Mutation(
        "trajectories of a conditional teacher alone",
        f"{KD}/trajectories.py",
        "batch, guidance_scale=guidance_scale)",
        "batch, guidance_scale=1.0)",
        (GUIDED_ENDS,),
    ),
    Mutation(
        "guidance one too strong in trajectories",
        f"{KD}/trajectories.py",
        "batch, guidance_scale=guidance_scale)",
        "batch, guidance_scale=guidance_scale + 1.0)",
        (GUIDED_ENDS,),
    ),
    Mutation(
        "the teacher's steps not shifted",
        f"{KD}/stored_steps.py",
        "shift(unshifted).tolist()",
        "unshifted.tolist()",
        (SHORT, SHIFTS),
    ),
    Mutation(
        "the teacher asked at the end of its step",
        f"{KD}/trajectories.py",
        "at = torch.full((len(x),), t,",
        "at = torch.full((len(x),), max(timesteps[index + 1], 1.0),",
        (SHORT,),
    ),
    Mutation(
        "states stored after their step",
        f"{KD}/trajectories.py",
        "        if index in kept:\n            states.append(x.cpu())\n",
        "        if index - 1 in kept:\n            states.append(x.cpu())\n",
        (CHORD,),
    ),
    Mutation(
        "noise of the batch in place of the prompt's own",
        f"{KD}/trajectories.py",
        'stream_seed(seed, f"trajectory/{name}")',
        'stream_seed(seed, f"trajectory/{len(ids)}")',
        (f"{TESTS}/test_noise.py::test_the_noise_of_a_prompt_does_not_depend_on_its_batch",),
    ),
    Mutation(
        "states normalised again",
        f"{DATA}/trajectories.py",
        'raw_batch.get(f"{states}_normalised", True)',
        "False",
        ("plugins/fastvideo-data/tests/test_trajectories.py::test_states_are_taken_to_be_normalised",),
    ),
    Mutation(
        "the first state as the clip",
        f"{DATA}/trajectories.py",
        "states[:, -1] for name",
        "states[:, 0] for name",
        ("plugins/fastvideo-data/tests/test_trajectories.py::test_the_last_state_stands_for_the_clip",),
    ),
)
