"""How a plug-in or an option is marked that will go; imports no pydantic."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Deprecated:
    """Marks what will go: a plug-in (`deprecated=` of its spec or registration) or an option (Annotated[int, Deprecated(...)]).

    It is so `since` a version of its package; `use` says what to take instead.
    """

    since: str
    use: str

    def __str__(self) -> str:
        return f"deprecated since {self.since}: use {self.use}"

    def __get_pydantic_json_schema__(
        self, core_schema: Any, handler: Callable[[Any], dict[str, Any]]
    ) -> dict[str, Any]:
        return {**handler(core_schema), "deprecated": True}  # editors strike the option out
