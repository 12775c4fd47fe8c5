"""What changed in a source since its data set was written: captions, clips under the same name, and what is gone."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping
from pathlib import Path

from fastvideo_core.errors import DataError, Problem, foreign_file
from fastvideo_core.launch.stdio import say
from fastvideo_data.encoder import LatentEncoder
from fastvideo_data.preprocessing.account import Noted
from fastvideo_data.preprocessing.encoded_captions import encode_captions
from fastvideo_data.preprocessing.part_files import PartFiles
from fastvideo_data.preprocessing.progress import progress
from fastvideo_data.preprocessing.raw_videos import Source


def renew(parts: PartFiles, source: Source, encoder: LatentEncoder, *, prune: bool) -> tuple[Noted, ...]:
    """Bring the samples that are stored in line with their source.

    Edited captions are encoded anew in their place. Samples of a clip that was replaced are taken out, to be encoded like
    those of a new one. Samples of what the source no longer lists are taken out with `prune`. Every part file is whole at
    any time, as it was or as it shall be, and a further call does what a kill left undone.

    Returns:
        what was changed, by item.

    Raises:
        DataError: without `prune`: the source does not list all that is stored, or not one of several clips is the same.
        DataWriteError: the system refuses to write.
    """
    captions = {item.id: item.caption for item in source.items}
    gone = {item: "no longer in the source: taken out" for item, _ in parts.captions() if item not in captions}
    files = {(item.id, "clip"): item.video for item in source.items if item.video is not None}
    files |= {(item.id, "mask"): item.mask for item in source.items if item.mask is not None}
    replaced = _replaced(parts, files, captions)
    if not prune:
        _check(parts, source, list(gone), list(replaced))
    edited = {
        item: "caption changed: its text was encoded anew"
        for item, caption in parts.captions()
        if item not in gone and item not in replaced and caption != captions[item]
    }
    counts = {"captions changed": edited, "clips changed": replaced, "no longer in the source": gone}
    if since := ", ".join(f"{what}: {len(items)}" for what, items in counts.items() if items):
        say(f"since {parts.path} was written: {since}", flush=True)
    parts.take_out({*gone, *replaced})
    parts.set_captions({item: captions[item] for item in edited}, lambda texts: encode_captions(encoder, texts))
    unknown = {
        item: "clip not compared: an earlier version encoded it"
        for item, record in parts.items.items()
        if source.has_videos and record.file is None
    }
    told = itertools.chain.from_iterable(notes.items() for notes in (unknown, gone, replaced, edited))
    return tuple(Noted(item, note) for item, note in told)


def _replaced(parts: PartFiles, files: Mapping[tuple[str, str], Path], listed: Collection[str]) -> dict[str, str]:
    """Items whose clip or mask is not as it was.

    Args:
        files: of the source, by item and by what they are.
        listed: the source's items.
    """
    known = {(item, "clip"): record.file for item, record in parts.items.items() if record.file is not None}
    known |= {(item, "mask"): record.mask for item, record in parts.items.items() if record.mask is not None}
    touched, replaced = [], {}
    for (item, what), file in known.items():
        if item in listed and (item, what) in files:
            with foreign_file(files[item, what], "video"):
                if not file.untouched(files[item, what]):
                    touched.append((item, what, file))
    for item, what, file in progress(touched, "touched file"):
        with foreign_file(files[item, what], "video"):
            if not file.same_content(files[item, what]):
                replaced[item] = f"{what} changed: its earlier samples were taken out"
    for item, what in {*files, *known}:
        if (
            what == "mask"
            and item in listed
            and item in parts.items
            and ((item, what) in files) != ((item, what) in known)
        ):
            replaced[item] = "mask changed: its earlier samples were taken out"
    return replaced


def _check(parts: PartFiles, source: Source, gone: list[str], replaced: list[str]) -> None:
    problems = []
    another = "or name another output folder"
    if gone:
        reasons = {problem.item: problem.reason for problem in source.problems}
        why = f" ({reasons[gone[0]]})" if gone[0] in reasons else ""
        found = f"holds samples of {len(gone)} that {source.path} does not list, for example {gone[0]!r}{why}"
        fix = f"put them back, take their samples out with --prune, {another}"
        problems.append(Problem(found, str(parts.path), fix=fix))
    if len(replaced) > 1 and len(replaced) + len(gone) == len(parts.items):
        found = f"not one of the {len(replaced)} clips that it holds is the same in {source.path}"
        fix = f"encode all of them anew with --prune, {another}"
        problems.append(Problem(found, str(parts.path), fix=fix))
    if problems:
        raise DataError(problems)
