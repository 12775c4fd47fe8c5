"""Metrics that ask a model: they refuse with words where something lacks, and give what the published packages compute."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from fastvideo_core.errors import DataError, PluginError
from fastvideo_evaluate import Metric, Sample, SetMetric, VideoMetric, load_metrics
from fastvideo_evaluate.metrics import vbench


def made(name: str, weights: Path | str = "") -> Metric:
    return load_metrics([name], weights={name: str(weights)} if weights else {})[name]


def refused(name: str, weights: Path | str = "") -> str:
    with pytest.raises(PluginError) as caught:
        made(name, weights)
    return str(caught.value)


def sample(frames: np.ndarray, prompt: str = "a cat") -> Sample:
    return Sample(prompt, 0, frames.astype(np.uint8), 16)


@pytest.mark.parametrize(
    ("name", "module", "command"),
    [
        ("optical_flow", "cv2", "pip install 'fastvideo-evaluate[flow]'"),
        ("clip_similarity", "transformers", "pip install 'fastvideo-evaluate[clip]'"),
        ("fvd", "cdfvd", "pip install cd-fvd"),
    ],
)
def test_a_missing_package_is_told_of_with_the_command(
    name: str, module: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    said = refused(name)
    assert f"the metric '{name}' needs the package '{module}'" in said
    assert command in said


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP of random weights in the real format; its text tower tells "cat" from "dog"."""
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("PIL")
    folder = tmp_path_factory.mktemp("clip")
    words = ["<|startoftext|>", "<|endoftext|>", "a</w>", "c", "a", "t</w>", "d", "o", "g</w>"]
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tower = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = tower | {"vocab_size": len(words), "bos_token_id": 0, "eos_token_id": 1}
    vision = tower | {"image_size": 32, "patch_size": 8}
    torch.manual_seed(0)
    model = transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8))
    model.save_pretrained(folder)
    tokenizer = transformers.CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    transformers.CLIPProcessor(transformers.CLIPImageProcessor(**size), tokenizer).save_pretrained(folder)
    return folder


def test_clip_similarity_is_the_cosine_of_the_embeddings(clip_folder: Path) -> None:
    from transformers import CLIPModel, CLIPProcessor

    metric = made("clip_similarity", clip_folder)
    assert isinstance(metric, VideoMetric)
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (3, 40, 56, 3)).astype(np.uint8)
    model, processor = CLIPModel.from_pretrained(clip_folder), CLIPProcessor.from_pretrained(clip_folder)
    for prompt in ("a cat", "a dog"):
        inputs = processor(text=[prompt], images=list(frames), return_tensors="pt")
        with torch.no_grad():
            found = model(**inputs)
        expected = float((found.logits_per_image / model.logit_scale.detach().exp()).mean())
        assert metric.measure(sample(frames, prompt)) == pytest.approx(expected, abs=1e-6)
    assert metric.measure(sample(frames, "a cat")) != metric.measure(sample(frames, "a dog"))
    assert -1 <= metric.measure(sample(frames, "a cat " * 200)) <= 1  # cut to what the text tower takes


def test_clip_similarity_refuses_what_is_no_clip_model(clip_folder: Path, tmp_path: Path) -> None:
    assert "needs a model, and none is given" in refused("clip_similarity")
    assert "hf download" in refused("clip_similarity")
    assert "does not exist" in refused("clip_similarity", tmp_path / "nowhere")
    assert "it cannot be read" in refused("clip_similarity", tmp_path)
    assert "it cannot be read" in refused("clip_similarity", "nobody/no-such-clip")  # a hub id that is not in the cache
    from safetensors.torch import load_file, save_file

    for file in clip_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    kept = {
        name: one for name, one in load_file(clip_folder / "model.safetensors").items() if "text_projection" not in name
    }
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert "it has no text_projection.weight, which a CLIP model has" in refused("clip_similarity", tmp_path)


class Statistics:
    """cd-fvd's FeatureStats."""

    def __init__(self, capture_all: bool = False, capture_mean_cov: bool = False) -> None:
        self.kept: list[np.ndarray] = []

    def append(self, points: np.ndarray) -> None:
        self.kept.append(points)

    def get_all(self) -> np.ndarray:
        return np.concatenate(self.kept)


class Evaluator:
    """cd-fvd's `cdfvd`, with the mean colour of a video as features; it must be told a file that is there."""

    def __init__(self, model: str, *, ckpt_path: str, device: str) -> None:
        self.model = torch.load(ckpt_path)

    @staticmethod
    def feature_fn(
        stats: Statistics, model: float, videos: np.ndarray, *, device: str, model_dtype: torch.dtype
    ) -> Statistics:
        assert videos.ndim == 5
        stats.append(model * videos.mean(axis=(1, 2, 3)))
        return stats

    @staticmethod
    def compute_fvd_from_stats(fake: Statistics, real: Statistics) -> float:
        return float(((fake.get_all().mean(0) - real.get_all().mean(0)) ** 2).sum())


