"""Files that would run code if they were loaded as anybody would load them: nothing of it runs here."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from fastvideo_core.errors import UserError
from tests.fuzz.kinds import KINDS, Ground, Kind

MARK = "it-ran"


class Payload:
    """Touches the mark when it is unpickled."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path(MARK),)


TAGS = (
    "!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path [{mark}]]",
    "!!python/object/apply:os.system ['touch {mark}']",
    "!!python/object/new:os.system ['touch {mark}']",
    "!!python/name:os.system",
    "!!python/module:os",
)


@pytest.fixture
def made(ground: Ground, tmp_path: Path) -> Callable[[str], tuple[Kind, Path]]:
    def make(name: str) -> tuple[Kind, Path]:
        (tmp_path / "whole").mkdir()
        kind = KINDS[name](ground, tmp_path / "whole")
        shutil.copytree(kind.folder, tmp_path / "copy")
        return kind, tmp_path / "copy"

    return make


def check_nothing_ran(kind: Kind, copy: Path) -> None:
    """Reads all that the kind reads of the copy."""
    for file, _ in kind.targets():
        with suppress(UserError):
            kind.read(copy, file)
    assert not Path(MARK).exists()


def test_the_payloads_work_where_they_are_loaded_carelessly():
    pickle.loads(pickle.dumps(Payload()))
    assert Path(MARK).exists()
    Path(MARK).unlink()
    yaml.unsafe_load(TAGS[1].format(mark=MARK))
    assert Path(MARK).exists()


@pytest.mark.parametrize("tag", TAGS)
def test_tags_of_yaml_run_nothing(made, tag):
    kind, copy = made("run_yaml")
    for file in copy.glob("*.yaml"):
        text = file.read_text().replace("family: wan", "family: " + tag.format(mark=MARK))
        file.write_text(text + f"extra: {tag.format(mark=MARK)}\n")
    check_nothing_ran(kind, copy)


def test_pickled_weights_of_a_pipeline_are_never_loaded(made):
    kind, copy = made("pipeline")
    names = ("diffusion_pytorch_model.bin", "pytorch_model.bin", "model.pt", "pytorch_model.bin.index.json")
    for weights in copy.glob("*/*.safetensors"):
        for name in names:
            torch.save(Payload(), weights.with_name(name))
    check_nothing_ran(kind, copy)
    for weights in copy.glob("*/*.safetensors"):
        weights.write_bytes(pickle.dumps(Payload()))
    check_nothing_ran(kind, copy)
    for weights in copy.glob("*/*.safetensors"):
        weights.unlink()
    check_nothing_ran(kind, copy)


def test_modules_that_a_pipeline_brings_are_never_imported(made):
    kind, copy = made("pipeline")
    code = f"import pathlib\npathlib.Path({str(Path(MARK).absolute())!r}).touch()\nclass Evil: ...\n"
    for folder in (copy, *[part for part in copy.iterdir() if part.is_dir()]):
        for name in ("evil.py", "pipeline.py", "modeling_evil.py", "tokenization_evil.py"):
            (folder / name).write_text(code)
    for file in copy.glob("*/*config.json"):
        config = json.loads(file.read_text())
        classes = {"AutoTokenizer": ["evil.Evil", "evil.Evil"], "AutoModel": "evil.Evil", "AutoConfig": "evil.Evil"}
        config |= {"auto_map": classes, "trust_remote_code": True}
        if file.name == "tokenizer_config.json":
            config["tokenizer_class"] = "Evil"
        file.write_text(json.dumps(config))
    check_nothing_ran(kind, copy)
    index = json.loads((copy / "model_index.json").read_text())
    (copy / "model_index.json").write_text(
        json.dumps(index | {"_class_name": ["pipeline", "Evil"], "vae": ["evil", "Evil"]})
    )
    check_nothing_ran(kind, copy)


def test_pickles_in_a_checkpoint_run_nothing(made):
    kind, copy = made("checkpoint")
    for file in copy.glob("checkpoint-*/**/*"):
        if file.is_file():
            whole = file.read_bytes()
            file.write_bytes(pickle.dumps(Payload()))
            check_nothing_ran(kind, copy)
            file.write_bytes(whole)


def test_pickles_in_a_data_set_run_nothing(made):
    kind, copy = made("parquet")
    (file,) = copy.glob("*.parquet")
    table = pq.read_table(file)
    evil = pickle.dumps(Payload())
    for name in table.column_names:
        values = [evil] * len(table) if name.endswith("_bytes") else ["object"] * len(table)
        if name.endswith(("_bytes", "_dtype")):
            table = table.set_column(table.column_names.index(name), name, pa.array(values))
    pq.write_table(table.replace_schema_metadata({"fastvideo": evil, "encoder": evil}), file)
    check_nothing_ran(kind, copy)
    file.write_bytes(evil)
    check_nothing_ran(kind, copy)
