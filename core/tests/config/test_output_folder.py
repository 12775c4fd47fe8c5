from __future__ import annotations

import os
from pathlib import Path

import pytest

from fastvideo_core.config.output_folder import check_new_folder, check_writable_folder
from fastvideo_core.errors import ConfigError


def test_a_folder_that_can_be_made_is_not_made(tmp_path: Path) -> None:
    check_writable_folder(tmp_path / "a" / "b")
    check_writable_folder(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["file", "file/sub", "file/sub/deeper"])
def test_a_file_in_the_way(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError) as caught:
        check_writable_folder(tmp_path / path, "--out")
    assert f"--out ({tmp_path / path}): {tmp_path / 'file'} is a file" in str(caught.value)
    assert "fix: name another folder" in str(caught.value)


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a file system that takes no folders")
def test_a_file_system_that_refuses() -> None:
    with pytest.raises(ConfigError, match="/proc/foo: cannot write into /proc: "):
        check_writable_folder("/proc/foo")


def test_a_new_folder_is_absent_or_empty(tmp_path: Path) -> None:
    check_new_folder(tmp_path)
    check_new_folder(tmp_path / "new")
    (tmp_path / "file").write_text("x")
    for taken in (tmp_path, tmp_path / "file"):
        with pytest.raises(ConfigError, match="there is something already"):
            check_new_folder(taken)
