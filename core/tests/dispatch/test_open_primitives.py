"""A primitive that core has never heard of: a third party's method trains on the families that have it, and on no others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastvideo_core.cli.main import main
from fastvideo_testing import toy_world

FILE = """
from typing import Protocol

from fastvideo_core import DistillMethod, MethodConfig, ModelFamily, register_method, register_model
from fastvideo_core.contracts.adapter import NumTrainTimesteps
from fastvideo_core.optim import build_optimizer
from fastvideo_testing import ToyAdapter, ToyConfig
from fastvideo_testing.toy import build_toy_components


class PredictMiddle(Protocol):
    @property
    def middle(self) -> float: ...

    def predict_middle(self, handle, noisy_latents, batch, *, scale, sharply=False): ...


class HasMiddle(ToyAdapter):
    def __init__(self, *args):
        super().__init__(*args)
        self.middle = 0.5

    def predict_middle(self, handle, noisy_latents, batch, *, scale, sharply=False):
        t = noisy_latents.new_full((len(noisy_latents),), self.middle * self.num_train_timesteps)
        return scale * self.predict_noise(handle, noisy_latents, t, batch, conditional=True)


class OtherMiddle(HasMiddle):
    def predict_middle(self, handle, noisy_latents, batch, scale):
        raise NotImplementedError


class LacksMiddle(ToyAdapter): ...


for family, adapter in (("has", HasMiddle), ("other", OtherMiddle), ("lacks", LacksMiddle)):
    class Family(ModelFamily):
        kind = adapter

        def build(self, cfg):
            components = build_toy_components(cfg)
            components.adapter = self.kind(1.0)
            return components

        def adapter_class(self):
            return self.kind

    Family.__qualname__ = family
    register_model(family, config=ToyConfig)(Family)


class Needs(PredictMiddle, NumTrainTimesteps, Protocol): ...


@register_method("middle", config=MethodConfig, roles=("student",))
class Middle(DistillMethod[Needs]):
    def __init__(self, cfg, bundle, adapter, validator=None):
        super().__init__(cfg, bundle, adapter, validator)
        self.student = bundle["student"]
        self.student.optimizers["adamw"] = build_optimizer(self.student, cfg)

    def single_train_step(self, batch, iteration, *, current_vsa_sparsity=0.0):
        prepared = self.prepare_batch(batch)
        out = self.adapter.predict_middle(self.student, prepared.latents, prepared, scale=2.0)
        return {"total_loss": (out**2).mean()}, {}, {}
"""


@pytest.fixture(autouse=True)
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    Path("middle.py").write_text(FILE)
    with toy_world():
        yield


def write(family: str) -> None:
    told = {
        "recipe": {"family": family, "method": "middle"},
        "roles": {"student": {"path": "org/toy", "trainable": True}},
        "training": {"output_dir": "out", "max_train_steps": 20, "learning_rate": 0.01, "logging_steps": 1},
    }
    Path("run.yaml").write_text(json.dumps(told))


def test_it_trains_on_a_family_that_has_it(capsys: pytest.CaptureFixture[str]) -> None:
    write("has")
    assert main(["check", "run.yaml", "--plugin", "middle.py"]) == 0, capsys.readouterr().err
    assert main(["run.yaml", "--plugin", "middle.py"]) == 0, capsys.readouterr().err
    losses = [json.loads(line)["total_loss"] for line in Path("out/metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < losses[0] / 2


def refusal(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    assert main([*command, "run.yaml", "--plugin", "middle.py"]) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert not list(Path().glob("out/checkpoint-*"))
    return error


LACKING = """
family 'lacks', LacksMiddle: lacks the primitive 'predict_middle', which method 'middle' needs
allowed: predict_middle(handle, noisy_latents, batch, *, scale, sharply=False)
fix: implement it, or choose a method that does not need 'predict_middle'
"""
OTHER = """
family 'other', OtherMiddle: 'predict_middle' cannot be called as the contract says (got an unexpected keyword argument \
'sharply'); it is (handle, noisy_latents, batch, scale)
allowed: predict_middle(handle, noisy_latents, batch, *, scale, sharply=False)
"""


@pytest.mark.parametrize("command", [("check",), ()])
@pytest.mark.parametrize(("family", "said"), [("lacks", LACKING), ("other", OTHER)])
def test_it_is_refused_on_a_family_that_lacks_it_or_has_another(
    family: str, said: str, command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    write(family)
    error = refusal(capsys, *command)
    for line in said.strip().splitlines():
        assert line in error


def test_what_only_the_built_adapter_shows_is_refused_before_the_first_step(capsys: pytest.CaptureFixture[str]) -> None:
    """Of its class alone it cannot be told whether an instance will have a value."""
    Path("middle.py").write_text(FILE.replace("        self.middle = 0.5\n", "        self.centre = 0.5\n"))
    write("has")
    assert main(["check", "run.yaml", "--plugin", "middle.py"]) == 0, capsys.readouterr().err
    error = refusal(capsys)
    assert "family 'has', HasMiddle: lacks the primitive 'middle', which method 'middle' needs" in error
    assert "allowed: middle -> float (a property)" in error
