from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.contracts.validator import ValidationPrompt
from fastvideo_core.errors import ConfigError, DataError
from fastvideo_data.validation_prompts import prompts_of_run, read_validation_prompts


def write(tmp_path: Path, content: Any) -> Path:
    path = tmp_path / "validation.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def error(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_validation_prompts(path)
    return str(caught.value)


def test_all_keys_are_read_and_images_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "first.png").write_bytes(b"png")
    full = {"caption": "a", "height": 480, "width": 832, "num_frames": 81, "num_inference_steps": 8, "seed": 0}
    full["negative_prompt"] = ""
    path = write(tmp_path, {"data": [full | {"image_path": "first.png"}, {"caption": "b", "video_path": None}]})
    assert read_validation_prompts(path) == (
        ValidationPrompt("a", 480, 832, 81, 8, tmp_path / "first.png", 0, ""),
        ValidationPrompt("b"),
    )


def test_a_prompt_knows_its_place(tmp_path: Path) -> None:
    path = write(tmp_path, {"data": [{"caption": "a"}, {"caption": "a cat"}]})
    assert read_validation_prompts(path)[1].where == f'{path}, data[1] ("a cat")'
    (tmp_path / "p.txt").write_text("\none\n")
    assert read_validation_prompts(tmp_path / "p.txt")[0].where == f'{tmp_path / "p.txt"}, line 2 ("one")'
    assert "data[0]: unknown key 'where'" in error(write(tmp_path, {"data": [{"caption": "a", "where": "x"}]}))


def test_a_text_file_holds_one_prompt_a_line(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("one\n\n two\n")
    assert read_validation_prompts(tmp_path / "p.txt") == (ValidationPrompt("one"), ValidationPrompt("two"))
    (tmp_path / "P.TXT").write_text("one\u2028and\u0085a\vhalf\r\ntwo\rthree", newline="")
    captions = [prompt.caption for prompt in read_validation_prompts(tmp_path / "P.TXT")]
    assert captions == ["one\u2028and\u0085a\vhalf", "two", "three"]
    (tmp_path / "p.txt").write_text("\n")
    assert "p.txt: the file holds no prompt" in error(tmp_path / "p.txt")


def test_everything_wrong_is_said_at_once(tmp_path: Path) -> None:
    entries = [
        {"caption": "a", "hight": 480},
        {"caption": "b", "height": "480", "num_frames": 0, "seed": -1, "width": True},
        {"prompt": "c"},
        {"caption": " "},
        {"caption": "d", "image_path": "none.png", "video_path": "x.mp4"},
        "e",
    ]
    text = error(write(tmp_path, {"data": entries, "extra": 1}))
    for expected in (
        "unknown key 'extra'",
        "data[0]: unknown key 'hight'",
        "did you mean 'height'?",
        'data[1].height: is "480"',
        "data[1].num_frames: is 0",
        "allowed: a whole number from 1 to 65536",
        "data[1].seed: is -1",
        "data[1].width: is true",
        "data[2]: unknown key 'prompt'",
        "data[2]: has no caption",
        'data[3].caption: is " "',
        'data[4].image_path: is "none.png"',
        "data[4]: unknown key 'video_path'",
        'data[5]: is "e"',
    ):
        assert expected in text


@pytest.mark.parametrize(
    "entry",
    [
        {"caption": "a cat", "seed": 2**64},
        {"caption": "a cat \ud83d"},
        {"caption": "a cat", "height": 32_000_000},
        {"caption": "a cat", "width": 10**400},
        {"caption": "a cat", "num_frames": 10**9},
        {"caption": "a cat", "num_inference_steps": 10**9},
        {"caption": "a cat", "image_path": "a\0b.png"},
        {"caption": "a cat", "image_path": "x" * 5000},
    ],
    ids=lambda entry: list(entry)[-1],
)
def test_a_prompt_that_nothing_can_sample_is_refused(tmp_path: Path, entry: dict[str, Any]) -> None:
    (name,) = {*entry} - {"caption"} or {"caption"}
    assert f"data[0].{name}: is " in error(write(tmp_path, {"data": [entry]}))


@pytest.mark.parametrize("text", ["[" * 100_000, '{"data": ' + "9" * 5000 + "}", "\0"], ids=["deep", "long", "nul"])
def test_json_that_breaks_a_parser_is_one_message(tmp_path: Path, text: str) -> None:
    assert "validation.json" in error(write(tmp_path, text))


def test_files_that_are_no_list_of_prompts(tmp_path: Path) -> None:
    assert "there is no such validation file" in error(tmp_path / "none.json")
    assert "is no valid JSON" in error(write(tmp_path, "{oops"))
    assert 'allowed: {"data": [{"caption": "..."}, ...]}' in error(write(tmp_path, [{"caption": "a"}]))
    assert '"data" is empty' in error(write(tmp_path, {"data": []}))


def test_a_run_samples_the_prompts_of_its_file_and_none_without_validation(tmp_path: Path) -> None:
    def training(**settings: Any) -> TrainingArgs:
        return TrainingArgs(output_dir=str(tmp_path), max_train_steps=1, **settings)

    path = str(write(tmp_path, {"data": [{"caption": "a cat"}]}))
    assert prompts_of_run(training(log_validation=True, validation_dataset_file=path)) == (ValidationPrompt("a cat"),)
    assert prompts_of_run(training(validation_dataset_file=path)) == ()
    with pytest.raises(
        ConfigError, match=r"validation_dataset_file: validation needs prompts\n.*log_validation: false"
    ):
        prompts_of_run(training(log_validation=True))


def test_a_last_image_is_relative_to_the_file_too(tmp_path: Path) -> None:
    (tmp_path / "last.png").write_bytes(b"png")
    path = write(tmp_path, {"data": [{"caption": "a", "image_path": "last.png", "last_image_path": "last.png"}]})
    (prompt,) = read_validation_prompts(path)
    assert (prompt.image_path, prompt.last_image_path) == (tmp_path / "last.png",) * 2
    said = error(write(tmp_path, {"data": [{"caption": "a", "last_image_path": "none.png"}]}))
    assert 'data[0].last_image_path: is "none.png"' in said


def test_images_at_frames_have_a_strength_and_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"png")
    good = [{"image_path": "a.png", "frame": 9, "strength": 0.5}, {"image_path": "a.png", "frame": 0}]
    (prompt,) = read_validation_prompts(write(tmp_path, {"data": [{"caption": "a", "conditions": good}]}))
    assert prompt.conditions == ((tmp_path / "a.png", 9, 0.5), (tmp_path / "a.png", 0, 1.0))
    for wrong in (
        {"frame": -1},
        {"strength": 0},
        {"strength": 1.1},
        {"frame": True},
        {"image_path": "b.png"},
        {"at": 1},
    ):
        said = error(write(tmp_path, {"data": [{"caption": "a", "conditions": [{**good[0], **wrong}]}]}))
        assert "data[0].conditions: is [{" in said
    assert "data[0].conditions: is 3" in error(write(tmp_path, {"data": [{"caption": "a", "conditions": 3}]}))
