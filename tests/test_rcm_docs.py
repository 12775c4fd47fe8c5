"""docs/rcm.md's run is one that the method takes, and has rCM's constants."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from fastvideo_rcm.config import RcmConfig
from fastvideo_testing.runs import load_config
from tests.test_docs import ROOT

EXAMPLE = re.compile(r"<!-- example: rcm.yaml -->\n```yaml\n(.*?)```", re.DOTALL)


def test_the_page_s_run_is_valid_and_has_the_constants_of_rcm(tmp_path: Path) -> None:
    [text] = EXAMPLE.findall((ROOT / "docs/rcm.md").read_text(encoding="utf-8"))
    run = yaml.safe_load(text)
    run["training"]["data_path"] = str(tmp_path)
    cfg = load_config(tmp_path, run)
    config = cfg.section(RcmConfig)
    assert (cfg.training.learning_rate, cfg.roles["critic"].learning_rate) == (2e-6, 4e-7)
    assert (cfg.training.betas, cfg.training.weight_decay, cfg.training.max_grad_norm) == ((0.0, 0.999), 0.01, 0.0)
    assert (config.consistency_logit_mean, config.consistency_logit_std) == (0.7, 1.6)
    assert (config.tangent_warmup_steps, config.generator_update_interval) == (1000, 5)
    assert (config.consistency_weight, config.dmd_weight, config.real_score_guidance_scale) == (100.0, 1.0, 5.0)
    assert config.dmd_denoising_steps == (1000, 933.8, 852.9, 609.0)
    options = {"learning_rate", "betas", "weight_decay", "max_grad_norm", "max_train_steps"}
    assert RcmConfig.training_options == {name: getattr(cfg.training, name) for name in options}
    assert RcmConfig.pipeline_options == {"sampler_kind": run["pipeline_config"]["sampler_kind"]}
