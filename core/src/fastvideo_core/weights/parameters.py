"""Parameters by the names that checkpoints keep, and the slice of each that this process holds."""

from torch import Tensor, nn
from torch.distributed.tensor import DTensor

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
        module_name: {clean_name(name): p for name, p in module.named_parameters() if p.requires_grad}
        for module_name, module in modules.items()
    }


def own_slice(parameter: Tensor) -> slice | None:
    """Which rows of the whole parameter this rank holds, where it is sharded; None is all of it."""
    if not isinstance(parameter, DTensor) or not parameter.ndim:
        return None
    # As checkpoints ask; the last ranks may hold less than the others, or nothing.
    [chunk] = parameter.__create_chunk_list__()  # type: ignore[no-untyped-call]
    return slice(chunk.offsets[0], chunk.offsets[0] + chunk.sizes[0])


def local_part(tensor: Tensor) -> Tensor:
    """What of a tensor this rank holds."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
