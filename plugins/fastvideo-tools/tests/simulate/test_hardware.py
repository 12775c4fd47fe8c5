"""Which hardware is known, and what a file must say of other."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastvideo_core.errors import ConfigError
from fastvideo_tools.simulate.hardware import KNOWN, hardware


def test_names_are_known_in_any_case() -> None:
    assert hardware("h200") == KNOWN["H200"]


def test_an_unknown_name_is_told_with_what_was_meant() -> None:
    with pytest.raises(ConfigError, match=r"'H2000' is not known(?s:.*)did you mean 'H200'\?"):
        hardware("H2000")


def test_a_file_says_all_or_begins_with_another(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("like: H100\nnetwork_gbs: 25\n")
    assert hardware(str(file)).network_gbs == 25
    assert hardware(str(file)).tflops == KNOWN["H100"].tflops
    assert hardware(str(file)).name == "mine"
    file.write_text(
        "{tflops: 312, memory_gb: 80, memory_tbs: 2, nvlink_gbs: 300, network_gbs: 25, host_gbs: 32, compute_achieved: 0.5}\n"
    )
    assert hardware(str(file)).compute_achieved == 0.5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tflops: 312", "lacks memory_gb, memory_tbs, nvlink_gbs, network_gbs, host_gbs"),
        ("{like: H100, tflop: 312}", "unknown key 'tflop'"),
        ("{like: H100, tflops: fast}", "found 'fast'"),
        ("{like: H100, tflops: 0}", "found 0"),
        ("{like: H100, compute_achieved: 40}", "found 40"),
        ("{like: A100}", "'A100' is not known"),
        ("- 1", "no mapping"),
        ("{", "cannot be read"),
    ],
)
def test_what_is_wrong_with_a_file_is_told(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError, match=said):
        hardware(str(tmp_path / "mine.yaml"))
