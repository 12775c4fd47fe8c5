"""Parameters by the names that checkpoints keep, and the slice of each that this process holds."""

import re

from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from fastvideo_core.contracts.roles import RoleHandle

_WRAPPERS = ("_checkpoint_wrapped_module.", "_orig_mod.")


def clean_name(name: str) -> str:
    """`name` without what activation-checkpoint and torch.compile wrappers put into it, and the role of an adapter."""
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    return re.sub(r"\.(lora_[AB])\.[^.]+\.", r".\1.default.", name)


def base_name(name: str) -> str:
    """A clean name as it was before adapters were added: peft moves a layer's own weights one level down."""
    return name.replace(".base_layer.", ".")


def trainable_by_name(handle: RoleHandle) -> dict[str, dict[str, nn.Parameter]]:
    """What a role trains as module name -> clean parameter name -> parameter, in a stable order."""
    return {
        key: {clean_name(name): p for name, p in module.named_parameters() if p.requires_grad and handle.owns(name)}
        for key, module in handle.modules.items()
    }


def own_slice(parameter: Tensor) -> slice | None:
    """Which rows of the whole parameter this rank holds, where it is sharded; None is all of it."""
    if not isinstance(parameter, DTensor) or not parameter.ndim:
        return None
    # As checkpoints ask; the last ranks may hold less than the others, or nothing.
    [chunk] = parameter.__create_chunk_list__()  # type: ignore[no-untyped-call]
    return None if chunk.sizes[0] == len(parameter) else slice(chunk.offsets[0], chunk.offsets[0] + chunk.sizes[0])


def local_part(tensor: Tensor) -> Tensor:
    """What of a tensor this rank holds."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
