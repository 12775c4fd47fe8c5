"""Text and data as others may see them: no control characters for a terminal, no secrets for whoever reads a log."""

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "***"

_NOT_PRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_WORD_BREAK = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+")
_SECRET_NAME = re.compile(
    r"(^|_)(secrets?|passw(or)?ds?|passwd|passphrase|pwd|credentials?|auth|authorization|bearer|jwt|cookies?"
    r"|(api|access|auth|id|refresh|session|bot|hub|hf)_tokens|token"
    r"|(api|access|secret|private|signing|encryption|ssh|account|auth)_?keys?(_?id)?)_?\d*$"
    r"|(^|_)(secret|password|private_key|secret_key)_"
)
_PARAMETER = r"([?&;#][\w.-]*(?:token|key|secret|passw(?:or)?d|signature|credential|auth|sig)=)[^\s&;#'\"]+"
_VARIABLE = r"\b((?:[A-Z0-9]+_)*(?:(?:API|ACCESS|SECRET|PRIVATE)_?KEY|TOKEN|SECRET|PASSWORD)=)[^\s'\"]+"
_KNOWN_FORM = r"\b(?:(?:AKIA|ASIA)[0-9A-Z]{16}\b|hf_[A-Za-z0-9]{30,}|gh[pousr]_[A-Za-z0-9]{30,}|sk-[A-Za-z0-9-]{20,})"
_IN_TEXT = (
    (re.compile(r"(\b[a-zA-Z][\w+.-]*://)[^\s/?#'\"]+@"), rf"\1{HIDDEN}@"),
    (re.compile(_PARAMETER, re.IGNORECASE), rf"\1{HIDDEN}"),
    (re.compile(r"\b((?:Bearer|Basic)\s+)[\w.~+/=-]{8,}", re.IGNORECASE), rf"\1{HIDDEN}"),
    (re.compile(_VARIABLE), rf"\1{HIDDEN}"),
    (re.compile(_KNOWN_FORM), HIDDEN),
)


def printable(text: object) -> str:
    """Text as a terminal or a log may get it.

    What would move the cursor, colour it, turn the direction of writing or be no character at all is an escape (`\\x1b`); new
    lines and tabs stay. Passwords and tokens of URLs, and keys that are known by their form, are hidden.
    """
    escaped = _NOT_PRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), str(text))
    return _hide(escaped)


def without_secrets(value: Any) -> Any:
    """Plain data with what a secret-sounding key names, and what `printable` hides in texts, replaced."""
    if isinstance(value, Mapping):
        return {
            key: HIDDEN if item is not None and is_secret(str(key)) else without_secrets(item)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [without_secrets(item) for item in value]
    return _hide(value) if isinstance(value, str) else value


def is_secret(name: str) -> bool:
    """Whether a key of this name, however it is spelt (api-key, apiKey, API_KEY), holds a secret."""
    return _SECRET_NAME.search(_WORD_BREAK.sub("_", name).lower()) is not None


def _hide(text: str) -> str:
    for pattern, replacement in _IN_TEXT:
        text = pattern.sub(replacement, text)
    return text
