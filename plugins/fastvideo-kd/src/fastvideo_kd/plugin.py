"""The entry points of this package; imports no torch."""

from fastvideo_core import CommandPlugin, MethodPlugin

PLUGIN = MethodPlugin(
    name="kd",
    api=(1, 0),
    impl="fastvideo_kd.method:KDMethod",
    config="fastvideo_kd.config:KDConfig",
    roles=("student",),
    optional_roles=("teacher",),
    demo="fastvideo_kd.demo:kd_demo",
)
TRAJECTORIES = CommandPlugin(
    name="trajectories",
    api=(1, 0),
    help="sample prompts with a teacher and store the states that it went through",
    impl="fastvideo_kd.trajectories_command:COMMAND",
)
