"""A plug-in of pytest for `nox -s isolated`: few tests of each file, which between them call what a package depends on.

The default suite has every test. What an environment with one package alone lacks shows when modules are imported and when
libraries look for others, however many numbers are then compared: of every class and file the first tests are kept, in one
case each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable

import pytest

FIRST = 3


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--in-full TEXT`, as often as one likes: every test whose id contains it is kept."""
    parser.addoption("--in-full", action="append", default=[], metavar="TEXT")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselects the others, after `-m` and `-k` have chosen."""
    counts: Counter[Hashable] = Counter()
    functions: set[Hashable] = set()
    kept, left = [], []
    for item in items:
        function = (item.parent, getattr(item, "originalname", item.name))
        whole = any(text in item.nodeid for text in config.getoption("in_full"))
        if whole or (function not in functions and counts[item.parent] < FIRST):
            functions.add(function)
            counts[item.parent] += 1
            kept.append(item)
        else:
            left.append(item)
    config.hook.pytest_deselected(items=left)
    items[:] = kept
