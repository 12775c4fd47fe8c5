"""Links from a page to a file or folder of the repository that is no page: the site shows their text, GitHub follows them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

LINK = re.compile(r"\[(?P<text>[^]]+)\]\((?P<target>\.\./[^)#:]+)\)")


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("source-read", _show_text)
    return {"parallel_read_safe": True}


def _show_text(app: Sphinx, name: str, content: list[str]) -> None:
    source = Path(app.srcdir).resolve()
    page = Path(app.env.doc2path(name))

    def text_of(link: re.Match[str]) -> str:
        target = (page.parent / link["target"]).resolve()
        outside = target.exists() and not target.is_relative_to(source)
        return link["text"] if outside else link[0]  # what leads nowhere stays, for Sphinx to complain of

    content[0] = LINK.sub(text_of, content[0])
