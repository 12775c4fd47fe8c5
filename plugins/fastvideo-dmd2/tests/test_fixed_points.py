"""Oracle 3: where the loss leads, and that every known mistake leads elsewhere."""

from __future__ import annotations

import pytest
import torch

from fastvideo_core.diffusion.reduce import mean_per_sample
from fastvideo_dmd2.losses import dmd_loss

from .fixed_points import Mixture1D, fixed_point, ours

GAUSSIAN = Mixture1D(masses=(1.0,), means=(1.7,), std=0.6)
MISSPECIFIED = Mixture1D(masses=(0.7, 0.3), means=(-1.0, 2.0), std=0.5)
EXPECTED, TOLERANCE = (1.379, -0.082), 0.004


def distance(point: tuple[float, float]) -> float:
    """The larger distance to the expected point, in units of the tolerance."""
    return max(abs(found - expected) for found, expected in zip(point, EXPECTED, strict=True)) / TOLERANCE


def normalised_by(normaliser):
    def loss(x, real, fake):
        return dmd_loss(x, (fake - real) / normaliser(x, real, fake))

    return loss


def without_stop_gradient(x, real, fake):
    """The graph left in g, through both scores; the normaliser is a constant."""
    gradient = (fake - real) / mean_per_sample((x - real).abs()).detach()[:, None]
    return 0.5 * ((x - x.detach() + gradient) ** 2).mean()


def test_a_gaussian_student_recovers_the_gaussian_target():
    scale, offset = fixed_point(GAUSSIAN, size=4_000, rounds=100)
    assert abs(scale) == pytest.approx(0.6, abs=1e-3)
    assert offset == pytest.approx(1.7, abs=1e-3)


def test_the_wrong_sign_diverges():
    def wrong(x, real, fake):
        return ours(x, fake, real)

    scale, offset = fixed_point(GAUSSIAN, loss=wrong, size=2_000, rounds=400)
    assert not (abs(scale - 0.6) < 0.1 and abs(offset - 1.7) < 0.1)
    assert abs(offset - 1.7) > 3  # further away than where it started


def test_a_misspecified_student_ends_at_the_known_point():
    assert distance(fixed_point(MISSPECIFIED)) < 1


@pytest.mark.parametrize(
    ("mistake", "where", "options"),
    [
        ("no normaliser", (1.368, -0.090), {"loss": normalised_by(lambda x, real, fake: 1.0)}),
        (
            "normaliser over the batch",
            (1.368, -0.090),
            {"loss": normalised_by(lambda x, real, fake: (x - real).abs().mean())},
        ),
        (
            "normalised by the fake score",
            (1.330, -0.088),
            {"loss": normalised_by(lambda x, real, fake: mean_per_sample((x - fake).abs())[:, None])},
        ),
        (
            "graph left through g",
            (1.276, -0.127),
            {"loss": without_stop_gradient, "graph_through_scores": True},
        ),
        ("another shift", (1.415, -0.094), {"shift": 5.0}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_known_mistake_ends_elsewhere(mistake, where, options):
    point = fixed_point(MISSPECIFIED, **options)
    assert distance(point) > 1.5, mistake
    assert point == pytest.approx(where, abs=TOLERANCE)


def test_the_floor_of_the_normaliser_takes_no_part_where_samples_differ():
    x, real = torch.tensor([[1.0]]), torch.tensor([[0.0]])
    assert ours(x.requires_grad_(), real, torch.tensor([[2.0]])).item() == pytest.approx(0.5 * 4.0)
