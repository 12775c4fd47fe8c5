"""`report` makes one page of a run's folder, and needs nothing but that folder."""

from __future__ import annotations

import json
import math
import random
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from fastvideo_core.cli.main import main
from fastvideo_core.errors import FastVideoError
from fastvideo_data.video_files import write_video
from fastvideo_testing.runs import build_run, toy_world
from fastvideo_tools.report.page import chosen, comparable, marks, status, write_report
from fastvideo_tools.report.read import RunFolder, read_run, thinned


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """Of a real run of the toy family: ten steps, checkpoints after 5 and 10."""
    run = {
        "recipe": {"family": "toy", "method": "toy"},
        "roles": {
            "student": {"path": "toy/base", "trainable": True},
            "teacher": {"path": "toy/learned", "trainable": False},
        },
        "training": {
            "output_dir": str(tmp_path / "run"),
            "max_train_steps": 10,
            "learning_rate": 1e-2,
            "training_state_checkpointing_steps": 5,
        },
    }
    with toy_world():
        build_run(tmp_path, run).train()
    folder = tmp_path / "run"
    shutil.copy(folder / "checkpoint-000010/run.yaml", folder)  # which the command writes when it starts
    return folder


def add_validation(folder: Path, *steps: int) -> None:
    for step in steps:
        frames = np.full((9, 32, 32, 3), 20 * step % 255, dtype=np.uint8)
        write_video(folder / f"validation/step-{step:06d}/00.mp4", frames, 8)
        (folder / f"validation/step-{step:06d}/00.txt").write_text("a <red> cat")


def log(folder: Path, *lines: dict[str, object] | str) -> None:
    texts = [line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines]
    (folder / "metrics.jsonl").write_text("".join(texts))


def test_the_page_holds_curves_videos_checkpoints_and_the_configuration(run_folder, capsys):
    add_validation(run_folder, 5, 10)
    assert main(["report", str(run_folder)]) == 0
    printed = capsys.readouterr().out
    assert "Finished after 10 steps" in printed
    page = (run_folder / "report.html").read_text()
    for title in (
        "total_loss",
        "learning rate",
        "gradient norm",
        "seconds a step",
        "samples a second",
        "peak memory, GiB",
    ):
        assert f'aria-label="{title}"' in page
    assert page.count("<video") == 2
    assert "a &lt;red&gt; cat" in page
    assert "checkpoint-000005" in page
    assert "checkpoint-000010" in page
    assert "max_train_steps: 10" in page


def test_the_page_fetches_nothing(run_folder):
    add_validation(run_folder, 5)
    main(["report", str(run_folder)])
    page = (run_folder / "report.html").read_text()
    sources = re.findall(r'(?:src|href|poster|data-webp)="([^"]*)"', page)
    assert sources
    assert all(source.startswith("data:") for source in sources)


def test_a_live_run_s_half_line_is_left_out(run_folder):
    log(run_folder, {"step": 1, "total_loss": 2.0}, {"step": 2, "total_loss": 1.0}, '{"step": 3, "total_lo')
    run = read_run(run_folder)
    assert run.series["total_loss"] == [(1.0, 2.0), (2.0, 1.0)]
    assert status(run) == "Step 2 of 10, by its log, total_loss 1.0000."


def test_skipped_steps_are_counted_and_losses_that_are_not_finite_left_out(run_folder):
    log(
        run_folder,
        {"step": 1, "total_loss": "nan", "skipped_steps": 2},
        {"step": 2, "total_loss": 1, "skipped_steps": 1},
    )
    run = read_run(run_folder)
    assert run.series["total_loss"] == [(2.0, 1.0)]
    assert status(run).endswith("3 steps skipped.")


def test_a_run_that_has_not_logged_yet_has_a_page(run_folder):
    (run_folder / "metrics.jsonl").unlink()
    assert main(["report", str(run_folder)]) == 0
    assert "No step is logged yet, of 10." in (run_folder / "report.html").read_text()


def test_an_incomplete_checkpoint_is_not_shown(run_folder):
    (run_folder / "checkpoint-000005/state.json").unlink()
    assert [one.name for one in read_run(run_folder).checkpoints] == ["checkpoint-000010"]


BROKEN = [
    b"not json\n",
    b"\xff\xfe\n",
    b"[1]\n",
    b'"step"\n',
    b"null\n",
    b'{"total_loss": 1.0}\n',
    b'{"step": null}\n',
    b'{"step": "nan"}\n',
    b'{"step": NaN}\n',
    b'{"step": true}\n',
    b'{"step": -1}\n',
    b'{"step": 1e400}\n',
    b'{"step": ' + b"9" * 5000 + b"}\n",
    b"[" * 100_000 + b"\n",
]


