"""A data set belongs to one call of `preprocess` at a time."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fastvideo_core import ModelFamily, PluginConfig, register_model
from fastvideo_core.cli.main import main
from fastvideo_core.dispatch.output_dir import alone_in
from fastvideo_data.loading.file_scan import scan_files
from fastvideo_testing.isolation import isolated_registrations

from .tiny_data import FakeEncoder


@contextmanager
def another_process(folder: Path) -> Iterator[int]:
    """Holds the data set as a call of `preprocess` does."""
    ready, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        with alone_in(folder):
            os.write(tell, b"1")
            signal.pause()
        os._exit(0)
    os.read(ready, 1)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.fixture(autouse=True)
def registrations():
    with isolated_registrations():
        yield


def test_a_second_preprocess_into_a_data_set_is_refused(tmp_path, capsys):
    (tmp_path / "p.txt").write_text("a cat\n")
    encodes = []

    class Family(ModelFamily):
        def build(self, cfg):
            raise NotImplementedError

        def encoder(self, *_, **__):
            return encodes.append("made") or FakeEncoder()

    Family.__module__ = "made_here"  # the folder of this file is no name of a module
    register_model("toy", config=PluginConfig)(Family)
    command = ["preprocess", "--family", "toy", "--model", "m", "--input", str(tmp_path / "p.txt")]
    command += ["--output", str(tmp_path / "data")]
    with another_process(tmp_path / "data") as pid:
        assert main(command) == 2
    error = capsys.readouterr().err
    assert f"--output ({tmp_path / 'data'}): another run is going on in it: process {pid} on " in error
    assert "or name another --output" in error
    assert not encodes
    assert main(command) == main(command) == 0
    assert [file.path.name for file in scan_files(tmp_path / "data")] == ["part-000000.parquet"]
