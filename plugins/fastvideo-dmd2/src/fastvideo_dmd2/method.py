"""DMD2: a few-step student whose samples' distribution is moved to the teacher's (Yin et al. 2024, arXiv:2405.14867)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeVar, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from fastvideo_core.config.base import PipelineConfig
from fastvideo_core.config.run import RunConfig
from fastvideo_core.contracts.adapter import (
    AddNoise,
    LatentsSource,
    NumTrainTimesteps,
    PredictionTarget,
    PredictNoise,
    PredictX0,
    PredictX0Guided,
    ShiftAndClampTimestep,
)
from fastvideo_core.contracts.batch import TrainingBatch
from fastvideo_core.contracts.family import ModelFamily
from fastvideo_core.contracts.few_steps import FewStepMethod, StudentSteps
from fastvideo_core.contracts.method import StepResult
from fastvideo_core.contracts.noise_ranges import noise_ranges_of
from fastvideo_core.contracts.rng import stream_seed
from fastvideo_core.contracts.roles import RoleHandle, RoleManager
from fastvideo_core.contracts.validator import DistillValidator
from fastvideo_core.diffusion.rollout import FewStepSchedule, roll_to, transition
from fastvideo_core.diffusion.timesteps import timestep_fractions
from fastvideo_core.distributed import context
from fastvideo_core.errors import ConfigError, Problem
from fastvideo_core.optim import build_lr_scheduler, build_optimizer
from fastvideo_dmd2.adversarial import AdversarialGradient, AdversarialNeeds, AdversarialTerm, DiscriminatorHeads
from fastvideo_dmd2.config import DMD2Config
from fastvideo_dmd2.levels import add_noise_from_level, pair_from_level
from fastvideo_dmd2.losses import critic_loss, dmd_gradient, dmd_loss, variation_per_sample


class DMD2Needs(
    NumTrainTimesteps,
    ShiftAndClampTimestep,
    AddNoise,
    PredictX0,
    PredictNoise,
    PredictionTarget,
    PredictX0Guided,
    Protocol,
): ...


NO_PHASES = Problem(
    "the student has one network for all noise levels, and phased trains one of several",
    "method_config.phased",
    fix="set it to false, or take a student of several networks, such as Wan 2.2 A14B",
)


Needs = TypeVar("Needs", bound=DMD2Needs)
"""Methods that build on DMD2 may need more."""


class DMD2Method(FewStepMethod[Needs]):
    """Student, teacher (real score) and critic (fake score).

    Every iteration: the student makes samples x. When the student is due, x is pushed along the difference of the two
    scores. Then the critic learns the distribution of the same x, detached. One network's graph lives at a time: the
    student's is gone before the critic's is built, and the adversarial term's come before the one and after the other.
    """

    @classmethod
    def needs(cls, cfg: RunConfig) -> tuple[type, ...]:
        features = (AdversarialNeeds,) if cfg.section(DMD2Config).adversarial_weight > 0 else ()
        return (*super().needs(cfg), *features)

    @classmethod
    def latents_source(cls, cfg: RunConfig) -> LatentsSource:
        config = cfg.section(DMD2Config)
        return "zeros" if config.rollout_mode == "simulate" and config.adversarial_weight == 0 else "data"

    @classmethod
    def check(cls, cfg: RunConfig, family: ModelFamily) -> Iterable[Problem]:
        if cfg.section(DMD2Config).phased and cfg.role_family("student") == cfg.recipe.family:
            outline = family.outline(cfg, "student", latents_source=cls.latents_source(cfg))
            if outline is not None and len(outline.handle.modules) == 1:
                yield NO_PHASES

    @classmethod
    def student_schedule(cls, config: DMD2Config, warp: Callable[[Tensor], Tensor]) -> FewStepSchedule:
        return FewStepSchedule.from_denoising_steps(
            config.dmd_denoising_steps, warp=warp if config.warp_denoising_step else None
        )

    def __init__(
        self, cfg: RunConfig, bundle: RoleManager, adapter: Needs, validator: DistillValidator | None = None
    ) -> None:
        super().__init__(cfg, bundle, adapter, validator)
        self.config = cfg.section(DMD2Config)
        self.sampler_kind = cfg.section(PipelineConfig).sampler_kind
        self.student, self.teacher, self.critic = bundle["student"], bundle["teacher"], bundle["critic"]
        self.schedule = self.student_schedule(self.config, adapter.shift_and_clamp_timestep)
        self.student_steps = StudentSteps(self, self.student, self.schedule, key="dmd_denoising_steps")
        steps = cfg.training.max_train_steps
        counts = self.config.student_updates(steps), self.config.critic_updates(steps)
        for handle, updates in zip((self.student, self.critic), counts, strict=True):
            optimizer = build_optimizer(handle, cfg)
            handle.optimizers["adamw"] = optimizer
            handle.lr_schedulers["adamw"] = build_lr_scheduler(optimizer, cfg, handle.name, num_updates=updates)
        self.adversarial = self._adversarial_term() if self.config.adversarial_weight > 0 else None
        self.level = self._end_of_phase() if self.config.phased else 0.0
        self._iteration = 0
        self._exit = (0, 0)  # (iteration, exit index): all accumulation rounds of an iteration leave at the same step
        self.shown_teacher = self.teacher if self.config.validate_teacher else None

    @classmethod
    def extra_roles(cls, cfg: RunConfig, bundle: RoleManager, adapter: Needs) -> Iterable[RoleHandle]:
        """The discriminator's heads, where there is an adversarial term."""
        config = cfg.section(DMD2Config)
        if config.adversarial_weight == 0:
            return ()
        scorer = bundle[config.adversarial_features]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream_seed(cfg.training.seed, "discriminator"))
            channels = cast("AdversarialNeeds", adapter).feature_channels(scorer)
            heads = DiscriminatorHeads(channels).to(context.device())
        return (RoleHandle("discriminator", {"heads": heads}, family=scorer.family, trainable=True),)

    def _end_of_phase(self) -> float:
        """The noise level of the student's first call behind those that are trained: where the next network takes its sample."""
        if noise_ranges_of(self.adapter, self.student) == ((0.0, float(self.adapter.num_train_timesteps)),):
            raise ConfigError([NO_PHASES])
        level = self.schedule.sigma(self.student_steps.indices[-1] + 1)
        if level >= self.config.max_timestep_ratio:
            found = f"scores are compared above the noise level {level:g}, where the next network takes over"
            raise ConfigError(
                [Problem(found, "method_config.max_timestep_ratio", allowed=f"above {level:g}", fix="raise it")]
            )
        return level

    def _adversarial_term(self) -> AdversarialTerm:
        handle = self.bundle["discriminator"]
        scorer = self.bundle[self.config.adversarial_features]
        rate = self.config.discriminator_learning_rate
        handle.optimizers["adamw"] = build_optimizer(handle, self.cfg, like="critic", learning_rate=rate)
        updates = self.config.critic_updates(self.cfg.training.max_train_steps)
        handle.lr_schedulers["adamw"] = build_lr_scheduler(
            handle.optimizers["adamw"], self.cfg, "critic", num_updates=updates
        )
        return AdversarialTerm(
            adapter=cast("AdversarialNeeds", self.adapter),
            scorer=scorer,
            heads=handle,
            trains_scorer=scorer is self.critic,
            sample_timesteps=self.score_timesteps,
            noise_like=self.noise_like,
            r1_weight=self.config.r1_weight,
            r1_sigma=self.config.r1_sigma,
        )

    # --- one iteration --------------------------------------------------------------------------------------------

    def single_train_step(
        self, batch: Any, iteration: int, *, current_vsa_sparsity: float = 0.0
    ) -> Iterator[StepResult]:
        self._iteration = iteration
        prepared = self.prepare_batch(
            batch, latents_source=self.latents_source(self.cfg), current_vsa_sparsity=current_vsa_sparsity
        )
        noisy, t = self.student_input(prepared, iteration)
        if self.student_is_due(iteration):
            realism = self.realism_gradient(noisy, t, prepared)
            x = self.sample_at_level(noisy, t, prepared)
            yield self.student_phase(x, prepared, realism)
            x = x.detach()
        else:
            with torch.no_grad():
                x = self.sample_at_level(noisy, t, prepared)
        losses, outputs, metrics = self.critic_phase(x, prepared)
        yield losses, outputs, {**metrics, **self.exit_metrics(t)}
        yield from self.discriminator_phases(x, prepared)

    def student_is_due(self, iteration: int) -> bool:
        """Whether this iteration (1-based) updates the student."""
        return iteration % self.config.generator_update_interval == 0

    def due_roles(self, iteration: int) -> Sequence[RoleHandle]:
        due = [self.student, self.critic] if self.student_is_due(iteration) else [self.critic]
        return due if self.adversarial is None else [*due, self.adversarial.heads]

    def max_grad_norm(self, optimizer: Optimizer) -> float:
        """Of each role's own; the heads are clipped as the critic is."""
        is_heads = self.adversarial is not None and optimizer in self.adversarial.heads.optimizers.values()
        return super().max_grad_norm(self.critic.optimizers["adamw"] if is_heads else optimizer)

    # --- the student's sample -------------------------------------------------------------------------------------

    def exit_index(self, iteration: int) -> int:
        """The call of the schedule at which this iteration's rollout ends: uniform, equal on all ranks and rounds.

        Ranks whose networks are sharded must make equally many calls.
        """
        if self._exit[0] != iteration:
            exits = self.student_steps.indices
            drawn = torch.randint(len(exits), (), generator=self.rng.shared("exit_step"))
            self._exit = (iteration, exits[int(drawn)])
        return self._exit[1]

    def exit_timesteps(self, batch_size: int) -> Tensor:
        """A timestep of the schedule for each sample [B]: uniform. For data, where no rollout leads there."""
        return self.student_steps.draw(batch_size, iteration=self._iteration, stream="exit_steps", shared="exit_range")

    def exit_metrics(self, t: Tensor) -> dict[str, Tensor]:
        """Where the samples' rollouts ended [B]: which call of the schedule, counted from 1, and its timestep; their means."""
        steps = self.student_steps.numbers(t)
        return {"rollout/exit_step": steps.float().mean(), "rollout/exit_timestep": t.mean()}

    def student_input(self, batch: TrainingBatch, iteration: int) -> tuple[Tensor, Tensor]:
        """The student's noisy input [B, ...] at the exit step, and its timestep [B]; no graph."""
        noise = self.noise_like(batch.latents, "student_noise")
        if self.config.rollout_mode == "data_latent":
            t = self.exit_timesteps(batch.batch_size)
            return self.adapter.add_noise(batch.latents, noise, t), t
        index = self.exit_index(iteration)
        t = self.schedule.timestep_tensor(index, batch.batch_size, batch.latents.device)
        noisy = roll_to(
            lambda x, at: self.student_sample(x, at, batch),
            noise,
            self.schedule,
            exit_index=index,
            kind=self.sampler_kind,
            generator=self.rng.local("rollout_noise"),
        )
        return noisy, t

    def student_sample(self, noisy: Tensor, t: Tensor, batch: TrainingBatch) -> Tensor:
        """The student's x0 [B, ...]."""
        x0: Tensor = self.adapter.predict_x0(
            self.student, noisy, t, batch, conditional=True, attn_kind=self.config.attn_kind
        )
        return x0

    def sample_at_level(self, noisy: Tensor, t: Tensor, batch: TrainingBatch) -> Tensor:
        """The student's sample [B, ...] that scores are compared at: its x0, moved to `level` as sampling goes there."""
        x0 = self.student_sample(noisy, t, batch)
        if self.level == 0:
            return x0
        sigma, stream = t.double() / self.adapter.num_train_timesteps, self.rng.local("phase_noise")
        return transition(noisy, x0, sigma, self.level, kind=self.sampler_kind, generator=stream)

    # --- the two losses -------------------------------------------------------------------------------------------

    def realism_gradient(self, noisy: Tensor, t: Tensor, batch: TrainingBatch) -> AdversarialGradient | None:
        """The adversarial term's gradient at the student's sample; None without the term.

        It takes a call of the student of its own, without a graph, so that the scorer's graph and the student's never
        live together.
        """
        if self.adversarial is None:
            return None
        with torch.no_grad():
            x = self.student_sample(noisy, t, batch)
        return self.adversarial.generator(x, batch)

    def student_phase(self, x: Tensor, batch: TrainingBatch, realism: AdversarialGradient | None = None) -> StepResult:
        """The distribution matching loss on the student's sample x [B, ...], at `level`; no graph in either score network.

        Args:
            realism: the adversarial term's gradient with respect to x, which is added at its weight.
        """
        with torch.no_grad():
            t = self.score_timesteps(batch.batch_size, "student_score").to(x.device)
            noisy, *_ = self.noised_sample(x, self.noise_like(x, "student_score_noise"), t)
            fake = self.adapter.predict_x0(self.critic, noisy, t, batch, conditional=True)
            real = self.adapter.predict_x0_guided(
                self.teacher, noisy, t, batch, guidance_scale=self.config.real_score_guidance_scale
            )
        gradient = dmd_gradient(x, real, fake, batch.loss_weight)
        loss = dmd_loss(x, gradient.value, batch.loss_weight)
        losses = {"student_loss": loss.detach()}
        if realism is not None:
            losses["generator_loss"] = realism.loss
            # linear in x with the term's gradient as its slope; its own value is of no interest
            loss = loss + self.config.adversarial_weight * (x * realism.value).sum()
        samples = x.detach()
        metrics = {
            "dmd/score_distance": gradient.distance.mean(),
            "dmd/normaliser": gradient.normaliser.mean(),
            "student_x0/mean": samples.mean(),
            "student_x0/std": samples.flatten(1).std(dim=1, correction=0).mean(),
            # falls to 0 when the student collapses to solid colours, which still differ between channels
            "student_x0/variation": variation_per_sample(samples).mean(),
            "score_timestep": self.timestep_fractions(t),
        }
        return {"total_loss": loss, **losses}, {}, metrics

    def critic_phase(self, x: Tensor, batch: TrainingBatch) -> StepResult:
        """The critic's regression on the student's detached sample x [B, ...], at `level`."""
        t = self.score_timesteps(batch.batch_size, "critic").to(x.device)
        noisy, clean, noise, weight = self.noised_sample(x, self.noise_like(x, "critic_noise"), t)
        prediction = self.adapter.predict_noise(self.critic, noisy, t, batch, conditional=True)
        loss = critic_loss(prediction, self.adapter.prediction_target(clean, noise, t), batch.loss_weight, weight)
        metrics = {"critic_timestep": self.timestep_fractions(t)}
        return {"total_loss": loss, "critic_loss": loss.detach()}, {}, metrics

    def noised_sample(self, x: Tensor, noise: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | float]:
        """x [B, ...] noised from `level` to t [B]; clean latents, noise and weight [B] of what the critic regresses there."""
        if self.level == 0:
            return self.adapter.add_noise(x, noise, t), x, noise, 1.0
        sigma = t.double() / self.adapter.num_train_timesteps
        return add_noise_from_level(x, noise, self.level, sigma), *pair_from_level(x, noise, self.level, sigma)

    def discriminator_phases(self, x: Tensor, batch: TrainingBatch) -> Iterator[StepResult]:
        """The discriminator's loss on the student's detached sample x [B, ...] and the batch's data; none without the term."""
        if self.adversarial is None:
            return
        for part in self.adversarial.discriminator(x, batch):
            yield {"total_loss": self.config.discriminator_weight * part.loss, **part.losses}, {}, part.metrics

    def score_timesteps(self, batch_size: int, stream: str) -> Tensor:
        """Noise levels of the scores, one per sample [B]: uniform, shifted, held inside the configured bounds, above `level`.

        All of an iteration are served by one network of the teacher and one of the critic.
        """
        total = self.adapter.num_train_timesteps

        def draw(size: int, generator: torch.Generator) -> Tensor:
            u = torch.rand(size, generator=generator, device=generator.device)
            t: Tensor = self.adapter.shift_and_clamp_timestep(u * total)
            return t.clamp(self.config.min_timestep_ratio * total, self.config.max_timestep_ratio * total)

        return self.draw_in_one_range(
            (self.critic, self.teacher),
            draw,
            batch_size,
            iteration=self._iteration,
            stream=f"{stream}_timestep",
            shared="score_range",
            above=self.level * total,
        )

    def timestep_fractions(self, t: Tensor) -> Tensor:
        """The fraction of timesteps [B] in each tenth of the noise axis, [10]."""
        return timestep_fractions(t, self.adapter.num_train_timesteps)
