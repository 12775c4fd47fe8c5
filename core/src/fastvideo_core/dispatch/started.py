"""A run that has started in this process: one of its processes, alone in its folder, which keeps what the run is."""

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fastvideo_core.config.run import RunConfig
from fastvideo_core.dispatch import summary
from fastvideo_core.dispatch.output_dir import alone_in
from fastvideo_core.dispatch.runtime import DistillRuntime
from fastvideo_core.distributed import context
from fastvideo_core.errors import ConfigError, FastVideoError, Problem, RunStopped
from fastvideo_core.launch.launcher import launched_processes
from fastvideo_core.launch.peers import leave_peers, lost_peer
from fastvideo_core.launch.processes import join_process_group, leave_process_group


def join(cfg: RunConfig) -> bool:
    """Makes this process one of the run's, of as many as it asks for; whether it was none before. Collective."""
    joined = join_process_group()
    started = context.world_size()
    if cfg.training.num_gpus != started:
        wanted, there = cfg.training.num_gpus, f"the launcher started {started} processes"
        fix = "make both alike (num_gpus counts the processes of all nodes), or leave num_gpus out"
        if launched_processes() is None:
            there, fix = "this process is alone", f"start it with `torchrun --nproc-per-node {wanted}`, or leave it out"
        raise ConfigError(Problem(f"training.num_gpus is {wanted}, and {there}", where=cfg.source, fix=fix))
    return joined


@contextmanager
def started(cfg: RunConfig, *, writes: bool = True) -> Iterator[None]:
    """Inside, this process is one of the run's, and no other run is in its folder, which only who `writes` makes. Collective.

    Processes that were joined before stay so.
    """
    leave = leave_process_group if join(cfg) else leave_peers
    try:
        with alone_in(Path(cfg.training.output_dir), writes=writes):
            yield
    except RunStopped:
        leave()
        raise
    except RuntimeError as error:  # what torch says when a process that it waits for is gone
        if (lost := lost_peer(wait=2.0)) is None:
            raise
        raise FastVideoError(lost) from error
    # After an error the group is not left in good order: that would wait for processes that are not there any more.
    leave()


def write_records(runtime: DistillRuntime) -> None:
    """run.yaml, with every default filled in and the versions of its plug-ins, and environment.json; by the main process."""
    if context.is_main_process():
        folder, versions = Path(runtime.training_args.output_dir), runtime.checkpoint_manager.versions
        listed = ", ".join(f"{name} {version}" for name, version in versions.items())
        write_whole(folder / "run.yaml", f"# {listed}\n{runtime.cfg.to_yaml()}")
        environment = {  # nothing of the user's environment variables
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.machine()}",
            "processes": summary.processes(runtime.training_args),
            "versions": dict(versions),
        }
        write_whole(folder / "environment.json", json.dumps(environment, indent=2) + "\n")


def write_whole(path: Path, text: str) -> None:
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
        raise FastVideoError(Problem(found, str(path), fix=f"{fix}, then start the run again")) from error
