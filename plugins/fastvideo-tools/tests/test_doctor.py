"""`doctor` finds what cannot work, says what to do, and shows no secrets."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from fastvideo_core.cli.main import main
from fastvideo_core.errors import Problem
from fastvideo_core.registry import PluginRegistry
from fastvideo_core.tracking.wandb_login import HOST
from fastvideo_tools.commands.doctor import as_text
from fastvideo_tools.doctor import machine, software
from fastvideo_tools.doctor.findings import Finding


def test_the_command_prints_a_table_and_ends_with_0_when_nothing_is_bad(capsys, tmp_path):
    status = main(["doctor", "--folder", str(tmp_path)])
    printed = capsys.readouterr().out
    bad = [line for line in printed.splitlines() if line.startswith("BAD")]
    assert status == (1 if bad else 0), printed
    for about in ("Python", "torch", "fastvideo-core", "video encoder", "disk", "wandb"):
        assert f"  {about}" in printed


def test_json_holds_every_finding(capsys, tmp_path):
    main(["doctor", "--folder", str(tmp_path), "--json"])
    findings = json.loads(capsys.readouterr().out)
    assert {"about", "state", "found", "fix"} == set(findings[0])
    assert "torch" in [finding["about"] for finding in findings]


def test_what_is_bad_ends_with_1_and_its_fix_stands_below(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(
        machine, "check_video", lambda: Finding("video encoder", "bad", "without h264", "pip install av")
    )
    assert main(["doctor", "--folder", str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert "BAD" in printed
    assert "To mend:\n  video encoder: pip install av" in printed
    assert "can work" not in printed


def test_an_old_python_is_bad():
    assert software.check_python((3, 9, 1)) == Finding("Python", "bad", "3.9.1", "use Python 3.10 or newer")


@pytest.mark.parametrize(
    ("installed", "about"),
    [
        ({"peft": "0.17.1", "transformers": "5.1"}, ["peft 0.17.1 with transformers 5.1"]),
        ({"peft": "0.18.0", "transformers": "5.1"}, []),
        ({"peft": "0.17.1", "transformers": "4.57"}, []),
        ({"peft": "0.17.1"}, []),
    ],
)
def test_known_bad_combinations(installed, about):
    found = list(software.check_combinations(installed))
    assert [finding.about for finding in found] == about
    assert all(finding.state == "bad" and finding.fix for finding in found)


def test_a_broken_plug_in_is_bad():
    broken = SimpleNamespace(
        provenance=SimpleNamespace(name="x", kind="methods", distribution="x"),
        problem=Problem("its import failed", fix="pip install y"),
        healthy=False,
    )
    found = list(software.check_plugins(SimpleNamespace(list=lambda: [broken])))
    assert found[0] == Finding("plug-in x", "bad", "its import failed", "pip install y")
    assert [finding.state for finding in found[1:]] == ["note", "note"]


def test_core_alone_is_no_error(monkeypatch):
    found = list(software.check_plugins(PluginRegistry(installed=())))
    assert [finding.state for finding in found] == ["note", "note"]


def test_a_driver_without_a_gpu_for_torch_is_bad(tmp_path, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    driver = tmp_path / "version"
    assert [finding.state for finding in machine.check_torch(driver)] == ["ok", "note"]
    driver.write_text("NVRM")
    assert [finding.state for finding in machine.check_torch(driver)] == ["ok", "bad"]


def test_little_space_is_said():
    assert machine.check_disk(Path("runs"), free=2**30).state == "note"
    assert machine.check_disk(Path("runs"), free=2**40).state == "ok"
    assert machine.check_disk(Path("no/such/folder"), free=2**40).state == "ok"  # the run will make it


def test_a_folder_that_cannot_be_made_is_bad(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    assert machine.check_disk(tmp_path / "file/runs").found == f"{tmp_path / 'file'} is not a folder"
    monkeypatch.setattr(machine.os, "access", lambda *_: False)
    finding = machine.check_disk(tmp_path / "runs", free=2**40)
    assert (finding.state, finding.found) == ("bad", f"{tmp_path} cannot be written")


def test_the_wandb_login_is_found_and_the_key_never_shown(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    secret = "0123456789abcdef" * 2 + "01234567"
    netrc = tmp_path / ".netrc"
    netrc.write_text(f"machine {HOST} login user password {secret}\n")
    states = {
        "key": machine.check_wandb({"WANDB_API_KEY": secret}, tmp_path / "none"),
        "netrc": machine.check_wandb({}, tmp_path),
        "other host": machine.check_wandb({"WANDB_BASE_URL": "https://wandb.example.org"}, tmp_path),
        "nothing": machine.check_wandb({}, tmp_path / "none"),
        "offline": machine.check_wandb({"WANDB_MODE": "offline"}, tmp_path),
    }
    assert {name: finding.state for name, finding in states.items()} == {
        "key": "ok",
        "netrc": "ok",
        "other host": "note",
        "nothing": "note",
        "offline": "ok",
    }
    assert secret not in as_text(list(states.values()), 100)
