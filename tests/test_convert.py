"""`convert`: files of FastVideo's trainer become run.yaml files that pass `check`, and no key is lost without a word."""

from __future__ import annotations

import copy
import random
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import yaml

from fastvideo_core.cli.main import main
from fastvideo_core.config.document import Document, dump_yaml, parse_document, read_document
from fastvideo_core.dispatch.load_run_config import load_run_config
from fastvideo_core.errors import ConfigError
from fastvideo_core.registry import PluginRegistry
from fastvideo_tools.convert.fastvideo import Conversion, convert
from fastvideo_tools.convert.rules import RULES
from tests.test_docs import blocks

MODEL = "fastvideo.train.models.wan.WanModel"
PAGE = "docs/recipes/moving-from-fastvideo.md"

DISTIL: dict[str, Any] = {
    "models": {
        "student": {"_target_": MODEL, "init_from": "org/base", "trainable": True},
        "teacher": {
            "_target_": MODEL,
            "init_from": "org/teacher",
            "trainable": False,
            "disable_custom_init_weights": True,
            "attention_backend": "FLASH_ATTN",
        },
        "critic": {"_target_": MODEL, "init_from": "org/base", "flow_shift": 3.0},
    },
    "method": {
        "_target_": "fastvideo.train.methods.distribution_matching.dmd2.DMD2Method",
        "rollout_mode": "sim",
        "generator_update_interval": 2,
        "real_score_guidance_scale": 4.5,
        "dmd_denoising_steps": [1000, 750, 500, 250],
        "warp_denoising_step": True,
        "min_timestep_ratio": 0.02,
        "max_timestep_ratio": 0.98,
        "fake_score_learning_rate": "8e-6",
        "fake_score_betas": [0.0, 0.999],
        "fake_score_lr_scheduler": "constant",
        "cfg_uncond": {"text": "zero"},
        "attn_kind": "vsa",
    },
    "training": {
        "distributed": {
            "num_gpus": 8,
            "sp_size": 4,
            "tp_size": 1,
            "hsdp_replicate_dim": 1,
            "hsdp_shard_dim": -1,
            "pin_cpu_memory": True,
        },
        "data": {
            "data_path": {"data": 1},
            "preprocessed_data_type": "text_only",
            "train_batch_size": 1,
            "dataloader_num_workers": 4,
            "training_cfg_rate": 0.0,
            "seed": 1000,
            "num_height": 448,
            "num_width": 832,
            "num_frames": 77,
            "num_latent_t": 20,
        },
        "optimizer": {
            "learning_rate": 2e-6,
            "betas": "0.0,0.999",
            "weight_decay": 0.01,
            "lr_scheduler": "constant",
            "lr_warmup_steps": 0,
            "lr_num_cycles": 0,
            "lr_power": 0.0,
            "min_lr_ratio": 0.5,
        },
        "loop": {"max_train_steps": 4000, "gradient_accumulation_steps": 1},
        "checkpoint": {
            "output_dir": "outputs/dmd2",
            "resume_from_checkpoint": "latest",
            "training_state_checkpointing_steps": 20,
            "checkpoints_total_limit": 3,
        },
        "tracker": {"trackers": [], "entity": "team", "project_name": "distillation", "run_name": "first"},
        "vsa": {"sparsity": 0.8, "decay_rate": 0.1, "decay_interval_steps": 50, "cache_tile_buf": False},
        "model": {"enable_gradient_checkpointing_type": "full", "weighting_scheme": "uniform"},
        "dit_precision": "fp32",
        "model_path": "org/base",
    },
    "callbacks": {
        "clip": {"_target_": "fastvideo.train.callbacks.grad_clip.GradNormClipCallback", "max_grad_norm": 1.0},
        "validation": {
            "pipeline_target": "fastvideo.pipelines.basic.wan.wan_dmd_pipeline.WanDMDPipeline",
            "dataset_file": "prompts.json",
            "every_steps": 50,
            "sampling_steps": [4],
            "sampling_timesteps": [1000, 750, 500, 250],
            "guidance_scale": 6.0,
            "num_frames": None,
        },
        "ema": {"decay": 0.98, "start_iter": 100},
    },
    "pipeline": {"flow_shift": 8, "vae_tiling": True},
}

