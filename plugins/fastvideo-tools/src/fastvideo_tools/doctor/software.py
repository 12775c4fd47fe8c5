"""Python, the installed distributions, and the plug-ins."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from importlib_metadata import PackageNotFoundError, distribution, distributions
from packaging.version import Version

from fastvideo_core.registry import PluginRegistry
from fastvideo_core.registry.discovery import pip_command, unmet_of
from fastvideo_tools.doctor.findings import Finding

OLDEST_PYTHON = (3, 10)


@dataclass(frozen=True)
class BadCombination:
    """Distributions that install side by side and do not work together.

    Attributes:
        versions: distribution -> versions of it that are concerned.
    """

    versions: Mapping[str, str]
    trouble: str
    fix: str


NEIGHBOURS = ("torchvision", "torchaudio", "diffusers", "transformers", "accelerate", "peft", "xformers", "flash-attn")
"""Looked at where they are installed: one that was built for another torch breaks the import of the others."""

KNOWN_BAD = (
    BadCombination(
        {"peft": "<0.18", "transformers": ">=5"},
        "this peft imports names that transformers 5 no longer has",
        "pip install 'peft>=0.18'",
    ),
)


def check_python(version: tuple[int, ...] = tuple(sys.version_info[:3])) -> Finding:
    text = ".".join(map(str, version))
    if version < OLDEST_PYTHON:
        return Finding("Python", "bad", text, f"use Python {'.'.join(map(str, OLDEST_PYTHON))} or newer")
    return Finding("Python", "ok", text)


def check_distributions(registry: PluginRegistry) -> Iterator[Finding]:
    """Core, every distribution with a plug-in, and what they rest on: version, and whether what it asks for is there."""
    plugins = (status.provenance.distribution for status in registry.list())
    names = dict.fromkeys(["fastvideo-core", *plugins, *NEIGHBOURS])
    for name in names:
        try:
            package = distribution(name)
        except PackageNotFoundError:  # a plug-in from --plugin FILE, a neighbour that nobody needs
            continue
        unmet = unmet_of(name)
        if unmet:
            yield Finding(name, "bad", f"{package.version}: {'; '.join(map(str, unmet))}", pip_command(unmet))
        else:
            yield Finding(name, "ok", package.version)


def check_combinations(
    installed: Mapping[str, str] | None = None, known: Iterable[BadCombination] = KNOWN_BAD
) -> Iterator[Finding]:
    """Known bad combinations among the installed versions.

    Args:
        installed: distribution -> version; None looks.
    """
    from packaging.specifiers import SpecifierSet

    if installed is None:
        installed = {package.name.lower(): package.version for package in distributions() if package.name}
    for combination in known:
        matches = {
            name: installed[name]
            for name, versions in combination.versions.items()
            if name in installed and SpecifierSet(versions).contains(Version(installed[name]), prereleases=True)
        }
        if len(matches) == len(combination.versions):
            about = " with ".join(f"{name} {version}" for name, version in matches.items())
            yield Finding(about, "bad", combination.trouble, combination.fix)


def check_plugins(registry: PluginRegistry) -> Iterator[Finding]:
    """Whether the plug-ins that are installed can be loaded, and whether there is anything to train with."""
    statuses = registry.list()
    for status in statuses:
        if status.problem is not None:
            yield Finding(
                f"plug-in {status.provenance.name}", "bad", status.problem.found, status.problem.fix or "see `plugins`"
            )
    for kind, noun in (("models", "model family"), ("methods", "method")):
        names = sorted(s.provenance.name for s in statuses if s.provenance.kind == kind and s.healthy)
        if names:
            yield Finding(f"{noun} plug-ins", "ok", ", ".join(names))
        else:
            yield Finding(f"{noun} plug-ins", "note", f"no {noun} is installed", "see `fastvideo-distill plugins`")