@pytest.mark.parametrize("line", BROKEN, ids=lambda line: line[:20].decode(errors="replace").strip())
def test_a_broken_line_is_left_out_and_its_place_noted(run_folder, capsys, line):
    good = b'{"step": 1, "total_loss": 2.0}\n', b'{"step": 2, "total_loss": 1.0}\n'
    (run_folder / "metrics.jsonl").write_bytes(good[0] + line + good[1] + line)
    assert main(["report", str(run_folder)]) == 0
    note = f"{run_folder}/metrics.jsonl:2: 2 lines are no logged step and left out"
    assert f"note: {note}\n" in capsys.readouterr().out
    assert note in (run_folder / "report.html").read_text()
    assert read_run(run_folder).series["total_loss"] == [(1.0, 2.0), (2.0, 1.0)]


def test_numbers_that_no_page_can_draw_are_left_out(run_folder):
    huge = 10**400
    (run_folder / "metrics.jsonl").write_text(
        f'{{"step": 1, "a_loss": {huge}, "b": NaN, "c": 1e300, "d": true, "skipped_steps": 1e308, "lr/x": 5e-324}}\n'
        '{"step": 2, "lr/x": 1e-323, "\\ud800_loss": 1, "\\u001b[31m_loss": 2}\n'
    )
    assert main(["report", str(run_folder)]) == 0
    assert set(read_run(run_folder).series) == {"lr/x", "\\ud800_loss", "\\x1b[31m_loss"}


def test_every_loss_has_axes_of_its_own(run_folder):
    log(run_folder, *({"step": step, "student_loss": 1e-3 / step, "critic_loss": 1e3 / step} for step in range(1, 9)))
    charts_of = re.findall(r'<svg[^>]*aria-label="([a-z_]+)"', write_report(read_run(run_folder)))
    assert charts_of[:2] == ["student_loss", "critic_loss"]
    assert "loss" not in charts_of


def test_curves_of_one_group_share_an_axis_only_where_it_shows_them_all(run_folder):
    log(
        run_folder,
        *(
            {"step": step, "grad_norm/student": 1.0, "grad_norm/critic": 11.0, "lr/student": 1e-5, "lr/critic": 1e-4}
            for step in (1, 2)
        ),
    )
    page = write_report(read_run(run_folder))
    titles = re.findall(r'<svg[^>]*aria-label="([^"]+)"', page)
    assert titles[1:4] == ["learning rate", "gradient norm, student", "gradient norm, critic"]
    assert comparable([[(1.0, -10.0)], [(1.0, 1.0)], []])
    assert not comparable([[(1.0, -10.1)], [(1.0, 1.0)]])


def test_skipped_steps_alarms_validations_and_checkpoints_are_marked_on_every_chart(run_folder):
    add_validation(run_folder, 6)
    log(
        run_folder,
        {"step": 2, "a_loss": 1.0, "skipped_steps": 0, "quality/warnings": 0.0},
        {"step": 4, "a_loss": 1.0, "skipped_steps": 1, "quality/warnings": 0.0},
        '{"step": 5, "a_loss": 1\n',
        {"step": 8, "a_loss": 1.0, "skipped_steps": 0, "quality/warnings": 1.0, "quality/drift": 3.0},
        {"step": 9, "a_loss": 1.0, "skipped_steps": 0, "quality/warnings": 3.0, "quality/drift": 4.0},
        {"step": 10, "a_loss": 1.0, "skipped_steps": 0, "quality/warnings": 3.0, "quality/drift": 0.0},
    )
    run = read_run(run_folder)
    assert {one.name: list(one.at) for one in marks(run)} == {
        "skipped steps": [4],
        "warnings of the quality watch": [8, 9],
        "validations": [6],
        "checkpoints": [5, 10],
    }
    assert status(run).endswith("a_loss 1.0000, 1 step skipped, quality watch warned at step 8.")
    page = write_report(run)
    drawn = [chart for chart in re.findall("<svg.*?</svg>", page) if "nothing was logged" not in chart]
    assert len(drawn) > 1
    assert all(len(re.findall("<path", chart)) == 4 for chart in drawn)


def watched(folder: Path, reference: float, warned: float = 1) -> RunFolder:
    """A run whose watch warned at every step after the second, and perhaps of its teacher, which may be twice off."""
    document = yaml.safe_load((folder / "run.yaml").read_text())
    (folder / "run.yaml").write_text(
        yaml.safe_dump(document | {"callbacks": {"quality_watch": {"reference_threshold": 2.0}}})
    )
    quality = {"quality/mean": 1.0, "quality/drift": 1.0}
    lines = [{"step": n, "a_loss": 1.0, "quality/warnings": max(0.0, n - 2.0), **quality} for n in range(1, 10)]
    log(
        folder,
        lines[0]
        | {"quality/reference_motion": reference, "quality/reference_mean": 0.1, "quality/reference_warnings": warned},
        *lines[1:],
    )
    return read_run(folder)


