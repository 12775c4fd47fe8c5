"""A Wan student with an LTX teacher: their latents differ, which is told before any weight is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from fastvideo_core.cli.main import main
from tests.families import Kind, MakeFamily, tiny_family

__all__ = ["tiny_family"]


@pytest.mark.parametrize("arguments", [["check"], []], ids=["check", "train"])
def test_a_teacher_of_another_family_with_other_latents_is_refused(
    tiny_family: MakeFamily, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    wan, ltx = tiny_family(Kind("wan")), tiny_family(Kind("ltx", {"generation": 1}))
    roles = {
        "student": {"path": str(wan.base), "trainable": True},
        "teacher": {"path": str(ltx.base), "trainable": False, "family": "ltx"},
        "critic": {"path": str(wan.base), "trainable": True},
    }
    run = {
        "recipe": {"family": "wan", "method": "dmd2"},
        "roles": roles,
        "training": {"output_dir": str(tmp_path / "out"), "data_path": str(wan.data), "max_train_steps": 1},
        "method_config": {"generator_update_interval": 1},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run, sort_keys=False))
    assert main([*arguments, str(tmp_path / "run.yaml")]) == 2
    error = capsys.readouterr().err
    assert (
        f"roles.teacher.path ({ltx.base}): latents or text embeddings differ from those of student ({wan.base})"
        in error
    )
    assert "channels 128, not 16" in error
    assert "roles.critic" not in error
