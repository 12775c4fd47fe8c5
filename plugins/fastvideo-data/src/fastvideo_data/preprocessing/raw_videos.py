"""Raw data as users have it: videos with captions in several conventions, or prompts alone."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fastvideo_core.errors import DataError, Problem, foreign_file
from fastvideo_data.folder_walk import files_below
from fastvideo_data.images import IMAGE_SUFFIXES
from fastvideo_data.preprocessing.listings import LISTING_SUFFIXES, MASK_KEY, read_listing
from fastvideo_data.preprocessing.masks import is_mask, masked_stem, masks_beside
from fastvideo_data.text_files import not_utf8, read_text, shown, text_lines

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v")
UNREAD_SUFFIXES = (
    *(".gif", ".apng", ".avif", ".heic", ".mpg", ".mpeg", ".m2v", ".ts", ".mts", ".m2ts", ".vob", ".mxf"),
    *(".wmv", ".asf", ".flv", ".f4v", ".3gp", ".ogv", ".y4m"),
)
METADATA_NAMES = tuple(f"metadata{suffix}" for suffix in LISTING_SUFFIXES)

_PROMPT_NAMES = ("prompts.txt", "prompt.txt")
_FASTVIDEO_LISTING, _FASTVIDEO_MERGE = "videos2caption.json", "merge.txt"
_CONVENTIONS = (
    "a folder with x.mp4 beside x.txt, with metadata.csv|tsv|json|jsonl or videos2caption.json, or with videos.txt and "
    "prompts.txt; a metadata file itself; a .txt file of prompts, one a line"
)
_NO_IMAGES = "is an image: a sample of one frame, which --num-frames 1 takes, or --frames 1,..."


@dataclass(frozen=True)
class SourceItem:
    """One raw sample.

    Args:
        id: unique in its source and the same at every discovery.
        video: the video file; None when there is a prompt alone.
        caption: its caption, stripped, not empty.
        mask: the video or image that says where its loss counts; None for everywhere.
    """

    id: str
    video: Path | None
    caption: str
    mask: Path | None = None


@dataclass(frozen=True)
class SourceProblem:
    """Something that was found but cannot be used, and why."""

    item: str
    reason: str


@dataclass(frozen=True)
class Source:
    """What discovery found.

    Args:
        path: where it looked.
        has_videos: False when there are prompts alone.
        items: usable samples, in a fixed order.
        problems: everything that is not usable.
    """

    path: Path
    has_videos: bool
    items: tuple[SourceItem, ...]
    problems: tuple[SourceProblem, ...]

    @property
    def has_masks(self) -> bool:
        """Whether some of the samples have a mask."""
        return any(item.mask is not None for item in self.items)

    @property
    def folders(self) -> list[Path]:
        """The folders that the videos lie in."""
        return sorted({item.video.parent for item in self.items if item.video is not None})


def discover(path: str | Path, *, images: bool = False) -> Source:
    """Find videos and captions, or prompts, at `path`.

    Args:
        path: a folder, or a file that lists samples or prompts.
        images: take images, too, as videos of one frame.

    Raises:
        DataError: there is nothing that follows a convention, several conventions at once, or a file that lists the
            samples cannot be understood.
    """
    path = Path(path)
    with foreign_file(path, "source of samples"):
        if not path.exists():
            raise DataError(Problem("there is no such file or folder", str(path), allowed=_CONVENTIONS))
        return _from_folder(path, images) if path.is_dir() else _from_file(path, images)


def _from_file(path: Path, images: bool) -> Source:
    suffix = path.suffix.lower()
    if path.name == _FASTVIDEO_MERGE and (merged := _merged(path)):
        return _from_listing(*merged, images)
    if suffix in LISTING_SUFFIXES:
        return _from_listing(path, _folder_of_listed(path), images)
    if suffix == ".txt":
        return _from_prompts(path)
    raise DataError(Problem("is no source of samples", str(path), allowed=_CONVENTIONS))


def _from_folder(root: Path, images: bool) -> Source:
    files = {entry.name.lower(): entry for entry in sorted(root.iterdir()) if entry.is_file()}
    listings = [files[name] for name in (*METADATA_NAMES, _FASTVIDEO_LISTING) if name in files]
    if _FASTVIDEO_LISTING not in files:  # it is made of the others, which stay beside it
        if _FASTVIDEO_MERGE in files and _merged(files[_FASTVIDEO_MERGE]):
            listings.append(files[_FASTVIDEO_MERGE])
        elif "videos.txt" in files:
            listings.append(files["videos.txt"])
    if len(listings) > 1:
        found = f"several files list the samples: {', '.join(p.name for p in listings)}"
        raise DataError(Problem(found, str(root), fix="keep one of them, or name the metadata file itself"))
    if not listings:
        return _from_sidecars(root, images)
    if listings[0].name.lower() == "videos.txt":
        prompts = next((files[name] for name in _PROMPT_NAMES if name in files), None)
        return _from_parallel(root, listings[0], prompts, images)
    return _from_file(listings[0], images)


@dataclass(frozen=True)
class _Entry:
    place: str
    video: Path
    caption: object
    mask: object = None


def _from_sidecars(root: Path, images: bool) -> Source:
    files = files_below(root)
    media = _read_media(files, images)
    taken = set(media)
    problems = [_problem(_name(p, root), why) for p in files if p not in taken and (why := _unread(p, images))]
    if not media:
        prompts = [p for p in files if p.parent == root and p.name.lower() in _PROMPT_NAMES]
        if prompts:
            return _from_prompts(prompts[-1], problems)
        found = "no video and no list of samples was found"
        if problems:
            found += f", but {len(problems)} other media: {problems[0].item} {problems[0].reason}"
        raise DataError(Problem(found, str(root), allowed=_CONVENTIONS))
    texts = {p.with_suffix(""): p for p in files if p.suffix.lower() == ".txt"}
    entries = []
    for video in media:
        sidecar = texts.get(video.with_suffix(""))
        try:
            entries.append(_Entry(_name(video, root), video, read_text(sidecar) if sidecar else None))
        except DataError as error:
            problems.append(_problem(_name(video, root), f"the caption {error.problems[0].found}"))
    stems = {p.with_suffix("") for p in media}
    problems += [
        _problem(_name(p, root), "mask without a video") for p in files if is_mask(p) and masked_stem(p) not in stems
    ]
    known = {
        p.with_suffix("") for p in files if p.suffix.lower() in (*VIDEO_SUFFIXES, *IMAGE_SUFFIXES, *UNREAD_SUFFIXES)
    }
    lonely = [p for stem, p in sorted(texts.items()) if stem not in known]
    problems += [_problem(_name(p, root), "caption without a video") for p in lonely]
    return _source(root, root, entries, problems, images)


def _read_media(files: Iterable[Path], images: bool) -> list[Path]:
    """The files that are read from a folder; an image beside a video of its name is the video's picture."""
    files = [p for p in files if not is_mask(p)]
    videos = [p for p in files if p.suffix.lower() in VIDEO_SUFFIXES]
    stems = {p.with_suffix("") for p in videos}
    pictures = [p for p in files if images and p.suffix.lower() in IMAGE_SUFFIXES and p.with_suffix("") not in stems]
    return sorted(videos + pictures)


