"""DMD2's adversarial term: heads on a score network's features tell the student's samples from data (arXiv:2405.14867, 4.3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from fastvideo_core.contracts.adapter import AddNoise, ExtractFeatures, FeatureChannels
from fastvideo_core.contracts.batch import TrainingBatch
from fastvideo_core.contracts.roles import RoleHandle


class AdversarialNeeds(AddNoise, ExtractFeatures, FeatureChannels, Protocol): ...


class DiscriminatorHeads(nn.Module):
    """One small head per feature map [B, tokens, channels]; the logit [B] is the mean over tokens and heads."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1))
            for width in channels
        )

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Feature maps, one per head, to logits [B]; above 0 is "data"."""
        logits = [head(feature.float()).flatten(1).mean(1) for head, feature in zip(self.heads, features, strict=True)]
        return torch.stack(logits).mean(0)


def generator_loss(fake_logits: Tensor) -> Tensor:
    """mean softplus(-D(fake)), the non-saturating loss of the student (Goodfellow et al. 2014)."""
    return softplus(-fake_logits).mean()


def real_loss(real_logits: Tensor) -> Tensor:
    """mean softplus(-D(real)), the discriminator's loss on data; log 2 when it cannot tell."""
    return softplus(-real_logits).mean()


def fake_loss(fake_logits: Tensor) -> Tensor:
    """mean softplus(D(fake)), the discriminator's loss on the student's samples; log 2 when it cannot tell."""
    return softplus(fake_logits).mean()


def approximate_r1(real_logits: Tensor, perturbed_logits: Tensor) -> Tensor:
    """mean (D(x) - D(x + sigma e))^2: R1 without second derivatives (Lin et al. 2025, arXiv:2501.08316, 3.4).

    For small sigma its expectation is sigma^2 |grad D|^2.
    """
    return ((real_logits - perturbed_logits) ** 2).mean()


@dataclass(frozen=True)
class AdversarialGradient:
    """What the term asks of the student's samples.

    Args:
        value: [B, ...] the gradient of the loss with respect to x.
        loss: the non-saturating loss, a scalar without a graph.
    """

    value: Tensor
    loss: Tensor


@dataclass(frozen=True)
class DiscriminatorPart:
    """A part of the discriminator's loss, to be back-propagated before the next one is made.

    Args:
        loss: a scalar with its graph.
        losses: what is logged of it, by name.
        metrics: by name.
    """

    loss: Tensor
    losses: dict[str, Tensor]
    metrics: dict[str, Tensor]


@dataclass(frozen=True)
class AdversarialTerm:
    """The discriminator at work: features of one score network, heads of its own.

    Elements of loss weight 0 (conditioning, padding) are the data's in both its inputs: they tell nothing, and the
    student gets no gradient there.

    Args:
        adapter: gives features (`extract_features`) and noises samples.
        scorer: the role whose features are used.
        heads: the discriminator's role; its module is `heads`.
        trains_scorer: whether the discriminator's loss also trains the scorer, as DMD2 does with its critic.
        sample_timesteps: micro-batch size, stream name -> timesteps [B].
        noise_like: latents, stream name -> noise.
        r1_weight: of `approximate_r1`; 0 leaves it out.
        r1_sigma: size of its perturbation.
    """

    adapter: AdversarialNeeds
    scorer: RoleHandle
    heads: RoleHandle
    trains_scorer: bool
    sample_timesteps: Callable[[int, str], Tensor]
    noise_like: Callable[[Tensor, str], Tensor]
    r1_weight: float
    r1_sigma: float

    def generator(self, x: Tensor, batch: TrainingBatch) -> AdversarialGradient:
        """The student's loss on its samples x [B, ...], and the gradient with respect to them.

        The gradient is taken here and now, with respect to x alone: neither scorer nor heads get one, and their graph is
        gone before the student's own is made.
        """
        t = self.sample_timesteps(len(x), "generator").to(x.device)
        noise = self.noise_like(x, "generator_noise")
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            noisy = self.adapter.add_noise(counted(leaf, batch), noise, t)
            loss = generator_loss(self._logits(self._features(noisy, t, batch)))
            (gradient,) = torch.autograd.grad(loss, leaf)
        return AdversarialGradient(gradient, loss.detach())

    def discriminator(self, x: Tensor, batch: TrainingBatch) -> Iterator[DiscriminatorPart]:
        """The loss on the student's detached samples x [B, ...] and on data, at the same noise levels.

        In parts, so that one graph of the scorer lives at a time. R1 is a function of two passes over the data: each
        gets its gradient with the other's logits held, which together are the whole gradient.
        """
        t = self.sample_timesteps(len(x), "discriminator").to(x.device)
        noise = self.noise_like(x, "discriminator_fake_noise")
        fake_logits = self._logits(self._scored(self.adapter.add_noise(counted(x, batch), noise, t), t, batch))
        loss = fake_loss(fake_logits)
        yield DiscriminatorPart(
            loss, {"discriminator_fake_loss": loss.detach()}, {"discriminator/fake": fake_logits.detach().mean()}
        )
        real = self.adapter.add_noise(batch.latents, self.noise_like(x, "discriminator_real_noise"), t)
        if self.r1_weight == 0:
            real_logits = self._logits(self._scored(real, t, batch))
            yield _real_part(real_logits, real_loss(real_logits))
            return
        perturbed = real + self.r1_sigma * self.noise_like(real, "r1_noise").to(real.dtype)
        with torch.no_grad():
            features = self._features(perturbed, t, batch)
            held = self._logits(features)
        real_logits = self._logits(self._scored(real, t, batch))
        penalty = self.r1_weight * approximate_r1(real_logits, held)
        yield _real_part(real_logits, real_loss(real_logits) + penalty)
        held = real_logits.detach()
        if self.trains_scorer:
            features = self._features(perturbed, t, batch)
        r1 = approximate_r1(held, self._logits(features))
        yield DiscriminatorPart(self.r1_weight * r1, {"discriminator_r1_loss": r1.detach()}, {})

    def _scored(self, noisy: Tensor, t: Tensor, batch: TrainingBatch) -> list[Tensor]:
        """The features that the discriminator learns from: with a graph where the scorer is trained along."""
        with torch.set_grad_enabled(self.trains_scorer):
            return self._features(noisy, t, batch)

    def _features(self, noisy: Tensor, t: Tensor, batch: TrainingBatch) -> list[Tensor]:
        return self.adapter.extract_features(self.scorer, noisy, t, batch, conditional=True)

    def _logits(self, features: Sequence[Tensor]) -> Tensor:
        logits: Tensor = self.heads.modules["heads"](features)
        return logits


def counted(x: Tensor, batch: TrainingBatch) -> Tensor:
    """x [B, ...] with the data's elements where the loss weight is 0."""
    if batch.loss_weight is None:
        return x
    return torch.where(batch.loss_weight.to(x.device) > 0, x, batch.latents.to(x.dtype))


def _real_part(logits: Tensor, loss: Tensor) -> DiscriminatorPart:
    named = {"discriminator_real_loss": real_loss(logits.detach())}
    return DiscriminatorPart(loss, named, {"discriminator/real": logits.detach().mean()})
