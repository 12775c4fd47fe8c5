"""Whether a data set can be written where it is wanted."""

from __future__ import annotations

import os
from pathlib import Path

from fastvideo_core.config.output_folder import check_writable_folder
from fastvideo_core.errors import ConfigError, Problem


def check_data_output(path: str | Path, *sources: str | Path) -> None:
    """Fails for a data set's folder that is a folder of its raw samples or holds one, or that cannot be written.

    Whoever throws such a data set away throws the samples away. A folder inside that of the samples is fine: what it
    holds is no raw sample.

    Raises:
        ConfigError: as said.
    """
    output = Path(os.path.realpath(path))
    for source in sources:
        raw = Path(os.path.realpath(source))
        if os.path.isfile(raw):
            raw = raw.parent
        if raw.is_relative_to(output) and os.path.isdir(raw):
            found = f"{'is the folder of' if raw == output else 'holds'} the raw samples ({source})"
            raise ConfigError(Problem(found, str(path), fix=f"name a folder of its own, such as {raw / 'encoded'}"))
    check_writable_folder(path)
