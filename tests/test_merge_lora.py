"""LoRA files that are merged into a role's weights when these are read: as diffusers' load_lora_weights and fuse_lora do it."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fastvideo_core.config.run import MergedLora
from fastvideo_core.contracts.family import open_family
from fastvideo_core.errors import ConfigError
from fastvideo_core.registry import PluginRegistry
from fastvideo_diffusers.loading import stored_weights
from tests.families import Kind
from tests.lora_files import WAN_NAMES, pairs, write_comfyui, write_diffusers, write_musubi, write_unscaled
from tests.merged_lora import HIGH, LOW, SCALE, base, file, fused, of

__all__ = ["base", "file"]

OF_OLD = ("lora.down", "lora.up")
"""A and B as diffusers itself spelled them."""
WAN, A14B = Kind("wan"), Kind("wan", {"variant": "a14b"})
LTX1, LTX2 = Kind("ltx", {"generation": 1}), Kind("ltx", {"generation": 2})


def assert_equal(
    one: dict[str, Tensor], other: dict[str, Tensor], changed: set[str], before: dict[str, Tensor]
) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], atol=1e-6, rtol=1e-6, msg=name)
    assert {name for name, value in one.items() if (value - before[name]).abs().max() > 1e-3} == changed


@pytest.mark.parametrize(
    ("kind", "network", "write"),
    [
        (WAN, HIGH, lambda path, found: write_diffusers(path, found, alpha=6)),
        (WAN, HIGH, lambda path, found: write_comfyui(path, found, alpha=6.0)),
        (WAN, HIGH, lambda path, found: write_musubi(path, found, alpha=6.0)),
        (A14B, LOW, lambda path, found: write_comfyui(path, found, alpha=6.0)),
        (A14B, HIGH, lambda path, found: write_diffusers(path, found, alpha=6)),
        (LTX1, HIGH, lambda path, found: write_diffusers(path, found, alpha=6)),
        (LTX1, HIGH, lambda path, found: write_unscaled(path, found, prefix="diffusion_model.")),
        (LTX1, HIGH, lambda path, found: write_unscaled(path, found, prefix="transformer.", parts=OF_OLD)),
        (LTX2, HIGH, lambda path, found: write_unscaled(path, found, prefix="diffusion_model.")),
        (LTX2, HIGH, lambda path, found: write_diffusers(path, found, alpha=6)),
    ],
)
def test_a_network_with_a_file_is_what_diffusers_fuses(base, tmp_path, kind, network, write):
    tiny = base(kind)
    pipeline = tiny.pipeline()
    before = {name: value.clone() for name, value in getattr(pipeline, network).state_dict().items()}
    ends = list(WAN_NAMES) if kind.family == "wan" else ["to_q", "to_out.0", "proj"]
    found = pairs(getattr(pipeline, network), ends, rank=4)
    file = write(tmp_path / "lora.safetensors", found)
    given = of(file, scale=SCALE, module=network if network == LOW else None)
    whole = tiny.merged(network, given)
    assert_equal(whole, fused(pipeline, network, (file, SCALE)), {f"{name}.weight" for name in found}, before)
    name = f"{next(iter(found))}.weight"
    assert torch.equal(tiny.source(given)[0].read(network, name, slice(3, 7)), whole[name][3:7])
    stored, _ = tiny.source()
    for other in {*tiny.networks} - {network}:
        assert torch.equal(tiny.source(given)[0].read(other, name), stored.read(other, name))


def test_names_without_a_prefix_are_those_of_the_network(base, tmp_path):
    tiny = base(WAN)
    found = pairs(tiny.pipeline().transformer, ["to_q"], rank=1)
    plain, prefixed = (
        tiny.merged(HIGH, of(write_unscaled(tmp_path / f"{len(prefix)}.safetensors", found, prefix=prefix)))
        for prefix in ("", "transformer.")
    )
    assert_equal(plain, prefixed, {f"{name}.weight" for name in found}, tiny.merged(HIGH))


def test_several_files_add_up_with_ranks_and_biases_of_their_own(base, tmp_path):
    tiny = base(WAN)
    pipeline = tiny.pipeline()
    before = {name: value.clone() for name, value in pipeline.transformer.state_dict().items()}
    mixed = pairs(pipeline.transformer, ["to_q"], rank=4) | pairs(pipeline.transformer, ["ffn.net.2"], rank=3, seed=1)
    first = write_unscaled(tmp_path / "first.safetensors", mixed, prefix="transformer.")
    found = pairs(pipeline.transformer, ["to_q", "to_v"], rank=2, seed=2)
    second = write_comfyui(tmp_path / "second.safetensors", found, alpha=1.0)
    bias = {
        f"{key.removesuffix('.alpha')}.diff_b": torch.ones(24) for key in load_file(second) if key.endswith(".alpha")
    }
    save_file(load_file(second) | bias, second)
    changed = {f"{name}.weight" for name in (*mixed, *found)} | {f"{name}.bias" for name in found}
    expected = fused(pipeline, HIGH, (first, -0.5), (second, 1.0))
    assert_equal(tiny.merged(HIGH, of(first, scale=-0.5), of(second)), expected, changed, before)


def test_a_fingerprint_is_of_values_and_alpha_and_not_of_the_path(base, tmp_path):
    tiny = base(WAN)
    found = pairs(tiny.pipeline().transformer, ["to_q"], rank=2)
    files = [write_diffusers(tmp_path / f"{n}.safetensors", found, alpha=alpha) for n, alpha in enumerate((2, 2, 3))]
    one, same, other = tiny.source(*map(of, files))[1]
    assert one == same != other


@pytest.mark.parametrize(
    ("kind", "more", "told"),
    [
        (
            LTX2,
            "text_embedding_projection.aggregate_embed.lora_A.weight",
            "of other components: connectors.text_proj_in",
        ),
        (
            WAN,
            "diffusion_model.blocks.0.norm3.diff",
            "of whole differences, which diffusers does not read: diffusion_model",
        ),
    ],
)
def test_what_is_of_no_network_of_the_role_is_left_out_with_words(base, tmp_path, caplog, kind, more, told):
    tiny = base(kind)
    found = pairs(tiny.pipeline().transformer, ["to_q"], rank=2)
    if kind == WAN:
        file = write_comfyui(tmp_path / "lora.safetensors", found, alpha=1.0)
    else:
        file = write_unscaled(tmp_path / "lora.safetensors", found, prefix="diffusion_model.")
    before = tiny.merged(HIGH, of(file))
    save_file(load_file(file) | {more: torch.zeros(2, 2)}, file)
    tiny.source(of(file))
    assert (told in caplog.text) is (kind == LTX2)  # a difference of zeros is none
    save_file(load_file(file) | {more: torch.ones(2, 2)}, file)
    after = tiny.merged(HIGH, of(file))
    assert caplog.text.count(told) == 1  # although it was opened twice
    assert [name for name in before if not torch.equal(before[name], after[name])] == []


def test_a_file_of_the_hub_is_fetched_and_recorded_by_its_name(base, file, monkeypatch):
    asked = []
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *names: asked.append(names) or str(file))
    name = "org/name/folder/lora.safetensors"
    family = open_family("wan", PluginRegistry())
    path = str(base(WAN).path)
    _, kept = family.merge_lora(path, stored_weights(path, HIGH), MergedLora(path=name), where="merge_lora")
    assert asked == [("org/name", "folder/lora.safetensors")]
    assert kept.path == name
    assert kept.fingerprint == base(WAN).source(of(file))[1][0]


def test_a_file_of_the_hub_that_cannot_be_fetched_is_told(base):
    with pytest.raises(ConfigError, match="this machine is offline"):
        base(WAN).source(MergedLora(path="org/name/lora.safetensors"))
