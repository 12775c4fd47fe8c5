"""Dimensions of VBench, by the package vbench, in an environment of its own: it pins other versions than this program needs."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from fastvideo_core.errors import PluginError, Problem
from fastvideo_data.video_files import write_video
from fastvideo_evaluate.metrics import optional
from fastvideo_evaluate.metrics.contract import Sample, VideoMetric

NEEDS = "the Python of an environment that has the package vbench"
GET = "python -m venv vbench-env && vbench-env/bin/pip install vbench torchvision"
SCRIPT = """
import json, os, sys
import torch, vbench
videos, out, dimension, device = sys.argv[1:]
with open(os.path.join(out, "prompts.json"), encoding="utf-8") as file:
    prompts = json.load(file)
everything = os.path.join(os.path.dirname(vbench.__file__), "VBench_full_info.json")
vbench.VBench(torch.device(device), everything, out).evaluate(
    videos, "found", prompt_list=prompts, dimension_list=[dimension], local=True, mode="custom_input"
)
"""
"""What that Python runs: VBench's own evaluation of videos of one's own, with the models that lie on the disk."""


def models_folder() -> Path:
    """Where vbench keeps its models."""
    return Path(os.environ.get("VBENCH_CACHE_DIR") or Path.home() / ".cache" / "vbench")


class VBenchDimension(VideoMetric):
    """One of VBench's dimensions (Huang et al. 2024) that judge any video; `weights` is the Python that has vbench."""

    better = "higher"
    dimension: ClassVar[str]
    models: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *, weights: str = "", device: str = "cpu") -> None:
        super().__init__(weights=weights, device=device)
        name = f"vbench_{self.dimension}"
        self._python = str(optional.weights(name, weights, NEEDS, GET).absolute())
        tried = _run(self._python, "-c", "import vbench")
        if tried.returncode:
            raise optional.unreadable(name, weights, NEEDS, GET, _last_line(tried.stderr) or "it is no Python")
        if missing := [file for file in self.models if not (models_folder() / file).exists()]:
            found = f"{name} needs models that {models_folder()} lacks: {', '.join(missing)}"
            fix = "put them there, as vbench's README says, or set VBENCH_CACHE_DIR to the folder that has them"
            raise PluginError(Problem(found, fix=fix))

    def measure(self, video: Sample) -> float:
        return self.measure_all([video])[0]

    def measure_all(self, videos: Sequence[Sample]) -> list[float]:
        with tempfile.TemporaryDirectory(prefix="vbench-") as out:
            files = {f"{number:06}.mp4": video for number, video in enumerate(videos)}
            for name, video in files.items():
                write_video(Path(out, "videos", name), video.frames, video.fps)
            prompts = json.dumps({name: video.prompt for name, video in files.items()})
            Path(out, "prompts.json").write_text(prompts, encoding="utf-8")
            ran = _run(self._python, "-c", SCRIPT, str(Path(out, "videos")), out, self.dimension, self.device)
            if ran.returncode:
                raise PluginError(Problem(f"vbench failed at {self.dimension}: {_last_line(ran.stderr)}"))
            found = json.loads(Path(out, "found_eval_results.json").read_text(encoding="utf-8"))[self.dimension][1]
        values = {Path(one["video_path"]).name: float(one["video_results"]) for one in found}
        return [values[name] for name in files]


class BackgroundConsistency(VBenchDimension):
    """How alike the frames' backgrounds are, by CLIP."""

    unit, dimension, models = "0 to 1", "background_consistency", ("clip_model/ViT-B-32.pt",)


class TemporalFlickering(VBenchDimension):
    """How little neighbouring frames differ; static videos are best, so look at dynamic_degree beside it."""

    unit, dimension = "0 to 1", "temporal_flickering"


class MotionSmoothness(VBenchDimension):
    """How well frames are told from their neighbours, by a network that interpolates."""

    unit, dimension, models = "0 to 1", "motion_smoothness", ("amt_model/amt-s.pth",)


class DynamicDegree(VBenchDimension):
    """Whether something moves, by the optical flow of RAFT: 0 or 1."""

    unit, dimension, models = "0 or 1", "dynamic_degree", ("raft_model/models/raft-things.pth",)


class AestheticQuality(VBenchDimension):
    """How beautiful frames are, by LAION's predictor."""

    unit, dimension = "0 to 1", "aesthetic_quality"
    models = ("clip_model/ViT-L-14.pt", "aesthetic_model/emb_reader/sa_0_4_vit_l_14_linear.pth")


class ImagingQuality(VBenchDimension):
    """How free of noise, blur and wrong exposure frames are, by MUSIQ."""

    unit, dimension, models = "0 to 100", "imaging_quality", ("pyiqa_model/musiq_spaq_ckpt-358bb6af.pth",)


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    try:
        return subprocess.run(command, capture_output=True, text=True, errors="replace", env=environment)
    except OSError as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))


def _last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "")
