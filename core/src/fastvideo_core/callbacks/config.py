"""Configuration of `ema`; imports no torch."""

from pydantic import Field

from fastvideo_core.config import limits
from fastvideo_core.config.base import PluginConfig, StrTuple
from fastvideo_core.config.run import RunConfig
from fastvideo_core.errors import Problem


class EMAConfig(PluginConfig):
    """Exponential moving average of trained weights, used by validation, `sample` and `export`."""

    decay: float = Field(0.99, ge=0, lt=1, description="d in ema = d * ema + (1 - d) * weight, after each update.")
    roles: StrTuple = Field(("student",), min_length=1, description="Trainable roles that are averaged.")
    start_step: int = Field(0, ge=0, le=limits.STEPS, description="Averaging starts from the weights after this step.")

    def check_run(self, cfg: RunConfig) -> list[tuple[str, Problem]]:
        """Every role must exist and be trainable."""
        trainable = [name for name, role in cfg.roles.items() if role.trainable]
        allowed = f"trainable roles: {', '.join(trainable) or 'none'}"
        problems = []
        for index, name in enumerate(self.roles):
            if name not in trainable:
                key = f"callbacks.ema.roles[{index}]" if "roles" in self.model_fields_set else "callbacks.ema"
                what = "is not trainable" if name in cfg.roles else "is not in this run"
                found = f"role '{name}' {what}"
                problems.append((key, Problem(found, "", allowed, "name the roles to average in callbacks.ema.roles")))
        return problems
