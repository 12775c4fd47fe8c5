"""Names of parameters as a checkpoint keeps them: independent of activation checkpointing and compiling."""

from __future__ import annotations

from torch import nn

_WRAPPERS = ("_checkpoint_wrapped_module.", "_orig_mod.")


def clean_name(name: str) -> str:
    """`name` without the parts that activation-checkpoint and torch.compile wrappers put into it."""
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def base_name(name: str) -> str:
    """A clean name as it was before adapters were added: peft moves a layer's own weights one level down."""
    return name.replace(".base_layer.", ".")


def trainable_by_name(modules: dict[str, nn.Module]) -> dict[str, dict[str, nn.Parameter]]:
    """The parameters that require a gradient as module name -> clean parameter name -> parameter, in a stable order."""
    return {
        module_name: {
            clean_name(name): parameter for name, parameter in module.named_parameters() if parameter.requires_grad
        }
        for module_name, module in modules.items()
    }
