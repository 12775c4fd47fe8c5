"""benchmarks/gpu.py in its tiny form, and what it counts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def modules(monkeypatch):
    """The benchmarks' own modules, as they import each other."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu
    import gpu_runs

    return gpu, gpu_runs


def ran(*arguments: str) -> str:
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "--tiny", *arguments]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_tiny_form_measures_both_methods_beside_bare_torch():
    table = ran("--only", "costs", "--peak-tflops", "0.1").split("\n\n")[-2].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]
    assert {(row[1], row[2], row[3]) for row in rows} == {
        (method, kind, by)
        for method, kind in (("finetune", "student"), ("dmd2", "student + critic"), ("dmd2", "critic"))
        for by in ("framework", "bare torch")
    }
    for row in rows:
        assert float(row[4]) > 0
        assert re.fullmatch(r"\d+\.\d%", row[8])
        assert row[6] == ("n/a" if row[3] == "bare torch" else "0.0")  # GiB that `check` foretells, of a tiny network
    flops = {(row[1], row[2], row[3]): row[7] for row in rows}
    assert flops["dmd2", "critic", "framework"] == flops["dmd2", "critic", "bare torch"]


@pytest.mark.slow
def test_every_check_is_ok_on_the_cpu():
    rows = [line for line in ran("--only", "checks", "--leave-out", "compile").splitlines() if line.startswith("|")]
    checks = {line for line in rows if "| ok |" in line}
    assert len(checks) == 15
    assert not any("failed" in line for line in rows)


@pytest.mark.slow
def test_sparse_attention_is_measured_beside_dense(tmp_path):
    """The tiny form: a row for dense attention and for each sparsity, with fewer FLOPs."""
    command = [sys.executable, str(BENCHMARKS / "sparse_attention.py"), "--tiny"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600, check=True)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.splitlines()[3:]]
    assert [row[2] for row in rows] == ["dense", "vsa 0.9", "vsa 0.8"]
    dense, nine, eight = (float(row[3]) for row in rows)
    tokens, tiles, width = 5 * 8 * 12, 12, 2 * 16
    assert dense == pytest.approx(4 * tokens**2 * width / 1e12, rel=1e-2)
    assert nine == pytest.approx(4 * (tokens * 2 * 64 + tiles**2) * width / 1e12, rel=1e-2)
    assert nine < eight < dense


def test_flops_are_those_of_the_formula(modules, tmp_path):
    gpu, gpu_runs = modules
    sizes = {"num_layers": 3, "num_heads": 4, "head_dim": 16, "ffn_dim": 256, "text_dim": 32}
    variant = gpu_runs.Variant("small", sizes, 9, 128, 128, None, 1)
    pipeline = gpu_runs.Runs(tmp_path / "runs").pipeline(sizes)
    n, text, d = variant.tokens, gpu_runs.TEXT_LENGTH, 64
    # per block: q, k, v, out of self-attention, q and out of cross-attention, ffn; k and v of the text; two attentions
    block = 2 * n * (6 * d * d + 2 * d * 256) + 2 * text * 2 * d * d + 4 * n * (n + text) * d
    ends = 2 * n * d * (16 * 4 * 2) + 2 * text * (32 * d + d * d)
    assert gpu.forward_flops(pipeline, variant) == pytest.approx(3 * block + ends, rel=0.01)


def test_a_graph_costs_three_forwards_and_guidance_two_samples(modules):
    gpu, _ = modules
    evaluations = gpu.Counter({gpu.Evaluation("student", True, 1): 1, gpu.Evaluation("teacher", False, 2): 2})
    assert gpu.flops_of(evaluations, 10) == 3 * 10 + 2 * 2 * 10


@pytest.mark.parametrize(
    ("name", "peak"),
    [("NVIDIA H100 80GB HBM3", 989.0), ("NVIDIA H100 PCIe", 756.0), ("NVIDIA A100-SXM4-80GB", 312.0), ("x", None)],
)
def test_the_peak_of_a_device_is_known_by_its_name_or_not_at_all(modules, name, peak):
    gpu, _ = modules
    assert gpu.known_peak(name) == peak


def test_without_a_gpu_the_large_form_is_refused():
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(BENCHMARKS / "gpu.py")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 2
    assert "there is no CUDA device here; --tiny runs on the CPU" in done.stderr
