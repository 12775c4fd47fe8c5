"""The run.yaml of the design, with local paths in it: two processes, validation, wandb without a network."""

from __future__ import annotations

import json
from pathlib import Path

import av
import pytest
import yaml

from fastvideo_core.checkpoint.storage import read_document
from fastvideo_core.checkpoint.weights import describe
from tests.conftest import distill

RUN = """
recipe: {{family: wan, method: dmd2}}
roles:
  student: {{path: {wan}, trainable: true}}
  teacher: {{path: {wan}, trainable: false}}
  critic:  {{path: {wan}, trainable: true}}
training: {{seed: 0, output_dir: run, data_path: {data}, max_train_steps: 4, train_batch_size: 1,
  dataloader_num_workers: 4, num_gpus: 2, learning_rate: 2.0e-6, num_height: 32, num_width: 32, num_frames: 9,
  log_validation: true, validation_steps: 2, validation_dataset_file: prompts.json,
  validation_sampling_steps: "8", validation_guidance_scale: "5.0",
  trackers: [wandb, tensorboard], tracker_project_name: my_project, wandb_run_name: my_run}}
pipeline_config: {{flow_shift: 3, sampler_kind: ode}}
method_config: {{rollout_mode: simulate, dmd_denoising_steps: [999, 750, 500, 250, 0],
  generator_update_interval: 1, real_score_guidance_scale: 1.0, attn_kind: dense}}
callbacks: {{ema: {{decay: 0.99}}}}
"""


def frames_of(path: Path) -> int:
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        return sum(1 for _ in container.decode(video=0))


@pytest.mark.slow
def test_the_design_s_run_trains_validates_and_goes_on(tmp_path, tiny_wan, latent_data, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    (tmp_path / "prompts.json").write_text(json.dumps({"data": [{"caption": "a cat"}, {"caption": "a dog"}]}))
    (tmp_path / "run.yaml").write_text(RUN.format(wan=tiny_wan, data=latent_data))
    done = distill("run.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("done: run") == 1

    run = tmp_path / "run"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert all(line["student_loss"] >= 0 and line["critic_loss"] > 0 for line in lines)
    assert frames_of(run / "validation" / "step-000002" / "student-00.mp4") == 9
    shown = {path.name for path in (run / "validation" / "step-000002").iterdir()}
    assert {"student-01.mp4", "student-01.png", "student-01.txt", "teacher-00.mp4"} <= shown
    assert not (run / "validation" / "step-000004" / "teacher-00.mp4").exists()
    assert list((run / "wandb").rglob("*.wandb"))
    assert list((run / "tensorboard").rglob("events*"))
    assert yaml.safe_load((run / "run.yaml").read_text())["training"]["num_gpus"] == 2
    contents = describe(run)
    assert (tuple(contents.roles), contents.ema_roles) == (("student", "critic"), ("student",))
    assert read_document(contents.path).step == 4

    (tmp_path / "run.yaml").write_text(
        (tmp_path / "run.yaml").read_text().replace("max_train_steps: 4", "max_train_steps: 5")
    )
    resumed = distill("run.yaml", "--resume", "latest", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert read_document(describe(run).path).step == 5

    again = distill("run.yaml", cwd=tmp_path)
    assert again.returncode == 2
    assert "training.output_dir run already holds checkpoint-000005" in again.stderr
    assert "Traceback" not in again.stderr
