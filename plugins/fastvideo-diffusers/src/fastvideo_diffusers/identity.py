"""The identity of a pipeline's encoders: fingerprints of the weights that decide what `preprocess` stores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fastvideo_diffusers.fingerprint import fingerprint
from fastvideo_diffusers.loading import component_folder


@dataclass(frozen=True)
class StoredEncoder:
    """Weights that decide what `preprocess` stores.

    Args:
        name: of the encoder in its description.
        component: the sub-folder that holds the weights.
        wanted: which of the tensors there are the encoder's, by name; None is all.
    """

    name: str
    component: str
    wanted: Callable[[str], bool] | None = None


VAE = StoredEncoder("vae", "vae")
"""The autoencoder of a pipeline, as its sub-folder is called."""
TEXT_ENCODER = StoredEncoder("text_encoder", "text_encoder")
"""Its text encoder."""


def encoder_identity(
    path: str, encoders: Sequence[StoredEncoder], *, where: str, download: bool
) -> dict[str, str] | None:
    """The fingerprints of encoders by name, taken from the stored weights.

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
    for encoder in encoders:
        folder = component_folder(path, encoder.component, where=where, download=download)
        if folder is None:
            return None
        found[encoder.name] = fingerprint(folder, where=where, wanted=encoder.wanted)
    return found
