"""The GPU, the video encoder, the disk and the trackers' logins."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

from fastvideo_core.tracking.wandb_login import FIX, wandb_login
from fastvideo_tools.doctor.findings import Finding

LITTLE_SPACE = 20 * 2**30
"""Bytes below which checkpoints of a small real model do not fit."""


def check_torch(driver: Path = Path("/proc/driver/nvidia/version")) -> Iterator[Finding]:
    """torch and what it can compute on.

    Args:
        driver: there when a driver for NVIDIA GPUs is loaded.
    """
    try:
        import torch
    except Exception as error:  # a broken installation raises anything, OSError for a missing library
        fix = "pip install torch" if find_spec("torch") is None else "pip install --force-reinstall torch"
        yield Finding("torch", "bad", f"cannot be imported: {error}", fix)
        return
    yield Finding("torch", "ok", f"{torch.__version__}, {torch.get_num_threads()} CPU threads")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(index)
            finest = "bf16" if torch.cuda.is_bf16_supported() else "no bf16: mixed_precision must be no"
            yield Finding(f"GPU {index}", "ok", f"{device.name}, {device.total_memory / 2**30:.0f} GiB, {finest}")
    elif driver.exists():
        built = (
            f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch is built for CPUs only"
        )
        fix = "install the torch build that fits the driver (nvidia-smi shows the newest CUDA version that it runs)"
        yield Finding("GPU", "bad", f"there is an NVIDIA driver, but {built} and finds no GPU", fix)
    else:
        yield Finding("GPU", "note", "none: everything runs on the CPU, which is enough for tiny models")


def check_video() -> Finding:
    """The h264 encoder that samples and validation videos are written with."""
    try:
        import av

        av.Codec("libx264", "w")
    except ImportError as error:
        return Finding("video encoder", "bad", f"PyAV cannot be imported: {error}", "pip install --force-reinstall av")
    except ValueError:
        return Finding(
            "video encoder",
            "bad",
            f"PyAV {av.__version__} was built on an ffmpeg without h264",
            "pip install --force-reinstall --only-binary av av",
        )
    ffmpeg = ".".join(map(str, av.library_versions["libavcodec"]))
    return Finding("video encoder", "ok", f"h264 by PyAV {av.__version__} (libavcodec {ffmpeg})")


def check_disk(folder: Path, free: int | None = None) -> Finding:
    """Free space where runs are written.

    Args:
        folder: one that is not there yet counts as the nearest one above it, which it would be made in.
        free: bytes; None looks.
    """
    there = next((path for path in (folder.absolute(), *folder.absolute().parents) if path.exists()), folder)
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        why = "cannot be written" if there.is_dir() else "is not a folder"
        return Finding("disk", "bad", f"{there} {why}", "choose another folder with --folder")
    try:
        free = shutil.disk_usage(there).free if free is None else free
    except OSError as error:
        return Finding("disk", "bad", f"{there}: {error.strerror}", "choose another folder with --folder")
    text = f"{free / 2**30:.0f} GiB free in {folder}"
    if free < LITTLE_SPACE:
        return Finding("disk", "note", text, "checkpoints of real models take more; `check` says how much each takes")
    return Finding("disk", "ok", text)


def check_wandb(environment: Mapping[str, str] = os.environ, home: Path | None = None) -> Finding:
    """Whether Weights & Biases can be logged to. The key itself is neither shown nor kept."""
    if find_spec("wandb") is None:
        return Finding("wandb", "note", "not installed", "pip install 'fastvideo-core[wandb]', for trackers: [wandb]")
    found, text = wandb_login(environment, home)
    return Finding("wandb", "ok", text) if found else Finding("wandb", "note", text, FIX)
