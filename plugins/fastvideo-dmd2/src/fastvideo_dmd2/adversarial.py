"""DMD2's adversarial term: heads on a score network's features tell the student's samples from data (arXiv:2405.14867, 4.3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from fastvideo_core.batch import TrainingBatch
from fastvideo_core.roles import RoleHandle


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


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """mean softplus(-D(real)) + mean softplus(D(fake)); 2 log 2 when the heads cannot tell."""
    return softplus(-real_logits).mean() + softplus(fake_logits).mean()


def approximate_r1(real_logits: Tensor, perturbed_logits: Tensor, sigma: float) -> Tensor:
    """mean (D(x) - D(x + sigma e))^2 / sigma^2: R1 without second derivatives (Lin et al. 2025, arXiv:2501.08316, 3.4).

    For small sigma its expectation is |grad D|^2, whatever sigma is.
    """
    return ((real_logits - perturbed_logits) ** 2).mean() / sigma**2


@dataclass(frozen=True)
class AdversarialTerm:
    """The discriminator at work: features of one score network, heads of its own.

    Args:
        adapter: gives features (`extract_features`) and noises samples.
        scorer: the role whose features are used.
        heads: the discriminator's role; its module is `heads`.
        trains_scorer: whether the discriminator's loss also trains the scorer, as DMD2 does with its critic.
        sample_timesteps: micro-batch size -> timesteps [B].
        noise_like: latents, stream name -> noise.
        r1_weight, r1_sigma: of `approximate_r1`; weight 0 leaves it out.
    """

    primitives: ClassVar[tuple[str, ...]] = ("extract_features", "feature_channels")

    adapter: Any
    scorer: RoleHandle
    heads: RoleHandle
    trains_scorer: bool
    sample_timesteps: Callable[[int, str], Tensor]
    noise_like: Callable[[Tensor, str], Tensor]
    r1_weight: float
    r1_sigma: float

    def generator(self, x: Tensor, batch: TrainingBatch) -> tuple[Tensor, Tensor]:
        """The student's loss and its gradient with respect to the sample x [B, ...].

        The gradient is taken here and now, with respect to x alone: neither scorer nor heads get one, and their graph is
        gone before the student's own backward.
        """
        t = self.sample_timesteps(len(x), "generator").to(x.device)
        noise = self.noise_like(x, "generator_noise")
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            loss = generator_loss(self._logits(self.adapter.add_noise(leaf, noise, t), t, batch))
            (gradient,) = torch.autograd.grad(loss, leaf)
        return loss.detach(), gradient

    def discriminator(self, x: Tensor, batch: TrainingBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The heads' loss on data and on the student's detached samples x [B, ...], at the same noise levels; metrics."""
        t = self.sample_timesteps(len(x), "discriminator").to(x.device)
        real = self.adapter.add_noise(batch.latents, self.noise_like(x, "discriminator_noise"), t)
        fake = self.adapter.add_noise(x, self.noise_like(x, "discriminator_noise"), t)
        real_logits = self._logits(real, t, batch, with_graph=self.trains_scorer)
        fake_logits = self._logits(fake, t, batch, with_graph=self.trains_scorer)
        loss = discriminator_loss(real_logits, fake_logits)
        metrics = {"discriminator/real": real_logits.detach().mean(), "discriminator/fake": fake_logits.detach().mean()}
        if self.r1_weight > 0:
            perturbed = real + self.r1_sigma * self.noise_like(real, "r1_noise").to(real.dtype)
            r1 = approximate_r1(
                real_logits, self._logits(perturbed, t, batch, with_graph=self.trains_scorer), self.r1_sigma
            )
            loss = loss + self.r1_weight * r1
            metrics["discriminator/r1"] = r1.detach()
        return loss, metrics

    def _logits(self, noisy: Tensor, t: Tensor, batch: TrainingBatch, *, with_graph: bool = True) -> Tensor:
        with torch.set_grad_enabled(with_graph):
            features = self.adapter.extract_features(self.scorer, noisy, t, batch, conditional=True)
        logits: Tensor = self.heads.modules["heads"](features)
        return logits
