"""The entry point of method `finetune`; imports no torch."""

from fastvideo_core import MethodPlugin

PLUGIN = MethodPlugin(
    name="finetune",
    api=(1, 0),
    impl="fastvideo_finetune.method:FinetuneMethod",
    config="fastvideo_finetune.config:FinetuneConfig",
    roles=("student",),
    demo="fastvideo_finetune.demo:finetune_demo",
)