FINETUNE: dict[str, Any] = {
    "models": {
        "student": {
            "_target_": "fastvideo.train.models.ltx2.LTX2Model",
            "init_from": "org/base",
            "trainable": True,
            "enable_gradient_checkpointing_type": "full",
            "transformer_override_safetensor": "other.safetensors",
            "train_audio": False,
            "timestep_uniform_prob": 0.1,
            "lora": {
                "enable": True,
                "rank": 16,
                "alpha": 32,
                "target_modules": ["to_q", "to_out", "to_gate_compress"],
            },
        }
    },
    "method": {"_target_": "fastvideo.train.methods.fine_tuning.finetune.FineTuneMethod"},
    "training": {
        "data": {"data_path": "data", "num_height": 256, "num_width": 256, "num_frames": 121, "num_latent_t": 11},
        "optimizer": {
            "learning_rate": 1e-5,
            "lr_scheduler": "cosine_with_min_lr",
            "lr_warmup_steps": 10,
            "min_lr_ratio": 0.1,
        },
        "loop": {"max_train_steps": 100},
        "checkpoint": {"output_dir": "out"},
        "model": {
            "weighting_scheme": "logit_normal",
            "logit_mean": 0.5,
            "logit_std": 1.0,
            "mode_scale": 1.29,
            "precondition_outputs": True,
            "moba_config": {},
        },
    },
    "callbacks": {
        "grad_clip": {"log_grad_norms": True},
        "validation": {
            "dataset_file": "prompts.json",
            "every_steps": 200,
            "guidance_scale": 3.0,
            "output_dir": "videos",
            "run_at_start": True,
        },
        "validation_short": {
            "_target_": "fastvideo.train.callbacks.validation.ValidationCallback",
            "dataset_file": "others.json",
        },
        "mine": {"_target_": "my.module.MyCallback", "speed": 3},
    },
    "pipeline": {},
    "unheard_of": {"a": {"b": 1}},
}


def converted(data: dict[str, Any]) -> Conversion:
    return convert(Document("fastvideo.yaml", data, {(): (1, 1)}))


def keys(data: Any, path: str = "") -> set[str]:
    if isinstance(data, dict) and data and path != "training.data.data_path":
        return {key for name, value in data.items() for key in keys(value, f"{path}.{name}" if path else name)}
    return {path}


@pytest.mark.parametrize("data", [DISTIL, FINETUNE], ids=["dmd2", "finetune"])
def test_every_key_has_one_row_and_everything_dropped_says_why(data):
    rows = converted(data).rows
    theirs = [row.key for row in rows if row.key]
    assert sorted(theirs) == sorted(keys(data))
    assert [row for row in rows if not row.target and not row.note] == []


def test_every_rule_is_tried():
    tried = [key.replace("callbacks.clip", "callbacks.grad_clip") for data in (DISTIL, FINETUNE) for key in keys(data)]
    first = [next((pattern for pattern in RULES if fnmatchcase(key, pattern)), None) for key in tried]
    assert set(RULES) - set(first) == set()


def test_a_distillation_keeps_what_fastvideo_does():
    run = converted(DISTIL).run
    assert run["recipe"] == {"family": "wan", "method": "dmd2"}
    assert run["roles"]["critic"] == {
        "trainable": True,
        "path": "org/base",
        "learning_rate": 8e-6,
        "betas": [0.0, 0.999],
        "lr_scheduler": "constant",
    }
    assert run["pipeline_config"] == {"flow_shift": 8, "sampler_kind": "sde"}
    assert run["callbacks"] == {"ema": {"decay": 0.98, "start_step": 100}}
    assert run["method_config"]["max_timestep_ratio"] == 0.98
    assert run["method_config"]["validate_teacher"] is False
    training = run["training"]
    assert (training["mixed_precision"], training["max_grad_norm"], training["validation_steps"]) == ("bf16", 1.0, 50)
    assert not {"trackers", "resume_from_checkpoint", "num_latent_t", "lr_power"} & training.keys()


