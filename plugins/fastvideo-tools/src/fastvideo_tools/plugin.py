"""The package's commands and callbacks."""

from fastvideo_core.registry.specs import CallbackPlugin, CommandPlugin

REPORT = CommandPlugin(
    name="report",
    api=(1, 0),
    help="write a page about a run: curves, validation videos, checkpoints, configuration",
    impl="fastvideo_tools.commands.report:COMMAND",
)
DOCTOR = CommandPlugin(
    name="doctor",
    api=(1, 0),
    help="is this machine ready? versions, GPU, plug-ins, video encoder, disk, logins",
    impl="fastvideo_tools.commands.doctor:COMMAND",
)
INIT = CommandPlugin(
    name="init",
    api=(1, 0),
    help="write a commented run.yaml for a family and a method",
    impl="fastvideo_tools.commands.init:COMMAND",
)
CONVERT = CommandPlugin(
    name="convert",
    api=(1, 0),
    help="write the run.yaml of a FastVideo YAML file, and say what became of every key",
    impl="fastvideo_tools.commands.convert:COMMAND",
)
DEMO = CommandPlugin(
    name="demo",
    api=(1, 0),
    help="see it work: clips, a teacher, few-step students, and a page that compares them",
    impl="fastvideo_tools.commands.demo:COMMAND",
)
NEW_PLUGIN = CommandPlugin(
    name="new-plugin",
    api=(1, 0),
    help="write a working plug-in package with tests",
    impl="fastvideo_tools.commands.new_plugin:COMMAND",
)
PAIRS = CommandPlugin(
    name="pairs",
    api=(1, 0),
    help="what methods need and families offer, and which fit each other (plugins --pairs)",
    impl="fastvideo_tools.commands.pairs:COMMAND",
)
TINY = CommandPlugin(
    name="tiny",
    api=(1, 0),
    help="write a small random-weight pipeline of a family",
    impl="fastvideo_tools.commands.tiny:COMMAND",
)
SCHEMA = CommandPlugin(
    name="schema",
    api=(1, 0),
    help="show every option of a section, family, method or callback",
    impl="fastvideo_tools.commands.schema:COMMAND",
)
FITS = CommandPlugin(
    name="fits",
    api=(1, 0),
    help="whether a run fits a GPU, and what would make it (check --gpu-memory)",
    impl="fastvideo_tools.commands.fits:COMMAND",
)
SIMULATE = CommandPlugin(
    name="simulate",
    api=(1, 0),
    help="what a run would hold, send and take on any number of GPUs, on a laptop",
    impl="fastvideo_tools.commands.simulate:COMMAND",
)
GRAD_NORM = CallbackPlugin(
    name="grad_norm",
    api=(1, 0),
    impl="fastvideo_tools.callbacks.grad_norm:GradNormCallback",
    config="fastvideo_tools.callbacks.config:GradNormConfig",
)
THROUGHPUT = CallbackPlugin(
    name="throughput",
    api=(1, 0),
    impl="fastvideo_tools.callbacks.throughput:ThroughputCallback",
    config="fastvideo_tools.callbacks.config:ThroughputConfig",
)
PROFILER = CallbackPlugin(
    name="profiler",
    api=(1, 0),
    impl="fastvideo_tools.callbacks.profiler:ProfilerCallback",
    config="fastvideo_tools.callbacks.config:ProfilerConfig",
)
EARLY_STOP = CallbackPlugin(
    name="early_stop",
    api=(1, 0),
    impl="fastvideo_tools.callbacks.early_stop:EarlyStopCallback",
    config="fastvideo_tools.callbacks.config:EarlyStopConfig",
)
