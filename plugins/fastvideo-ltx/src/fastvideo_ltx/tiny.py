"""A random-weight LTX pipeline, small enough for tests, in the real diffusers format."""

from __future__ import annotations

from pathlib import Path

from fastvideo_core.errors import Problem
from fastvideo_diffusers.tiny import check_sizes
from fastvideo_ltx.generations import GENERATIONS


def write_tiny_pipeline(
    out: Path,
    *,
    seed: int = 0,
    generation: int = 1,
    variant: str = "",
    num_layers: int = 2,
    num_heads: int = 2,
    head_dim: int = 16,
    text_dim: int = 32,
    text_layers: int = 2,
    vae_dim: int = 8,
) -> str:
    """Writes a pipeline folder that the generation's plain diffusers pipeline loads; equal arguments give equal bytes.

    Args:
        out: the folder; created, must be empty or absent.
        seed: of all weights; the global random state is left as it was.
        generation: 1 (LTX-Video) or 2 (LTX-2).
        variant: of LTX-2: `ltx2`, `ltx23` or `ltx25`, with what each has of its own; empty is the generation's first.
        num_layers: transformer blocks.
        num_heads: attention heads of the transformer.
        head_dim: width of a head; a multiple of 4, with num_heads at least 6 (rotary embedding over time, height, width).
        text_dim: width of the text encoder; a multiple of 8.
        text_layers: layers of the text encoder.
        vae_dim: width of the video autoencoder; a multiple of 4.

    Returns:
        which generation it is, and how to have another one.

    Raises:
        ConfigError: for options that make no LTX, or a folder that is not empty.
    """
    more = []
    if generation not in GENERATIONS:
        allowed = ", ".join(str(number) for number in GENERATIONS)
        more.append(Problem(f"is {generation}", where="generation", allowed=allowed))
    elif variant and variant not in GENERATIONS[generation].variants:
        allowed = f"for generation {generation}: {', '.join(GENERATIONS[generation].variants)}"
        more.append(Problem(f"is {variant!r}", where="variant", allowed=allowed))
    if head_dim * num_heads < 6:
        more.append(Problem(f"make {head_dim * num_heads}", where="head_dim x num_heads", allowed="6 or more"))
    check_sizes(
        out,
        at_least_one={"num_layers": num_layers, "num_heads": num_heads, "text_layers": text_layers},
        multiples={"head_dim": (head_dim, 4), "text_dim": (text_dim, 8), "vae_dim": (vae_dim, 4)},
        more=more,
    )
    GENERATIONS[generation].write_tiny(
        out,
        seed=seed,
        variant=variant or GENERATIONS[generation].variants[0],
        num_layers=num_layers,
        num_heads=num_heads,
        head_dim=head_dim,
        text_dim=text_dim,
        text_layers=text_layers,
        vae_dim=vae_dim,
    )
    others = "; ".join(f"--set generation={n} writes {one.name}" for n, one in GENERATIONS.items() if n != generation)
    one = GENERATIONS[generation]
    kinds = f"; --set variant= takes {', '.join(one.variants)}" if len(one.variants) > 1 else ""
    return f"{one.name} (generation {generation}; {others}{kinds})"
