"""Runs whose processes share the tokens of each sample, and what a test looks at of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from diffusers import WanTransformer3DModel
from diffusers.models.transformers.transformer_wan import WanTransformerBlock

from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.contracts.hidden_states import features_of
from fastvideo_core.contracts.roles import RoleHandle, RoleManager
from fastvideo_core.distributed import context
from fastvideo_core.placing.shard import shard_roles
from fastvideo_core.weights.parameters import clean_name
from fastvideo_diffusers.sequence_parallel import whole_tokens
from fastvideo_rcm.tangent import directional_derivative
from fastvideo_testing.ranks import run_ranks
from fastvideo_testing.runs import build_run
from fastvideo_wan.network import predict_velocity, split_tokens
from fastvideo_wan.sparse import add_gates, allow_sparse_calls, calling, sparse_call
from tests.distributed.workers import full, own_folder, save, weights


def train(folder: Path, runs: Mapping[str, dict[str, Any]], *, world: int, size: int = 1) -> dict[str, dict[str, Any]]:
    """What `processes` saw of each run on so many processes, of which each `size` share a sample, by name."""
    run_ranks(
        f"{__name__}:processes", {"folder": folder, "runs": dict(runs), "world": world, "size": size}, world_size=world
    )
    return {name: torch.load(folder / f"{name}.pt") for name in runs}


def processes(folder: Path, runs: dict[str, dict[str, Any]], *, world: int, size: int) -> None:
    """Trains each; its losses, the gradients of its first update, its weights. A run that says `sgd` takes plain steps."""
    for name, run in runs.items():
        given = {"num_gpus": world, "sequence_parallel": size, "output_dir": str(folder / name)}
        kinds = {"sgd": run.pop("sgd", False)}
        runtime = build_run(own_folder(folder / name), {**run, "training": {**given, **run["training"]}})
        if kinds["sgd"]:
            for handle in runtime.method.bundle:
                for key, optimizer in handle.optimizers.items():
                    rate = optimizer.param_groups[0]["lr"]
                    handle.optimizers[key] = torch.optim.SGD(handle.trainable_parameters(), lr=rate)
                handle.lr_schedulers.clear()
        gradients: dict[str, torch.Tensor] = {}
        step = runtime.method.optimizers_schedulers_step

        def noting(iteration: int, method: Any = runtime.method, step: Any = step, seen: Any = gradients) -> None:
            if not seen:
                named = ((f"{h.name}.{key}", p.grad) for h in method.bundle for key, p in h.named_parameters())
                seen |= {key: full(gradient) for key, gradient in named if gradient is not None}
            step(iteration)

        runtime.method.optimizers_schedulers_step = noting
        runtime.train()
        lines = [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]
        losses = [{key: value for key, value in line.items() if "loss" in key or key == "grad_norm"} for line in lines]
        context.barrier()
        save(folder / f"{name}.pt", {"losses": losses, "gradients": gradients, "weights": weights(runtime.method)})


def networks(folder: Path) -> None:
    """Networks whole on each process, and again with their tokens shared by two: how far values and gradients are apart.

    Per case, relative to their size: `value`, the largest of `gradients` (the mean over processes), and that of the `input`.
    """
    found = {name: _distances(name, *case) for name, case in _cases().items()}
    save(folder / "found.pt", found)


def _cases() -> dict[str, tuple[dict[str, Any], bool]]:
    """The keywords of a tiny network, and whether it is called again on what it gave."""
    return {
        "levels by token": ({}, True),
        "two images": ({"image_dim": 16, "added_kv_proj_dim": 32, "pos_embed_seq_len": 10, "in_channels": 36}, False),
        "sparse": ({}, False),
        "features": ({}, False),
        "tangent": ({}, False),
    }


def _distances(name: str, keywords: dict[str, Any], again: bool) -> dict[str, float]:
    plain = {"num_attention_heads": 4, "attention_head_dim": 8, "num_layers": 2, "ffn_dim": 32, "text_dim": 32}
    plain |= {"patch_size": (1, 2, 2), "in_channels": 16, "out_channels": 16, "freq_dim": 32, "rope_max_seq_len": 32}
    generator = torch.Generator().manual_seed(3)
    latents = torch.randn(2, 16, 3, 8, 12, generator=generator)  # 72 tokens, two tiles
    text, onto = torch.randn(2, 512, 32, generator=generator), torch.randn(latents.shape, generator=generator)
    t = torch.rand(2, 72, generator=generator) * 1000 if again else torch.tensor([300.0, 900.0])
    more: dict[str, Any] = {}
    if "image_dim" in keywords:
        more["condition"] = torch.randn(2, 20, *latents.shape[2:], generator=generator)
        more["features"] = torch.randn(2, 2, 5, 16, generator=generator)

    def results(size: int) -> tuple[torch.Tensor, dict[str, torch.Tensor], torch.Tensor]:
        torch.manual_seed(0)
        network = WanTransformer3DModel(**{**plain, **keywords}, cross_attn_norm=True, qk_norm="rms_norm_across_heads")
        handle = RoleHandle("student", {"transformer": network}, trainable=True, split_tokens=split_tokens)
        handle.block_classes, call = (WanTransformerBlock,), None
        if name == "sparse":
            add_gates(network)
            for block in network.blocks:
                torch.nn.init.normal_(block.to_gate_compress.weight, std=0.1)
            handle.bindings = (allow_sparse_calls(network).binding,)
            call = sparse_call(network, latents.shape, 0.5, latents.device)
        training = {"output_dir": "out", "max_train_steps": 1, "num_gpus": size, "sequence_parallel": size}
        args = TrainingArgs(**training, enable_gradient_checkpointing_type=None if name == "tangent" else "full")
        if size > 1:
            shard_roles(RoleManager({"student": handle}), args)

        def predict(noisy: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            with calling(network, call):
                return predict_velocity(network, noisy, t, text, **more, autocast=False)

        if name == "tangent":
            value, tangent = directional_derivative(predict, (latents, t), (onto, torch.ones_like(t)))
            return value, {}, tangent
        start = latents.clone().requires_grad_()
        out = predict(start, t)
        if again:
            out = predict(start - 0.5 * out, t / 2)
        loss = (out * onto).sum()
        if name == "features":
            features = whole_tokens(network, features_of(list(network.blocks), lambda: predict(start, t)))
            loss = loss + sum(feature.square().sum() for feature in features)
            out = torch.stack(features)
        loss.backward()
        named = ((clean_name(key), p.grad) for key, p in network.named_parameters())
        assert start.grad is not None
        return out.detach(), {key: full(grad) for key, grad in named if grad is not None}, start.grad

    whole, shares = results(1), results(2)
    total = shares[2].clone()
    if name != "tangent":
        dist.all_reduce(total)
        total /= 2
    scale = max((gradient.norm() for gradient in whole[1].values()), default=torch.ones(()))
    assert whole[1].keys() == shares[1].keys()
    far = [((one - shares[1][key]).norm() / max(one.norm(), 1e-3 * scale)).item() for key, one in whole[1].items()]
    return {
        "value": (whole[0] - shares[0]).abs().max().item(),
        "gradients": max(far, default=0.0),
        "input": ((whole[2] - total).norm() / whole[2].norm()).item(),
    }