def _unread(path: Path, images: bool) -> str:
    """Why a media file that is not among the read ones is not; empty for what is no media."""
    suffix = path.suffix.lower()
    if is_mask(path):
        return ""
    if suffix in UNREAD_SUFFIXES:
        return f"{suffix} is not read from a folder: convert it to .mp4, or list it in metadata.csv"
    if suffix in IMAGE_SUFFIXES:
        return "is an image beside a video of the same name, which is taken" if images else _NO_IMAGES
    return ""


def _from_parallel(root: Path, listing: Path, prompts: Path | None, images: bool) -> Source:
    if prompts is None:
        raise DataError(Problem("there is videos.txt, but no prompts.txt beside it", str(root), fix="add prompts.txt"))
    videos, captions = (text_lines(read_text(path, bad_bytes=True)) for path in (listing, prompts))
    if len(videos) != len(captions):
        found = f"{listing.name} has {len(videos)} lines, but {prompts.name} has {len(captions)}"
        raise DataError(Problem(found, str(root), fix="line n of one belongs to line n of the other: align them"))
    entries = []
    problems = []
    for i, (video, caption) in enumerate(zip(videos, captions, strict=True), 1):
        if video:
            entries.append(_Entry(f"{listing.name}, line {i}", root / video, caption))
        else:
            problems.append(_problem(f"{listing.name}, line {i}", "the line names no video"))
    return _source(root, root, entries, problems + _unlisted(root, entries, listing.name, images), images)


def _merged(path: Path) -> tuple[Path, Path] | None:
    """FastVideo's merge.txt: its listing and the folder of its videos; None for a file that only has the name.

    FastVideo writes both relative to where it runs; a data set that was moved has them beside the file.
    """
    lines = text_lines(read_text(path, bad_bytes=True))
    if len(lines) != 1 or lines[0].count(",") != 1 or not lines[0].endswith(".json"):
        return None
    folder, listing = (Path(name.strip()) for name in lines[0].split(","))
    near = path.parent / listing
    if near.is_file():
        return near, path.parent / folder
    if listing.is_file():
        return listing, folder
    raise DataError(
        Problem(f"names {shown(str(listing))}, which is not there", str(path), fix="correct the path in it")
    )


