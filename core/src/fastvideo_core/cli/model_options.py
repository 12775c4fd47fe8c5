"""What `sample` and `export` have in common: which model, which role, which weights."""

from __future__ import annotations

import argparse


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """MODEL, --family, --role, --weights."""
    parser.add_argument(
        "model", help="a checkpoint folder, a run's folder (its newest checkpoint), or a diffusers folder"
    )
    parser.add_argument("--family", help="the model family (default: what the checkpoint or model_index.json says)")
    parser.add_argument("--role", help="which role of a checkpoint (default: student, or its only role)")
    parser.add_argument(
        "--weights",
        choices=("auto", "raw", "ema"),
        default="auto",
        help="weights of a checkpoint: ema, raw, or auto: ema where there are some (default)",
    )
