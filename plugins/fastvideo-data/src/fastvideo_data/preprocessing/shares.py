"""`preprocess` by several processes at once: each encodes its share of a source into part files of its own."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from fastvideo_core.launch.stdio import say
from fastvideo_data.encoder import LatentEncoder
from fastvideo_data.preprocessing.account import PreprocessReport
from fastvideo_data.preprocessing.clips import PreprocessOptions
from fastvideo_data.preprocessing.part_files import PartFiles, writing
from fastvideo_data.preprocessing.renewal import renew
from fastvideo_data.preprocessing.run import encode_items, find_source, open_parts, tell
from fastvideo_data.preprocessing.share_account import (
    Share,
    ShareAccount,
    accounts_of_all,
    unfinished,
)


def prepare_shares(
    encoder: LatentEncoder, source: str | Path, output_dir: str | Path, options: PreprocessOptions, share: Share
) -> None:
    """Brings what is stored in line with its source, while no process of the call encodes yet; see `preprocess`.

    Args:
        share: in whose account the changes go.
    """
    found = find_source(source, output_dir, options)
    parts = open_parts(encoder, found, output_dir, options)
    changed = renew(parts, found, encoder, prune=options.prune)
    _write(ShareAccount(changed=changed), parts, share)


def preprocess_share(
    encoder: LatentEncoder,
    source: str | Path,
    output_dir: str | Path,
    options: PreprocessOptions,
    share: Share,
    *,
    shows: bool = True,
) -> None:
    """Encodes what is not there yet of one share; see `preprocess`.

    Args:
        shows: whether to show the progress.
    """
    started = time.monotonic()
    found = find_source(source, output_dir, options)
    parts = open_parts(encoder, found, output_dir, options, share=share.name)
    resumed = sum(share.takes(item) for item, _ in parts.captions())
    earlier = ShareAccount.read(parts.path, share)
    account = ShareAccount(changed=() if earlier.finished else earlier.changed, resumed=resumed)
    _write(account, parts, share)
    items = [item for item in found.items if share.takes(item.id)]
    skipped = tuple(encode_items(encoder, found, items, parts, options, shows=shows))
    account = replace(account, finished=True, skipped=skipped, seconds=time.monotonic() - started)
    _write(account, parts, share)


def merge_shares(
    encoder: LatentEncoder, source: str | Path, output_dir: str | Path, options: PreprocessOptions, count: int
) -> PreprocessReport | None:
    """Reports of all shares as of one call; says how many are missing, and gives None, where some did not end yet.

    Raises:
        DataError: all shares together have not one sample.
    """
    accounts = accounts_of_all(Path(output_dir), count)
    if missing := unfinished(accounts):
        say(f"{count - missing} of {count} shares are done; the last one writes report.json", flush=True)
        return None
    found = find_source(source, output_dir, options)
    return tell(
        found,
        open_parts(encoder, found, output_dir, options, share="all"),
        skipped=[one for account in accounts for one in account.skipped],
        changed=[one for account in accounts for one in account.changed],
        resumed=sum(account.resumed for account in accounts),
        seconds=max(account.seconds for account in accounts),
    )


def _write(account: ShareAccount, parts: PartFiles, share: Share) -> None:
    with writing(parts.path, parts.samples, parts.files):
        account.write(parts.path, share)