def _folder_of_listed(path: Path) -> Path:
    """The folder that the videos of a listing are relative to."""
    videos = path.parent / "videos"
    return videos if path.name.lower() == _FASTVIDEO_LISTING and videos.is_dir() else path.parent


def _from_listing(path: Path, folder: Path, images: bool) -> Source:
    listing = read_listing(path)
    entries = []
    problems = [_problem(place, reason) for place, reason in listing.unread]
    for place, video, caption, mask in listing.rows:
        if not isinstance(video, str) or not video.strip():
            problems.append(_problem(place, "the row names no video"))
            continue
        captions = (caption or [None]) if isinstance(caption, list) else [caption]
        named = folder / mask.strip() if isinstance(mask, str) and mask.strip() else mask or None
        entries += [_Entry(place, folder / video.strip(), one, named) for one in captions]
    where = f"a readable row of {path.name}" if listing.unread else path.name
    return _source(path, path.parent, entries, problems + _unlisted(folder, entries, where, images), images)


def _from_prompts(path: Path, problems: Iterable[SourceProblem] = ()) -> Source:
    items, problems = [], list(problems)
    for i, line in enumerate(text_lines(read_text(path, bad_bytes=True)), 1):
        if wrong := _wrong_caption(line):
            problems.append(_problem(f"{path.name}, line {i}", wrong if line else "empty prompt"))
        else:
            items.append(SourceItem(f"prompt-{i:06d}", None, line))
    return Source(path, False, tuple(items), tuple(problems))


def _source(path: Path, root: Path, entries: Iterable[_Entry], problems: list[SourceProblem], images: bool) -> Source:
    items = []
    seen: Counter[str] = Counter()
    for entry in entries:
        name = _name(entry.video, root)
        caption = entry.caption.strip() if isinstance(entry.caption, str) else entry.caption
        masks = [] if entry.mask is None else [entry.mask]
        if not os.path.isfile(entry.video):
            problems.append(_problem(f"{shown(name, 120)} ({entry.place})", "the video file is missing"))
        elif not images and entry.video.suffix.lower() in IMAGE_SUFFIXES:
            problems.append(_problem(name, _NO_IMAGES))
        elif not_utf8(name):
            problems.append(_problem(name, "the name of the file is not UTF-8 text"))
        elif wrong := _wrong_caption(caption) or _wrong_masks(masks := masks or [*masks_beside(entry.video)]):
            problems.append(_problem(name, wrong))
        else:
            assert isinstance(caption, str)
            mask = next((one for one in masks if isinstance(one, Path)), None)
            seen[name] += 1
            again = f"~{seen[name]}" if seen[name] > 1 else ""  # the same video with another caption
            items.append(SourceItem(name + again, entry.video, caption, mask))
    return Source(path, True, tuple(items), tuple(problems))


def _wrong_caption(caption: object) -> str:
    """Why a caption cannot be used; empty when it can."""
    if caption is None or caption == "":
        return "missing caption"
    if not isinstance(caption, str):
        return f"the caption is no text but {type(caption).__name__}"
    if wrong := not_utf8(caption):
        return f"the caption {wrong}"
    return "the caption holds NUL characters: it is no text" if "\0" in caption else ""


def _wrong_masks(masks: Sequence[object]) -> str:
    """Why masks cannot be used; empty when they can."""
    if len(masks) > 1:
        return f"it has several masks: {', '.join(mask.name for mask in masks if isinstance(mask, Path))}"
    for mask in masks:
        if not isinstance(mask, Path):
            return f"{MASK_KEY} is no text but {type(mask).__name__}"
        if not os.path.isfile(mask):
            return f"the mask {shown(mask.name, 120)} is missing"
    return ""


def _unlisted(root: Path, entries: Iterable[_Entry], listing: str, images: bool) -> list[SourceProblem]:
    named = [path for entry in entries for path in (entry.video, entry.mask) if isinstance(path, Path)]
    listed = {os.path.realpath(path) for path in named if os.path.isfile(path)}
    files = files_below(root)
    media = {*_read_media(files, images), *(p for p in files if p.suffix.lower() in UNREAD_SUFFIXES)}
    others = [p for p in sorted(media) if os.path.realpath(p) not in listed]
    return [_problem(_name(p, root), f"not listed in {listing}") for p in others]


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def _problem(item: str, reason: str) -> SourceProblem:
    return SourceProblem(shown(item), shown(reason))
