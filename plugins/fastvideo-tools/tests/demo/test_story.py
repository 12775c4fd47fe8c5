"""The demo's order: what a method trains on besides clips is made between its teacher and its students."""

import yaml

from fastvideo_core.contracts.demo import ClipSize, DemoData, DemoRun, FamilyDemo, MethodDemo
from fastvideo_tools.demo import story
from fastvideo_tools.demo.clips import FEW
from fastvideo_tools.demo.story import Extent, Recipe, Story

EXTENT = Extent(FEW, clips=8, samples=8, many_steps=4, guided=False, shown=(0,))


def told(tmp_path, monkeypatch, data):
    """The commands of a demo, none of which is run, and the students' jobs."""
    commands, jobs = [], []
    monkeypatch.setattr(story, "write_clips", lambda *args, **options: None)
    monkeypatch.setattr(story, "run_jobs", lambda asked, *args, **options: jobs.extend(asked) or {})
    tmp_path.mkdir(exist_ok=True)
    family = FamilyDemo(lambda folder, words, seed: None, ClipSize(32, 48, 9, 8.0))
    teacher = MethodDemo((DemoRun("teacher", {"student": {"trainable": True}}, {"max_train_steps": 1}),))
    student = DemoRun("student-4", {"student": {"trainable": True}}, {"max_train_steps": 1}, calls=4)
    recipe = Recipe("fam", family, "method", MethodDemo((student,), "first", data=data), "first", teacher)
    Story(recipe, tmp_path, EXTENT, 0, lambda arguments: commands.append(list(arguments)) or 0).tell()
    return commands, jobs


def test_a_method_on_other_data_than_clips_has_it_made_by_the_teacher(tmp_path, monkeypatch):
    commands, jobs = told(tmp_path, monkeypatch, DemoData("trajectories", ("--steps", "4"), prompts=16))
    assert [words[0] for words in commands] == ["preprocess", f"{tmp_path}/teacher.yaml", "trajectories"]
    made = commands[2]
    for name, value in (("--model", "runs/teacher"), ("--output", "trajectories"), ("--prompts", "prompts.txt")):
        assert made[made.index(name) + 1] == f"{tmp_path}/{value}"
    assert made[made.index("--steps") + 1] == "4"
    assert made[made.index("--width") + 1] == "48"
    captions = (tmp_path / "prompts.txt").read_text().splitlines()
    assert len(captions) == 16
    assert set(captions) == {content.caption for content in FEW}
    run = yaml.safe_load((tmp_path / "student-4.yaml").read_text())
    assert run["training"]["data_path"] == f"{tmp_path}/trajectories"
    assert "student-4" in [job.name for job in jobs]


def test_a_method_on_clips_has_nothing_made(tmp_path, monkeypatch):
    commands, _ = told(tmp_path, monkeypatch, None)
    assert [words[0] for words in commands] == ["preprocess", f"{tmp_path}/teacher.yaml"]
    run = yaml.safe_load((tmp_path / "student-4.yaml").read_text())
    assert run["training"]["data_path"] == f"{tmp_path}/latents"
