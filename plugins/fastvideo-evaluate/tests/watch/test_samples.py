"""How the watch samples: levels and steps, kept rows, networks that are left as they were."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from fastvideo_core import RoleHandle
from fastvideo_evaluate.watch.callback import QualityWatch
from fastvideo_evaluate.watch.config import QualityWatchConfig
from fastvideo_evaluate.watch.samples import as_at_inference, as_video, first_rows, many_steps


def test_euler_steps_follow_the_path_of_a_gaussian_at_shifted_levels() -> None:
    """Of N(m, s^2): x0(x, t) is linear, and so is what each Euler step makes of it."""
    mean, std, seen = 2.0, 0.5, []

    def predict(x: Tensor, t: Tensor) -> Tensor:
        sigma = float(t[0]) / 1000
        seen.append(float(t[0]))
        gain = (1 - sigma) * std**2 / ((1 - sigma) ** 2 * std**2 + sigma**2)
        return mean + gain * (x - (1 - sigma) * mean)

    noise = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    few = many_steps(predict, noise, lambda t: 1000 * (t / 1000).sqrt(), 4)
    assert torch.allclose(torch.tensor(seen), 1000 * torch.tensor([1.0, 0.75, 0.5, 0.25]).sqrt())
    many = many_steps(predict, noise, lambda t: t, 2000)
    torch.testing.assert_close(many, mean + std * noise, atol=5e-3, rtol=0)
    assert (few - many).abs().max() > 1e-2


def test_the_first_rows_are_copies_of_what_a_checkpoint_can_keep() -> None:
    raw: dict[str, Any] = {
        "a": torch.arange(6).reshape(3, 2),
        "info": [{"id": "x", "o": object(), "size": [4, 5, 6]}] * 3,
        "w": 0.5,
        "n": None,
    }
    kept = first_rows(raw, 2)
    assert kept["info"] == [{"id": "x", "size": [4, 5, 6]}] * 2
    assert (kept["w"], sorted(kept)) == (0.5, ["a", "info", "w"])
    raw["a"].zero_()
    assert kept["a"].tolist() == [[0, 1], [2, 3]]


def test_networks_are_as_they_were_after_a_look() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))
    network[0].eval()
    before = [part.training for part in network.modules()]
    with as_at_inference(RoleHandle("student", {"net": network})):
        assert not any(part.training for part in network.modules())
        assert not network(torch.ones(1, 2)).requires_grad
    assert [part.training for part in network.modules()] == before


def test_latents_of_any_layout_are_looked_at_as_video() -> None:
    adapter = SimpleNamespace(unpack_latents=lambda latents, batch: {"vae_latent": latents.reshape(2, 3, 1, 2, 2)})
    packed, batch = torch.arange(24.0).reshape(2, 4, 3), SimpleNamespace()
    assert as_video(adapter, packed, batch).shape == (2, 3, 1, 2, 2)  # type: ignore[arg-type]
    assert as_video(SimpleNamespace(), torch.zeros(2, 5), batch).shape == (2, 5, 1, 1, 1)  # type: ignore[arg-type]


def test_the_teacher_is_sampled_with_the_guidance_that_the_student_learns() -> None:
    def scale(config: QualityWatchConfig, **options: float) -> float:
        method: Any = SimpleNamespace(cfg=SimpleNamespace(method_config=SimpleNamespace(**options)))
        return QualityWatch(config)._guidance(method)

    plain = QualityWatchConfig()
    assert scale(plain, real_score_guidance_scale=3.5) == 3.5
    assert scale(plain, teacher_guidance_scale=2.0) == 2.0
    assert scale(plain) == 1.0
    assert scale(QualityWatchConfig(guidance_scale=6.0), real_score_guidance_scale=3.5) == 6.0
