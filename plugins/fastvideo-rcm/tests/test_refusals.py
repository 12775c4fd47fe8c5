"""What a run of the method is refused for, each with its key, before anything is built where that can be known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from fastvideo_core.cli.main import main
from fastvideo_core.errors import ConfigError, ContractError
from fastvideo_testing.runs import build_run, load_config, toy_family
from fastvideo_testing.toy import ToyAdapter

from .runs import phases, run_of, run_on


def refused(folder: Path, run: dict[str, Any]) -> str:
    with toy_family(), pytest.raises(ConfigError) as caught:
        load_config(folder, run)
    return str(caught.value)


def test_distribution_matching_without_a_critic(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    del run["roles"]["critic"]
    text = refused(tmp_path, run)
    assert "roles.critic: distribution matching needs a critic" in text
    assert "or set dmd_weight: 0 (sCM alone)" in text


def test_a_critic_without_distribution_matching(tmp_path: Path) -> None:
    run = run_of(tmp_path, matching=False)
    run["roles"]["critic"] = {"path": "toy/critic", "trainable": True}
    assert "roles.critic: a critic is of no use with dmd_weight: 0" in refused(tmp_path, run)


def test_roles_the_wrong_way_round_together(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    for role in run["roles"].values():
        role["trainable"] = not role["trainable"]
    text = refused(tmp_path, run)
    for role, word in (("student", "be"), ("teacher", "not be"), ("critic", "be")):
        assert f"roles.{role}.trainable: the {role} of rcm must {word} trainable" in text


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"attn_kind": "vsa"}, "method_config.attn_kind: attention 'vsa' has no tangent"),
        ({"phased": True}, "method_config.phased: the consistency term trains clean samples at all noise levels"),
        ({"consistency_weight": 0}, "method_config.consistency_weight"),
        ({"tangent_warmup_steps": -1}, "method_config.tangent_warmup_steps"),
        ({"consistency_logit_std": 0}, "method_config.consistency_logit_std"),
        ({"dmd_denoising_steps": [1000, 500, 500]}, "steps must fall strictly"),
        (
            {"rollout_mode": "data_latent", "rollout_times": "schedule"},
            "method_config.rollout_times: does nothing with rollout_mode: data_latent",
        ),
        ({"matching": False, "generator_update_interval": 2}, "interval: does nothing with dmd_weight: 0"),
        ({"matching": False, "adversarial_weight": 0.1}, "adversarial_weight: does nothing with dmd_weight: 0"),
        ({"matching": False, "min_timestep_ratio": 0.1}, "min_timestep_ratio: does nothing with dmd_weight: 0"),
    ],
    ids=str,
)
def test_an_option_that_cannot_be_meant(tmp_path: Path, options: dict[str, Any], text: str) -> None:
    assert text in refused(tmp_path, run_of(tmp_path, **options))


@pytest.mark.parametrize(
    ("steps", "options", "text"),
    [
        (20, {"tangent_warmup_steps": 20}, "method_config.tangent_warmup_steps: the critic and the student"),
        (20, {"generator_update_interval": 1}, "method_config.generator_update_interval: the critic would never be"),
        (
            5,
            {"generator_update_interval": 6},
            "generator_update_interval: the student (by distribution matching) would",
        ),
    ],
    ids=str,
)
def test_a_run_that_never_comes_to_distribution_matching(
    tmp_path: Path, steps: int, options: dict[str, Any], text: str
) -> None:
    assert text in refused(tmp_path, run_of(tmp_path, training={"max_train_steps": steps}, **options))


def test_a_warm_up_of_the_critic_s_learning_rate_that_is_longer_than_its_updates(tmp_path: Path) -> None:
    run = run_of(tmp_path, training={"max_train_steps": 8, "lr_scheduler": "linear"})
    run["roles"]["critic"]["lr_warmup_steps"] = 6  # it is updated in 4, 5, 7 and 8
    text = refused(tmp_path, run)
    assert "roles.critic.lr_warmup_steps: the critic is updated 4 times in this run, and its warm-up takes 6" in text


def test_sampling_that_keeps_the_noise_of_a_student_that_knows_clean_ends_alone(tmp_path: Path) -> None:
    keep = {"pipeline": {"sampler_kind": "ode"}}
    text = refused(tmp_path, run_of(tmp_path, matching=False, **keep))
    assert "pipeline_config.sampler_kind: ode: it would keep noise that does not belong to the end" in text
    with toy_family():
        load_config(tmp_path, run_of(tmp_path, **keep))  # distribution matching trains such transitions
        load_config(tmp_path, run_of(tmp_path, matching=False, dmd_denoising_steps=[1000, 0], **keep))


# --- families -------------------------------------------------------------------------------------------------------------


class WithoutTangent(ToyAdapter):
    supports_tangent = False


@pytest.mark.parametrize("matching", [True, False])
def test_a_family_without_tangents_by_check(tmp_path: Path, capsys: pytest.CaptureFixture[str], matching: bool) -> None:
    with toy_family():
        run = run_on(tmp_path, WithoutTangent, matching=matching)
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
        assert main(["check", str(tmp_path / "run.yaml")]) == 2
    error = capsys.readouterr().err
    assert "family 'other', WithoutTangent: 'supports_tangent' is False: method and family do not fit" in error


class PredictsNoise(ToyAdapter):
    """Its networks predict noise, not velocities."""

    def prediction_target(self, clean_latents: torch.Tensor, noise: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return noise


@pytest.mark.parametrize("matching", [True, False])
def test_a_family_that_is_not_flow_matching(tmp_path: Path, matching: bool) -> None:
    with toy_family():
        method = build_run(tmp_path, run_on(tmp_path, PredictsNoise, matching=matching)).method
        with pytest.raises(ContractError, match="predict_noise of family 'other' is no velocity noise - x0"):
            list(phases(method, 1))


def test_data_that_is_not_finite_is_not_the_family_s_fault(tmp_path: Path) -> None:
    with toy_family():
        method = build_run(tmp_path, run_of(tmp_path)).method
    [(losses, _)] = phases(method, 1, torch.full((4, 1), torch.nan))
    assert losses["consistency_loss"].isnan()


class AnotherAxis(ToyAdapter):
    num_train_timesteps = property(lambda self: 100, lambda self, value: None)  # type: ignore[assignment]


@pytest.mark.parametrize("matching", [True, False])
def test_a_family_of_another_noise_axis(tmp_path: Path, matching: bool) -> None:
    with toy_family():
        run = run_on(tmp_path, AnotherAxis, matching=matching)
        with pytest.raises(ContractError, match="num_train_timesteps is 100; dmd_denoising_steps counts on 1000"):
            build_run(tmp_path, run)
