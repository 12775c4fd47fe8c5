"""Samples an exported folder with diffusers alone: PIPELINE FOLDER OUT.npz PROMPT JSON H W FRAMES STEPS SEEDS...

JSON: more arguments of the pipeline's call; an image is the path of one.

Nothing of this project is imported, and the end of the script makes sure of it.
"""

from __future__ import annotations

import json
import sys

import diffusers
import numpy as np
import torch
from PIL import Image


def main(arguments: list[str]) -> int:
    """Writes float frames [T, H, W, 3] in [0, 1] of every seed, by the seed's name."""
    pipeline_class, folder, out, prompt, more = arguments[:5]
    height, width, num_frames, steps, *seeds = map(int, arguments[5:])
    pipeline = getattr(diffusers, pipeline_class).from_pretrained(folder)
    pipeline.to("cuda" if torch.cuda.is_available() else "cpu").set_progress_bar_config(disable=True)
    options = json.loads(more)
    options |= {name: Image.open(options[name]) for name in ("image", "last_image") if name in options}
    videos = {}
    for seed in seeds:
        # Noise that a scheduler draws between the steps is the global generator's, which then also draws the first.
        torch.manual_seed(seed)
        drawn = pipeline.scheduler.config.get("stochastic_sampling", False)
        videos[str(seed)] = pipeline(
            prompt=prompt,
            height=height,
            width=width,
            num_frames=num_frames,
            num_inference_steps=steps,
            guidance_scale=1.0,
            generator=None if drawn else torch.Generator().manual_seed(seed),
            output_type="np",
            **options,
        ).frames[0]
    np.savez(out, **videos)
    ours = sorted(name for name in sys.modules if name.startswith("fastvideo"))
    print(f"modules of this project that were imported: {ours or 'none'}")
    return 1 if ours else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
