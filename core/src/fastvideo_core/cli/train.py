"""`fastvideo-distill run.yaml`: train."""

from __future__ import annotations

import argparse
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from fastvideo_core.cli import console, options
from fastvideo_core.cli.console import Console
from fastvideo_core.errors import DataError
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
    from fastvideo_core.launch.launcher import launched_processes

    launched = launched_processes()
    cfg = load_run_config(args.config, args.registry, options.overrides(args), processes=launched)

    if cfg.training.num_gpus > 1 and launched is None:
        from fastvideo_core.launch.processes import start_processes

        return start_processes(cfg.training.num_gpus, args.typed)

    from fastvideo_core.dispatch.started import started
    from fastvideo_core.distributed import context

    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # there is nothing to save yet
    with started(cfg, writes=not args.dry_run):
        try:
            _train(cfg, args, Console(args.mode or "normal", speaks=context.is_main_process()))
        finally:
            drop_unwritten()
    return 0


def _train(cfg: RunConfig, args: argparse.Namespace, out: Console) -> None:
    from fastvideo_core.dispatch import summary
    from fastvideo_core.dispatch.examine import check_resume
    from fastvideo_core.dispatch.runtime import build_runtime_from_config
    from fastvideo_core.dispatch.started import write_records

    out.set_up_logging()
    runtime = build_runtime_from_config(cfg, args.registry)
    out.tell("start", summary.title(runtime), summary.plan(runtime))
    if args.dry_run:
        check_resume(runtime.run)
        tried = _try_batch(runtime)
        text = f"dry run: everything was built{tried}; training would start at step {runtime.start_step + 1}"
        out.tell("dry_run", text, {}, also_quiet=True)
        return
    write_records(runtime)
    runtime.train(out.display())
    outcome = summary.outcome(runtime, args.plugin)
    out.tell("done", f"done: {Path(cfg.training.output_dir)}", outcome, also_quiet=True)


def _try_batch(runtime: DistillRuntime) -> str:
    """Takes one batch as far as the method's networks, and says so."""
    raw_batch = next(iter(runtime.dataloader), None)
    if raw_batch is None:
        raise DataError("the data loader gives no batch")
    source = runtime.run.latents_source
    if source is None:
        return " and a batch read"
    runtime.method.on_train_start()
    sparsity = runtime.training_args.VSA_sparsity
    runtime.method.prepare_batch(raw_batch, latents_source=source, current_vsa_sparsity=sparsity)
    return " and a batch prepared"
