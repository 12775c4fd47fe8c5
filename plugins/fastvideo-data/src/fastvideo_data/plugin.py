"""The package's command."""

from fastvideo_core.registry.specs import CommandPlugin

PREPROCESS = CommandPlugin(
    name="preprocess",
    api=(1, 0),
    help="turn videos and captions into a parquet data set",
    impl="fastvideo_data.preprocess_command:COMMAND",
)
