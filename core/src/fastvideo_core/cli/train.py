"""`fastvideo-distill run.yaml`: train."""

from __future__ import annotations

import argparse
import json
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from fastvideo_core.cli import console, resume_options
from fastvideo_core.errors import ConfigError, DataError, FastVideoError, Problem, RunStopped, UserError
from fastvideo_core.launch.stdio import drop_unwritten

if TYPE_CHECKING:  # torch and pydantic are imported when a run starts, not to show help
    from fastvideo_core.cli.console import Console
    from fastvideo_core.config.run import RunConfig
    from fastvideo_core.dispatch.runtime import DistillRuntime
    from fastvideo_core.registry.registry import PluginRegistry


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `train`."""
    parser.add_argument("config", help="the run's run.yaml")
    resume_options.add_arguments(parser, "go on from the newest checkpoint of output_dir, or from PATH")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="build everything, weights too, and prepare one batch; then stop before step 1",
    )
    console.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Trains in this process, or starts the run's processes when it asks for several and none were started yet."""
    from fastvideo_core.dispatch.load import load_run_config
    from fastvideo_core.launch.environment import launched_processes

    registry: PluginRegistry = args.registry
    launched = launched_processes()
    cfg = load_run_config(args.config, registry, resume_options.overrides(args), processes=launched)

    from fastvideo_core.dispatch.own_folder import alone_in
    from fastvideo_core.distributed import context
    from fastvideo_core.launch import processes as launch
    from fastvideo_core.launch.peers import lost_peer

    if cfg.training.num_gpus > 1 and launched is None:
        return launch.start_processes(cfg.training.num_gpus, args.typed)

    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # there is nothing to save yet
    launch.join_process_group()
    _check_processes(cfg, context.world_size())
    try:
        out = console.console_of(args, speaks=context.is_main_process())
        with alone_in(Path(cfg.training.output_dir), writes=not args.dry_run):
            _train(cfg, registry, out, dry_run=args.dry_run, plugin_files=args.plugin)
    except RunStopped:
        launch.leave_process_group()
        raise
    except RuntimeError as error:  # what torch says when a process that it waits for is gone
        if (lost := lost_peer(wait=2.0)) is None:
            raise
        raise FastVideoError(lost) from error
    finally:
        drop_unwritten()
    # After an error the group is not left in good order: that would wait for processes that are not there any more.
    launch.leave_process_group()
    return 0


def _check_processes(cfg: RunConfig, world_size: int) -> None:
    """What run.yaml says of processes is what another launcher started."""
    wanted = cfg.training.num_gpus
    if wanted != world_size:
        found = f"training.num_gpus is {wanted}, and the launcher started {world_size} processes"
        fix = "make both alike (num_gpus counts the processes of all nodes), or leave num_gpus out"
        raise ConfigError(Problem(found, where=cfg.source, fix=fix))


def _train(
    cfg: RunConfig, registry: PluginRegistry, out: Console, *, dry_run: bool, plugin_files: Sequence[str]
) -> None:
    from fastvideo_core.dispatch import summary
    from fastvideo_core.dispatch.examine import resume_problems
    from fastvideo_core.dispatch.runtime import build_runtime_from_config

    out.set_up_logging()
    runtime = build_runtime_from_config(cfg, registry)
    out.tell("start", summary.title(runtime), summary.plan(runtime))
    if dry_run:
        if problems := resume_problems(runtime.run):
            raise UserError(problems)
        tried = _try_batch(runtime)
        text = f"dry run: everything was built{tried}; training would start at step {runtime.start_step + 1}"
        out.tell("dry_run", text, {}, also_quiet=True)
        return
    if out.speaks:
        output_dir = Path(cfg.training.output_dir)
        versions = ", ".join(f"{name} {version}" for name, version in runtime.checkpoint_manager.versions.items())
        _write(output_dir / "run.yaml", f"# {versions}\n{runtime.cfg.to_yaml()}")
        _write(output_dir / "environment.json", json.dumps(summary.environment(runtime), indent=2) + "\n")
    runtime.train(out.display())
    outcome = summary.outcome(runtime, runtime.run.family.offers(), plugin_files)
    out.tell("done", f"done: {Path(cfg.training.output_dir)}", outcome, also_quiet=True)


def _write(path: Path, text: str) -> None:
    """A whole file in the run's folder, or, on an error, the one of an earlier start."""
    aside = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.unlink(missing_ok=True)  # a link there would be written through
        aside.write_text(text, encoding="utf-8")
        os.replace(aside, path)
    except OSError as error:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        fix = "free space or make the folder writable, then start the run again"
        raise FastVideoError(
            Problem(f"cannot be written: {error.strerror or error}", where=str(path), fix=fix)
        ) from error


def _try_batch(runtime: DistillRuntime) -> str:
    """Takes one batch as far as the method's networks, and says so."""
    raw_batch = next(iter(runtime.dataloader), None)
    if raw_batch is None:
        raise DataError("the data loader gives no batch")
    source = runtime.run.latents_source
    if source is None:
        return " and a batch read"
    runtime.method.on_train_start()
    runtime.method.prepare_batch(
        raw_batch, latents_source=source, current_vsa_sparsity=runtime.training_args.VSA_sparsity
    )
    return " and a batch prepared"