def test_the_watch_stands_first_and_says_when_it_warned(run_folder):
    run = watched(run_folder, -0.69, warned=0)
    page = write_report(run)
    assert re.findall("<h2>([^<]+)</h2>", page)[:2] == ["Quality watch", "Training"]
    assert "<p>Warned at step 3, 4, 5, 6, 7, 8, ....</p>" in page
    assert "What the teacher itself makes, beside the data: motion -0.690, mean +0.100." in page
    assert re.findall(r'<svg[^>]*aria-label="([^"]+)"', page)[:3] == ["drift", "mean", "a_loss"]
    assert 'aria-label="quality/' not in page
    assert run.wrong_reference == []
    assert "teacher's own samples" not in page


def test_a_teacher_whose_samples_are_far_from_the_data_is_named(run_folder):
    run = watched(run_folder, -0.70)  # beside log 2
    assert run.wrong_reference == ["motion"]
    assert "<p>It warned of the teacher&#x27;s own samples: motion.</p>" in write_report(run)
    assert status(run).endswith("quality watch warned at step 3, quality watch warned of the teacher's samples.")
    assert watched(run_folder, -0.70, warned=0).wrong_reference == []  # it may be chance, by the watch


def test_a_run_without_a_watch_has_no_section_of_it(run_folder):
    page = write_report(read_run(run_folder))
    assert "uality watch" not in page


def test_the_checkpoint_that_the_watch_keeps_aside_is_listed(run_folder):
    shutil.copytree(run_folder / "checkpoint-000005", run_folder / "best")
    (run_folder / "best/quality.json").write_text("{}")
    assert [(one.name, one.step) for one in read_run(run_folder).checkpoints][-1] == ("best", 5)


def test_tables_scroll_inside_their_own_box(run_folder):
    add_validation(run_folder, 5)
    page = write_report(read_run(run_folder))
    assert page.count("<table>") == page.count('<div class="wide"><table>') == 2
    assert 'name="viewport" content="width=device-width' in page


def test_a_caption_that_is_no_text_is_noted(run_folder, capsys):
    add_validation(run_folder, 5)
    (run_folder / "validation/step-000005/00.txt").write_bytes(b"caf\xe9")
    assert main(["report", str(run_folder)]) == 0
    assert "note: " in (said := capsys.readouterr().out)
    assert "step-000005/00.txt: is no valid caption: 'utf-8' codec can't decode" in said
    assert "<video" in (run_folder / "report.html").read_text()


def test_a_checkpoint_that_is_not_whole_is_noted(run_folder):
    (run_folder / "checkpoint-000005/state.json").write_text("[" * 100_000)
    run = read_run(run_folder)
    assert [one.name for one in run.checkpoints] == ["checkpoint-000010"]
    assert any("checkpoint-000005" in note for note in run.notes)


def test_an_environment_that_is_no_text_is_shown_as_far_as_it_is(run_folder):
    (run_folder / "environment.json").write_bytes(b'{"python": "\xff3.11.7"}')
    assert read_run(run_folder).environment == {"python": "\ufffd3.11.7"}


def test_a_page_that_cannot_be_written_is_a_message(run_folder, capsys):
    assert main(["report", str(run_folder), "--out", str(run_folder / "run.yaml/page.html")]) == 1
    assert "page.html: cannot be written: File exists" in capsys.readouterr().err


def mutated(content: bytes, generator: random.Random) -> bytes:
    """A few bytes changed, cut, doubled or put in."""
    parts = [
        b"\xff",
        b"\x00",
        b"{",
        b"[" * 3000,
        b'"',
        b"9" * 5000,
        b"null",
        b"-1",
        b"NaN",
        b"1e999",
        b"\xed\xa0\x80",
        b": ",
        b"\n",
    ]
    for _ in range(generator.randint(1, 4)):
        start = generator.randrange(len(content) + 1)
        end = min(len(content), start + generator.choice([0, 1, 2, 30]))
        kind = generator.randrange(4)
        put = [b"", generator.choice(parts), content[start:end] * 2, generator.randbytes(end - start)][kind]
        content = content[:start] + put + (b"" if generator.random() < 0.1 else content[end:])
    return content


