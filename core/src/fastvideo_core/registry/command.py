"""A command of `fastvideo-distill`: what a package's entry point in `fastvideo.commands` leads to."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """`add_arguments` adds a command's options to the parser; `run` does its work and gives the exit code.

    `run` also finds in its arguments: `registry` (PluginRegistry, with the files of --plugin loaded), `plugin` (those files'
    paths, to hand on to other processes), `debug`, and `typed` (the whole command line).
    """

    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
