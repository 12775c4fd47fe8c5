"""What one reader sees of a data set: the tensors that it wants, as far as all files agree on them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from fastvideo_core.errors import DataError, Problem
from fastvideo_data.loading.epoch_order import IntArray, Layout
from fastvideo_data.loading.file_scan import ScannedFile
from fastvideo_data.loading.parquet_folder import Handles, ParquetFolder
from fastvideo_data.schema import METADATA_TYPES, TENSOR_NAMES, check_tensor_names, tensor_columns

_BY_DEFAULT = tuple(name for name in TENSOR_NAMES if name != "pil_image")


def choose(
    root: Path,
    files: Sequence[ScannedFile],
    handles: Handles,
    wanted: Sequence[str] | None = None,
    optional: Sequence[str] = (),
) -> ParquetFolder:
    """The data set as seen by who reads some of its tensors; nothing is opened.

    Args:
        root: the folder (or the one file).
        files: of `scan_files`.
        handles: of these files, shared by all who read them.
        wanted: names of the tensors to read; None for FastVideo's that are there, but pil_image.
        optional: names of tensors to read besides, where the files hold them.

    Raises:
        DataError: a name that no tensor has, a tensor that is wanted and missing or cannot be read, or files that disagree.
    """
    names = [*(_BY_DEFAULT if wanted is None else wanted), *optional]
    check_tensor_names(names)
    complete = (*names, *TENSOR_NAMES) if wanted is None else names
    problems = [problem for file in files for problem in file.reading_problems(names, complete)]
    if problems:
        raise DataError(problems)
    chosen = _choose_tensors(files, list(dict.fromkeys(names)), wanted or ())
    numbers: dict[tuple[float, ...], int] = {}
    buckets = []
    for file in files:
        shapes, of_row = file.latent_shapes(chosen)
        buckets.append(np.array([numbers.setdefault(shape, len(numbers)) for shape in shapes], np.int64)[of_row])
    return ParquetFolder(
        root=root,
        names=tuple(file.path.name if root.is_file() else file.path.relative_to(root).as_posix() for file in files),
        files=tuple(files),
        layout=Layout(
            group_rows=_joined([file.group_rows for file in files]),
            group_bytes=_joined([file.group_bytes for file in files]),
            buckets=_joined(buckets),
        ),
        group_file=_joined([[i] * len(file.group_rows) for i, file in enumerate(files)]),
        group_index=_joined([range(len(file.group_rows)) for file in files]),
        tensors=chosen,
        metadata=tuple(name for name in METADATA_TYPES if any(name in file.columns for file in files)),
        normalised=_agreed_normalisation(files, chosen),
        handles=handles,
    )


def _choose_tensors(files: Sequence[ScannedFile], names: Sequence[str], wanted: Collection[str]) -> tuple[str, ...]:
    """Those of `names` that all files hold; some or all of them must hold those that are wanted, and none may stand alone."""
    problems = []
    chosen = []
    for name in names:
        without = [file for file in files if name not in file.present()]
        if not without:
            chosen.append(name)
        elif name in wanted or len(without) < len(files):
            available = without[0].present()
            column = tensor_columns(name)[0]
            found = f"holds no tensor {name}"
            if len(without) < len(files):
                found += ", but other files do"
            elif column not in without[0].columns:
                found += f" (it has no column {column})"
            else:
                found += f" ({column} is empty in every row)"
            fix = f"preprocess the samples again with an encoder that makes {name}, or give another data set"
            if name.startswith("trajectory_"):
                fix = "give a data set of trajectories: `fastvideo-distill trajectories` of fastvideo-kd writes one"
            having = [file.path.parent for file in files if name in file.present()]
            if having:
                fix = f"write {name} into every file, or keep files with and without it in separate folders"
            if having and not set(having) & {file.path.parent for file in without}:
                fix = f"give one of their folders as the data: {having[0]} or {without[0].path.parent}"
            problems.append(Problem(found, str(without[0].path), f"it holds {', '.join(available)}", fix))
    if problems:
        raise DataError(problems)
    return tuple(chosen)


def _agreed_normalisation(files: Sequence[ScannedFile], tensors: Sequence[str]) -> dict[str, bool]:
    first, *others = files
    for name in tensors:
        for file in others:
            if file.normalised.get(name) != first.normalised.get(name):
                state, of_first = _state(file, name), _state(first, name)
                found = f"{name} is {state} here, but {of_first} in {first.path}"
                fix = "keep them in separate folders, or preprocess one of them again"
                raise DataError(Problem(found, str(file.path), fix=fix))
    return {name: first.normalised[name] for name in tensors if name in first.normalised}


def _state(file: ScannedFile, name: str) -> str:
    if name not in file.normalised:
        return "not said to be normalised or not"
    state = "normalised" if file.normalised[name] else "not normalised"
    return state if file.says_normalised else f"taken to be {state} (the file does not say)"


def _joined(parts: Sequence[Sequence[int] | range | IntArray]) -> IntArray:
    return np.concatenate([np.asarray(part, np.int64) for part in parts])
