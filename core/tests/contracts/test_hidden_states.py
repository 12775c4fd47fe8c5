"""Hidden states with a gradient of their own."""

import pytest
import torch
from torch import nn

from fastvideo_core.contracts.hidden_states import features_of


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.SiLU(), nn.Linear(4, 4), nn.SiLU(), nn.Linear(4, 2))


def test_going_back_from_features_goes_through_the_network_s_output():
    """Where sharded networks hang the hook that gathers their weights."""
    net, x, order = network(), torch.randn(5, 3), []

    def watched(name):
        def hook(module, args, output):
            output.register_hook(lambda gradient: order.append((name, gradient.abs().max().item() > 0)))

        return hook

    net.register_forward_hook(watched("network"))
    net[2].register_forward_hook(watched("layer"))
    features = features_of([net[1], net[2]], lambda: net(x))
    sum(feature.square().sum() for feature in features).backward()
    assert order == [("network", False), ("layer", True)]  # first, once, and without an effect
    assert net[4].weight.grad.abs().max() == 0


def test_values_and_gradients_are_those_of_the_layers_themselves():
    net, x = network(), torch.randn(5, 3)
    one, two = features_of([net[1], net[2]], lambda: net(x))
    (one.square().sum() + two.sum()).backward()
    found = [p.grad.clone() for p in net[:4].parameters()]
    net.zero_grad()
    first = net[:2](x)
    second = net[2](first)
    (first.square().sum() + second.sum()).backward()
    assert torch.equal(one, first)
    assert torch.equal(two, second)
    for ours, theirs in zip(found, net[:4].parameters(), strict=True):
        torch.testing.assert_close(ours, theirs.grad)


def test_an_output_that_is_not_finite_leaves_the_features_alone():
    net, x = network(), torch.randn(5, 3)
    (feature,) = features_of([net[0]], lambda: net(x) / 0)
    assert torch.equal(feature, net[0](x))


@pytest.mark.parametrize("where", ["no_grad", "frozen"])
def test_features_without_a_graph_are_given_as_well(where):
    net = network().requires_grad_(where == "no_grad")
    with torch.set_grad_enabled(where != "no_grad"):
        features = features_of([net[1]], lambda: net(torch.randn(5, 3)))
    assert not features[0].requires_grad
