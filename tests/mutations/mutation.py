"""A known mistake: where it would be made, and the tests that must notice it."""

from __future__ import annotations

from dataclasses import dataclass

CORE = "core/src/fastvideo_core"
DMD2 = "plugins/fastvideo-dmd2/src/fastvideo_dmd2"
FINETUNE = "plugins/fastvideo-finetune/src/fastvideo_finetune"

TRAINER = "core/tests/training/test_trainer.py"
TRAINER_FAULTS = "core/tests/training/test_trainer_faults.py"
FLOW = "core/tests/diffusion/test_flow.py"
EMA = "core/tests/callbacks/test_ema.py"
FEATURES = "core/tests/contracts/test_hidden_states.py::test_going_back_from_features_goes_through_the_network_s_output"
LOSSES = "plugins/fastvideo-dmd2/tests/test_losses.py"
METHOD = "plugins/fastvideo-dmd2/tests/test_method.py"
METRICS = "plugins/fastvideo-dmd2/tests/test_metrics.py"
UPDATES = "plugins/fastvideo-dmd2/tests/test_updates.py"
ADVERSARIAL = "plugins/fastvideo-dmd2/tests/test_adversarial.py"
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
