from __future__ import annotations

import gc
import itertools
import json
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_data import foreign_row, ids, sample_row, write_file, write_numbered

from fastvideo_core.errors import CheckpointError, DataError
from fastvideo_data import schema
from fastvideo_data.data_set import DataSet
from fastvideo_data.loading import parquet_folder as folder_module
from fastvideo_data.loading.batch_buffers import BatchMemory, MemoryPool
from fastvideo_data.loading.collate import assemble, decode_rows
from fastvideo_data.loading.loader import ParquetLoader
from fastvideo_data.loading.parquet_folder import ParquetFolder
from fastvideo_testing.waiting import LIMIT


def loader(path: Path, wanted: Sequence[str] | None = None, **changes: Any) -> ParquetLoader:
    options: dict[str, Any] = {"batch_size": 2, "seed": 0, "window_bytes": 400}
    return DataSet(path, wanted=wanted).loader(**{**options, **changes})


def take(source: ParquetLoader, count: int) -> list[list[int]]:
    return [ids(next(source)) for _ in range(count)]


def flat(parts: list[list[int]]) -> list[int]:
    return [row for part in parts for row in part]


def loader_threads() -> int:
    return sum(thread.name.startswith("fastvideo-loader") for thread in threading.enumerate())


@pytest.fixture
def numbered(tmp_path: Path) -> Path:
    write_numbered(tmp_path / "data", [5, 4, 7, 8])  # 24 rows, row groups of 2
    return tmp_path / "data"


def test_a_batch_holds_tensors_lengths_and_metadata_of_the_same_rows(numbered: Path) -> None:
    batch = next(loader(numbered, batch_size=3))
    numbers = ids(batch)
    assert batch["vae_latent"].shape == (3, 2, 2, 2, 2)
    assert batch["vae_latent"].dtype == torch.float32
    assert batch["vae_latent"][:, 0, 0, 0, 0].tolist() == numbers
    assert batch["text_embedding_length"].tolist() == [1 + n % 3 for n in numbers]
    assert batch["text_embedding_length"].dtype == torch.int64
    longest = max(1 + n % 3 for n in numbers)
    for n, text in zip(numbers, batch["text_embedding"], strict=True):
        expected = torch.zeros(longest, 4)
        expected[: 1 + n % 3] = n
        assert torch.equal(text, expected)
    assert [info["caption"] for info in batch["info"]] == [f"caption {n}" for n in numbers]
    assert set(batch["info"][0]) == {
        *("id", "file_name", "caption", "media_type", "width", "height", "num_frames", "duration_sec", "fps")
    }
    assert batch["vae_latent_normalised"] is False
    assert set(batch) == {"vae_latent", "text_embedding", "text_embedding_length", "info", "vae_latent_normalised"}


def test_examples_are_the_first_row_of_every_latent_shape_and_move_nothing(tmp_path: Path) -> None:
    rows = [sample_row(n, shape=(2, 2, 2, 2) if n < 3 else (2, 1, 2, 4)) for n in range(6)]
    write_file(tmp_path / "a.parquet", rows, group=2)
    source, untouched = loader(tmp_path), loader(tmp_path)
    examples = DataSet(tmp_path).examples()
    assert [ids(example) for example in examples] == [[0], [3]]
    assert [tuple(example["vae_latent"].shape) for example in examples] == [(1, 2, 2, 2, 2), (1, 2, 1, 2, 4)]
    assert examples[1]["vae_latent_normalised"] is False
    assert take(source, 3) == take(untouched, 3)


