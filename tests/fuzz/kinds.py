"""The kinds of files that others make, each with whole ones to damage and what reads them."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from fastvideo_core.checkpoint.storage import choose
from fastvideo_core.checkpoint.weights import describe, read_role_weights
from fastvideo_core.contracts.family import open_family
from fastvideo_core.dispatch.load_run_config import load_run_config
from fastvideo_core.registry import PluginRegistry
from fastvideo_data.data_set import DataSet
from fastvideo_data.preprocessing.raw_videos import discover
from fastvideo_data.validation_prompts import read_validation_prompts
from fastvideo_diffusers.loading import load_tokenizer
from fastvideo_diffusers.pipeline_files import check_undamaged
from fastvideo_tools.report.read import read_run
from fastvideo_wan.folder import COMPONENTS
from fastvideo_wan.loading import load_transformer, load_vae, outline_transformer
from fastvideo_wan.text import TextEncoder
from tests.families import Kind as Family
from tests.fuzz import damage

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Kind:
    """
    Args:
        folder: whole files; damage is done to a copy of it.
        damage: what is done to a file, by pattern below the folder; the first that fits counts.
        read: what reads the copy, given its folder and the name of the file that was damaged.
        command: a command line that reads it, given its folder.
    """

    folder: Path
    damage: Mapping[str, damage.Damage]
    read: Callable[[Path, str], object]
    command: Callable[[Path], list[Any]]

    def targets(self) -> list[tuple[str, damage.Damage]]:
        """Every file that is damaged, by its name below the folder, with how."""
        found: dict[str, damage.Damage] = {}
        for pattern, how in self.damage.items():
            for file in sorted(self.folder.glob(pattern)):
                if file.is_file():
                    found.setdefault(file.relative_to(self.folder).as_posix(), how)
        return list(found.items())


@dataclass(frozen=True)
class Ground:
    """What kinds are made of.

    Args:
        base: a pipeline folder of the family.
        data: a parquet file.
        run: the folder of a run, with its checkpoint and videos.
        config: a run.yaml like the run's, for another one.
    """

    family: str
    base: Path
    data: Path
    run: Path
    config: Path


def run_yaml(ground: Ground, folder: Path) -> Kind:
    (folder / "run.yaml").write_bytes(ground.config.read_bytes())
    run = yaml.safe_load(ground.config.read_text())
    path = run["roles"]["student"]["path"]
    roles = {role: {"path": path, "trainable": role != "teacher"} for role in ("student", "teacher", "critic")}
    run |= {"recipe": {**run["recipe"], "method": "dmd2"}, "roles": roles, "pipeline_config": {"flow_shift": 3}}
    run["training"] |= {"betas": "0.9,0.99", "validation_sampling_steps": "4,8", "num_height": 32, "num_width": 48}
    run["training"] |= {
        "lr_scheduler": "cosine",
        "lr_warmup_steps": 1,
        "max_train_steps": 20,
        "trackers": ["tensorboard"],
    }
    run["method_config"] = {"dmd_denoising_steps": [1000, 500], "rollout_mode": "simulate"}
    (folder / "dmd2.yaml").write_text(yaml.safe_dump(run, sort_keys=False))

    def read(copy: Path, file: str) -> None:
        load_run_config(copy / file, PluginRegistry())

    return Kind(folder, {"*.yaml": damage.of_yaml}, read, lambda copy: ["check", sorted(copy.glob("*.yaml"))[0]])


def pipeline(ground: Ground, folder: Path) -> Kind:
    loaders: dict[str, Callable[[str], object]] = {
        "transformer": lambda path: load_transformer(path, dtype=torch.float32, device=CPU),
        "vae": lambda path: load_vae(path, device=CPU),
        "text_encoder": lambda path: TextEncoder(path, dtype=torch.float32, device=CPU).module(),
        "tokenizer": lambda path: load_tokenizer(path, where="path")("a cat"),
    }

    def read(copy: Path, file: str) -> None:
        check_undamaged(str(copy), COMPONENTS, where="path")
        outline_transformer(str(copy))
        if load := loaders.get(file.partition("/")[0]):
            load(str(copy))

    def command(copy: Path) -> list[Any]:
        run = yaml.safe_load(ground.config.read_text())
        run["roles"]["student"]["path"] = str(copy)
        config = copy.parent / "run.yaml"
        config.write_text(yaml.safe_dump(run))
        return ["check", config]

    return Kind(ground.base, {"**/*.json": damage.of_json}, read, command)


def pipeline_of(family: Family, folder: Path) -> Kind:
    """As `pipeline`, for whatever family: through what each of them must have, networks run and all."""
    registry = PluginRegistry()
    plugin = registry.get("models", family.family)
    found: Any = open_family(family.family, registry)
    section = registry.config_class(plugin)()
    found.tiny(folder / "base", seed=0, **family.options)

    def read(copy: Path, file: str) -> None:
        opened = found.open_folder(str(copy), where="path")
        check_undamaged(str(copy), found.components(opened), where="path")
        found.meta_network(opened, dtype=torch.float32, where="path")
        found.sampler(str(copy), section, device=CPU)
        found.encoder(str(copy), device=CPU).encode_texts(["a cat"])

    return Kind(folder / "base", {"**/*.json": damage.of_json}, read, lambda copy: [])


def metadata(ground: Ground, folder: Path) -> Kind:
    names = [f"{number}.mp4" for number in range(4)]
    csv = "video,caption,n\n" + "".join(f'{name},"a {name}, again",{name[0]}\n' for name in names)
    rows = ",".join(f'{{"file_name": "{name}", "text": "a {name}", "n": {name[0]}}}' for name in names)
    for kind, content in {"csv": csv, "json": f"[{rows}]", "jsonl": rows.replace("},", "}\n") + "\n"}.items():
        (folder / kind).mkdir()
        (folder / kind / f"metadata.{kind}").write_text(content)
        for name in names:
            (folder / kind / name).touch()
    kinds = {"**/*.csv": damage.of_bytes, "**/*.json": damage.of_json, "**/*.jsonl": damage.of_lines}

    def read(copy: Path, file: str) -> None:
        discover((copy / file).parent)

    def command(copy: Path) -> list[Any]:
        words = ["preprocess", "--family", ground.family, "--model", ground.base, "--input", copy / "json"]
        return [*words, "--output", copy / "out", "--height", 32, "--width", 48, "--num-frames", 5]

    return Kind(folder, kinds, read, command)


def validation(ground: Ground, folder: Path) -> Kind:
    (folder / "first.png").touch()
    prompts = (
        '{"data": [{"caption": "a cat", "height": 32, "width": 48, "num_frames": 5, "seed": 3}, {"caption": "a dog"}, '
    )
    prompts += '{"caption": "a cow", "image_path": "first.png", "video_path": null, "num_inference_steps": 8}]}'
    (folder / "prompts.json").write_text(prompts)

    def command(copy: Path) -> list[Any]:
        run = yaml.safe_load(ground.config.read_text())
        run["training"] |= {"log_validation": True, "validation_steps": 1}
        run["training"] |= {"validation_dataset_file": str(copy / "prompts.json")}
        (copy / "run.yaml").write_text(yaml.safe_dump(run))
        return ["check", copy / "run.yaml"]

    return Kind(folder, {"*.json": damage.of_json}, lambda copy, file: read_validation_prompts(copy / file), command)


def parquet(ground: Ground, folder: Path) -> Kind:
    (folder / "a.parquet").write_bytes(ground.data.read_bytes())

    def read(copy: Path, file: str) -> None:
        data = DataSet(copy)
        loader = data.loader(batch_size=1, seed=0)
        try:
            data.examples()
            for _ in zip(range(loader.num_samples), loader, strict=False):
                pass
        finally:
            loader.close()

    def command(copy: Path) -> list[Any]:
        run = yaml.safe_load(ground.config.read_text())
        run["training"]["data_path"] = str(copy / "a.parquet")
        (copy / "run.yaml").write_text(yaml.safe_dump(run))
        return ["check", copy / "run.yaml"]

    return Kind(folder, {"*.parquet": damage.of_bytes}, read, command)


def checkpoint(ground: Ground, folder: Path) -> Kind:
    kinds = {
        "checkpoint-*/*.json": damage.of_json,
        "checkpoint-*/*.yaml": damage.of_yaml,
        "checkpoint-*/**/*": damage.of_bytes,
    }

    def read(copy: Path, file: str) -> None:
        (found,) = copy.glob("checkpoint-*")
        roles = describe(found).roles
        read_role_weights(found, next(iter(roles)), ema=False)
        choose(found, copy)

    return Kind(ground.run, kinds, read, lambda copy: ["export", copy, copy.parent / "exported"])


def forged_checkpoint(ground: Ground, folder: Path) -> Kind:
    """One whose sums are right: no disk made the damage."""
    plain = checkpoint(ground, folder)

    def sign(copy: Path) -> None:
        (state,) = copy.glob("checkpoint-*/state.json")
        content = state.read_bytes()
        state.with_name("state.json.sum").write_text(f'{{"size":{len(content)},"crc32":{zlib.crc32(content)}}}')

    def read(copy: Path, file: str) -> None:
        sign(copy)
        plain.read(copy, file)

    def command(copy: Path) -> list[Any]:
        sign(copy)
        return plain.command(copy)

    return Kind(ground.run, {"checkpoint-*/state.json": damage.of_json}, read, command)


def report(ground: Ground, folder: Path) -> Kind:
    kinds = {"run.yaml": damage.of_yaml, "metrics.jsonl": damage.of_lines, "environment.json": damage.of_json}
    kinds |= {"validation/**/*.txt": damage.of_bytes}
    return Kind(ground.run, kinds, lambda copy, file: read_run(copy), lambda copy: ["report", copy])


KINDS: Mapping[str, Callable[[Ground, Path], Kind]] = {
    make.__name__: make
    for make in (run_yaml, pipeline, metadata, validation, parquet, checkpoint, forged_checkpoint, report)
}
