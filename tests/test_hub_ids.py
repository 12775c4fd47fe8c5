"""Pipelines named by hub id, out of a cache in the hub's own layout: what is there is compared, taken and copied.

Each test is one process: huggingface_hub reads where its cache is when it is imported.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file, save_file

from tests.families import ALL_KINDS, tiny_family

__all__ = ["tiny_family"]

COMMIT = "0" * 40
FOREIGN = "whole-checkpoint-of-another-program.safetensors"


def put_into_cache(cache: Path, hub_id: str, pipeline: Path) -> Path:
    """A repository as the hub's cache holds it, and beside the pipeline what such repositories hold too."""
    repository = cache / f"models--{hub_id.replace('/', '--')}"
    snapshot = repository / "snapshots" / COMMIT
    shutil.copytree(pipeline, snapshot)
    (snapshot / FOREIGN).write_bytes(b"many gigabytes")
    (snapshot / "LICENSE.md").write_text("of the base\n")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return snapshot


def distill(cache: Path, *commands: list[str]) -> subprocess.CompletedProcess[str]:
    """Commands one after the other in a process that has this cache and no network; it ends with the first that fails."""
    script = "import sys\nfrom fastvideo_core.cli.main import main\n"
    script += "".join(f"if code := main({command!r}):\n    sys.exit(code)\n" for command in commands)
    environment = {**os.environ, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=cache.parent,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def write_run(folder: Path, family: str, hub_id: str, data: Path) -> None:
    run = {
        "recipe": {"family": family, "method": "finetune"},
        "roles": {"student": {"path": hub_id, "trainable": True}},
        "training": {"output_dir": "out", "data_path": str(data), "max_train_steps": 1, "train_batch_size": 1},
    }
    (folder / f"{hub_id.partition('/')[2]}.yaml").write_text(yaml.safe_dump(run))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ALL_KINDS, ids=str)
def test_a_cached_pipeline_is_checked_trained_and_exported_without_what_is_not_of_it(tiny_family, tmp_path, kind):
    tiny = tiny_family(kind)
    put_into_cache(tmp_path / "cache", "maker/whole", tiny.base)
    write_run(tmp_path, tiny.family, "maker/whole", tiny.data)
    done = distill(tmp_path / "cache", ["check", "whole.yaml"], ["whole.yaml"], ["export", "out", "exported"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "are not on this machine" not in done.stdout
    assert "without activations" not in done.stdout
    exported = {item.name for item in (tmp_path / "exported").iterdir()}
    assert exported == {item.name for item in tiny.base.iterdir()} | {"LICENSE.md"}


@pytest.mark.parametrize("kind", ALL_KINDS, ids=str)
def test_the_encoders_of_a_cached_pipeline_are_compared_with_the_data_s(tiny_family, tmp_path, kind):
    tiny = tiny_family(kind)
    other = put_into_cache(tmp_path / "cache", "maker/other", tiny.base)
    for file in (other / "text_encoder").glob("*.safetensors"):
        save_file({name: value + 0.5 for name, value in load_file(file).items()}, file, metadata={"format": "pt"})
    lacking = put_into_cache(tmp_path / "cache", "maker/lacking", tiny.base)
    for file in (lacking / "text_encoder").glob("*.safetensors"):
        file.unlink()
    for name in ("other", "lacking"):
        write_run(tmp_path, tiny.family, f"maker/{name}", tiny.data)
    done = distill(tmp_path / "cache", ["check", "lacking.yaml"], ["check", "other.yaml"])
    note = "the pipeline's encoders are not on this machine yet: training will compare them with the data's"
    assert done.stdout.count(note) == 1, done.stdout + done.stderr
    assert done.returncode == 2
    assert "but roles.student.path (maker/other) has " in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("kind", ALL_KINDS, ids=str)
def test_a_pipeline_whose_weights_are_not_cached_is_told_without_a_traceback(tiny_family, tmp_path, kind):
    tiny = tiny_family(kind)
    half = put_into_cache(tmp_path / "cache", "maker/half", tiny.base)
    for file in (half / "vae").glob("*.safetensors"):
        file.unlink()
    write_run(tmp_path, tiny.family, "maker/half", tiny.data)
    done = distill(tmp_path / "cache", ["half.yaml"])
    assert done.returncode == 2, done.stdout + done.stderr
    assert "roles.student.path (" in done.stderr
    assert "vae" in done.stderr
    assert "Traceback" not in done.stderr
