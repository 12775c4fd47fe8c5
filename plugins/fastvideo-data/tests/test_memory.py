"""The memory of batches is used again when, and only when, nothing refers to it."""

from __future__ import annotations

import gc
import threading

import numpy as np
import torch

from fastvideo_data.loading.batch_buffers import BatchMemory, MemoryPool

SIZE = 1 << 20


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def test_memory_comes_back_with_its_last_view_numpys_or_torchs() -> None:
    pool = MemoryPool(keep_bytes=2 * SIZE)
    memory = pool.take(SIZE)
    first = address(memory)
    view = torch.from_numpy(memory.reshape(4, -1)).view(torch.float32)[1:, ::2]
    del memory
    gc.collect()
    other = pool.take(SIZE)
    assert address(other) != first
    del view
    assert address(pool.take(SIZE)) == first


def test_memory_of_similar_sizes_is_shared_and_never_too_small() -> None:
    pool = MemoryPool(keep_bytes=4 * SIZE)
    for size in (1, 2, 7, 8, 100, 4095, 4096, 4097, SIZE - 1, SIZE):
        memory = pool.take(size)
        assert memory.shape == (size,)
        memory[:] = 255
    first = address(memory)
    del memory
    assert address(pool.take(SIZE - 1000)) == first


def test_no_more_memory_is_kept_than_asked_for() -> None:
    pool = MemoryPool(keep_bytes=2 * SIZE)
    held = [pool.take(SIZE) for _ in range(5)]
    held.clear()
    assert pool.kept_bytes == 2 * SIZE
    assert MemoryPool(keep_bytes=0).kept_bytes == 0


def test_rows_go_to_their_place_and_rows_of_another_size_do_not() -> None:
    memory = BatchMemory(MemoryPool(keep_bytes=0), batch_size=2)
    for slot in (3, 0, 2, 1):
        row = memory.row(slot, "x", 4)
        assert row is not None
        row[:] = slot
    assert memory.row(1, "x", 8) is None
    assert memory.take(1, "x").tolist() == [[2] * 4, [3] * 4]
    assert memory.take(0, "x").tolist() == [[0] * 4, [1] * 4]
    assert memory.take(0, "x") is None


def test_threads_that_ask_for_one_batch_get_one_memory() -> None:
    memory = BatchMemory(MemoryPool(keep_bytes=0), batch_size=64)
    start = threading.Barrier(8)

    def fill(worker: int) -> None:
        start.wait()
        for slot in range(worker, 64, 8):
            memory.row(slot, "x", 16)[:] = slot

    threads = [threading.Thread(target=fill, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (memory.take(0, "x") == np.arange(64)[:, None]).all()
