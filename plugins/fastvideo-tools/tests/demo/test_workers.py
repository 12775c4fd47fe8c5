from __future__ import annotations

import pytest

from fastvideo_tools.demo.workers import DemoError, Job, run_jobs

pytestmark = pytest.mark.distributed


def test_jobs_run_beside_and_after_each_other_and_leave_logs(tmp_path, capfd):
    jobs = [
        Job("last", ("schema", "roles"), after=("first",)),
        Job("first", ("schema", "training")),
        Job("other", ("plugins",)),
    ]
    seconds = run_jobs(jobs, tmp_path / "logs", processes=2)
    assert seconds.keys() == {"last", "first", "other"}
    assert "max_train_steps" in (tmp_path / "logs" / "first.log").read_text()
    printed = capfd.readouterr().out
    assert "max_train_steps" not in printed
    assert printed.index("first: done in") < printed.index("last: done in")


def test_a_job_that_fails_ends_the_demo_with_its_last_lines(tmp_path):
    jobs = [Job("bad", ("check", "absent.yaml")), Job("never", ("schema", "training"), after=("bad",))]
    with pytest.raises(DemoError, match=r"`fastvideo-distill check absent\.yaml` ended with status 2") as caught:
        run_jobs(jobs, tmp_path / "logs", processes=1)
    assert "absent.yaml" in str(caught.value).splitlines()[1]
    assert not (tmp_path / "logs" / "never.log").exists()
