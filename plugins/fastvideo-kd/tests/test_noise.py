"""The noise that trajectories start from."""

import torch

from fastvideo_kd.trajectories import noise_of


def test_the_noise_of_a_prompt_does_not_depend_on_its_batch():
    latents = torch.zeros(3, 4, 2)
    together = noise_of(["a", "b", "c"], latents, seed=0)
    alone = [noise_of([name], latents[:1], seed=0)[0] for name in "abc"]
    assert torch.equal(together, torch.stack(alone))
    assert not torch.equal(together[0], together[1])


def test_another_seed_gives_other_noise_of_the_same_kind():
    latents = torch.zeros(1, 100, 100)
    one, other = (noise_of(["a"], latents, seed=seed) for seed in (0, 1))
    assert not torch.equal(one, other)
    for noise in (one, other):
        assert abs(noise.mean().item()) < 0.05
        assert abs(noise.std().item() - 1) < 0.05