def test_a_finetuning_keeps_what_fastvideo_does():
    result = converted(FINETUNE)
    run, said = result.run, {row.key: row.note for row in result.rows}
    assert run["roles"]["student"]["lora"] == {"rank": 16, "alpha": 32, "targets": ["to_q", "to_out.0"]}
    assert run["training"]["lr_scheduler"] == "cosine"
    assert run["training"]["min_lr_ratio"] == 0.1
    assert run["training"]["num_latent_t"] == 11  # FastVideo trains on the latents' number, not the frames'
    assert "num_frames" not in run["training"]
    assert (run["training"]["log_validation"], run["training"]["validation_steps"]) == (True, 200)
    assert run["training"]["max_grad_norm"] == 1.0
    assert run["pipeline_config"] == {"streams": ["video"]}
    assert run["method_config"] == {"timestep_sampling": "shifted_logit_normal"}
    assert "OTHER WEIGHTS" in said["models.student.transformer_override_safetensor"]
    assert "callbacks.validation is it" in said["callbacks.validation_short.dataset_file"]
    assert said["callbacks.mine.speed"] == said["unheard_of.a.b"] == "there is no such option here"


@pytest.mark.parametrize(
    ("scheme", "section"),
    [
        ("uniform", {"timestep_sampling": "uniform"}),
        ("logit_normal", {"timestep_sampling": "logit_normal", "logit_mean": 0.5, "logit_std": 1.0}),
        ("mode", {"timestep_sampling": "mode", "mode_scale": 1.29}),
    ],
)
def test_how_noise_levels_are_drawn(scheme, section):
    data = copy.deepcopy(FINETUNE)
    data["models"]["student"]["_target_"] = MODEL
    data["training"]["model"]["weighting_scheme"] = scheme
    assert converted(data).run["method_config"] == section


def test_defaults_of_fastvideo_that_are_not_ours_are_written_out():
    data = copy.deepcopy(DISTIL)
    del data["callbacks"]
    for key in ("generator_update_interval", "real_score_guidance_scale", "min_timestep_ratio", "max_timestep_ratio"):
        del data["method"][key]
    run = converted(data).run
    assert run["training"]["max_grad_norm"] == 0
    written = {key: run["method_config"][key] for key in ("generator_update_interval", "real_score_guidance_scale")}
    assert written == {"generator_update_interval": 1, "real_score_guidance_scale": 1.0}
    assert (run["method_config"]["min_timestep_ratio"], run["method_config"]["max_timestep_ratio"]) == (0.0, 1.0)


def test_attention_is_sparse_where_a_sparsity_is_set():
    """FastVideo's own VSA examples name no attn_kind; what a file says of it counts nothing there without a sparsity."""
    data = copy.deepcopy(DISTIL)
    del data["method"]["attn_kind"]
    assert converted(data).run["method_config"]["attn_kind"] == "vsa"
    data = copy.deepcopy(DISTIL)
    data["training"]["vsa"] = {"sparsity": 0.0}
    assert "attn_kind" not in converted(data).run["method_config"]


@pytest.mark.parametrize("said", [{}, {"min_lr_ratio": 0}])
def test_the_end_of_fastvideo_s_schedule_is_written_out(said):
    """FastVideo takes a ratio of 0 for none."""
    data = copy.deepcopy(FINETUNE)
    del data["training"]["optimizer"]["min_lr_ratio"]
    data["training"]["optimizer"] |= said
    assert converted(data).run["training"]["min_lr_ratio"] == 0.5
    data["training"]["optimizer"] |= {"lr_scheduler": "cosine"}
    assert "min_lr_ratio" not in converted(data).run["training"]


def test_several_data_folders_are_not_taken_for_one():
    data = copy.deepcopy(DISTIL)
    for paths in (["a", "b"], {"a": 1, "b": 1}, {"a": 8}):
        data["training"]["data"]["data_path"] = paths
        result = converted(data)
        assert "data_path" not in result.run["training"]
        assert any(
            row.key.startswith("training.data.data_path") and "{path, weight}" in row.note for row in result.rows
        )


