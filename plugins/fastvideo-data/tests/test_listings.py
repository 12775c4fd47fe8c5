r"""Rows of files that list samples: what is damaged is told with its place and costs no other row, or is one message."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from test_sources import captions, problems, videos

from fastvideo_core.errors import DataError
from fastvideo_data.preprocessing.raw_videos import Source, discover

NO_NEWLINES = "\u2028\u2029\u0085\v\f\x1c"


def listed(tmp_path: Path, name: str, content: str | bytes) -> Source:
    videos(tmp_path, "a.mp4", "b.mp4")
    (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return discover(tmp_path / name)


def error(tmp_path: Path, name: str, content: str | bytes) -> str:
    with pytest.raises(DataError) as caught:
        listed(tmp_path, name, content)
    return str(caught.value)


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("char", NO_NEWLINES)
def test_only_newlines_end_a_line_of_csv_and_text(tmp_path: Path, char: str, newline: str) -> None:
    caption = f"a cat{char}walks"
    rows = newline.join(["video,caption", f"a.mp4,{caption}", "b.mp4,b", ""])
    assert captions(listed(tmp_path, "metadata.csv", rows)) == {"a.mp4": caption, "b.mp4": "b"}
    prompts = listed(tmp_path, "p.txt", newline.join([caption, "b"]))
    assert captions(prompts) == {"prompt-000001": caption, "prompt-000002": "b"}


@pytest.mark.parametrize("char", NO_NEWLINES[:3])
def test_only_a_line_feed_ends_a_line_of_jsonl(tmp_path: Path, char: str) -> None:
    rows = [{"video": "a.mp4", "caption": f"a cat{char}walks"}, {"video": "b.mp4", "caption": "b"}]
    text = "\r\n".join(json.dumps(row, ensure_ascii=False).replace(", ", ",\r") for row in rows)
    expected = {"a.mp4": f"a cat{char}walks", "b.mp4": "b"}
    assert captions(listed(tmp_path, "metadata.jsonl", text)) == expected


def test_a_caption_with_unquoted_commas_is_skipped_never_shortened(tmp_path: Path) -> None:
    rows = 'video,caption\na.mp4,a cat, at night\nb.mp4, "a dog, at night"\n'
    source = listed(tmp_path, "metadata.csv", rows)
    assert captions(source) == {"b.mp4": "a dog, at night"}
    assert problems(source) == {
        "metadata.csv, line 2": "more fields than the header has: 3, not 2; put the caption in double quotes",
        "a.mp4": "not listed in a readable row of metadata.csv",
    }


@pytest.mark.parametrize(
    ("header", "row", "others", "filled"),
    [
        ("video,caption,fps", "a.mp4,a cat, at night", "", "fps is 'at night'"),
        ("video,caption,fps", "a.mp4,a cat,at night", "", "fps is 'at night'"),
        ("video;caption;fps", "a.mp4;a cat; at night", "b.mp4;a dog, too;25", "fps is 'at night'"),
        ("caption,fps,video", "a cat, at night,a.mp4", "", "fps is 'at night'"),
        ("video,caption,score", "a.mp4,a cat,at night", "b.mp4,b,0.5\nb.mp4,c,.7\nb.mp4,d,N/A", "score is 'at night'"),
        ("video,caption,split", "a.mp4,a cat, at night", "b.mp4,b,train", "split is 'at night'"),
        ("video,caption,split,n", "a.mp4,a cat, at night, in rain", "", "split is 'at night'"),
        ("video, caption, split", "a.mp4,a cat, at night", "b.mp4, b, train", "split is 'at night'"),
    ],
)
def test_a_caption_that_goes_on_in_columns_left_out_is_skipped(
    tmp_path: Path, header: str, row: str, others: str, filled: str
) -> None:
    source = listed(tmp_path, "m.csv", "\n".join([header, row, others]))
    assert "a.mp4" not in captions(source)
    expected = f"the caption seems to go on in another column: {filled}; put the caption in double quotes"
    assert problems(source)["m.csv, line 2"] == expected


@pytest.mark.parametrize(
    ("header", "row", "others"),
    [
        ("video,caption,fps", "a.mp4,a cat,24000/1001", "b.mp4,b,n/a\nb.mp4,c"),
        ("video,caption,split", "a.mp4, a cat, train", "b.mp4, b, test"),
        ("video,caption,split", 'a.mp4,"a cat", train', ""),
        ("video,caption,tag", "a.mp4,a cat,red", "b.mp4,b,7"),
        ("video,caption,md5", "a.mp4,a cat,a3f0", "b.mp4,b,0a3f\nb.mp4,c,3300\nb.mp4,d,1b"),
        ("video,caption,style", "a.mp4,a cat,anime", "b.mp4,b,none\nb.mp4,c,none"),
        ("video,caption,a,b", "a.mp4,a cat,it is a cat, big", ""),
    ],
)
def test_other_columns_may_hold_what_they_like(tmp_path: Path, header: str, row: str, others: str) -> None:
    source = listed(tmp_path, "m.csv", "\n".join([header, row, others]))
    assert captions(source)["a.mp4"] == "a cat"
    assert problems(source).keys() <= {"b.mp4"}


def test_rows_that_are_too_long_under_a_header_that_names_nothing(tmp_path: Path) -> None:
    assert "no row names a video; the keys are clip, words" in error(
        tmp_path, "m.csv", "clip,words\na.mp4,a cat, at night"
    )


def test_quotes_that_do_not_match_cost_their_own_rows(tmp_path: Path) -> None:
    rows = 'video,caption\na.mp4,"she says "hello" there"\na.mp4,"two\nlines"x\nb.mp4,b\n'
    source = listed(tmp_path, "metadata.csv", rows)
    assert captions(source) == {"b.mp4": "b"}
    assert [problem.item for problem in source.problems[:2]] == ["metadata.csv, line 2", "metadata.csv, lines 3 to 4"]
    assert source.problems[0].reason.startswith("is no valid row: ")


def test_a_quote_that_is_never_closed_is_one_message(tmp_path: Path) -> None:
    text = 'video,caption\nb.mp4,b\na.mp4,"a cat\n' + "b.mp4,b\n" * 3
    assert "m.csv, line 3: a double quote that is opened here is never closed" in error(tmp_path, "m.csv", text)
    assert "m.csv, line 3: a field of more than" in error(tmp_path, "m.csv", text + "b.mp4,b\n" * 20_000)
    assert csv.field_size_limit() == 128 << 10  # of the whole process: not ours to change


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_other_delimiters_are_told_by_the_header(tmp_path: Path, delimiter: str) -> None:
    rows = ["\ufeffvideo|caption|n", "a.mp4|a cat, at night, in rain|1", 'b.mp4|"a | dog, too"|2']
    text = "\n".join(rows).replace("|", delimiter)
    for name in ("m.csv", "metadata.tsv"):
        assert captions(listed(tmp_path, name, text)) == {
            "a.mp4": "a cat, at night, in rain",
            "b.mp4": f"a {delimiter} dog, too",
        }
    assert captions(discover(tmp_path)).keys() == {"a.mp4", "b.mp4"}


def test_a_column_that_is_there_twice_is_an_error(tmp_path: Path) -> None:
    found = error(tmp_path, "m.csv", "\nvideo,caption,caption\na.mp4,a,b\n")
    assert "m.csv, line 2: two columns have the name caption" in found


def test_a_number_without_end_is_no_reason_to_lose_a_list(tmp_path: Path) -> None:
    text = '[{"video": "a.mp4", "caption": "a", "n": %s}, {"video": "b.mp4", "caption": 7}]' % ("9" * 5000)
    source = listed(tmp_path, "m.json", text)
    assert captions(source) == {"a.mp4": "a"}
    assert problems(source) == {"b.mp4": "the caption is no text but int"}


def test_lines_that_cannot_be_read_cost_no_other_line(tmp_path: Path) -> None:
    good = b'{"video": "a.mp4", "caption": "a", "n": %s}\n' % (b"9" * 5000)
    bad = [b"{oops", b"[1]", b"[" * 100_000, b'{"video": "b.mp4", "caption": "caf\xe9"}', b'{"video": "b.mp4"}']
    source = listed(tmp_path, "m.jsonl", good + b"\n".join(bad))
    assert captions(source) == {"a.mp4": "a"}
    reasons = problems(source)
    assert "is no valid JSON: Expecting property name" in reasons["m.jsonl, line 2"]
    assert reasons["m.jsonl, line 3"] == "is no JSON object: it is a list"
    assert reasons["m.jsonl, line 4"] == "is no valid JSON: it is nested too deeply"
    assert [problem.reason for problem in source.problems if problem.item == "b.mp4"] == [
        "the caption is not UTF-8 text: the byte 0xe9 at position 3",
        "missing caption",
    ]


@pytest.mark.parametrize("name", ["a\0b.mp4", "x" * 5000 + ".mp4", "\ud800.mp4", "a.mp4/b.mp4"])
def test_names_that_no_file_can_have_are_missing_files(tmp_path: Path, name: str) -> None:
    rows = [{"video": name, "caption": "x"}, {"video": "b.mp4", "caption": "b"}]
    source = listed(tmp_path, "m.json", json.dumps(rows))
    assert captions(source) == {"b.mp4": "b"}
    (place,) = [problem.item for problem in source.problems if problem.reason == "the video file is missing"]
    assert "m.json, entry 0" in place
    assert place.isprintable()


@pytest.mark.parametrize("caption", ["bad \ud800 surrogate", "nul \0 byte"])
def test_captions_that_cannot_be_stored_are_found_before_anything_is_encoded(tmp_path: Path, caption: str) -> None:
    source = listed(tmp_path, "m.json", json.dumps([{"video": "a.mp4", "caption": caption}]))
    assert captions(source) == {}
    assert problems(source)["a.mp4"].startswith("the caption ")


def test_a_caption_in_another_encoding_costs_no_other_entry(tmp_path: Path) -> None:
    rows = b'[{"video": "a.mp4", "cap": ["caf\xe9", "a"]}, {"video": "b.mp4", "cap": []}]'
    source = listed(tmp_path, "videos2caption.json", rows)
    assert captions(source) == {"a.mp4": "a"}
    assert problems(source) == {
        "a.mp4": "the caption is not UTF-8 text: the byte 0xe9 at position 3",
        "b.mp4": "missing caption",
    }


def fastvideo(tmp_path: Path) -> list[dict]:
    """Writes a data set as FastVideo lays it out, and returns its listing."""
    videos(tmp_path, "videos/0.mp4", "videos/sub/1.mp4", "videos/2.mp4")
    about = {"resolution": {"width": 64, "height": 32}, "size": 5, "fps": 16.0, "duration": 1.0, "num_frames": 16}
    rows = [
        {"path": "0.mp4", **about, "cap": ["a ball falls"]},
        {"path": "sub/1.mp4", **about, "cap": "a ball rises"},
        {"path": "2.mp4", **about, "cap": ["one text", "another"]},
    ]
    (tmp_path / "videos.txt").write_text("videos/0.mp4\nvideos/sub/1.mp4\n")
    (tmp_path / "prompt.txt").write_text("a ball falls\na ball rises\n")
    return rows


FASTVIDEO = {
    "videos/0.mp4": "a ball falls",
    "videos/sub/1.mp4": "a ball rises",
    "videos/2.mp4": "one text",
    "videos/2.mp4~2": "another",
}


def test_fastvideos_videos2caption_is_read(tmp_path: Path) -> None:
    rows = fastvideo(tmp_path)
    (tmp_path / "videos2caption.json").write_text(json.dumps(rows))
    for path in (tmp_path, tmp_path / "videos2caption.json"):
        assert captions(discover(path)) == FASTVIDEO
        assert problems(discover(path)) == {}


def test_fastvideos_merge_file_names_the_listing_and_the_folder(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "notes.json").write_text(json.dumps(fastvideo(tmp_path / "data")))
    merge = tmp_path / "data" / "merge.txt"
    merge.write_text("videos,notes.json\n")
    assert captions(discover(merge)) == captions(discover(tmp_path / "data")) == FASTVIDEO
    merge.write_text("data/videos,data/notes.json\n")
    with pytest.raises(DataError, match=r"merge.txt: names data/notes.json, which is not there"):
        discover(merge)
    monkeypatch.chdir(tmp_path)
    assert list(captions(discover(merge)).values()) == list(FASTVIDEO.values())


def test_fastvideos_two_lists_of_lines(tmp_path: Path) -> None:
    fastvideo(tmp_path)
    assert captions(discover(tmp_path)) == {"videos/0.mp4": "a ball falls", "videos/sub/1.mp4": "a ball rises"}
