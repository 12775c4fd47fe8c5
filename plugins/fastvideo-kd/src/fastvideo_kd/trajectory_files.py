"""The data set that `trajectories` writes: part files of each process, each complete or absent, and what is there already."""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from torch import Tensor

from fastvideo_core.config.base import plain
from fastvideo_core.errors import DataError, Problem, foreign_file
from fastvideo_data.data_set import DataSet
from fastvideo_data.preprocessing.part_files import writing
from fastvideo_data.schema import DTYPES, SETTINGS_KEY, arrow_schema, encode_tensor, key_value_metadata, write_part
from fastvideo_data.trajectories import STATES_OF, TIMESTEPS
from fastvideo_kd.teacher import Teacher

_METADATA = ("id", "file_name", "caption", "media_type")
_OTHER_FOLDER = "name another --output, or delete this one"


class TrajectoryFiles:
    """FastVideo's ODE data set in a folder.

    Args:
        args: of the command.
        teacher: whose identity is stored in every file; trajectories of another one are refused.
        prompts: whose encoders' identity is stored, as `preprocess` does.
        timesteps: of the stored states; the clean end is at 0 behind them.
        rank: of this process, whose files have names of their own.

    Attributes:
        samples: how many are there already.

    Raises:
        DataError: the folder holds other files, or trajectories of another teacher, of other options or of other prompts.
    """

    def __init__(
        self, args: argparse.Namespace, teacher: Teacher, prompts: DataSet, timesteps: Sequence[float], *, rank: int
    ) -> None:
        self._folder, self._rank = Path(args.output), rank
        self._per_file, self._dtype = args.samples_per_file, DTYPES[args.dtype]
        self._timesteps = torch.tensor([*timesteps, 0.0], dtype=torch.float32)
        self._prompts = prompts.infos()
        self._given, self._normalised = teacher.given, dict(prompts.normalised)
        encoders = [one.encoder for one in prompts.encoders if one.encoder is not None]
        training = teacher.cfg.training
        self._settings = {
            **plain(teacher.cfg.pipeline_config),
            "kind": "trajectory",
            "encoder": dict(encoders[0]) if encoders else {},
            "teacher": teacher.weights,
            "steps": args.steps,
            "guidance_scale": args.guidance_scale,
            "dtype": args.dtype,
            "timesteps": self._timesteps.tolist(),
            "seed": args.seed,
            "size": [training.num_height, training.num_width, training.num_frames],
            "mixed_precision": training.mixed_precision,
        }
        self._source = teacher.source
        self._rows: list[dict[str, Any]] = []
        self._parts = set(self._folder.glob("part-*.parquet"))
        self._there: dict[str, str] = {}
        for part in sorted(self._parts):
            self._take_stock(part)
        self.samples = len(self._there)
        if gone := sorted(self._there.keys() - {info["id"] for info in self._prompts}):
            shown = ", ".join(f"{name} ({self._there[name]!r})" for name in gone[:3])
            found = f"holds trajectories of {len(gone)} prompts that are listed no longer: {shown}"
            raise DataError(Problem(found, str(self._folder), fix=f"list them again, or {_OTHER_FOLDER}"))

    def missing(self, rows: Iterable[int]) -> list[int]:
        """Those of the prompts' rows that have no trajectory yet.

        Raises:
            DataError: a prompt is another one than that of the same id which was sampled.
        """
        found = []
        for row in rows:
            info = self._prompts[row]
            caption = self._there.get(info["id"])
            if caption is None:
                found.append(row)
            elif caption != info["caption"]:
                text = f"prompt {info['id']} is {info['caption']!r}, and the trajectory that is there is of {caption!r}"
                raise DataError(Problem(text, str(self._folder), fix=_OTHER_FOLDER))
        return found

    def add(self, raw_batch: Mapping[str, Any], states: Mapping[str, Tensor]) -> None:
        """Adds samples; a file is written when enough have come together.

        Args:
            raw_batch: of the prompts: their text and ids, and what the teacher is given besides.
            states: [B, S, ...] by the name of a clip's latents, the clean end last.

        Raises:
            DataWriteError: the file cannot be written.
        """
        lengths = raw_batch["text_embedding_length"].tolist()
        for index, info in enumerate(raw_batch["info"]):
            tensors = {"text_embedding": raw_batch["text_embedding"][index, : lengths[index]]}
            tensors |= {STATES_OF[name]: all_states[index].to(self._dtype) for name, all_states in states.items()}
            tensors[TIMESTEPS] = self._timesteps
            tensors |= {name: raw_batch[name][index] for name in self._given}
            row: dict[str, Any] = {"id": info["id"], "file_name": info["id"], "caption": info["caption"]}
            row["media_type"] = "text"
            for name, tensor in tensors.items():
                row |= encode_tensor(name, tensor)
            self._rows.append(row)
            if len(self._rows) >= self._per_file:
                self.flush()

    def flush(self) -> None:
        """Writes what has come together.

        Raises:
            DataWriteError: the file cannot be written.
        """
        if not self._rows:
            return
        names = (self._folder / f"part-{self._rank:04d}-{number:06d}.parquet" for number in itertools.count())
        part = next(name for name in names if name not in self._parts)
        tensors = [column.removesuffix("_bytes") for column in self._rows[0] if column.endswith("_bytes")]
        normalised = {name: True for name in STATES_OF.values() if name in tensors} | self._normalised
        teacher = {"path": self._source, "weights": self._settings["teacher"]}
        metadata = key_value_metadata(normalised=normalised, settings=self._settings, teacher=teacher)
        with writing(self._folder, self.samples, len(self._parts)):
            self._folder.mkdir(parents=True, exist_ok=True)
            write_part(part, self._rows, arrow_schema(tensors, _METADATA), metadata)
        self._parts.add(part)
        self.samples += len(self._rows)
        self._rows = []

    def _take_stock(self, part: Path) -> None:
        fix = "delete the file and start again; its samples are made anew"
        with foreign_file(part, "parquet file", fix=fix), pq.ParquetFile(part) as handle:
            stored = json.loads((handle.schema_arrow.metadata or {}).get(SETTINGS_KEY, b"{}"))
            rows = handle.read(columns=["id", "caption"]).to_pylist()
        if stored.get("kind") != "trajectory":
            raise DataError(Problem("was not written by trajectories", str(part), fix=_OTHER_FOLDER))
        differences = [
            f"{key} was {stored.get(key)!r}, is {value!r}"
            for key, value in json.loads(json.dumps(self._settings)).items()
            if stored.get(key) != value
        ]
        if differences:
            found = f"was written with other settings: {'; '.join(differences)}"
            raise DataError(Problem(found, str(part), fix=_OTHER_FOLDER))
        self._there.update((row["id"], row["caption"]) for row in rows)
