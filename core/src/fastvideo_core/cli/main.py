"""`fastvideo-distill`: find the command, run it, turn errors into messages and exit codes.

A command of core is a module of this package with `add_arguments(parser)` and `run(args) -> int`; other packages bring theirs by
entry points in `fastvideo.commands` (see registry/specs.py). Only the one that is asked for is imported.
"""

import argparse
import errno
import importlib
import logging
import os
import sys
import time
import traceback
from collections.abc import Sequence
from typing import NoReturn, cast

from fastvideo_core.errors import FastVideoError, Problem, RunStopped, UserError, did_you_mean
from fastvideo_core.errors.shown import printable
from fastvideo_core.launch.stdio import PrintableFormatter, complain
from fastvideo_core.registry import PluginRegistry
from fastvideo_core.registry.specs import FIRST_PARTY, Command, CommandPlugin

PROG = "fastvideo-distill"

_STARTED = time.time()

COMMANDS = {
    "train": "train as run.yaml says; the word may be left out",
    "check": "validate run.yaml without training",
    "plugins": "list what is installed, and whether it works",
    "sample": "generate videos from a checkpoint or pipeline folder",
    "export": "write a checkpoint as a diffusers folder",
}
"""Core's own commands -> one line of help; the module has the command's name."""

_EPILOG = """\
examples:
  fastvideo-distill run.yaml                      train
  fastvideo-distill run.yaml --plugin ./mine.py   train with a method or family from a file
  fastvideo-distill check run.yaml                is everything right with it?
  fastvideo-distill schema training               which options are there?
  fastvideo-distill COMMAND --help                arguments of one command

exit codes: 0 done, 2 the input is wrong, 1 anything else, 129 hung up, 130 interrupted, 143 terminated
"""

_BROKEN = f"BROKEN: see `{PROG} plugins`"
_FREE = "free space, remove what the command left half-written, and give it again"
_SYSTEM = {errno.ENOSPC: (_FREE, 1), errno.EDQUOT: (_FREE, 1), errno.ENAMETOOLONG: ("name a shorter path", 2)}
"""What to do where the system refuses, whichever library says so, and the exit code."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    if logging.lastResort is not None:  # where a command sets up no logging of its own
        logging.lastResort.setFormatter(PrintableFormatter("%(message)s"))
    try:
        return _run(arguments)
    except SystemExit as error:  # argparse, after --help or a wrong argument
        return error.code if isinstance(error.code, int) else 0 if error.code is None else 1
    except KeyboardInterrupt:
        return _show("interrupted", 130)
    except BrokenPipeError:  # the reader of a pipe has gone, as in `plugins | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except RunStopped as stopped:
        if os.environ.get("RANK", "0") == "0":
            complain(str(stopped))
        return stopped.exit_code
    except FastVideoError as error:
        return _show(f"{traceback.format_exc() if debug else ''}error: {error}", error.exit_code)
    except Exception as error:
        said, text, status = str(error), traceback.format_exc().rstrip(), 1
        for code, (fix, exit_code) in _SYSTEM.items():
            if os.strerror(code) in said and not debug:
                text, status = f"error: {Problem(said[:200], fix=fix)}", exit_code
        return _show(text, status)


def _show(text: str, status: int) -> int:
    """Says it, in one of several processes (the launcher that `num_gpus` starts, or the first that fails); the status."""
    if "RANK" in os.environ or "SLURM_STEP_ID" in os.environ:
        from fastvideo_core.launch.launcher import report_error

        if not report_error(text, status, _STARTED):
            return status
    complain(text)
    return status


class _Parser(argparse.ArgumentParser):
    """Refuses arguments in text that a terminal may get."""

    def error(self, message: str) -> NoReturn:
        super().error(printable(message))


def _common() -> _Parser:
    """Parses the options that every command has."""
    parser = _Parser(prog=PROG, add_help=False, allow_abbrev=False)
    group = parser.add_argument_group("options of every command")
    plugin = "load plug-ins from a file; may be repeated"
    group.add_argument("--plugin", action="append", default=[], metavar="FILE.py", help=plugin)
    group.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _run(arguments: list[str]) -> int:
    registry = PluginRegistry()
    name, rest = _split(arguments, registry)
    if name is None:
        overall = _overall_parser(registry)
        overall.parse_args(rest)
        overall.print_help()
        return 0
    command, meaning = find_command(name, registry)
    parser = _Parser(prog=f"{PROG} {name}", description=f"{meaning[0].upper()}{meaning[1:]}.", parents=[_common()])
    command.add_arguments(parser)
    args = parser.parse_args(rest, argparse.Namespace(typed=arguments, registry=registry))
    for path in args.plugin:
        registry.load_plugin_file(path)
    return command.run(args)


def find_command(name: str, registry: PluginRegistry) -> tuple[Command, str]:
    """A command and its line of help; PluginError where it is not installed, or broken."""
    if name in COMMANDS:
        module = importlib.import_module(f"fastvideo_core.cli.{name}")
        return Command(module.add_arguments, module.run), COMMANDS[name]
    plugin = registry.get("commands", name)
    if plugin.spec.deprecated is not None:
        complain(f"{name} is deprecated {plugin.spec.deprecated}")
    return cast(Command, registry.resolve(plugin, "impl")), plugin.spec.help


def _known_commands(registry: PluginRegistry) -> dict[str, str]:
    """Commands -> lines of help: core's, those that are installed, and those that another package of ours would bring."""
    installed = {
        status.provenance.name: cast(CommandPlugin, status.plugin.spec).help if status.plugin else _BROKEN
        for status in registry.list("commands")
    }
    return {name: f"pip install {package}" for name, package in FIRST_PARTY["commands"].items()} | installed | COMMANDS


def _split(arguments: list[str], registry: PluginRegistry) -> tuple[str | None, list[str]]:
    """The command and its arguments. None is the program itself (--help, --version, or nothing at all)."""
    first = next(iter(_common().parse_known_args(arguments)[1]), None)
    if first in (None, "-h", "--help", "--version"):
        return None, arguments
    is_file = first.endswith((".yaml", ".yml")) or os.sep in first or os.path.exists(first)
    if first in FIRST_PARTY["commands"] or (not is_file and first in registry.names("commands")):
        index = arguments.index(first)
        return first, arguments[:index] + arguments[index + 1 :]
    if is_file or first.startswith("-"):  # an option of train before the file
        return "train", arguments
    commands = _known_commands(registry)
    guess = did_you_mean(first, commands, otherwise=f"see `{PROG} --help`")
    allowed = f"a run.yaml, or one of {', '.join(commands)}"
    raise UserError(Problem(f"unknown command {first!r}", allowed=allowed, fix=guess))


def _overall_parser(registry: PluginRegistry) -> argparse.ArgumentParser:
    from fastvideo_core import __version__

    commands = _known_commands(registry)
    width = max(map(len, commands))
    listed = "\n".join(f"  {name:<{width}}  {meaning}" for name, meaning in commands.items())
    parser = _Parser(
        prog=PROG,
        usage=f"{PROG} run.yaml [options]\n       {PROG} COMMAND [arguments] [options]",
        description=f"Distil and fine-tune video diffusion models.\n\ncommands:\n{listed}",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[_common()],
    )
    parser.add_argument("--version", action="version", version=f"{PROG} {__version__}")
    return parser
