"""The names that plug-in authors and notebooks use, imported lazily: `import fastvideo_core` loads neither torch nor pydantic.

Type checkers read `__init__.pyi` beside this file.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_EXPORTS = {
    "PluginConfig": "config.base",
    "MethodConfig": "config.base",
    "FewStepConfig": "config.base",
    "PipelineConfig": "config.base",
    "GuidedPipelineConfig": "config.base",
    "FloatPair": "config.base",
    "FloatTuple": "config.base",
    "DenoisingSteps": "config.base",
    "IntTuple": "config.base",
    "StrTuple": "config.base",
    "LoraConfig": "config.run",
    "MergedLora": "config.run",
    "RoleConfig": "config.run",
    "RunConfig": "config.run",
    "DataSource": "config.training",
    "TrainingArgs": "config.training",
    "API_VERSION": "registry.specs",
    "CallbackPlugin": "registry.specs",
    "CommandPlugin": "registry.specs",
    "Deprecated": "config.deprecation",
    "MethodPlugin": "registry.specs",
    "ModelPlugin": "registry.specs",
    "register_callback": "registry.registration",
    "register_method": "registry.registration",
    "register_model": "registry.registration",
    "RoleHandle": "contracts.roles",
    "RoleManager": "contracts.roles",
    "WeightSource": "contracts.roles",
    "TrainingBatch": "contracts.batch",
    "DistillAdapter": "contracts.adapter",
    "features_of": "contracts.hidden_states",
    "FlowMatchingAdapter": "contracts.flow_adapter",
    "ModelComponents": "contracts.family",
    "ModelFamily": "contracts.family",
    "RoleOutline": "contracts.family",
    "Findings": "contracts.family",
    "RandomStreams": "contracts.rng",
    "DistillMethod": "contracts.method",
    "DistillValidator": "contracts.validator",
    "ValidationRequest": "contracts.validator",
    "Command": "registry.specs",
    "Callback": "callbacks.hooks",
    "hookimpl": "callbacks.hooks",
    "load_run_config": "dispatch.load_run_config",
    "build_runtime": "cli.functions",
    "train": "cli.functions",
    "sample": "cli.functions",
}

__all__ = ["__version__", *_EXPORTS]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'fastvideo_core' has no attribute '{name}'")
    return getattr(importlib.import_module(f"fastvideo_core.{_EXPORTS[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