FILES = [
    "metrics.jsonl",
    "run.yaml",
    "environment.json",
    "checkpoint-000010/state.json",
    "validation/step-000005/00.txt",
    "validation/step-000005/00.mp4",
]


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_of_a_run_s_folder_is_a_message_or_a_note(run_folder, name):
    (run_folder / "environment.json").write_text(json.dumps({"python": "3.11.7", "versions": {"torch": "2.13.0"}}))
    add_validation(run_folder, 5)
    whole, generator = (run_folder / name).read_bytes(), random.Random(name)
    messages = []
    for _ in range(60):
        (run_folder / name).write_bytes(mutated(whole, generator))
        try:
            run = read_run(run_folder)
            write_report(run).encode("utf-8", "replace")
            status(run)
        except FastVideoError as error:
            messages.append(str(error))
    assert bool(messages) == (name == "run.yaml"), messages


def test_steps_skipped_in_a_long_run_are_counted_too(run_folder):
    log(run_folder, *({"step": step, "skipped_steps": 1 if step in (7, 4000) else 0} for step in range(1, 4001)))
    assert status(read_run(run_folder)).endswith(", 2 steps skipped.")


def test_ways_of_sampling_are_told_apart(run_folder):
    frames = np.zeros((9, 32, 32, 3), dtype=np.uint8)
    for stem in ("student-00", "steps4-cfg5-00", "steps4-cfg5-01"):
        write_video(run_folder / f"validation/step-000005/{stem}.mp4", frames, 8)
        (run_folder / f"validation/step-000005/{stem}.txt").write_text("a cat")
    main(["report", str(run_folder)])
    page = (run_folder / "report.html").read_text()
    assert page.count("<th>steps4-cfg5</th>") == 1
    assert page.count("<th>student</th>") == 1


def test_a_damaged_video_does_not_hide_the_others(run_folder):
    add_validation(run_folder, 5, 10)
    video = run_folder / "validation/step-000010/00.mp4"
    video.write_bytes(video.read_bytes()[:300])
    assert main(["report", str(run_folder)]) == 0
    page = (run_folder / "report.html").read_text()
    assert page.count("<video") == 1
    assert "00.mp4 cannot be read" in page


def test_a_half_written_environment_is_shown_as_it_is(run_folder):
    (run_folder / "environment.json").write_text('{"python": "3.1')
    assert read_run(run_folder).environment == {"incomplete": '{"python": "3.1'}


@pytest.mark.parametrize("text", ["", "- 1\n", "recipe: {family: toy, method: toy}\n", "training: 3\nrecipe: toy\n"])
def test_a_run_yaml_that_no_run_wrote_is_refused(run_folder, text, capsys):
    (run_folder / "run.yaml").write_text(text)
    assert main(["report", str(run_folder)]) == 2
    assert "run.yaml: " in capsys.readouterr().err


def test_a_checkpoint_is_refused_and_the_run_named(run_folder, capsys):
    assert main(["report", str(run_folder / "checkpoint-000010")]) == 2
    assert f"fix: give the run's folder, {run_folder}" in capsys.readouterr().err
    assert not (run_folder / "checkpoint-000010/report.html").exists()


def test_a_folder_as_out_is_refused(run_folder, tmp_path, capsys):
    (tmp_path / "pages").mkdir()
    assert main(["report", str(run_folder), "--out", str(tmp_path / "pages")]) == 2
    assert "pages: is a folder" in capsys.readouterr().err
    assert not (tmp_path / "pages.tmp").exists()


def test_another_folder_is_refused(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 2
    assert "is not a run's folder: it has no run.yaml" in capsys.readouterr().err


def test_the_environment_is_on_the_page(run_folder):
    (run_folder / "environment.json").write_text(json.dumps({"python": "3.11.7"}))
    main(["report", str(run_folder), "--out", str(run_folder / "pages/one.html")])
    assert "3.11.7" in (run_folder / "pages/one.html").read_text()


def test_long_curves_become_means_of_neighbours():
    points = [(float(x), float(x % 2)) for x in range(1, 4001)]
    short = thinned(points, most=1000)
    assert len(short) == 1000
    assert short[0] == (4.0, 0.5)
    assert short[-1][0] == 4000.0
    assert math.isclose(sum(y for _, y in short) / 1000, 0.5)
    assert thinned(points[:10]) == points[:10]


def test_of_many_validations_the_first_and_last_are_shown():
    assert chosen(list(range(10, 210, 10))) == [10, 50, 90, 120, 160, 200]
    assert chosen([1, 2]) == [1, 2]


def test_run_yaml_is_the_resolved_one(run_folder):
    assert read_run(run_folder).config == yaml.safe_load((run_folder / "run.yaml").read_text())


@pytest.mark.parametrize("path", ["x" * 300, "x/" * 3000], ids=["name", "path"])
def test_a_path_that_is_too_long_is_one_message(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["report", path]) == 2
    said = capsys.readouterr().err
    assert "too long" in said
    assert "Traceback" not in said