@pytest.mark.parametrize("data", [DISTIL, FINETUNE], ids=["dmd2", "finetune"])
def test_what_is_written_is_a_valid_run(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    Path("prompts.json").write_text('{"data": [{"caption": "a cat"}]}')
    Path("run.yaml").write_text(dump_yaml(converted(data).run))
    cfg = load_run_config("run.yaml", PluginRegistry())
    assert cfg.recipe.method == ("dmd2" if data is DISTIL else "finetune")


def test_models_and_methods_that_are_not_offered_are_all_named():
    data = copy.deepcopy(DISTIL)
    data["method"]["_target_"] = "fastvideo.train.methods.distribution_matching.self_forcing.SelfForcingMethod"
    data["models"]["teacher"]["_target_"] = "fastvideo.train.models.hunyuan.HunyuanModel"
    with pytest.raises(ConfigError) as raised:
        converted(data)
    said = str(raised.value)
    assert "there is no method here for FastVideo's SelfForcingMethod" in said
    assert "there is no model family here for FastVideo's HunyuanModel" in said
    assert "allowed: WanModel (wan), LTX2Model (ltx)" in said


def test_the_command_writes_a_new_file_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("theirs.yaml").write_text(yaml.safe_dump(DISTIL))
    for command in (["check", "theirs.yaml"], ["theirs.yaml"]):
        assert main(command) == 2
        assert "fix: fastvideo-distill convert theirs.yaml --out NEW.yaml" in capsys.readouterr().err
    assert main(["convert", "theirs.yaml"]) == 0
    printed = capsys.readouterr().out
    assert "method.fake_score_learning_rate -> roles.critic.learning_rate: 8e-06" in printed
    assert "training.distributed.sp_size -> training.sequence_parallel: 4" in printed
    assert "training.distributed.pin_cpu_memory: only networks that are not trained" in printed
    text = Path("run.yaml").read_text()
    assert "#   training.distributed.pin_cpu_memory: only networks" in text
    assert read_document("run.yaml").data == converted(yaml.safe_load(yaml.safe_dump(DISTIL))).run
    assert main(["convert", "theirs.yaml"]) == 2
    assert "run.yaml: there is a file already" in capsys.readouterr().err
    assert Path("run.yaml").read_text() == text
    assert main(["convert", "run.yaml", "--out", "again.yaml"]) == 2
    assert "this is a run.yaml already" in capsys.readouterr().err
    assert main(["convert", "theirs.yaml", "--out", "no/such/folder.yaml"]) == 2
    assert "no/such/folder.yaml: cannot be written" in capsys.readouterr().err


def test_text_of_the_file_cannot_leave_its_comment(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    odd = copy.deepcopy(DISTIL) | {"a\nrecipe: {family: other}\x1b[2J": 1}
    Path("theirs.yaml").write_text(yaml.safe_dump(odd))
    assert main(["convert", "theirs.yaml"]) == 0
    assert "\x1b" not in capsys.readouterr().out + Path("run.yaml").read_text()
    assert read_document("run.yaml").data["recipe"]["family"] == "wan"


def test_the_page_s_file_converts_to_a_run_that_passes_check(tmp_path, monkeypatch, tiny_wan, latent_data, capsys):
    monkeypatch.chdir(tmp_path)
    theirs = yaml.safe_load(blocks(PAGE, "yaml")[0])
    for model in theirs["models"].values():
        model["init_from"] = str(tiny_wan)
    theirs["training"]["data"]["data_path"] = str(latent_data)
    Path("theirs.yaml").write_text(yaml.safe_dump(theirs))
    assert main(["convert", "theirs.yaml"]) == 0
    status = main(["check", "run.yaml"])
    printed = capsys.readouterr()
    assert status == 0, printed.err


def test_damaged_files_are_one_message(tmp_path):
    draw = random.Random(0)
    values = [None, 0, -1, "", "x", [], {}, [1, "a"], {"a": {"b": [1]}}, True, 1e400, "1e-5", {1: 2}]
    for _ in range(300):
        data = copy.deepcopy(draw.choice([DISTIL, FINETUNE]))
        for _ in range(draw.randint(1, 4)):
            place: Any = data
            while True:
                key = draw.choice(list(place))
                if not isinstance(place[key], dict) or not place[key] or draw.random() < 0.2:
                    break
                place = place[key]
            if draw.random() < 0.2:
                place[draw.choice(values[1:5])] = place.pop(key)
            else:
                place[key] = copy.deepcopy(draw.choice(values))
            data = data or {"models": 1}
        try:
            result = converted(data)
        except ConfigError:
            continue
        parse_document(dump_yaml(result.run), "run.yaml")
