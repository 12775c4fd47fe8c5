"""What tells the encoders of one Wan pipeline from those of another."""

from __future__ import annotations

from fastvideo_diffusers.fingerprint import fingerprint
from fastvideo_wan.loading import component_folder

ENCODERS = ("vae", "text_encoder")


def encoder_identity(path: str, *, where: str, download: bool) -> dict[str, str] | None:
    """The fingerprints of VAE and text encoder by the name of their folder, taken from the stored weights.

    Args:
        path: folder or hub id of a pipeline.
        where: how errors name the place that gave the path.
        download: whether weights may be fetched.

    Returns:
        None where they are not on this machine and may not be fetched.

    Raises:
        ConfigError: they cannot be read.
    """
    found = {}
    for name in ENCODERS:
        folder = component_folder(path, name, where=where, download=download)
        if folder is None:
            return None
        found[name] = fingerprint(folder, where=where)
    return found
