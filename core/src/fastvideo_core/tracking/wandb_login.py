"""Whether Weights & Biases can be logged to, told without importing it; keys are neither shown nor kept."""

import configparser
import netrc
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlparse

HOST = "api.wandb.ai"
FIX = "run `wandb login`, or set WANDB_API_KEY, or WANDB_MODE=offline"
"""What to do where there is none."""


def wandb_login(environment: Mapping[str, str] = os.environ, home: Path | None = None) -> tuple[bool, str]:
    """Whether wandb would find a login, and where: a mode without one, the environment, its settings files, the netrc file."""
    home, files = home or Path.home(), configparser.ConfigParser(interpolation=None, default_section="default")
    with suppress(configparser.Error, UnicodeDecodeError, OSError):
        # What `wandb login`, `wandb offline` and the like have written: the user's file, then the working directory's.
        files.read([home / ".config" / "wandb" / "settings", Path("wandb") / "settings"], encoding="utf-8")
    settings = files.defaults()
    if (mode := environment.get("WANDB_MODE") or settings.get("mode", "")) in ("offline", "disabled", "dryrun"):
        return True, f"WANDB_MODE={mode}: nothing is sent"
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"):
        if environment.get(name):
            return True, f"logged in by {name}"
    if settings.get("api_key"):
        return True, "logged in by wandb's settings file"
    host = urlparse(environment.get("WANDB_BASE_URL") or settings.get("base_url", "")).hostname or HOST
    file = Path(environment.get("NETRC") or home / ".netrc").expanduser()
    try:
        known = file.is_file() and netrc.netrc(str(file)).authenticators(host) is not None
    except (OSError, ValueError, netrc.NetrcParseError):
        return False, f"{file} cannot be read as a netrc file"
    return known, f"logged in to {host} by {file}" if known else f"not logged in to {host}"
