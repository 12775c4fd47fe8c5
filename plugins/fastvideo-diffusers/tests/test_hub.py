"""Names of pipelines that are no folder here."""

from __future__ import annotations

import pytest

from fastvideo_core.config.base import is_hub_id
from fastvideo_diffusers.hub import unreadable_pipeline


class LocalEntryNotFoundError(Exception):
    """Named as huggingface_hub's."""


def test_an_id_is_two_names_whose_first_is_no_folder_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    assert is_hub_id("org/name-1.3B")
    assert not any(map(is_hub_id, ("runs/dmd2", "name", "a/b/c", "../x", "./x", "-a/b")))


def message(error: Exception) -> str:
    return str(unreadable_pipeline("org/name", "vae/", error, where="roles.student.path", allowed="a folder"))


@pytest.mark.parametrize("value", ["1", "true", "ON"])
def test_a_machine_that_is_set_to_be_offline_is_told_so(monkeypatch, value):
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    said = message(OSError("no such file"))
    assert "this machine is offline (HF_HUB_OFFLINE is set)" in said
    assert "fix: where there is a network, call: hf download org/name --local-dir FOLDER" in said


def test_a_hub_out_of_reach_is_told_and_a_missing_file_is_not_taken_for_it(monkeypatch):
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    unreachable = OSError("has no file model_index.json")
    unreachable.__context__ = LocalEntryNotFoundError()
    assert "offline (the hub cannot be reached from here)" in message(unreachable)
    assert "so it was looked up on the hub): has no file vae" in message(OSError("has no file vae\nmore"))
