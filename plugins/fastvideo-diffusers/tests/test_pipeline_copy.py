"""What an export copies of its base: what the index names, into the new folder, out of the pipeline itself."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from fastvideo_core.errors import ConfigError
from fastvideo_diffusers.pipeline_copy import component_names, copy_parts, new_folder


def pipeline(folder: Path) -> Path:
    for name in ("vae/config.json", "model_index.json", "LICENSE.txt", "whole.ckpt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def copied(source: Path, target: Path) -> list[str]:
    target.mkdir()
    copy_parts(source, target, ["vae"])
    return sorted(str(path.relative_to(target)) for path in target.rglob("*") if path.is_file())


def refusal(source: Path, target: Path) -> str:
    with pytest.raises(ConfigError) as error:
        copied(source, target)
    assert list(target.iterdir()) == []
    return str(error.value)


@pytest.mark.parametrize("name", ["../leak", "/etc", "a/b", "..", ".git", "a\\\\b", ""])
def test_a_component_is_a_plain_name(name):
    with pytest.raises(ConfigError, match=r"model_index\.json names the component"):
        component_names({"vae": ["diffusers", "Vae"], name: ["diffusers", "Vae"]}, where="base")
    with pytest.raises(ConfigError, match=r"model_index\.json names the component 'vae'"):
        component_names({"vae": [name, "Vae"]}, where="base")


def test_settings_and_absent_components_are_no_folders():
    index = {"_class_name": "X", "vae": ["diffusers", "Vae"], "transformer_2": [None, None], "sizes": [1, 2], "b": None}
    assert component_names(index, where="base") == ["vae"]


def test_the_index_the_license_and_components_are_copied_and_nothing_else(tmp_path):
    assert copied(pipeline(tmp_path / "base"), tmp_path / "out") == [
        "LICENSE.txt",
        "model_index.json",
        "vae/config.json",
    ]


def test_a_link_out_of_the_pipeline_is_refused(tmp_path):
    base = pipeline(tmp_path / "base")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").write_text("mine")
    (base / "vae" / "key").symlink_to("../../secret/key")
    assert "vae/key is a link to ../../secret/key, out of the pipeline's folder" in refusal(base, tmp_path / "a")
    (base / "vae" / "key").unlink()
    (base / "vae" / "loop").symlink_to("..")
    assert "vae/loop is a link to .." in refusal(base, tmp_path / "b")
    (base / "vae" / "loop").unlink()
    os.mkfifo(base / "vae" / "pipe")
    assert "vae/pipe is no plain file" in refusal(base, tmp_path / "c")
    (base / "vae" / "pipe").unlink()
    (base / "LICENSE.txt").unlink()
    (base / "LICENSE.txt").symlink_to(tmp_path / "secret" / "key")
    assert "LICENSE.txt is a link" in refusal(base, tmp_path / "d")
    (base / "LICENSE.txt").unlink()
    (base / "vae" / "config.json").unlink()
    (base / "vae").rmdir()
    (base / "vae").symlink_to(tmp_path / "secret")
    assert "vae is a link" in refusal(base, tmp_path / "e")


def test_links_within_a_pipeline_and_the_hubs_cache_are_followed(tmp_path):
    model = tmp_path / "models--org--name"
    snapshot = pipeline(model / "snapshots" / "abc")
    (model / "blobs").mkdir()
    (snapshot / "vae" / "config.json").rename(model / "blobs" / "123")
    (snapshot / "vae" / "config.json").symlink_to("../../../blobs/123")
    (snapshot / "vae" / "same.json").symlink_to("config.json")
    (tmp_path / "link").symlink_to(snapshot)
    whole = ["LICENSE.txt", "model_index.json", "vae/config.json", "vae/same.json"]
    for number, base in enumerate((snapshot, tmp_path / "link")):
        assert copied(base, tmp_path / f"out{number}") == whole
        assert not (tmp_path / f"out{number}" / "vae" / "config.json").is_symlink()


def test_a_new_folder_is_complete_or_absent_and_removes_what_killed_exports_left(tmp_path):
    out, host = tmp_path / "out", socket.gethostname()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    host = "".join(letter if letter.isalnum() or letter == "_" else "-" for letter in host)
    dead, alive = tmp_path / f".out.{host}-{ended.pid}.abc", tmp_path / f".out.{host}-{os.getpid()}.abc"
    others = tmp_path / f".out.another-host-{ended.pid}.abc"
    for folder in (dead, alive, others):
        folder.mkdir()
    interrupted = pytest.raises(KeyboardInterrupt)
    with interrupted, new_folder(out):
        raise KeyboardInterrupt
    assert sorted(tmp_path.iterdir()) == sorted([alive, others])
    with new_folder(out) as aside:
        (aside / "whole").write_text("x")
    assert [path.name for path in out.iterdir()] == ["whole"]
    with pytest.raises(ConfigError, match="is not an empty folder"), new_folder(out):
        pass
