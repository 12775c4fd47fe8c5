from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import tiny_data
import torch
from small_disk import small_disk
from tiny_data import OPTIONS, FakeEncoder, write_clip

from fastvideo_core.errors import ConfigError, DataError
from fastvideo_data.captions import CaptionCut
from fastvideo_data.data_set import DataSet
from fastvideo_data.preprocessing.clips import PreprocessOptions
from fastvideo_data.preprocessing.part_files import DataWriteError
from fastvideo_data.preprocessing.run import preprocess
from fastvideo_data.video_files import read_frames
from fastvideo_testing.waiting import wait_until


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """13 clips of 5 frames: 2 with a rest of 3, 1 exactly, 4 (at 32 fps half of the frames), 6; one too short."""
    root = tmp_path / "clips"
    root.mkdir()
    write_clip(root / "a.mp4", 13, caption="a red ball")
    write_clip(root / "b.mp4", 5, caption="a blue ball")
    write_clip(root / "c.mp4", 40, fps=32, caption="a fast ball")
    write_clip(root / "d.mp4", 30, caption="a long ball")
    write_clip(root / "short.mp4", 4, caption="a short ball")
    return root


def rows(folder: Path) -> list[dict]:
    return [row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def test_clips_become_rows_of_the_schema(clips: Path, tmp_path: Path) -> None:
    report = preprocess(FakeEncoder(), clips, tmp_path / "out", OPTIONS)
    stored = rows(tmp_path / "out")
    assert [row["id"] for row in stored] == [
        *("a.mp4#0000", "a.mp4#0001", "b.mp4#0000"),
        *(f"c.mp4#000{i}" for i in range(4)),
        *(f"d.mp4#000{i}" for i in range(6)),
    ]
    row = stored[1]
    assert (row["caption"], row["file_name"], row["media_type"]) == ("a red ball", "a.mp4", "video")
    assert (row["width"], row["height"], row["fps"], row["duration_sec"]) == (16, 16, 16.0, 5 / 16)
    assert row["num_frames"] == 2 == row["vae_latent_shape"][1]  # latent frames
    assert (row["vae_latent_dtype"], row["text_embedding_shape"]) == ("bfloat16", [len("a red ball"), 2])
    assert (report.samples, report.resumed, report.files) == (13, 0, 5)


def test_the_loader_reads_what_preprocess_wrote(clips: Path, tmp_path: Path) -> None:
    preprocess(FakeEncoder(), clips, tmp_path / "out", OPTIONS)
    loader = DataSet(tmp_path / "out").loader(batch_size=13, seed=0)
    batch = next(loader)
    assert batch["vae_latent"].dtype == torch.bfloat16
    at = [info["id"] for info in batch["info"]].index("a.mp4#0001")
    frames = read_frames(clips / "a.mp4", height=16, width=16)[5:10:4]
    assert torch.allclose(
        batch["vae_latent"][at, 0, :, 0, 0].float(), torch.from_numpy(frames).float().mean((1, 2))[:, 0], atol=1
    )


def test_the_report_accounts_for_everything_that_was_skipped(clips: Path, tmp_path: Path, capsys) -> None:
    write_clip(clips / "mute.mp4", 5)
    (clips / "broken.mp4").write_bytes(b"no video")
    (clips / "broken.txt").write_text("broken")
    report = preprocess(FakeEncoder(), clips, tmp_path / "out", OPTIONS)
    reasons = {skip.item: skip.reason for skip in report.skipped}
    assert reasons.keys() == {"mute.mp4", "broken.mp4", "short.mp4"}
    assert reasons["mute.mp4"] == "missing caption"
    assert reasons["broken.mp4"].startswith("unreadable: is no valid video: ")
    assert reasons["short.mp4"] == "too short: 4 frames, but a clip needs 5 (--num-frames)"
    assert report.unused_frames == {"a.mp4": 3}
    stored = json.loads((tmp_path / "out" / "report.json").read_text())
    assert stored["samples"] == 13
    assert stored["skipped"] == [{"item": k, "reason": v} for k, v in reasons.items()]
    printed = capsys.readouterr().out
    assert "13 samples in 5 files" in printed
    assert "1 x too short, e.g. short.mp4" in printed
    assert "unused: 3 frames after the last whole clip of 1 videos" in printed
    again = preprocess(FakeEncoder(), clips, tmp_path / "out", OPTIONS)
    assert (again.skipped, again.unused_frames) == (report.skipped, report.unused_frames)


@pytest.mark.parametrize(
    ("frames", "fps", "reason"),
    [
        (
            8,
            32,
            "4 frames, but a clip needs 5: its 8 frames at 32 fps were resampled to 16 fps; --fps-policy keep takes it",
        ),
        (4, 24, "3 frames, but a clip needs 5: its 4 frames at 24 fps were resampled to 16 fps; lower --num-frames"),
    ],
)
def test_a_video_that_is_too_short_after_resampling_says_so(
    tmp_path: Path, frames: int, fps: float, reason: str
) -> None:
    (tmp_path / "in").mkdir()
    write_clip(tmp_path / "in" / "fast.mp4", frames, fps=fps, caption="fast")
    with pytest.raises(DataError, match=reason):
        preprocess(FakeEncoder(), tmp_path / "in", tmp_path / "out", OPTIONS)
    if "keep" in reason:
        kept = replace(OPTIONS, fps_policy="keep", num_frames=5)
        assert preprocess(FakeEncoder(), tmp_path / "in", tmp_path / "kept", kept).samples == 1


def test_the_first_clip_alone(clips: Path, tmp_path: Path) -> None:
    report = preprocess(FakeEncoder(), clips, tmp_path / "out", replace(OPTIONS, clips="first"))
    assert [row["id"] for row in rows(tmp_path / "out")] == [f"{name}.mp4#0000" for name in "abcd"]
    assert report.unused_frames == {}


def test_the_frame_rate_is_the_models_a_given_one_or_the_files_own(clips: Path, tmp_path: Path) -> None:
    def count(name: str, **changes) -> tuple[int, set[float]]:
        preprocess(FakeEncoder(), clips, tmp_path / name, replace(OPTIONS, **changes))
        stored = [row for row in rows(tmp_path / name) if row["file_name"] == "c.mp4"]
        return len(stored), {row["fps"] for row in stored}

    assert count("model") == (4, {16.0})
    assert count("given", fps=8.0) == (2, {8.0})
    assert count("keep", fps_policy="keep") == (8, {32.0})


def test_calling_again_encodes_nothing_and_new_videos_are_added(clips: Path, tmp_path: Path) -> None:
    preprocess(FakeEncoder(), clips, tmp_path / "out", OPTIONS)
    encoder = FakeEncoder()
    report = preprocess(encoder, clips, tmp_path / "out", OPTIONS)
    assert (report.samples, report.resumed, encoder.videos, encoder.texts) == (13, 13, 0, 0)
    write_clip(clips / "aa.mp4", 5, caption="new")
    report = preprocess(encoder, clips, tmp_path / "out", OPTIONS)
    assert (report.samples, report.resumed, encoder.videos) == (14, 13, 1)


def test_a_captions_embedding_is_not_encoded_again_for_each_clip(clips: Path, tmp_path: Path) -> None:
    encoder = FakeEncoder()
    preprocess(encoder, clips, tmp_path / "out", OPTIONS)
    assert encoder.texts == 4


def test_a_killed_run_goes_on_and_ends_with_the_same_rows(clips: Path, tmp_path: Path) -> None:
    preprocess(FakeEncoder(), clips, tmp_path / "whole", OPTIONS)
    killed = tmp_path / "killed"
    script = [sys.executable, tiny_data.__file__, str(clips), str(killed)]
    with subprocess.Popen(script, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(os.environ)) as process:
        wait_until(lambda: len(list(killed.glob("*.parquet"))) == 2, "two parts of the data set", process)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    (killed / ".part-000009.parquet.partial").write_bytes(b"half a file")
    before = len(rows(killed))
    assert 0 < before < 13
    report = preprocess(FakeEncoder(), clips, killed, OPTIONS)
    assert (report.samples, report.resumed) == (13, before)
    by_id = {row["id"]: row for row in rows(tmp_path / "whole")}
    again = rows(killed)
    assert len(again) == 13
    assert {row["id"]: row for row in again} == by_id
    assert report.unused_frames == {"a.mp4": 3}
    assert not list(killed.glob(".*"))


def test_a_folder_of_other_settings_is_refused(clips: Path, tmp_path: Path) -> None:
    preprocess(FakeEncoder(), clips, tmp_path / "out", OPTIONS)
    with pytest.raises(DataError, match=r"part-000000.parquet: was written with other settings: height was 16, is 24"):
        preprocess(FakeEncoder(), clips, tmp_path / "out", replace(OPTIONS, height=24))
    with pytest.raises(DataError, match=r"encoder was .*'fake'.*, is .*'other'[\s\S]*use another output folder"):
        preprocess(FakeEncoder(model="other"), clips, tmp_path / "out", OPTIONS)
    tiny_data.write_file(tmp_path / "foreign" / "x.parquet", [tiny_data.sample_row(0)])
    with pytest.raises(DataError, match=r"x.parquet: was not written by preprocess"):
        preprocess(FakeEncoder(), clips, tmp_path / "foreign", OPTIONS)


def test_prompts_alone_become_text_only_parquet(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("one\ntwo\n\nthree\n")
    encoder = FakeEncoder()
    report = preprocess(encoder, tmp_path / "prompts.txt", tmp_path / "out", OPTIONS)
    assert (report.samples, encoder.videos) == (3, 0)
    assert [skip.reason for skip in report.skipped] == ["empty prompt"]
    stored = rows(tmp_path / "out")
    assert [(row["id"], row["caption"]) for row in stored] == [
        *(("prompt-000001", "one"), ("prompt-000002", "two"), ("prompt-000004", "three"))
    ]
    assert not any("vae_latent" in name for name in stored[0])
    batch = next(DataSet(tmp_path / "out").loader(batch_size=3, seed=0))
    assert sorted(batch["text_embedding_length"].tolist()) == [3, 3, 5]
    assert preprocess(encoder, tmp_path / "prompts.txt", tmp_path / "out", OPTIONS).resumed == 3


def test_sizes_that_the_model_cannot_encode_come_with_the_nearest_that_it_can(clips: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        preprocess(FakeEncoder(), clips, tmp_path / "out", PreprocessOptions(height=20, width=3, num_frames=16))
    text = str(caught.value)
    assert "height is 20" in text
    assert "use 16 or 24" in text
    assert "width is 3" in text
    assert "use 8" in text
    assert "num_frames is 16" in text
    assert "multiples of 4 plus 1" in text
    assert "use 13 or 17" in text
    assert not (tmp_path / "out").exists()


def test_options_that_contradict_are_refused(clips: Path, tmp_path: Path) -> None:
    wrong = replace(OPTIONS, fps_policy="keep", fps=8.0, batch_size=0, clips="some")  # type: ignore[arg-type]
    with pytest.raises(DataError) as caught:
        preprocess(FakeEncoder(), clips, tmp_path / "out", wrong)
    for text in ("fps is 8 with fps_policy keep", "batch_size is 0", "clips is 'some'", "allowed: first, all"):
        assert text in str(caught.value)


@pytest.mark.parametrize("fps", [float("nan"), float("inf"), 0.0])
def test_frame_rates_that_are_none(clips: Path, tmp_path: Path, fps: float) -> None:
    with pytest.raises(DataError, match=f"fps is {fps:g} with fps_policy resample"):
        preprocess(FakeEncoder(), clips, tmp_path / "out", replace(OPTIONS, fps=fps))


def test_an_output_folder_that_cannot_be_made_fails_before_anything_is_encoded(clips: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    encoder = FakeEncoder()
    with pytest.raises(ConfigError, match="file is a file"):
        preprocess(encoder, clips, tmp_path / "file" / "out", OPTIONS)
    assert (encoder.videos, encoder.texts) == (0, 0)


def test_no_usable_sample_is_an_error_that_says_why(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write_clip(tmp_path / "in" / "short.mp4", 3, caption="short")
    with pytest.raises(DataError, match=r"not one usable sample: short.mp4: too short: 3 frames"):
        preprocess(FakeEncoder(), tmp_path / "in", tmp_path / "out", OPTIONS)
    assert json.loads((tmp_path / "out" / "report.json").read_text())["samples"] == 0


def test_a_full_disk_is_one_message_and_the_next_call_goes_on(clips: Path, tmp_path: Path, monkeypatch) -> None:
    preprocess(FakeEncoder(), clips, tmp_path / "whole", OPTIONS)
    size = (tmp_path / "whole" / "part-000000.parquet").stat().st_size
    with monkeypatch.context() as disk:
        small_disk(disk, size * 5 // 2)
        with pytest.raises(DataWriteError) as caught:
            preprocess(FakeEncoder(), clips, tmp_path / "out", OPTIONS)
    message = str(caught.value)
    assert message.startswith(
        f"{tmp_path / 'out'}: cannot be written: No space left on device; 6 samples in 2 files are whole"
    )
    assert "free space" in message
    assert "give the same command again" in message
    assert caught.value.exit_code == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["part-000000.parquet", "part-000001.parquet"]
    report = preprocess(FakeEncoder(), clips, tmp_path / "out", OPTIONS)
    assert (report.samples, report.resumed) == (13, 6)
    assert rows(tmp_path / "out") == rows(tmp_path / "whole")


def test_a_disk_that_is_full_for_the_report_leaves_the_earlier_one(clips: Path, tmp_path: Path, monkeypatch) -> None:
    preprocess(FakeEncoder(), clips, tmp_path / "out", OPTIONS)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(DataWriteError, match="No space left on device; 13 samples in 5 files are whole"):
        preprocess(FakeEncoder(), clips, tmp_path / "out", OPTIONS)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_what_clips_lose_of_their_picture_is_in_the_report(clips: Path, tmp_path: Path, capsys) -> None:
    write_clip(clips / "wide.mp4", 5, size=(16, 64), caption="a wide ball")
    write_clip(clips / "small.mp4", 10, size=(8, 12), caption="a small ball")
    report = preprocess(FakeEncoder(), clips, tmp_path / "out", OPTIONS)
    assert [(noted.item, noted.note) for noted in report.noted] == [
        ("small.mp4", "enlarged: 2.0 times, from 12 x 8 pixels"),
        ("wide.mp4", "cropped: 25% of the picture are left"),
    ]
    stored = json.loads((tmp_path / "out" / "report.json").read_text())
    assert stored["notes"] == {"enlarged": 1, "cropped": 1}
    assert stored["noted"][0] == {"item": "small.mp4", "note": "enlarged: 2.0 times, from 12 x 8 pixels"}
    assert "  1 x cropped, e.g. wide.mp4" in capsys.readouterr().out
    assert preprocess(FakeEncoder(), clips, tmp_path / "out", OPTIONS).noted == report.noted


class ShortSighted(FakeEncoder):
    """Reads ten characters of a caption."""

    def encode_texts(self, captions):
        return super().encode_texts([caption[:10] for caption in captions])

    def caption_cut(self, caption: str) -> CaptionCut | None:
        return CaptionCut(len(caption), 10) if len(caption) > 10 else None


def test_captions_that_are_cut_are_counted(clips: Path, tmp_path: Path, capsys) -> None:
    report = preprocess(ShortSighted(), clips, tmp_path / "out", OPTIONS)
    assert [noted.item for noted in report.noted] == ["b.mp4", "c.mp4", "d.mp4"]
    assert report.noted[0].note == "caption cut at 10 tokens: it has 11"
    stored = json.loads((tmp_path / "out" / "report.json").read_text())
    assert stored["notes"] == {"caption cut at 10 tokens": 3}
    assert "  3 x caption cut at 10 tokens, e.g. b.mp4" in capsys.readouterr().out
    assert preprocess(ShortSighted(), clips, tmp_path / "out", OPTIONS).noted == report.noted
    (tmp_path / "prompts.txt").write_text("short\nnot so short\n")
    report = preprocess(ShortSighted(), tmp_path / "prompts.txt", tmp_path / "text", OPTIONS)
    assert [noted.item for noted in report.noted] == ["prompt-000002"]


def test_each_kind_of_latents_is_stored_with_its_own_normalisation(clips: Path, tmp_path: Path) -> None:
    class WithFirstFrame(FakeEncoder):
        def describe(self) -> dict[str, str]:
            return {**super().describe(), "first_frame_latent_normalised": "true"}

        def encode_videos(self, frames: torch.Tensor) -> list[dict[str, torch.Tensor]]:
            made = super().encode_videos(frames)
            return [{**one, "first_frame_latent": one["vae_latent"][:, :1].contiguous()} for one in made]

    preprocess(WithFirstFrame(), clips, tmp_path / "out", OPTIONS)
    data = DataSet(tmp_path / "out")
    batch = next(data.loader(batch_size=1, seed=0))
    assert (batch["vae_latent_normalised"], batch["first_frame_latent_normalised"]) == (False, True)
    assert data.unsaid_normalisation is None
