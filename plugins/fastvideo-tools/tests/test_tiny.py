"""`tiny`: a family's small pipeline, whole or not there."""

from __future__ import annotations

from pathlib import Path

from fastvideo_core.cli.main import main
from fastvideo_testing.isolation import isolated_registrations

FAMILY = """\
import errno
import os
from fastvideo_core import ModelFamily, PluginConfig, register_model

@register_model("full", config=PluginConfig)
class Full(ModelFamily):
    def build(self, cfg):
        raise NotImplementedError

    def tiny(self, out, *, seed):
        (out / "vae").mkdir(parents=True)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(out))
"""


def test_what_fails_half_written_is_removed(tmp_path: Path) -> None:
    (tmp_path / "full.py").write_text(FAMILY)
    with isolated_registrations():
        assert main(["tiny", "full", str(tmp_path / "tiny"), "--plugin", str(tmp_path / "full.py")]) == 1
    assert not list(tmp_path.glob("t*"))
