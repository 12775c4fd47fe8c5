"""`fastvideo-distill run.yaml`: train."""

from __future__ import annotations

import argparse
import json
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from fastvideo_core.cli import console, options
from fastvideo_core.cli.console import Console
from fastvideo_core.errors import ConfigError, DataError, FastVideoError, Problem, RunStopped, UserError
from fastvideo_core.launch.stdio import drop_unwritten

if TYPE_CHECKING:  # torch and pydantic are imported when a run starts, not to show help
    from fastvideo_core.config.run import RunConfig
    from fastvideo_core.dispatch.runtime import DistillRuntime


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_run(parser, "go on from the newest checkpoint of output_dir, or from PATH")
    dry_run = "build everything, weights too, and prepare one batch; then stop before step 1"
    parser.add_argument("--dry-run", action="store_true", help=dry_run)
    console.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Trains in this process, or starts the run's processes when it asks for several and none were started yet."""
    from fastvideo_core.dispatch.load_run_config import load_run_config
    from fastvideo_core.launch.environment import launched_processes

    launched = launched_processes()
    cfg = load_run_config(args.config, args.registry, options.overrides(args), processes=launched)

    from fastvideo_core.dispatch.output_dir import alone_in
    from fastvideo_core.distributed import context
    from fastvideo_core.launch import processes as launch
    from fastvideo_core.launch.peers import lost_peer

    if cfg.training.num_gpus > 1 and launched is None:
        return launch.start_processes(cfg.training.num_gpus, args.typed)

    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # there is nothing to save yet
    launch.join_process_group()
    started = context.world_size()
    if cfg.training.num_gpus != started:
        found = f"training.num_gpus is {cfg.training.num_gpus}, and the launcher started {started} processes"
        fix = "make both alike (num_gpus counts the processes of all nodes), or leave num_gpus out"
        raise ConfigError(Problem(found, where=cfg.source, fix=fix))
    try:
        with alone_in(Path(cfg.training.output_dir), writes=not args.dry_run):
            _train(cfg, args, Console(args.mode or "normal", speaks=context.is_main_process()))
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


def _train(cfg: RunConfig, args: argparse.Namespace, out: Console) -> None:
    from fastvideo_core.dispatch import summary
    from fastvideo_core.dispatch.examine import resume_problems
    from fastvideo_core.dispatch.runtime import build_runtime_from_config

    out.set_up_logging()
    runtime = build_runtime_from_config(cfg, args.registry)
    out.tell("start", summary.title(runtime), summary.plan(runtime))
    if args.dry_run:
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
    outcome = summary.outcome(runtime, args.plugin)
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
        found, fix = f"cannot be written: {error.strerror or error}", "free space or make the folder writable"
        raise FastVideoError(Problem(found, where=str(path), fix=f"{fix}, then start the run again")) from error


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