@pytest.fixture
def cd_fvd(monkeypatch: pytest.MonkeyPatch) -> None:
    package, metrics = ModuleType("cdfvd.fvd"), ModuleType("cdfvd.utils.metric_utils")
    package.cdfvd, metrics.FeatureStats = Evaluator, Statistics  # type: ignore[attr-defined]
    for name, module in {"cdfvd": ModuleType("cdfvd"), package.__name__: package, metrics.__name__: metrics}.items():
        monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.usefixtures("cd_fvd")
def test_fvd_is_what_cd_fvd_says_of_the_features_of_each_video(tmp_path: Path) -> None:
    torch.save(2.0, tmp_path / "i3d_pretrained_400.pt")
    metric = made("fvd", tmp_path)
    assert isinstance(metric, SetMetric)
    dark, bright = (
        np.stack([metric.features(sample(np.full((9, 8, 8, 3), light + n))) for n in range(2)]) for light in (10, 30)
    )
    assert dark.tolist() == [[20.0] * 3, [22.0] * 3]
    assert metric.distance(bright, dark) == 3 * 40.0**2
    with pytest.raises(DataError, match="9 frames or more, these have 5"):
        metric.features(sample(np.zeros((5, 8, 8, 3))))


@pytest.mark.usefixtures("cd_fvd")
def test_fvd_never_lets_cd_fvd_download_its_network(tmp_path: Path) -> None:
    assert "i3d_pretrained_400.pt does not exist" in refused("fvd", tmp_path)
    assert "needs a model, and none is given" in refused("fvd")
    (tmp_path / "i3d_pretrained_400.pt").write_text("no weights")
    assert "it cannot be read" in refused("fvd", tmp_path)


STAND_IN = """
import json, os
class VBench:
    def __init__(self, device, full_info_dir, output_path):
        assert str(device) == "cpu" and os.path.dirname(full_info_dir) == os.path.dirname(__file__)
        self.output_path = output_path
    def evaluate(self, videos_path, name, prompt_list=[], dimension_list=None, local=False, read_frame=False, mode=None):
        assert local and mode == "custom_input"
        if "fail" in prompt_list.values():
            raise RuntimeError("out of memory")
        found = [{"video_path": os.path.join(videos_path, file), "video_results": len(prompt_list[file])}
                 for file in reversed(sorted(os.listdir(videos_path)))]
        with open(os.path.join(self.output_path, name + "_eval_results.json"), "w") as file:
            json.dump({dimension_list[0]: [0.0, found]}, file)
"""


@pytest.fixture
def vbench_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """This Python, with a stand-in of vbench that gives each video the length of its prompt."""
    (tmp_path / "stand" / "vbench").mkdir(parents=True)
    (tmp_path / "stand" / "vbench" / "__init__.py").write_text(STAND_IN)
    (tmp_path / "stand" / "torch.py").write_text("device = str")  # the real one takes a second to import
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "stand"))
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path / "models"))
    return sys.executable


def test_vbench_runs_in_its_own_python_and_values_come_back_to_their_videos(vbench_python: str) -> None:
    metric = made("vbench_temporal_flickering", vbench_python)
    assert isinstance(metric, VideoMetric)
    videos = [sample(np.zeros((5, 16, 16, 3)), prompt) for prompt in ("a", "a cat", "a dog or two")]
    assert metric.measure_all(videos) == [1.0, 5.0, 12.0]
    with pytest.raises(PluginError, match="vbench failed at temporal_flickering: RuntimeError: out of memory"):
        metric.measure(sample(np.zeros((5, 16, 16, 3)), "fail"))


def test_vbench_refuses_before_it_could_download(
    vbench_python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = refused("vbench_dynamic_degree", vbench_python)
    assert f"needs models that {tmp_path / 'models'} lacks: raft_model/models/raft-things.pth" in said
    for model in vbench.DynamicDegree.models:
        (tmp_path / "models" / model).parent.mkdir(parents=True)
        (tmp_path / "models" / model).touch()
    assert isinstance(made("vbench_dynamic_degree", vbench_python), VideoMetric)
    assert "needs a model, and none is given" in refused("vbench_dynamic_degree")
    assert "vbench-env/bin/pip install vbench" in refused("vbench_dynamic_degree")
    monkeypatch.delenv("PYTHONPATH")
    assert "it cannot be read: ModuleNotFoundError: No module named 'vbench'" in refused(
        "vbench_dynamic_degree", vbench_python
    )
    assert "it cannot be read" in refused("vbench_dynamic_degree", __file__)
