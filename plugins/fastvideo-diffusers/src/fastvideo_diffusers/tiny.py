"""Tiny pipelines of random weights in diffusers' real format: their tokenizer and text encoder, and how they are written."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from fastvideo_core.errors import ConfigError, Problem
from fastvideo_diffusers.pipeline_copy import not_empty
from fastvideo_diffusers.quiet import no_progress_bars

_PAD, _END, _UNKNOWN = "<pad>", "</s>", "<unk>"


def check_sizes(
    out: Path, *, at_least_one: Mapping[str, int], multiples: Mapping[str, tuple[int, int]], more: list[Problem]
) -> None:
    """The arguments of a tiny factory make a pipeline, and its folder is new.

    Args:
        out: absent or empty.
        at_least_one: numbers by their name.
        multiples: by name, a number and what it must be a multiple of.
        more: what else the family found wrong.

    Raises:
        ConfigError: naming everything that is wrong.
    """
    problems = not_empty(out)
    for name, value in at_least_one.items():
        if value < 1:
            problems.append(Problem(f"is {value}", where=name, allowed="1 or more"))
    for name, (value, multiple) in multiples.items():
        if value < multiple or value % multiple:
            problems.append(Problem(f"is {value}", where=name, allowed=f"multiples of {multiple}"))
    if problems := problems + more:
        raise ConfigError(problems)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, torch draws weights from `seed`; afterwards the global random state is what it was."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # The smallest layers are empty, which torch's initialisation remarks.
        warnings.simplefilter("ignore", UserWarning)
        torch.default_generator.manual_seed(seed)
        yield


def byte_tokenizer(*, max_length: int) -> PreTrainedTokenizerFast:
    """One token per UTF-8 byte, closed by </s> as T5's tokenizers do: encodes any text without a vocabulary file."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([_PAD, _END, _UNKNOWN, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token=_UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return closed(tokenizer, vocabulary, max_length=max_length)


def closed(tokenizer: Tokenizer, vocabulary: Mapping[str, int], *, max_length: int) -> PreTrainedTokenizerFast:
    """A tokenizer as transformers uses it, which ends every text by </s>; the vocabulary holds <pad>, </s> and <unk>."""
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[(_END, vocabulary[_END])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=_PAD, eos_token=_END, unk_token=_UNKNOWN, model_max_length=max_length
    )


def t5_encoder(
    encoder: Any, config: Any, tokenizer: PreTrainedTokenizerBase, *, width: int, layers: int, **more: Any
) -> Any:
    """A small text encoder of transformers' T5 kind.

    Args:
        encoder: its class, and `config` that of its configuration.
        width: of an embedding; a multiple of 8.
        more: of the configuration.
    """
    sizes = {"d_model": width, "d_kv": 8, "d_ff": 37, "num_layers": layers, "num_heads": width // 8}
    tokens = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    return encoder(config(**{"vocab_size": len(tokenizer), **sizes, **tokens, **more}))


def save_pipeline(
    out: Path,
    pipeline: str,
    *,
    tokenizer: PreTrainedTokenizerBase,
    scheduler: Any,
    tokenizer_class: str = "PreTrainedTokenizerFast",
    settings: Mapping[str, Any] | None = None,
    **models: Any,
) -> None:
    """Writes components and their index as a folder that plain diffusers loads, with transformers 4 and 5.

    Args:
        out: the folder, absent or empty.
        pipeline: name of the diffusers pipeline class.
        tokenizer_class: as the index names it.
        settings: of the pipeline itself, in its index.
        models: by component.
    """
    out.mkdir(parents=True, exist_ok=True)
    with no_progress_bars():
        for name, model in models.items():
            model.save_pretrained(out / name)
    tokenizer.save_pretrained(out / "tokenizer")
    # transformers 5 writes a class name that transformers 4 does not know; this one both do.
    file = out / "tokenizer" / "tokenizer_config.json"
    _write_json(file, {**json.loads(file.read_text(encoding="utf-8")), "tokenizer_class": tokenizer_class})
    scheduler.save_pretrained(out / "scheduler")
    entries = {name: [_library(type(model)), type(model).__name__] for name, model in models.items()}
    entries |= {
        "tokenizer": ["transformers", tokenizer_class],
        "scheduler": ["diffusers", type(scheduler).__name__],
    }
    about = {"_class_name": pipeline, "_diffusers_version": diffusers.__version__}
    _write_json(out / "model_index.json", {**about, **(settings or {}), **entries})


def _library(kind: type) -> str:
    """As a pipeline's index names the library of a class: a pipeline's own models are in a module of diffusers.pipelines."""
    library, *inner = kind.__module__.split(".")
    return inner[1] if (library, *inner[:1]) == ("diffusers", "pipelines") else library


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
