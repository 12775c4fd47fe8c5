"""`fastvideo-distill new-plugin NAME --kind ...`: a complete package that works and passes its own tests."""

from __future__ import annotations

import argparse
import datetime
import re
from contextlib import suppress
from importlib import resources
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from fastvideo_core import __version__
from fastvideo_core.errors import Problem, UserError
from fastvideo_core.launch.stdio import say
from fastvideo_core.registry.specs import API_VERSION, FIRST_PARTY, SINGULAR, Command, Kind
from fastvideo_tools.half_written import nothing_half_written

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

    from fastvideo_core.registry.registry import PluginRegistry

KINDS: dict[str, Kind] = {
    "method": "methods",
    "model": "models",
    "diffusers-model": "models",
    "callback": "callbacks",
}
"""What can be made -> its entry-point group."""

LICENCES = {"apache-2.0": "Apache-2.0", "mit": "MIT", "bsd-3-clause": "BSD-3-Clause", "none": ""}
"""Choice -> SPDX expression."""

DEPENDENCIES = {
    "model": ("fastvideo-data>=@core_minor@,<@core_next@", "safetensors>=0.4.3"),
    "diffusers-model": (
        "fastvideo-data>=@core_minor@,<@core_next@",
        "fastvideo-diffusers>=@core_minor@,<@core_next@",
        "diffusers>=0.35",
        "transformers>=4.56",
        "ftfy>=6.2",
        "sentencepiece>=0.2",
    ),
}
"""What a kind of package needs besides core, pydantic and torch."""

MYPY_SETTINGS = """
[[tool.mypy.overrides]]
module = ["diffusers.*", "transformers.*"]
follow_imports = "skip"
ignore_missing_imports = true
"""
"""So that `mypy --strict` does not read libraries that are not typed throughout."""

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_NAMES = {"gitignore": ".gitignore", "init.py.txt": "__init__.py", "tests.yml": ".github/workflows/tests.yml"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `new-plugin`."""
    parser.add_argument("name", help="the plug-in's name in run.yaml, such as my-method")
    families = "a model family is of a network of its own (model) or of a pipeline of diffusers (diffusers-model)"
    parser.add_argument("--kind", required=True, choices=list(KINDS), help=f"what it gives; {families}")
    parser.add_argument("--out", type=Path, help="folder to write (default: the distribution's name); must be new")
    parser.add_argument("--distribution", help="the pip name (default: fastvideo-NAME)")
    parser.add_argument("--license", choices=list(LICENCES), default="apache-2.0", help="default: apache-2.0")
    parser.add_argument("--repository", metavar="URL", help="where its source will be (default: a place to fill in)")
    parser.add_argument("--author", default="The authors", help="whom the licence names (default: The authors)")


def run(args: argparse.Namespace) -> int:
    """Writes the package and says what to do with it."""
    _check_names(args.name, args.distribution)
    distribution: str = args.distribution or f"fastvideo-{args.name}"
    _check_free(args.name, KINDS[args.kind], distribution, args.registry)
    out: Path = args.out or Path(distribution)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(Problem("is not an empty folder", where=str(out), fix="name a new folder with --out"))
    with nothing_half_written(out):
        made = package_files(args.name, args.kind, distribution, args.license, args.author, args.repository)
        for path, text in made.items():
            file = out / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
    say(f"{out}: the {_said(args.kind)} {args.name!r} as the package {distribution}; next:")
    say(f"  cd {out}\n  pip install -e '.[test]'\n  pytest")
    if args.repository is None:
        say("before it is published: [project.urls] in pyproject.toml, which names your repository")
    return 0


def package_files(
    name: str, kind: str, distribution: str, licence: str, author: str, repository: str | None = None
) -> dict[str, str]:
    """The text of every file of the package, by its path."""
    package = distribution.replace("-", "_")
    major, minor = __version__.split(".")[:2]
    spdx = LICENCES[licence]
    values = {
        "name": name,
        "class": "".join(part.capitalize() for part in name.split("-")),
        "distribution": distribution,
        "package": package,
        "group": KINDS[kind],
        "description": f"The {_said(kind)} {name}",
        "repository": (repository or f"https://github.com/YOUR-NAME/{distribution}").rstrip("/"),
        "api": ", ".join(map(str, API_VERSION)),
        "api_dotted": ".".join(map(str, API_VERSION)),
        "core_minor": f"{major}.{minor}",
        "core_next": f"{major}.{int(minor) + 1}",
        "licence_line": f'license = "{spdx}"\n' if spdx else "",
        "more_dependencies": "".join(f'    "{one}",\n' for one in DEPENDENCIES.get(kind, ())),
        "more_settings": MYPY_SETTINGS if kind == "diffusers-model" else "",
        "author": author,
        "year": str(datetime.date.today().year),
    }
    scaffold = resources.files("fastvideo_tools") / "scaffold"
    files: dict[str, str] = {}
    for folder in (scaffold / kind, scaffold / "common"):
        for item in folder.iterdir():
            place = _place(item.name, package)  # what both have (README.md) is the kind's, then the common part
            files[place] = files.get(place, "") + _filled(item, values)
    if spdx:
        files["LICENSE"] = _filled(scaffold / "licences" / licence, values)
    return files


def _said(kind: str) -> str:
    return "model family" if KINDS[kind] == "models" else kind


def _place(template: str, package: str) -> str:
    name = _NAMES.get(template, template.removesuffix(".txt"))
    if name.startswith("test_"):
        return f"tests/{name}"
    return f"src/{package}/{name}" if name.endswith((".py", ".typed")) else name


def _filled(template: Traversable, values: dict[str, str]) -> str:
    text = template.read_text(encoding="utf-8").replace("@more_dependencies@", values["more_dependencies"])
    return re.sub(r"@(\w+)@", lambda match: values[match[1]], text)


def _check_free(name: str, kind: Kind, distribution: str, registry: PluginRegistry) -> None:
    """Neither this project nor anything that is installed has the names already."""
    problems = []
    given = [item.provenance for item in registry.list()]
    owners = [str(one) for one in given if (one.kind, one.name) == (kind, name)]
    owners = owners or [owner for taken, owner in FIRST_PARTY[kind].items() if taken == name]
    if owners:
        found = f"the {SINGULAR[kind]} {name!r} is there already, from {owners[0]}"
        problems.append(Problem(found, "NAME", fix="take another name"))
    with suppress(PackageNotFoundError):
        found = f"{distribution} {version(distribution)} is installed already"
        problems.append(Problem(found, "--distribution", fix="take another one, or uninstall that one first"))
    if problems:
        raise UserError(problems)


def _check_names(name: str, distribution: str | None) -> None:
    allowed = "small letters, digits and single hyphens, beginning with a letter, such as my-method"
    problems = [
        Problem(f"found {value!r}", where=where, allowed=allowed)
        for where, value in (("NAME", name), ("--distribution", distribution))
        if value is not None and not _NAME.fullmatch(value)
    ]
    if distribution in ("fastvideo", "fastvideo-core"):
        problems.append(Problem(f"{distribution!r} is another project's name", where="--distribution"))
    if problems:
        raise UserError(problems)


COMMAND = Command(add_arguments, run)
