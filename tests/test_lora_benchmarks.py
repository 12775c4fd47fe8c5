"""benchmarks/shared_base.py and benchmarks/lora_sweep.py: their tiny forms, cells and tables."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fastvideo_tools.demo.measures import Accuracy
from fastvideo_tools.demo.results import Results, Row

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def modules(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import lora_sweep
    import shared_base

    return shared_base, lora_sweep


@pytest.mark.slow
def test_a_shared_base_is_a_third_of_three_copies_in_the_tiny_form(modules, capsys):
    assert modules[0].main(["--tiny", "--iterations", "2"]) == 0
    printed = capsys.readouterr().out
    assert "bytes of the base 0.3333 of three copies'" in printed
    assert "bytes of the base at most a third: yes" in printed
    shared, copies = (
        dict(part.rsplit(" ", 1) for part in line.split("MiB: ")[1].split(", "))
        for line in printed.splitlines()
        if "MiB: " in line
    )
    assert shared["adapters and moments"] == copies["adapters and moments"]
    assert shared["saved by autograd"] == copies["saved by autograd"]
    assert float(shared["check's estimate"]) < float(copies["check's estimate"])
    assert printed.count("ratio") == 4  # two kinds of iterations, wall clock and CPU time


@pytest.mark.skipif(torch.cuda.is_available(), reason="it would run")
def test_without_a_gpu_the_large_form_is_refused(modules, capsys):
    assert modules[0].main(["--wan-1.3b"]) == 2
    assert "there is no CUDA device here; without --wan-1.3b it runs on the CPU" in capsys.readouterr().err


def test_a_cell_is_the_demo_s_student_with_adapters_on_the_teacher(modules):
    _, lora_sweep = modules
    full, cell = (lora_sweep.student(name, 2) for name in ("full", "r16x1e-3"))
    assert (full.name, cell.name) == ("full-s2", "r16x1e-3-s2")
    assert full.training["seed"] == cell.training["seed"] == 2
    assert "share" not in full.roles["student"]
    for role in ("student", "critic"):
        assert cell.roles[role]["lora"] == {"rank": 16}
        assert cell.roles[role]["share"] == "teacher"
    assert cell.roles["teacher"] == full.roles["teacher"]
    assert cell.training["learning_rate"] == 1e-3
    ratio = full.roles["critic"]["learning_rate"] / full.training["learning_rate"]
    assert cell.roles["critic"]["learning_rate"] == pytest.approx(ratio * 1e-3)
    assert {**cell.training, "learning_rate": None} == {**full.training, "learning_rate": None}


def row(name: str, captions: float, wasserstein: float) -> Row:
    return Row(name, name, 4, 0.1, Accuracy(1.0, 1.0, 1.0, captions), wasserstein, 0.01)


def test_the_table_compares_means_over_seeds_with_the_full_weights(modules):
    _, lora_sweep = modules
    rows = [row("held-out", 1, 0.1), row("full-s0", 0.8, 0.10), row("full-s1", 0.9, 0.14), row("teacher-4", 0.7, 0.2)]
    rows += [row("r4x1e-3-s0", 0.6, 0.13), row("r16x1e-3-s0", 0.85, 0.1), row("r16x1e-3-s1", 0.75, 0.15)]
    lines, met = lora_sweep.table(lora_sweep.by_cell(Results(tuple(rows), {})))
    assert met
    assert [line.split("|")[1].strip() for line in lines[2:]] == [
        "held-out",
        "teacher-4",
        "full",
        "r4x1e-3",
        "r16x1e-3",
    ]
    assert lines[-1] == "| r16x1e-3 | 2 | 85.0 / 75.0 | 0.100 / 0.150 | 0.010 / 0.010 | 0.94 | 0.96 | 1.00 |"
    assert lines[-2].endswith("| 0.71 | 0.92 | 1.00 |")
    assert "|  |  |  |" in lines[2]
    assert not lora_sweep.table(lora_sweep.by_cell(Results(tuple(rows[:5]), {})))[1]
