"""Copies of roles: networks of their own, on meta, that start with the original's weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fastvideo_core import RoleHandle
from fastvideo_core.errors import ContractError
from fastvideo_core.placing.materialise import materialise

CPU = torch.device("cpu")


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(2, 2), nn.Linear(2, 2)
        self.register_buffer("mean", torch.full((2,), 3.0))
        self.register_buffer("table", torch.tensor([1.0, 2.0]), persistent=False)


class Stored:
    """Weights on disk, as a family gives them."""

    def tensor_names(self, module: str) -> list[str]:
        return ["weight", "bias"]

    def read(self, module: str, name: str, rows: slice | None = None) -> torch.Tensor:
        return torch.full((2, 2) if name == "weight" else (2,), 5.0)[rows or slice(None)]


def test_a_copy_is_on_meta_until_it_is_placed_and_then_has_the_original_s_weights():
    network = Network()
    student = RoleHandle("student", {"net": network}, family="f", trainable=True, block_classes=(nn.Linear,))
    student.optimizers["adamw"] = torch.optim.AdamW(network.parameters())
    target = student.copy("target")
    copied = target.modules["net"]
    assert isinstance(copied, Network)
    assert (target.name, target.family, target.copy_of, target.block_classes) == (
        "target",
        "f",
        "student",
        (nn.Linear,),
    )
    assert not target.trainable
    assert not target.optimizers
    assert all(parameter.is_meta for parameter in copied.parameters())
    assert copied.mean.is_meta
    assert copied.table.tolist() == [1.0, 2.0]
    materialise(target)
    for name, value in network.state_dict().items():
        assert torch.equal(copied.state_dict()[name], value)
    with torch.no_grad():
        network.first.weight.zero_()
    assert copied.first.weight.abs().sum() > 0, "the networks share no memory"
    assert not any(parameter.requires_grad for parameter in copied.parameters())


def test_a_copy_of_networks_on_meta_reads_what_they_read():
    with torch.device("meta"):
        network = nn.Linear(2, 2)
    student = RoleHandle("student", {"net": network}, weights=Stored(), trainable=True)
    target = student.copy("target")
    again = target.copy("again")
    for handle in (student, target, again):
        materialise(handle)
        assert all((parameter == 5).all() for _, parameter in handle.named_parameters())
    assert again.copy_of == "student"


def test_a_role_that_has_adapters_already_is_not_copied():
    student = RoleHandle("student", {"net": nn.Linear(2, 2)}, lora=object())  # type: ignore[arg-type]
    with pytest.raises(
        ContractError, match=r"'student' is copied after it was placed\n    fix: call copy\('target'\) in"
    ):
        student.copy("target")


@pytest.mark.parametrize(
    ("trainable", "saved", "told"),
    [(True, None, True), (False, None, False), (False, True, True), (True, False, False)],
)
def test_what_is_saved_is_what_is_trained_unless_the_method_says_otherwise(trainable: bool, saved: bool, told: bool):
    assert RoleHandle("student", {}, trainable=trainable, saved=saved).is_saved is told
