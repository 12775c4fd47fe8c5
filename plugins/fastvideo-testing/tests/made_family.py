"""A small family, written as a plug-in file of its own: right as it is, wrong with a change."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from fastvideo_testing import ModelPluginSuite

UNSUPPORTED = {"packing": "its latents are not packed", "pipeline": "it is no model of anybody's"}
GOOD = """\
from dataclasses import replace
import json
from pathlib import Path
import torch
from torch import nn
from fastvideo_core import register_model
from fastvideo_core.contracts.family import ModelComponents, RoleOutline
from fastvideo_data.family import ParquetFamily
from fastvideo_data.model_sampler import PathSampler
from fastvideo_data.video_sizes import VideoGeometry
from fastvideo_core.errors import ConfigError
from fastvideo_core.contracts.roles import RoleManager, RoleHandle
from fastvideo_testing.toy import ToyAdapter, ToyConfig, ToyData, ToyNetwork
from fastvideo_core.contracts.batch import TrainingBatch
from fastvideo_core.contracts.validator import SampledVideo
from fastvideo_core.diffusion.rollout import FewStepSchedule, rollout

SIZES = (2, 8, 1)


def network(path):
    if not (Path(path) / "net.pt").exists():
        raise ConfigError(f"no network in {path}")
    net = ToyNetwork(*SIZES)
    net.load_state_dict(torch.load(Path(path) / "net.pt"))
    return net


def tiny(out, *, seed=0):
    generator = torch.Generator().manual_seed(seed)
    Path(out).mkdir()
    state = ToyNetwork(*SIZES, **{}).state_dict() if False else {}
    shapes = {"net.0.weight": (8, 4), "net.0.bias": (8,), "net.2.weight": (2, 8), "net.2.bias": (2,)}
    state = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    torch.save(state, Path(out) / "net.pt")


class Encoder:
    geometry = VideoGeometry(2, 1, 16, 8.0)

    def __init__(self, path, device):
        pass

    def describe(self):
        return {"family": "mine", "latents_normalised": "true"}

    def encode_videos(self, frames):
        return [{"vae_latent": clip.float().mean((1, 2))[:, :2] / 255} for clip in frames]

    def encode_texts(self, captions):
        return [torch.tensor([[float(len(caption))]]) for caption in captions]


class Sampler:
    def __init__(self, adapter):
        self.adapter = adapter

    def shift_and_clamp_timestep(self, t):
        return self.adapter.shift_and_clamp_timestep(t)

    def sample(self, request, prompt, generator):
        noise = torch.randn(1, 2, generator=generator)
        length = torch.tensor([[len(prompt.caption) / 10]])
        batch = TrainingBatch(noise, {"condition": length}, {"condition": torch.zeros_like(length)})
        steps = request.sampling_steps
        levels = None if steps is None else torch.linspace(1, 1 / steps, steps) * 1000
        levels = request.sampling_timesteps or self.shift_and_clamp_timestep(levels).tolist()

        def predict_x0(noisy, t):
            scale = request.guidance_scale
            return self.adapter.predict_x0_guided(request.sample_handle, noisy, t, batch, guidance_scale=scale)

        kind = request.sampler_kind or "ode"
        latents = rollout(predict_x0, noise, FewStepSchedule(tuple(levels)), kind=kind, generator=generator)
        grey = (latents.mean() * 40 + 128).clamp(0, 255).to(torch.uint8)
        frames = grey.expand(prompt.num_frames, prompt.height, prompt.width, 3).clone()
        return SampledVideo(frames, 8.0)


class Adapter(ToyAdapter):
    def prepare_batch(self, raw_batch, *, current_vsa_sparsity=0.0, latents_source="data", generator=None):
        latents = raw_batch["vae_latent"][:, 0]
        latents = torch.zeros_like(latents) if latents_source == "zeros" else latents
        raw = {"vae_latent": latents}
        batch = super().prepare_batch(raw, latents_source=latents_source)
        return replace(batch, conditioning={"condition": raw_batch["text_embedding"][:, 0, :1] / 10})


@register_model("mine", config=ToyConfig)
class Mine(ParquetFamily):
    def build(self, cfg):
        roles = {
            name: RoleHandle(name, {"transformer": network(role.path)}, "mine", trainable=role.trainable,
                             block_classes=(nn.Linear,))
            for name, role in cfg.roles.items()
        }
        return ModelComponents(RoleManager(roles), Adapter(cfg.pipeline_config.flow_shift or 3.0), dataloader=self.loader(cfg))

    def outline(self, cfg, role, *, latents_source):
        with torch.device("meta"):
            return RoleOutline(RoleHandle(role, {"transformer": ToyNetwork(*SIZES)}))

    def encoder(self, path, *, device):
        return Encoder(path, device)

    def sampler(self, path, config, *, device):
        sampler = Sampler(Adapter(config.flow_shift or 3.0))
        return PathSampler(RoleHandle("student", {"transformer": network(path)}), sampler)

    def export(self, base, out, modules, *, pipeline_config, student_schedule):
        Path(out).mkdir()
        torch.save(modules["transformer"], Path(out) / "net.pt")
        return []

    def tiny(self, out, *, seed=0):
        tiny(out, seed=seed)
""".replace("    state = ToyNetwork(*SIZES, **{}).state_dict() if False else {}\n", "")


def suite_of(folder: Path, *changes: tuple[str, str], **attributes: Any) -> ModelPluginSuite:
    source = GOOD
    for old, new in changes:
        assert old in source, old
        source = source.replace(old, new)
    file = folder / "mine.py"
    file.write_text(source)
    given = {"plugin": "mine", "plugin_file": file, "unsupported": UNSUPPORTED}
    return type("Suite", (ModelPluginSuite,), given | attributes)()


def run_check(suite: ModelPluginSuite, check: str, folder: Path) -> None:
    with suite.world():
        names = inspect.signature(getattr(suite, check)).parameters
        arguments: dict[str, Any] = {}
        if "prepared" in names:
            (folder / "prepared").mkdir()
            arguments["prepared"] = suite.prepare(folder / "prepared")
        if "tmp_path" in names:
            arguments["tmp_path"] = folder
        getattr(suite, check)(**arguments)
