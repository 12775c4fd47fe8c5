"""What forward-mode derivatives of a family's networks must be, where the family says that it has them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from fastvideo_testing.compare import assert_close
from fastvideo_testing.family_suite import FamilySuite
from fastvideo_testing.prepared_family import PreparedFamily, noisy_input

STEP = 1e-4
"""Of the noise axis, for differences; methods.md, section 3: with larger steps a tiny network's oscillations in t are missed."""


class TangentChecks(FamilySuite):
    """Derivatives along the flow."""

    def test_the_tangent_is_the_derivative_along_the_flow(self, prepared: PreparedFamily) -> None:
        components, batch = self._batch(prepared)
        adapter: Any = components.adapter
        if not getattr(adapter, "supports_tangent", False):
            pytest.skip(f"{self.called()} does not say supports_tangent")
        student, length = components.bundle["student"], adapter.num_train_timesteps
        _, t, noisy = noisy_input(components, batch)

        def predict(x: Tensor, at: Tensor) -> Tensor:
            out: Tensor = adapter.predict_noise(student, x, at, batch, conditional=True)
            return out

        velocity = self._predict(components, "student", noisy, t, batch)
        direction = velocity, torch.full_like(t, length)
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):  # torch's fused attention knows no forward mode
            value, tangent, *_ = torch.func.jvp(predict, (noisy, t), direction)
        assert_close("the value that comes with the tangent", value, velocity, rtol=10 * self.tolerance)
        with torch.no_grad():
            later, earlier = (predict(noisy + h * velocity, t + h * length) for h in (STEP, -STEP))
        differences = (later - earlier) / (2 * STEP)
        assert_close(
            "the tangent of predict_noise, against differences,", tangent, differences, rtol=2e-2,
            advice="an operation of the network hides its input from forward-mode differentiation (detach, .data, numpy, a "
            "rounded timestep): say supports_tangent = False, or mend it",
        )  # fmt: skip
