"""A planted fault: what an author gets wrong in a plug-in, and the checks of the kit that must say so."""

from __future__ import annotations

from dataclasses import dataclass

Change = tuple[str, str, str]
"""(file's name, the text that stands in it exactly once, what replaces it)"""

METHOD, FAMILY, CALLBACK = "scaffold/method", "scaffold/model", "scaffold/callback"
DIFFUSERS_FAMILY = "scaffold/diffusers-model"
"""What `fastvideo-distill new-plugin mine --kind ...` writes: the package fastvideo_mine with the plug-in `mine`."""
DMD2, FINETUNE, VELOCITY = "plugins/fastvideo-dmd2", "plugins/fastvideo-finetune", "examples/fastvideo-velocity"
MOCHI, DEADLINE = "examples/fastvideo-mochi", "examples/fastvideo-deadline"
BASES = "tests/kit_faults/bases"
AVERAGED = f"{BASES}/averaged"
"""A method with all that a method can have: a role of its own that it averages, state, a schedule, guidance by two calls."""


@dataclass(frozen=True)
class Fault:
    """One planted fault; its file's docstring says what is wrong, in a line.

    Args:
        base: the project that it is planted in: one that a scaffold writes, or a folder of the repository with `src`,
            `pyproject.toml` and `tests/test_conformance*.py`.
        changes: the fault.
        checks: names of the base's tests; each of them fails with the fault, and passes without it.
        says: a regular expression that is found in the message of every one: the usual cause.
        setup: changes that are no fault and are made in both, such as another `config` of the suite.
        escapes: why no check can catch it, in the words of docs/authors/conformance-kit.md; then there are no checks.
    """

    base: str
    changes: tuple[Change, ...] = ()
    checks: tuple[str, ...] = ()
    says: str = ""
    setup: tuple[Change, ...] = ()
    escapes: str = ""
