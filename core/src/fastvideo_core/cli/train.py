"""`fastvideo-distill run.yaml`: train."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fastvideo_core.errors import ConfigError, DataError, Problem, RunStopped

if TYPE_CHECKING:  # torch and pydantic are imported when a run starts, not to show help
    from fastvideo_core.config.run import RunConfig
    from fastvideo_core.dispatch.runtime import DistillRuntime
    from fastvideo_core.registry.registry import PluginRegistry


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `train`."""
    parser.add_argument("config", help="the run's run.yaml")
    parser.add_argument(
        "--resume", metavar="latest|PATH", help="go on from the newest checkpoint of output_dir, or from PATH"
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="build everything, weights too, and prepare one batch; then stop before step 1",
    )


def run(args: argparse.Namespace) -> int:
    """Trains in this process, or starts the run's processes when it asks for several and none were started yet."""
    from fastvideo_core.dispatch.load import load_run_config

    registry: PluginRegistry = args.registry
    overrides = {"training.resume_from_checkpoint": args.resume} if args.resume is not None else {}
    cfg = load_run_config(args.config, registry, overrides)

    from fastvideo_core.distributed import context, launch

    if cfg.training.num_gpus > 1 and not launch.is_launched():
        return launch.start_processes(cfg.training.num_gpus, sys.argv[1:])

    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # there is nothing to save yet
    launch.join_process_group()
    _check_processes(cfg, context.world_size())
    try:
        _train(cfg, registry, dry_run=args.dry_run)
        if context.is_main_process() and not args.dry_run:
            print(f"done: {Path(cfg.training.output_dir)}")
    except RunStopped:
        launch.leave_process_group()
        raise
    # After an error the group is not left in good order: that would wait for processes that are not there any more.
    launch.leave_process_group()
    return 0


def _check_processes(cfg: RunConfig, world_size: int) -> None:
    """What run.yaml says of processes is what another launcher started."""
    wanted = cfg.training.num_gpus
    if "num_gpus" in cfg.training.model_fields_set and wanted != world_size:
        found = f"training.num_gpus is {wanted}, and the launcher started {world_size} processes"
        fix = "make both alike (num_gpus counts the processes of all nodes), or leave num_gpus out"
        raise ConfigError(Problem(found, where=cfg.source, fix=fix))


def _train(cfg: RunConfig, registry: PluginRegistry, *, dry_run: bool) -> None:
    from fastvideo_core.dispatch.runtime import build_runtime_from_config
    from fastvideo_core.distributed import context

    logging.basicConfig(level=logging.INFO if context.is_main_process() else logging.ERROR, format="%(message)s")
    runtime = build_runtime_from_config(cfg, registry)
    if dry_run:
        tried = _try_batch(runtime)
        if context.is_main_process():
            print(f"dry run: everything was built{tried}; training would start at step {runtime.start_step + 1}")
        return
    if context.is_main_process():
        output_dir = Path(cfg.training.output_dir)
        output_dir.mkdir(parents=True, exist_ok=True)
        (output_dir / "run.yaml").write_text(runtime.cfg.to_yaml(), encoding="utf-8")
    runtime.train()


def _try_batch(runtime: DistillRuntime) -> str:
    """Takes one batch as far as the method's networks, and says so."""
    from fastvideo_core.dispatch.preflight import latents_source

    raw_batch = next(iter(runtime.dataloader), None)
    if raw_batch is None:
        raise DataError("the data loader gives no batch")
    source = latents_source(runtime.cfg)
    if source is None:
        return " and a batch read"
    runtime.method.on_train_start()
    runtime.method.prepare_batch(
        raw_batch, latents_source=source, current_vsa_sparsity=runtime.training_args.VSA_sparsity
    )
    return " and a batch prepared"
