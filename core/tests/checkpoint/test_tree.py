from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from fastvideo_core.checkpoint.tree import join, references, split

from .toy_run import assert_same

NESTED = {
    "a": [1, 2.5, True, None, "text", -(2**70)],
    "betas": (0.9, (0.99, ())),
    7: {"$odd": 1, -1: torch.tensor(3.0)},
    "nan": float("nan"),
    "inf": [float("inf"), float("-inf")],
    "bf16": torch.randn(2, 3).bfloat16(),
    "empty": {},
    "zero rows": torch.zeros(0, 4),
}


def test_nested_state_survives_json():
    tensors, skeleton = split(NESTED)
    assert_same(join(json.loads(json.dumps(skeleton, allow_nan=False)), tensors), NESTED)


def test_tensors_are_keyed_by_their_path():
    tensors, skeleton = split({"roles": {"student": {"net": {"0.weight": torch.ones(1)}}}, "x": [torch.ones(2)]})
    assert list(tensors) == ["roles.student.net.0.weight", "x.0"] == references(skeleton)


def test_paths_that_read_alike_stay_apart():
    tree = {
        "a.b": {"c": torch.tensor(1)},
        "a": {"b.c": torch.tensor(2)},
        "x": {1: torch.tensor(3), "1": torch.tensor(4)},
    }
    tensors, skeleton = split(tree)
    assert len(tensors) == 4
    assert_same(join(skeleton, tensors), tree)


def test_tensors_that_need_gradients_are_detached():
    tensors, _ = split({"w": torch.nn.Parameter(torch.ones(2))})
    assert not tensors["w"].requires_grad


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": [{1, 2}]}, r"state\['a'\]\[0\]: a builtins.set cannot go into a checkpoint; use dicts, lists"),
        ({"lr": np.float64(1)}, r"state\['lr'\]: a numpy.float64 cannot go"),
        ({"t": torch.Size([1])}, r"state\['t'\]: a torch.Size cannot go"),
        ({"d": {1.5: 0}}, r"state\['d'\]: the key 1.5 is a float, not str or int"),
        ({"d": {True: 0}}, r"state\['d'\]: the key True is a bool"),
    ],
)
def test_anything_else_is_refused_with_its_path(value, message):
    with pytest.raises(TypeError, match=message):
        split(value)


def test_a_foreign_tag_is_refused():
    with pytest.raises(ValueError, match="is not a part of a state skeleton"):
        join({"$object": "os.system"}, {})