def test_every_epoch_sees_every_row_in_another_order(numbered: Path) -> None:
    source = loader(numbered)
    assert (source.num_samples, source.batches_per_epoch) == (24, 12)
    epochs = [flat(take(source, 12)) for _ in range(3)]
    assert all(sorted(epoch) == list(range(24)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    assert flat(take(loader(numbered), 12)) == epochs[0]


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_threads_change_neither_order_nor_content(numbered: Path, workers: int) -> None:
    inline, threaded = loader(numbered), loader(numbered, num_workers=workers)
    for _ in range(30):
        a, b = next(inline), next(threaded)
        assert a["info"] == b["info"]
        assert torch.equal(a["vae_latent"], b["vae_latent"])
        assert torch.equal(a["text_embedding"], b["text_embedding"])
    threaded.close()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("consumed", [0, 1, 7, 12, 19, 24])
def test_resuming_continues_exactly_after_what_was_handed_out(numbered: Path, workers: int, consumed: int) -> None:
    expected = take(loader(numbered), 40)
    first = loader(numbered, num_workers=workers)
    assert take(first, consumed) == expected[:consumed]
    state = json.loads(json.dumps(first.state_dict()))
    first.close()
    second = loader(numbered, num_workers=2 - workers)
    second.load_state_dict(state)
    assert take(second, 40 - consumed) == expected[consumed:]
    second.close()


def test_loading_a_state_also_rewinds_a_loader_that_is_running(numbered: Path) -> None:
    source = loader(numbered, num_workers=2)
    take(source, 3)
    state = source.state_dict()
    expected = take(source, 5)
    source.load_state_dict(state)
    assert take(source, 5) == expected
    source.close()


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2), (3, 2), (2, 4)])
def test_another_world_size_neither_repeats_nor_skips(numbered: Path, before: int, after: int) -> None:
    def together(world: int, state: dict[str, Any] | None, batches: int) -> tuple[list[int], dict[str, Any]]:
        ranks = [loader(numbered, rank=rank, size=world, batch_size=1) for rank in range(world)]
        for rank in ranks:
            if state:
                rank.load_state_dict(state)
        seen = [n for rank in ranks for batch in take(rank, batches) for n in batch]
        states = [rank.state_dict() for rank in ranks]
        assert all(state == states[0] for state in states)
        return seen, states[0]

    first, state = together(before, None, 12 // before)
    rest, state = together(after, state, 12 // after)
    assert sorted(first + rest) == list(range(24))
    new_epoch, _ = together(after, state, 24 // after)
    assert sorted(new_epoch) == list(range(24))


def test_another_batch_size_continues_with_the_rows_that_are_left(numbered: Path) -> None:
    first = loader(numbered, batch_size=2)
    seen = flat(take(first, 6))
    second = loader(numbered, batch_size=3)
    second.load_state_dict(first.state_dict())
    assert sorted(seen + flat(take(second, 4))) == list(range(24))


def test_shards_are_disjoint(numbered: Path) -> None:
    shards = [flat(take(loader(numbered, rank=rank, size=3), 4)) for rank in range(3)]
    assert sorted(flat(shards)) == list(range(24))


def test_resuming_reads_only_row_groups_that_are_still_needed(numbered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    real = ParquetFolder.payloads
    monkeypatch.setattr(
        ParquetFolder, "payloads", lambda self, group, size=0: (read.append(group), real(self, group, size))[1]
    )
    source = loader(numbered)
    take(source, 12)
    groups = 3 + 2 + 4 + 4
    assert sorted(read) == list(range(groups))  # each once
    late = loader(numbered)
    source = loader(numbered)
    take(source, 11)
    late.load_state_dict(source.state_dict())
    read.clear()
    take(late, 1)
    assert len(read) <= 2


def test_memory_is_bounded_by_windows_not_by_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_numbered(tmp_path, [40], group=1)
    reads = 0

    def counting(self: ParquetFolder, group: int, size: int = 0) -> Any:
        nonlocal reads
        reads += 1
        return real(self, group, size)

    real = ParquetFolder.payloads
    monkeypatch.setattr(ParquetFolder, "payloads", counting)
    rows_per_window = 4
    size = loader(tmp_path)._folder.layout.group_bytes[0]
    source = loader(tmp_path, batch_size=1, window_bytes=int(size) * rows_per_window)
    for done in range(1, 41):
        next(source)
        assert reads <= done + 2 * rows_per_window


def test_a_row_group_is_read_no_further_than_its_last_wanted_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_module, "_WHOLE_BYTES", 0)
    monkeypatch.setattr(folder_module, "_PIECE_BYTES", 1)
    write_numbered(tmp_path, [8], group=8)
    pieces = []

    def counting(self: ParquetFolder, group: int, size: int = 0) -> Any:
        for piece in real(self, group, size):
            pieces.append(piece.num_rows)
            yield piece

    real = ParquetFolder.payloads
    monkeypatch.setattr(ParquetFolder, "payloads", counting)
    folder = DataSet(tmp_path)._folder
    memory = BatchMemory(MemoryPool(keep_bytes=0), batch_size=2)
    rows = decode_rows(folder, 0, [1, 1, 3], [0, 2, 1], memory)
    assert pieces == [1, 1, 1, 1]
    assert [row.info["id"] for row in rows] == ["s1", "s1", "s3"]
    batch = assemble(folder, [rows[0], rows[2]], 0, memory)
    assert batch["vae_latent"].flatten(1).float().mean(1).tolist() == [1.0, 3.0]


def test_dtypes_are_honoured_and_mixed_ones_promoted_exactly(tmp_path: Path) -> None:
    write_file(tmp_path / "half.parquet", [sample_row(n, dtype="float16") for n in range(4)])
    assert next(loader(tmp_path))["vae_latent"].dtype == torch.float16
    write_file(tmp_path / "single.parquet", [sample_row(4 + n) for n in range(4)])
    batch = next(loader(tmp_path, batch_size=8))
    assert batch["vae_latent"].dtype == torch.float32
    assert batch["vae_latent"][:, 0, 0, 0, 0].tolist() == ids(batch)
    assert batch["text_embedding"][:, 0, 0].tolist() == ids(batch)


def test_batches_hold_one_latent_shape(tmp_path: Path) -> None:
    shapes = [(2, 1, 2, 2), (2, 3, 2, 2)]
    write_file(tmp_path / "a.parquet", [sample_row(n, shape=shapes[n % 2]) for n in range(10)])
    source = loader(tmp_path, batch_size=4)
    assert source.batches_per_epoch == 4
    batches = [next(source) for _ in range(4)]
    assert {n for batch in batches for n in ids(batch)} == set(range(10))
    assert all(batch["vae_latent"].shape[1:] == shapes[ids(batch)[0] % 2] for batch in batches)


def test_batches_hold_one_length_of_sound(tmp_path: Path) -> None:
    rows = []
    for n in range(10):
        sound = np.full((2, 3 + n % 2, 1), n, np.float32)
        extra = {"audio_latent_bytes": sound.tobytes(), "audio_latent_shape": list(sound.shape)}
        rows.append(sample_row(n) | extra | {"audio_latent_dtype": "float32"})
    write_file(tmp_path / "a.parquet", rows)
    source = loader(tmp_path, batch_size=4)
    batches = [next(source) for _ in range(source.batches_per_epoch)]
    assert {n for batch in batches for n in ids(batch)} == set(range(10))
    assert all(batch["audio_latent"].shape[2] == 3 + ids(batch)[0] % 2 for batch in batches)


def test_a_data_set_in_nested_folders_with_many_files_loads(tmp_path: Path) -> None:
    for i in range(4):
        write_file(tmp_path / f"worker_{i}" / "data.parquet", [sample_row(3 * i + k) for k in range(3)], group=1)
    (tmp_path / "notes.txt").write_text("not data")
    source = loader(tmp_path, batch_size=5)
    assert source.num_samples == 12
    assert set(flat(take(source, 3))) == set(range(12))


def test_only_named_tensors_are_read_and_pil_image_only_when_named(tmp_path: Path) -> None:
    rows = []
    for n in range(4):
        image = np.full((4, 4, 3), n, np.uint8)
        extra = {"pil_image_bytes": image.tobytes(), "pil_image_shape": [4, 4, 3], "pil_image_dtype": "uint8"}
        rows.append(sample_row(n) | extra)
    write_file(tmp_path / "a.parquet", rows)
    assert loader(tmp_path).tensor_names == ("vae_latent", "text_embedding")
    assert "pil_image_bytes" not in next(loader(tmp_path)._folder.payloads(0)).schema.names
    batch = next(loader(tmp_path, wanted=["pil_image"]))
    assert batch["pil_image"][:, 0, 0, 0].tolist() == ids(batch)
    assert "vae_latent" not in batch
    with pytest.raises(DataError, match=r"holds no tensor audio_latent .*\n.*allowed: .*vae_latent, text_embedding"):
        loader(tmp_path, wanted=["audio_latent"])


def test_text_alone_loads(tmp_path: Path) -> None:
    rows = [{k: v for k, v in sample_row(n).items() if k in ("id", "caption") or "text" in k} for n in range(3)]
    write_file(tmp_path / "a.parquet", rows)
    source = loader(tmp_path)
    assert source.tensor_names == ("text_embedding",)
    assert set(flat(take(source, 2))) == {0, 1, 2}


def test_nothing_is_written_into_the_data_folder(numbered: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in [numbered, *numbered.rglob("*")]}
    source = loader(numbered, num_workers=2)
    take(source, 15)
    source.close()
    assert {path: path.stat().st_mtime_ns for path in [numbered, *numbered.rglob("*")]} == before


def test_normalisation_state_is_read_from_the_file(tmp_path: Path) -> None:
    write_file(tmp_path / "a.parquet", [sample_row(0)], **{"fastvideo.latents_normalised": "true"})
    assert next(loader(tmp_path))["vae_latent_normalised"] is True
    assert DataSet(tmp_path).unsaid_normalisation is None


def test_close_and_garbage_collection_leave_no_threads(numbered: Path) -> None:
    source = loader(numbered, num_workers=3)
    take(source, 2)
    assert loader_threads() > 0
    source.close()
    assert loader_threads() == 0
    source = loader(numbered, num_workers=3)
    take(source, 2)
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("fastvideo-loader")]
    del source
    gc.collect()
    for thread in threads:
        thread.join(timeout=LIMIT)
    assert loader_threads() == 0


def test_iterating_goes_on_after_close(numbered: Path) -> None:
    expected = take(loader(numbered), 6)
    source = loader(numbered, num_workers=2)
    got = take(source, 3)
    source.close()
    assert got + take(source, 3) == expected
    source.close()


def test_a_data_set_that_changed_cannot_be_resumed_on(numbered: Path) -> None:
    state = loader(numbered).state_dict()
    write_file(numbered / "part-9.parquet", [sample_row(99)])
    with pytest.raises(CheckpointError, match=r"changed since the checkpoint: part-9.parquet is new"):
        loader(numbered).load_state_dict(state)
    (numbered / "part-9.parquet").unlink()
    (numbered / "part-1.parquet").unlink()
    write_file(numbered / "part-0.parquet", [sample_row(0)])
    with pytest.raises(CheckpointError, match=r"part-1.parquet is gone; part-0.parquet has 1 rows, had 5"):
        loader(numbered).load_state_dict(state)


def test_other_row_groups_or_another_seed_cannot_be_resumed_on(numbered: Path) -> None:
    state = loader(numbered).state_dict()
    write_file(numbered / "part-0.parquet", [sample_row(n) for n in range(5)], group=5)
    with pytest.raises(CheckpointError, match=r"part-0\.parquet holds other data"):
        loader(numbered).load_state_dict(state)
    with pytest.raises(CheckpointError, match="written anew, with other row groups or latent shapes"):
        loader(numbered).load_state_dict({key: value for key, value in state.items() if key != "contents"})
    with pytest.raises(CheckpointError, match=r"seed is 7, but the checkpoint was made with 0"):
        loader(numbered, seed=7).load_state_dict(state)
    with pytest.raises(CheckpointError, match="state lacks segments"):
        loader(numbered).load_state_dict({k: v for k, v in state.items() if k != "segments"})


def test_wrong_arguments_are_all_named(numbered: Path) -> None:
    with pytest.raises(DataError) as caught:
        loader(numbered, batch_size=0, seed=-1, rank=2, size=2, num_workers=-1)
    for text in ("batch_size is 0", "seed is -1", "rank is 2", "num_workers is -1"):
        assert text in str(caught.value)


def test_foreign_rows_with_an_empty_text_are_padded(tmp_path: Path) -> None:
    latent = np.zeros((1, 1, 1, 1), np.float32)
    texts = [np.zeros((0, 4), np.float32), np.ones((2, 4), np.float32)]
    write_file(tmp_path / "a.parquet", [foreign_row(n, latent, text) for n, text in enumerate(texts)])
    batch = next(loader(tmp_path))
    empty = ids(batch).index(0)
    assert batch["text_embedding_length"][empty] == 0
    assert not batch["text_embedding"][empty].any()
    assert batch["text_embedding"][1 - empty].all()


@pytest.mark.parametrize("workers", [0, 2])
def test_what_a_consumer_keeps_of_a_batch_is_never_written_again(tmp_path: Path, workers: int) -> None:
    write_numbered(tmp_path, [40], group=4)
    loader = DataSet(tmp_path).loader(batch_size=2, seed=0, num_workers=workers)
    kept = []
    for batch in itertools.islice(loader, 60):
        if len(kept) % 3 == 0:  # a view of a view, while the batch itself is dropped
            kept.append((ids(batch)[1], batch["vae_latent"][1].flatten()[:3]))
        else:
            kept.append((ids(batch)[1], batch["vae_latent"][1].clone()))
    assert all(bool((values == number).all()) for number, values in kept)
    loader.close()


def test_files_swapped_under_the_same_names_cannot_be_resumed_on(tmp_path: Path) -> None:
    write_numbered(tmp_path, [6, 6, 6])
    state = json.loads(json.dumps(loader(tmp_path).state_dict()))
    loader(tmp_path).load_state_dict(state)
    names = ["part-0.parquet", "part-2.parquet"]
    first, last = ((tmp_path / name).read_bytes() for name in names)
    (tmp_path / names[0]).write_bytes(last)
    (tmp_path / names[1]).write_bytes(first)
    with pytest.raises(
        CheckpointError, match=r"part-0\.parquet holds other data; part-2\.parquet holds other data\n(.|\n)*--new-data"
    ):
        loader(tmp_path).load_state_dict(state)


def same_but_for_one_tensor(path: Path, name: str, seed: int) -> None:
    """A file as `preprocess` writes it, which differs from others of another seed in the bytes of one tensor alone."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for number in range(8):
        row: dict[str, Any] = {"id": f"s{number}", "caption": "the same", "file_name": "a.mp4", "media_type": "video"}
        row |= {"width": 16, "height": 16, "num_frames": 2, "duration_sec": 0.5, "fps": 16.0}
        for tensor, shape in (("vae_latent", (4, 2, 8, 8)), ("text_embedding", (7, 64))):
            values = torch.randn(shape, generator=generator if tensor == name else None)
            row |= schema.encode_tensor(tensor, values if tensor == name else torch.ones(shape))
        rows.append(row)
    schema.write_part(path, rows, schema.t2v_schema(), schema.key_value_metadata(normalised=False, settings={}))


@pytest.mark.parametrize("tensor", ["vae_latent", "text_embedding"])
def test_other_values_in_a_file_that_is_otherwise_the_same_are_noticed(tmp_path: Path, tensor: str) -> None:
    same_but_for_one_tensor(tmp_path / "a.parquet", tensor, seed=0)
    state, size = loader(tmp_path).state_dict(), (tmp_path / "a.parquet").stat().st_size
    same_but_for_one_tensor(tmp_path / "a.parquet", tensor, seed=0)
    loader(tmp_path).load_state_dict(state)  # written again, later: the same data
    same_but_for_one_tensor(tmp_path / "a.parquet", tensor, seed=1)
    assert (tmp_path / "a.parquet").stat().st_size == size
    with pytest.raises(CheckpointError, match=r"a.parquet holds other data"):
        loader(tmp_path).load_state_dict(state)


def test_a_data_set_that_was_copied_elsewhere_is_the_same(numbered: Path, tmp_path: Path) -> None:
    state = loader(numbered).state_dict()
    shutil.copytree(numbered, tmp_path / "elsewhere", copy_function=shutil.copyfile)
    loader(tmp_path / "elsewhere").load_state_dict(state)


def test_a_state_of_before_files_had_digests_is_taken(numbered: Path) -> None:
    expected = take(loader(numbered), 5)
    first = loader(numbered)
    take(first, 3)
    state = {key: value for key, value in first.state_dict().items() if key != "contents"}
    second = loader(numbered)
    second.load_state_dict(state)
    assert take(second, 2) == expected[3:]
