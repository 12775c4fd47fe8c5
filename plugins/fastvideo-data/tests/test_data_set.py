"""A data set is opened once: examples, loaders and selections come of the same files and parse no footer again."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from tiny_data import ids, sample_row, write_file, write_numbered

from fastvideo_core.errors import DataError
from fastvideo_data.data_set import DataSet
from fastvideo_data.loading import file_scan


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each file's footer was parsed, by the file's name."""
    found: Counter[str] = Counter()
    open_file, read_metadata = pq.ParquetFile.__init__, pq.read_metadata

    def opens(self: pq.ParquetFile, source: Any, *args: Any, metadata: Any = None, **options: Any) -> None:
        found.update([] if metadata is not None else [Path(source).name])
        open_file(self, source, *args, metadata=metadata, **options)

    def reads(source: Any, *args: Any, **options: Any) -> Any:
        found.update([Path(source).name])
        return read_metadata(source, *args, **options)

    monkeypatch.setattr(pq.ParquetFile, "__init__", opens)
    monkeypatch.setattr(pq, "read_metadata", reads)
    return found


@pytest.mark.parametrize("workers", [0, 2])
def test_each_footer_is_parsed_once_for_all_that_is_asked(tmp_path: Path, parsed: Counter[str], workers: int) -> None:
    write_numbered(tmp_path, [4, 5, 3])
    data = DataSet(tmp_path)
    assert len(data.examples()) == 1
    assert (data.num_samples, data.encoders[0].encoder, data.normalised) == (12, None, {"vae_latent": False})
    text = data.select(wanted=("text_embedding",))
    assert text.tensor_names == ("text_embedding",)
    assert "vae_latent" not in text.examples()[0]
    for source in (data, text):
        loader = source.loader(batch_size=2, seed=0, num_workers=workers)
        seen = [n for batch in itertools.islice(loader, loader.batches_per_epoch) for n in ids(batch)]
        assert sorted(seen) == list(range(12))
        loader.close()
    data.close()
    assert len(data.examples()) == 1  # opened again, and not parsed
    assert parsed == {"part-0.parquet": 1, "part-1.parquet": 1, "part-2.parquet": 1}


def test_footers_beyond_the_memory_that_they_may_take_are_parsed_when_needed(
    tmp_path: Path, parsed: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_numbered(tmp_path, [2, 2, 2])
    size = pq.ParquetFile(tmp_path / "part-0.parquet").metadata.serialized_size
    monkeypatch.setattr(file_scan, "_KEPT_FOOTERS", size + size // 2)
    parsed.clear()
    loader = DataSet(tmp_path).loader(batch_size=2, seed=0)
    assert sorted(n for batch in itertools.islice(loader, 3) for n in ids(batch)) == list(range(6))
    assert parsed == {"part-0.parquet": 1, "part-1.parquet": 2, "part-2.parquet": 2}


def test_examples_move_no_loader(tmp_path: Path) -> None:
    write_numbered(tmp_path, [6])
    data = DataSet(tmp_path)
    one, other = (data.loader(batch_size=1, seed=0) for _ in range(2))
    next(one)
    data.examples()
    next(other)
    assert ids(next(one)) == ids(next(other))


def test_a_selection_sees_only_what_is_wrong_with_its_own_tensors(tmp_path: Path) -> None:
    image = {"pil_image_bytes": [1.5], "pil_image_shape": "?", "pil_image_dtype": 3}
    write_file(tmp_path / "a.parquet", [sample_row(0) | image])
    data = DataSet(tmp_path)
    with pytest.raises(DataError) as caught:
        data.select(wanted=["pil_image"])
    for column in ("pil_image_bytes", "pil_image_shape", "pil_image_dtype"):
        assert f"a.parquet: column {column} has the type" in str(caught.value)


def test_latent_shapes_are_those_of_the_tensors_that_are_read(tmp_path: Path) -> None:
    rows = []
    for n in range(4):
        sound = np.full((2, 3 + n % 2, 4), n, np.float32)
        stored = {"audio_latent_bytes": sound.tobytes(), "audio_latent_shape": list(sound.shape)}
        rows.append(sample_row(n) | stored | {"audio_latent_dtype": "float32"})
    write_file(tmp_path / "a.parquet", rows)
    data = DataSet(tmp_path)
    assert [ids(example) for example in data.examples()] == [[0], [1]]
    silent = data.select(wanted=("vae_latent", "text_embedding"))
    assert [ids(example) for example in silent.examples()] == [[0]]


def test_any_rows_make_a_batch_and_every_row_s_metadata_is_told(tmp_path: Path) -> None:
    """Rows of two files, in another order than they are stored in."""
    write_numbered(tmp_path, [2, 2])
    data = DataSet(tmp_path)
    assert [info["id"] for info in data.infos()] == [data.batch([row])["info"][0]["id"] for row in range(4)]
    assert ids(data.batch([3, 0, 2])) == [3, 0, 2]
