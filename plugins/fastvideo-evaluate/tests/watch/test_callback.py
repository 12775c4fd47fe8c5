"""The watch in whole trainings of the toy family."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from fastvideo_core.checkpoint import storage
from fastvideo_core.dispatch.runtime import DistillRuntime
from fastvideo_core.errors import CheckpointError, ConfigError
from fastvideo_evaluate.watch.statistics import Sums
from fastvideo_testing import CallbackPluginSuite, build_run, toy_world


class TestQualityWatch(CallbackPluginSuite):
    plugin = "quality_watch"
    config: ClassVar[dict[str, Any]] = {"every": 4, "reference_steps": 4}
    steps = 16


@pytest.fixture(autouse=True)
def _toys() -> Iterator[None]:
    with toy_world():
        yield


def run_of(folder: Path, watch: dict[str, Any], **training: Any) -> dict[str, Any]:
    return {
        "recipe": {"family": "toy", "method": "toy"},
        "roles": {
            "student": {"path": "toy/student", "trainable": True},
            "teacher": {"path": "toy/teacher", "trainable": False},
        },
        "pipeline_config": {"layout": "video", "data": {"means": [[1.0, -1.0, 0.5, 0.0]]}},
        "training": {
            "output_dir": str(folder / "out"),
            "max_train_steps": 12,
            "train_batch_size": 16,
            "learning_rate": 1e-3,
            "training_state_checkpointing_steps": 4,
            **training,
        },
        "callbacks": {
            "quality_watch": {"every": 2, "prompts": 16, "reference_steps": 4, "reference_threshold": 100.0, **watch}
        },
    }


def trained(folder: Path, watch: dict[str, Any], **training: Any) -> DistillRuntime:
    folder.mkdir(exist_ok=True)
    runtime = build_run(folder, run_of(folder, watch, **training))
    runtime.train()
    return runtime


def reference() -> Sums:
    (sums := Sums()).add(torch.randn(2, 2, 4, 2, 2, 2, generator=torch.Generator().manual_seed(0)))
    return sums


def logged(folder: Path, name: str) -> dict[int, float]:
    lines = map(json.loads, (folder / "out" / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return {line["step"]: line[name] for line in lines if name in line}


FAST = {"learning_rate": 1.0}
"""So fast that the student is lost at once."""


def test_it_looks_when_it_has_its_rows_then_every_so_often_and_at_checkpoints_and_the_end(tmp_path: Path) -> None:
    trained(tmp_path, {"every": 3}, max_train_steps=11)
    assert list(logged(tmp_path, "quality/drift")) == [2, 3, 4, 6, 8, 9, 11]
    assert list(logged(tmp_path, "quality/reference_mean")) == [2]


def test_a_good_run_is_not_warned_of_and_one_that_is_too_fast_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trained(tmp_path / "good", {"threshold": 1.05}, learning_rate=1e-5)
    assert min(logged(tmp_path / "good", "quality/drift").values()) > 0.05  # far off, but not ever farther
    assert set(logged(tmp_path / "good", "quality/warnings").values()) == {0}
    assert "quality_watch" not in caplog.text
    trained(tmp_path / "fast", {}, **FAST)
    assert max(logged(tmp_path / "fast", "quality/warnings").values()) > 1
    assert "quality_watch: of the student's samples " in caplog.text
    assert "docs/quality-watch.md" in caplog.text


def test_a_teacher_that_is_far_from_the_data_is_warned_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trained(tmp_path, {"reference_threshold": 1.3}, max_train_steps=4)  # the toy teacher has learned nothing
    (warning,) = [record.message for record in caplog.records if "quality_watch" in record.message]
    assert warning.startswith("step 2: quality_watch: of the teacher's own samples ")
    assert "that of the data" in warning
    assert "flow_shift" in warning
    caplog.clear()
    trained(tmp_path / "few", {"reference_threshold": 1.3, "prompts": 15}, max_train_steps=4)  # may be chance
    assert logged(tmp_path / "few", "quality/reference_mean")
    assert logged(tmp_path / "few", "quality/reference_warnings") == {2: 0}
    assert "quality_watch" not in caplog.text


def test_a_warning_lowers_the_rate_and_a_resumed_run_goes_on_with_it(tmp_path: Path) -> None:
    watch = {"lower_rate": {"student": 0.5}}
    straight = trained(tmp_path / "straight", watch, **FAST)
    trained(tmp_path / "resumed", watch, **FAST, max_train_steps=6)
    resumed = trained(tmp_path / "resumed", watch, **FAST, resume_from_checkpoint="latest")
    rates, warnings = (logged(tmp_path / "resumed", name) for name in ("lr/student", "quality/warnings"))
    assert warnings[12] > warnings[6] > 0
    assert rates[12] == pytest.approx(0.5 ** warnings[10])
    for name in ("lr/student", "quality/drift", "total_loss"):
        assert logged(tmp_path / "resumed", name) == logged(tmp_path / "straight", name)
    ends = [dict(one.method.bundle["student"].named_parameters()) for one in (straight, resumed)]
    assert all(torch.equal(one, ends[1][name]) for name, one in ends[0].items())


def test_a_run_ends_with_a_checkpoint_at_the_warning_that_was_asked_for(tmp_path: Path) -> None:
    trained(tmp_path, {"stop_after": 2}, **FAST)
    warnings = logged(tmp_path, "quality/warnings")
    last = max(warnings)
    assert warnings[last] == 2
    assert last < 12
    assert storage.checkpoint_path(tmp_path / "out", last).is_dir()


def test_the_nearest_checkpoint_is_kept_whatever_rotates(tmp_path: Path) -> None:
    trained(tmp_path, {}, **FAST, checkpoints_total_limit=1)
    drifts = logged(tmp_path, "quality/drift")
    least = min((4, 8, 12), key=lambda step: drifts[step])
    kept = tmp_path / "out" / "best"
    assert storage.choose(kept, tmp_path / "out").step == least
    assert json.loads((kept / "quality.json").read_text(encoding="utf-8")) == {"step": least, "drift": drifts[least]}
    assert [path.name for path in storage.checkpoints(tmp_path / "out")] == ["checkpoint-000012"]
    runtime = build_run(tmp_path, run_of(tmp_path, {}, **FAST, resume_from_checkpoint=str(kept)))
    assert runtime.start_step == least


def test_a_checkpoint_that_was_not_looked_at_is_never_the_best(tmp_path: Path) -> None:
    """As one that a signal asked for: it may have collapsed since the look before it."""
    runtime = trained(tmp_path, {})
    (watch,) = runtime.callbacks.callbacks.values()
    unseen = storage.checkpoint_path(tmp_path / "out", 13)
    shutil.copytree(storage.checkpoint_path(tmp_path / "out", 12), unseen)
    shutil.rmtree(tmp_path / "out" / "best")
    watch.checkpoint_saved(unseen, 13)  # type: ignore[attr-defined]
    assert not (tmp_path / "out" / "best").exists()


def test_why_a_checkpoint_could_not_be_kept_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fastvideo_evaluate.watch.best._link_or_copy", full)
    trained(tmp_path, {}, max_train_steps=4)
    (warning,) = [record.message for record in caplog.records if "could not be kept" in record.message]
    assert "No space left on device" in warning
    assert sorted(path.name for path in (tmp_path / "out").glob("*best*")) == []


def test_the_best_of_an_earlier_run_is_not_taken_for_a_new_one_s(tmp_path: Path) -> None:
    trained(tmp_path, {}, max_train_steps=4)
    shutil.rmtree(storage.checkpoint_path(tmp_path / "out", 4))
    with pytest.raises(ConfigError, match=r"quality_watch: .*best is there already, of an earlier run"):
        trained(tmp_path, {})
    trained(tmp_path, {"keep_best": False}, max_train_steps=2)


def test_samples_that_are_not_finite_are_told_of_at_the_first_look_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(self: Any, *_: Any) -> Sums:
        (sums := Sums()).add(torch.full((2, 2, 4, 2, 2, 2), math.nan))
        return sums

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fastvideo_evaluate.watch.samples.Sampler.student", broken)
        patch.setattr("fastvideo_evaluate.watch.samples.Sampler.teacher", lambda *_: reference())
        trained(tmp_path, {}, max_train_steps=2)
    assert "step 2: quality_watch: of the student's samples the samples are not finite" in caplog.text


def test_with_another_guidance_the_teacher_is_sampled_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(tmp_path, {}, max_train_steps=4)
    monkeypatch.setattr("fastvideo_evaluate.watch.callback.QualityWatch._guidance", lambda *_: 3.0)
    trained(tmp_path, {}, max_train_steps=6, resume_from_checkpoint="latest")
    assert "the teacher is sampled anew, with guidance 3 instead of 1" in caplog.text
    assert list(logged(tmp_path, "quality/drift")) == [2, 4, 5, 6]


def test_a_run_that_goes_on_with_smaller_batches_keeps_its_rows(tmp_path: Path) -> None:
    trained(tmp_path, {}, max_train_steps=4)
    runtime = trained(tmp_path, {}, max_train_steps=6, train_batch_size=2, resume_from_checkpoint="latest")
    assert list(logged(tmp_path, "quality/drift")) == [2, 4, 6]
    state = runtime.callbacks.state_dict()["quality_watch"]
    assert [len(row["vae_latent"]) for row in state["rows"]] == [16]


def test_a_reference_of_other_samples_is_refused_at_resume(tmp_path: Path) -> None:
    trained(tmp_path, {}, max_train_steps=4)
    with pytest.raises(CheckpointError, match=r"quality_watch\.seeds: the reference .* seeds 2; this run has 3"):
        trained(tmp_path, {"seeds": 3}, resume_from_checkpoint="latest")


@pytest.mark.parametrize(
    ("watch", "told"),
    [
        ({"lower_rate": {"teacher": 0.5}}, "lower_rate.teacher: this run does not train that role"),
        ({"lower_rate": {"student": 0.5}, "stop_after": 1}, "stop_after: the run ends at the first warning"),
        ({"lower_rate": {"student": 1.5}}, "lower_rate.student"),
        ({"threshold": 1.0}, "threshold"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, watch: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as raised:
        build_run(tmp_path, run_of(tmp_path, watch))
    assert f"callbacks.quality_watch.{told}" in str(raised.value)


def test_a_best_of_one_checkpoint_is_refused_where_it_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"keep_best: only the run's end is saved"):
        build_run(tmp_path, run_of(tmp_path, {"keep_best": True}, training_state_checkpointing_steps=0))
