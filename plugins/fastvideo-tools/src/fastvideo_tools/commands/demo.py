"""`fastvideo-distill demo`: from clips to a few-step student on a laptop's processor, with the real commands."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastvideo_core.cli.options import seed
from fastvideo_core.launch.stdio import say
from fastvideo_core.registry.specs import Command

if TYPE_CHECKING:
    from fastvideo_core.contracts.demo import FamilyDemo, MethodDemo
    from fastvideo_core.registry.registry import PluginRegistry


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `demo`."""
    parser.add_argument("--family", default="wan", help="an installed model family that has a demo (default: wan)")
    parser.add_argument("--method", default="dmd2", help="an installed method that has a demo (default: dmd2)")
    parser.add_argument("--out", type=Path, default=Path("demo"), help="new folder for everything (default: demo)")
    parser.add_argument(
        "--fast", action="store_true", help="about two minutes: eight captions, a smaller network, one student"
    )
    parser.add_argument("--seed", type=seed, default=0, help="of clips, weights, training and samples (default: 0)")


def run(args: argparse.Namespace) -> int:
    """Tells the story and says where its page is."""
    from fastvideo_core.config.output_folder import check_new_folder

    check_new_folder(args.out)
    registry: PluginRegistry = args.registry

    from fastvideo_core.cli.main import main
    from fastvideo_tools.demo.page import write_page
    from fastvideo_tools.demo.picture import write_picture
    from fastvideo_tools.demo.results import as_text, measure
    from fastvideo_tools.demo.story import FAST, FULL, Recipe, Story

    family = _family(registry, args.family, fast=args.fast)
    method = _method(registry, args.method, fast=args.fast)
    teacher_method = method.teacher or args.method
    teacher = method if method.teacher is None else _method(registry, teacher_method, fast=args.fast)
    recipe = Recipe(args.family, family, args.method, method, teacher_method, teacher)
    extent = FAST if args.fast else FULL
    story = Story(recipe, args.out, extent, args.seed, main, tuple(args.plugin))
    samplers = story.tell()
    results = measure(args.out, extent, samplers, story.spent)
    say(f"\n{as_text(results)}")
    write_picture(args.out, results.rows, extent.prompts)
    write_page(args.out, recipe, results, extent.prompts)
    say(f"\n{args.out / 'demo.html'}\n{args.out / 'demo.gif'}")
    return 0


def _family(registry: PluginRegistry, name: str, *, fast: bool) -> FamilyDemo:
    from fastvideo_core.contracts.family import open_family

    return open_family(name, registry, "demo").demo(fast=fast)


def _method(registry: PluginRegistry, name: str, *, fast: bool) -> MethodDemo:
    make: Any = registry.resolve(registry.get("methods", name), "demo")
    demo: MethodDemo = make(fast=fast)
    return demo


COMMAND = Command(add_arguments, run)
