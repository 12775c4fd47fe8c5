"""`fastvideo-distill init FAMILY METHOD`: a commented run.yaml that passes `check`."""

from __future__ import annotations

import argparse
import itertools
import json
import re
import tempfile
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastvideo_core.launch.stdio import say
from fastvideo_core.registry.specs import Command, MethodPlugin

if TYPE_CHECKING:  # pydantic is imported when a file is written, not to show help
    from pydantic import BaseModel

    from fastvideo_core.registry.registry import PluginRegistry

FROZEN = ("teacher", "reference", "real_score")
"""Roles that are tried frozen first; whether that is right, the method says."""

PLAIN = {"output_dir": "output", "max_train_steps": 1000, "train_batch_size": 1, "learning_rate": 1e-5}
"""The settings of `training` that are written out."""

MODEL, DATA = "path/to/model", "path/to/latents"
"""Stand for what the user has yet to name."""

_WIDTH = 118


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `init`."""
    parser.add_argument("family", help="an installed model family")
    parser.add_argument("method", help="an installed method")
    parser.add_argument(
        "--out", type=Path, default=Path("run.yaml"), help="file to write (default: run.yaml); must be new"
    )
    parser.add_argument(
        "--model", default=MODEL, help="the path of every role: a folder or hub id, which need not be there yet"
    )
    parser.add_argument(
        "--data", help=f"the parquet data set, likewise (default: {DATA}, for families that preprocess)"
    )
    parser.add_argument(
        "--one-base",
        action="store_true",
        help="trained roles are LoRA adapters on the teacher's networks, in memory once",
    )


def run(args: argparse.Namespace) -> int:
    """Writes the file and says what is left to do."""
    from fastvideo_core.errors import ConfigError, Problem

    if args.out.exists():
        raise ConfigError(Problem("there is a file already", where=str(args.out), fix="name another one with --out"))
    text = run_yaml(args.family, args.method, args.registry, args.model, args.data, one_base=args.one_base)
    args.out.write_text(text, encoding="utf-8")
    missing = [path for path in (MODEL, DATA) if json.dumps(path) in text]
    paths = f"put your own paths in place of {' and '.join(missing)}, then " if missing else ""
    say(f"{args.out}: {args.method} of {args.family}; next: {paths}fastvideo-distill check {args.out}")
    return 0


def run_yaml(
    family: str, method: str, registry: PluginRegistry, model: str, data: str | None, *, one_base: bool = False
) -> str:
    """The text of the file: what must be said, and every other option as a comment with its default and meaning.

    With `one_base` trained roles are adapters on the networks of the first frozen one.

    Raises:
        PluginError: family or method is not installed, or broken.
        ConfigError: no roles were found that the method accepts; or one base is wanted, and it has not both kinds of roles.
    """
    from fastvideo_core.config.base import MethodConfig
    from fastvideo_core.contracts.family import family_class

    family_plugin = registry.get("models", family)
    method_plugin = registry.get("methods", method)
    pipeline, options = registry.config_class(family_plugin), registry.config_class(method_plugin)
    if data is None and "encoder" in family_class(family_plugin, registry).offers():
        data = DATA
    wanted = options if issubclass(options, MethodConfig) else MethodConfig
    training = {**PLAIN, **wanted.training_options}
    sections = {
        "pipeline_config": {**required_values(pipeline), **wanted.pipeline_options},
        "method_config": required_values(options),
    }
    plain: dict[str, Any] = {
        "recipe": {"family": family, "method": method},
        "training": training if data is None else {**training, "data_path": data},
        **{name: values for name, values in sections.items() if values},
    }
    assert isinstance(method_plugin.spec, MethodPlugin)
    optional = method_plugin.spec.optional_roles
    roles = _accepted_roles(plain, method_plugin.spec.roles, optional, model, registry, one_base=one_base)
    optional = tuple(role for role in optional if role not in roles)
    from fastvideo_core.config.training import TrainingArgs

    parts = [
        (
            f"# A run of method {method} on family {family}. `fastvideo-distill check` says whether it can run. Options\n"
            "# that are commented out have the value that is shown; `fastvideo-distill schema NAME` shows their ranges.\n"
        ),
        f"recipe: {{family: {family}, method: {method}}}\n",
        "roles:  # a path is a folder, a hub id (org/name) or one of our own checkpoints\n"
        + "".join(f"  {role}: {_flow(values)}\n" for role, values in roles.items())
        + "".join(f"  # {role}: {{path: {json.dumps(model)}, trainable: false}}  # optional\n" for role in optional),
        _section("training", TrainingArgs, plain["training"]),
        _section("pipeline_config", pipeline, sections["pipeline_config"]),
        _section("method_config", options, sections["method_config"]),
        "# callbacks:\n"
        + "".join(f"#   {name}: {{}}  # fastvideo-distill schema {name}\n" for name in registry.names("callbacks")),
    ]
    return "\n".join(parts)


def required_values(model: type[BaseModel]) -> dict[str, Any]:
    """A value for every option without a default: the smallest or first that is allowed."""
    from fastvideo_core.config.describe import json_schema, resolve

    schema = json_schema(model)
    fields = resolve(schema, schema).get("properties", {})
    return {
        name: _some(fields.get(name, {}), schema) for name, info in model.model_fields.items() if info.is_required()
    }


def _some(schema: dict[str, Any], root: dict[str, Any]) -> Any:
    """A value that the schema allows; `root` holds what it refers to."""
    from fastvideo_core.config.describe import branches, resolve

    schema = resolve(schema, root)
    if several := branches(schema):
        return _some(several[0], root)
    if "const" in schema or "enum" in schema:
        return schema.get("const", schema.get("enum", [None])[0])
    kind = schema.get("type")
    if kind in ("integer", "number"):
        return schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1)
    if kind == "object":
        fields = schema.get("properties", {})
        return {name: _some(fields[name], root) for name in schema.get("required", ())}
    if kind == "array":
        first = [_some(item, root) for item in schema.get("prefixItems", ())]
        return first or [_some(schema.get("items", {}), root)] * int(schema.get("minItems", 0))
    return {"boolean": False, "null": None}.get(str(kind), "CHANGE-ME")


def _accepted_roles(
    plain: Mapping[str, Any],
    names: tuple[str, ...],
    optional: tuple[str, ...],
    model: str,
    registry: PluginRegistry,
    *,
    one_base: bool,
) -> dict[str, dict[str, Any]]:
    """The section `roles`, as the method's and the family's own checks accept it; paths need not be there.

    With as few of the optional ones as its defaults accept, or as one base needs.
    """
    from fastvideo_core.config.base import is_hub_id
    from fastvideo_core.dispatch.load_run_config import load_run_config
    from fastvideo_core.errors import ConfigError, Problem

    first: ConfigError | None = None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "run.yaml"
        training = plain["training"]
        if not Path(training.get("data_path", folder)).exists():
            training = {**training, "data_path": folder}
        there = model if Path(model).exists() or is_hub_id(model) else folder
        more = itertools.chain.from_iterable(itertools.combinations(optional, n) for n in range(len(optional) + 1))
        for trainable in itertools.chain.from_iterable(_combinations((*names, *chosen)) for chosen in more):
            roles: dict[str, dict[str, Any]] = {name: {"path": model, "trainable": value} for name, value in trainable}
            if one_base:
                owner = next((name for name, value in trainable if not value), None)
                if owner is None or len(set(dict(trainable).values())) == 1:
                    continue
                adapters = {"lora": {"rank": 64}, "share": owner}
                roles = {name: role | (adapters if role["trainable"] else {}) for name, role in roles.items()}
            tried = {name: role | {"path": there} for name, role in roles.items()}
            file.write_text(json.dumps({**plain, "training": training, "roles": tried}), encoding="utf-8")
            try:
                load_run_config(file, registry)
            except ConfigError as error:
                first = first or error
            else:
                return roles
    if first is None:
        found = f"method '{plain['recipe']['method']}' has no frozen role, whose networks a trained one could share"
        fix = "leave it out; for adapters alone, add lora: {rank: 64} to the role"
        raise ConfigError(Problem(found, "--one-base", fix=fix))
    raise ConfigError([replace(problem, where=problem.where.partition(" ")[2]) for problem in first.problems])


def _combinations(names: tuple[str, ...]) -> Iterator[list[tuple[str, bool]]]:
    """Which roles train: the likely choice, then all others."""
    likely = [(name, name not in FROZEN) for name in names]
    yield likely
    for values in itertools.product((True, False), repeat=len(names)):
        if (other := list(zip(names, values, strict=True))) != likely:
            yield other


def _yaml(value: Any) -> str:
    """A value on one line; 1e-05 becomes 1.0e-05, which every YAML reader takes for a number."""
    text = json.dumps(value)
    return text if isinstance(value, str) else re.sub(r"(?<![\d.])(\d+)e(?=[-+]?\d)", r"\1.0e", text)


def _flow(value: Any) -> str:
    """A value of a role on one line: a mapping's keys and names of roles need no quotes."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_flow(one)}' for key, one in value.items())}}}"
    return json.dumps(value)


def _section(title: str, model: type[BaseModel], values: Mapping[str, Any]) -> str:
    """A section of the file: `values`, and the other options as comments."""
    from fastvideo_tools.options import all_options

    lines = [f"{title}:" if values else f"# {title}:"]
    for option in all_options(model):
        if option.name not in model.model_fields:
            continue
        active = option.name in values
        value = _yaml(values[option.name] if active else option.default)
        lead = "  " if active else "#   "
        lines += (
            textwrap.wrap(option.meaning, _WIDTH, initial_indent="  # ", subsequent_indent="  # ") if active else []
        )
        lines.append(f"{lead}{option.name}: {value}" + ("" if active else f"  # {option.meaning}".rstrip("# ")))
    return "\n".join(lines) + "\n"


COMMAND = Command(add_arguments, run)
