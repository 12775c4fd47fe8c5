"""Features for the adversarial term come from the network's own forward, with its graph."""

import torch

from fastvideo_wan.adapter import TRANSFORMER


def test_features_have_the_stated_channels_and_reach_the_input(components, raw_batch):
    adapter, handle = components.adapter, components.bundle["student"]
    batch = adapter.prepare_batch(raw_batch)
    noisy = torch.randn_like(batch.latents).requires_grad_()
    features = adapter.extract_features(handle, noisy, torch.full((2,), 500.0), batch, conditional=True)
    assert tuple(feature.shape[-1] for feature in features) == adapter.feature_channels(handle)
    assert all(len(feature) == 2 for feature in features)
    sum(feature.square().sum() for feature in features).backward()
    assert noisy.grad.abs().sum() > 0
    assert not any(block._forward_hooks for block in handle.modules[TRANSFORMER].blocks)
