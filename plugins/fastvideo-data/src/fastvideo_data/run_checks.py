"""What a run's data says of itself, compared with what the run would make of it."""

from __future__ import annotations

from collections.abc import Sequence

from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.contracts.adapter import LatentsSource
from fastvideo_core.contracts.family import Findings
from fastvideo_core.errors import Problem
from fastvideo_data.data_set import DataSet, EncodedBy
from fastvideo_data.encoder import EncoderIdentity
from fastvideo_data.schema import NORMALISED_KEY
from fastvideo_data.video_sizes import VideoSize


def normalisation_warnings(data: DataSet, latents_source: LatentsSource | None) -> list[str]:
    """What a run on the data's latents takes their normalisation to be, where a file does not say it."""
    if latents_source == "zeros" or (file := data.unsaid_normalisation) is None:
        return []
    taken = ", ".join(f"{name} {'normalised' if is_so else 'un-normalised'}" for name, is_so in data.normalised.items())
    said = f"{file} does not say whether its latents are normalised: they are taken as FastVideo writes them ({taken})"
    return [f"{said}; if they are not, record {NORMALISED_KEY.decode()} in the files (docs/data.md)"]


def size_warnings(training: TrainingArgs, sizes: Sequence[VideoSize]) -> list[str]:
    """Sizes of the run that the data has not: training takes the data as it is, and they count for validation alone."""
    notes = []
    for key in ("height", "width", "num_frames"):
        name = f"num_{key.removeprefix('num_')}"
        asked = getattr(training, name)
        there = sorted({getattr(size, key) for size in sizes})
        if asked is not None and there and asked not in there:
            notes.append(
                f"training.{name} is {asked}, and the data's videos have {', '.join(map(str, there))}: training takes the "
                "data as it is (preprocess makes its size), and prompts that name no size are sampled with the run's"
            )
    return notes


def compare_encoders(place: str, made_by: Sequence[EncodedBy], own: EncoderIdentity | None) -> Findings:
    """Whether a run's data was made by the encoders of its own pipeline.

    Args:
        place: how messages name the data.
        made_by: of `DataSet.encoders`.
        own: the encoders of the run's pipeline; None where they are not known here.
    """
    if not made_by:
        return Findings()
    if own is None:
        note = "the pipeline's encoders are not on this machine yet: training will compare them with the data's"
        return Findings(warnings=(note,))
    problems = [problem for one in made_by if (problem := _made_by_others(place, one, own)) is not None]
    warnings = [
        f"{one.file} does not say which encoders made it: training takes them to be those of roles.{own.role}.path "
        f"({own.path})"
        for one in made_by
        if not own.values.keys() & (one.encoder or {}).keys()
    ]
    return Findings(tuple(problems), tuple(warnings))


def _made_by_others(place: str, made_by: EncodedBy, own: EncoderIdentity) -> Problem | None:
    stored = made_by.encoder or {}
    differences = [
        f"{key} {stored[key]} made it, but roles.{own.role}.path ({own.path}) has {value}"
        for key, value in own.values.items()
        if key in stored and stored[key] != value
    ]
    if not differences:
        return None
    return Problem(
        found="; ".join(differences),
        where=f"{place}, as {made_by.file} says",
        allowed="data that was preprocessed with the encoders of the run's own pipeline",
        fix=f"preprocess it again with --model {own.path}, or train the pipeline that it was made with",
    )
