"""Mistakes in the adversarial term: what the discriminator sees, its losses, its own settings."""

from __future__ import annotations

from tests.mutations.mutation import ADVERSARIAL, CORE, DMD2, FEATURES, UPDATES, Mutation

DISCRIMINATOR_BY_HAND = f"{ADVERSARIAL}::test_the_discriminator_s_gradient_is_that_of_its_loss_by_hand"
GENERATOR_BY_HAND = f"{ADVERSARIAL}::test_the_student_s_gradient_is_that_of_the_weighted_sum_of_both_terms"

TERM = f"{DMD2}/adversarial.py"
REAL = 'real = self.adapter.add_noise(batch.latents, self.noise_like(x, "discriminator_real_noise"), t)'
PERTURBED = 'perturbed = real + self.r1_sigma * self.noise_like(real, "r1_noise").to(real.dtype)'


def by_hand(name: str, old: str, new: str) -> Mutation:
    """A mistake in the discriminator's loss."""
    return Mutation(name, TERM, old, new, (DISCRIMINATOR_BY_HAND,))


ADVERSARIAL_TERM: tuple[Mutation, ...] = (
    Mutation(
        "the adversarial term's sign",
        f"{DMD2}/adversarial.py",
        "return softplus(-fake_logits).mean()",
        "return softplus(fake_logits).mean()",
        (f"{ADVERSARIAL}::test_the_generator_wants_high_logits_and_the_discriminator_low_ones_on_fakes",),
    ),
    Mutation(
        "R1 is the mean of differences, not of their squares",
        f"{DMD2}/adversarial.py",
        "((real_logits - perturbed_logits) ** 2).mean()",
        "(real_logits - perturbed_logits).abs().mean()",
        (f"{ADVERSARIAL}::test_the_approximate_r1_is_the_squared_gradient_norm_times_sigma_squared",),
    ),
    Mutation(
        "the adversarial weight ignored",
        f"{DMD2}/method.py",
        "loss + self.config.adversarial_weight * (x * realism.value).sum()",
        "loss + (x * realism.value).sum()",
        (f"{ADVERSARIAL}::test_the_student_s_gradient_is_that_of_the_weighted_sum_of_both_terms",),
    ),
    Mutation(
        "the teacher's features trained",
        f"{DMD2}/method.py",
        "trains_scorer=scorer is self.critic",
        "trains_scorer=False",
        (f"{ADVERSARIAL}::test_each_phase_trains_its_own_roles",),
    ),
    Mutation(
        "the heads never stepped",
        f"{DMD2}/method.py",
        "return due if self.adversarial is None else [*due, self.adversarial.heads]",
        "return due",
        (f"{ADVERSARIAL}::test_the_heads_move_in_every_iteration",),
    ),
    # --- what the discriminator sees
    by_hand("real noised at another noise level", REAL, REAL.replace(", t)", ", t.flip(0))")),
    by_hand("real not noised", REAL, "real = batch.latents"),
    by_hand(
        "real scored at another noise level",
        "real_logits = self._logits(self._scored(real, t, batch))\n        penalty",
        "real_logits = self._logits(self._scored(real, t.flip(0), batch))\n        penalty",
    ),
    by_hand(
        "real and fake swapped",
        "return softplus(fake_logits).mean()",
        "return softplus(-fake_logits).mean()",
    ),
    by_hand(
        "negative conditioning in the features",
        "self.scorer, noisy, t, batch, conditional=True",
        "self.scorer, noisy, t, batch, conditional=False",
    ),
    Mutation(
        "conditioning elements judged by the discriminator",
        TERM,
        "if batch.loss_weight is None:",
        "if True:",
        (f"{ADVERSARIAL}::test_elements_of_weight_zero_are_not_the_discriminator_s_to_judge",),
    ),
    # --- R1
    by_hand(
        "R1 on freshly noised data",
        PERTURBED,
        PERTURBED.replace(
            "= real", '= self.adapter.add_noise(batch.latents, self.noise_like(x, "generator_noise"), t)'
        ),
    ),
    by_hand("R1 on data without noise", PERTURBED, PERTURBED.replace("= real", "= batch.latents")),
    by_hand("R1 on the student's samples", PERTURBED, PERTURBED.replace("= real", "= x")),
    by_hand(
        "R1 at another noise level",
        "features = self._features(perturbed, t, batch)\n            held",
        "features = self._features(perturbed, t.flip(0), batch)\n            held",
    ),
    by_hand("R1's perturbation not scaled", PERTURBED, PERTURBED.replace("self.r1_sigma * ", "")),
    by_hand(
        "R1 divided by sigma squared",
        "self.r1_weight * approximate_r1(real_logits, held)",
        "self.r1_weight / self.r1_sigma**2 * approximate_r1(real_logits, held)",
    ),
    by_hand("R1 subtracted", "real_loss(real_logits) + penalty", "real_loss(real_logits) - penalty"),
    by_hand(
        "R1 left out of the data's pass", "real_loss(real_logits) + penalty", "real_loss(real_logits) + 0 * penalty"
    ),
    by_hand("R1 left out of the perturbed pass", "DiscriminatorPart(self.r1_weight * r1,", "DiscriminatorPart(0 * r1,"),
    # --- the student's part
    Mutation(
        "the generator's sample not noised",
        TERM,
        "noisy = self.adapter.add_noise(counted(leaf, batch), noise, t)",
        "noisy = counted(leaf, batch)",
        (GENERATOR_BY_HAND,),
    ),
    Mutation(
        "the term's gradient taken at other samples than the student's",
        f"{DMD2}/method.py",
        "return self.adversarial.generator(x, batch)",
        "return self.adversarial.generator(noisy, batch)",
        (f"{ADVERSARIAL}::test_the_term_looks_at_the_sample_that_it_then_moves",),
    ),
    # --- settings
    Mutation(
        "the discriminator's weight ignored",
        f"{DMD2}/method.py",
        "self.config.discriminator_weight * part.loss",
        "part.loss",
        (DISCRIMINATOR_BY_HAND,),
    ),
    Mutation(
        "the heads' learning rate ignored",
        f"{DMD2}/method.py",
        'like="critic", learning_rate=rate)',
        'like="critic")',
        (f"{ADVERSARIAL}::test_the_heads_learn_at_their_own_rate_else_the_critic_s",),
    ),
    Mutation(
        "the heads' schedule sized in the student's updates",
        f"{DMD2}/method.py",
        "self.config.critic_updates(self.cfg.training.max_train_steps)",
        "self.config.student_updates(self.cfg.training.max_train_steps)",
        (f"{ADVERSARIAL}::test_the_heads_schedule_is_sized_in_iterations",),
    ),
    Mutation(
        "the heads clipped at training's norm",
        f"{DMD2}/method.py",
        'super().max_grad_norm(self.critic.optimizers["adamw"] if is_heads else optimizer)',
        "super().max_grad_norm(optimizer)",
        (f"{ADVERSARIAL}::test_the_heads_are_clipped_as_the_critic_is",),
    ),
    Mutation(
        "the term's gradient not divided by the accumulation rounds",
        f"{DMD2}/adversarial.py",
        "return softplus(-fake_logits).mean()",
        "return softplus(-fake_logits).sum()",
        (f"{UPDATES}::test_accumulated_rounds_give_the_gradients_of_one_large_batch",),
    ),
    Mutation(
        "features that do not depend on the network's output",
        f"{CORE}/contracts/hidden_states.py",
        "return list(_WithPrediction.apply(prediction, *outputs))",
        "return list(outputs)",
        (FEATURES,),
    ),
)
