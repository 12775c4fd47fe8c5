"""The mistakes of tests/mutations and tests/kit_faults can still be planted: who changes the code brings them up to date."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest

from tests.kit_faults.run_kit_faults import all_faults, write_base
from tests.mutations.run_mutations import MUTATIONS, ROOT


def stale(text: str, replaced: Iterable[tuple[str, str]]) -> list[str]:
    """Of (old, new) replaced one after the other in a text: the old ones that do not stand in it exactly once."""
    found = []
    for old, new in replaced:
        if text.count(old) != 1:
            found.append(old)
        text = text.replace(old, new)
    return found


def test_each_mutation_s_text_stands_once_in_its_file() -> None:
    texts = cache(lambda file: (ROOT / file).read_text(encoding="utf-8"))
    assert [m.name for m in MUTATIONS if stale(texts(m.file), [(m.old, m.new)])] == []
    assert {test for m in MUTATIONS for test in m.tests if not (ROOT / test.partition("::")[0]).is_file()} == set()


def test_each_kit_fault_s_texts_stand_once_in_its_base(tmp_path_factory: pytest.TempPathFactory) -> None:
    @cache
    def base(name: str) -> Path:
        folder = tmp_path_factory.mktemp("base")
        write_base(name, folder)
        return folder

    found = []
    for planted in all_faults():
        changes = planted.fault.setup + planted.fault.changes
        for name in dict.fromkeys(file for file, _, _ in changes):
            files = list(base(planted.fault.base).rglob(name))
            text = files[0].read_text(encoding="utf-8") if len(files) == 1 else ""
            found += [
                (planted.name, old) for old in stale(text, [change[1:] for change in changes if change[0] == name])
            ]
    assert found == []
