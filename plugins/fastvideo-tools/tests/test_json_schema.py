"""`schema run --json`: a JSON schema of run.yaml with everything that is installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from fastvideo_core.cli import main as cli
from fastvideo_core.registry import PluginRegistry
from fastvideo_testing import toy_world
from fastvideo_tools.json_schema import run_schema


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")


def resolved(schema: dict[str, Any], reference: dict[str, Any]) -> dict[str, Any]:
    key = reference["$ref"].removeprefix("#/$defs/").replace("~1", "/").replace("~0", "~")
    found: dict[str, Any] = schema["$defs"][key]
    return found


def references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [ref for item in value.values() for ref in references(item)]
    return [ref for item in value for ref in references(item)] if isinstance(value, list) else []


def test_the_schema_of_a_run_follows_family_and_method() -> None:
    with toy_world():
        schema = run_schema(PluginRegistry())
    assert all(resolved(schema, {"$ref": reference}) for reference in references(schema))
    chosen = {
        (field, condition["const"]): rule["then"]["properties"]
        for rule in schema["allOf"]
        for field, condition in rule["if"]["properties"]["recipe"]["properties"].items()
    }
    config = resolved(schema, chosen["method", "toy"]["method_config"]["anyOf"][0])
    assert config["properties"]["guidance_scale"]["minimum"] == 0
    family = resolved(schema, chosen["family", "toy"]["pipeline_config"]["anyOf"][0])
    assert "num_samples" in family["properties"]
    training = resolved(schema, schema["properties"]["training"])
    assert training["additionalProperties"] is False
    assert "output_dir" in training["required"]


NESTED = """\
from pathlib import Path
from typing import Annotated, Literal
from fastvideo_core import DistillMethod, MethodConfig, PluginConfig, register_callback, register_method
from pydantic import Field

class Ring(PluginConfig):
    form: Literal["ring"] = Field("ring", description="Form")
    width: int = Field(1, ge=0, description="Width")

class Disc(PluginConfig):
    form: Literal["disc"] = Field("disc", description="Form")

class Config(MethodConfig):
    shape: Annotated[Ring | Disc, Field(discriminator="form")] = Field(Disc(), description="Shape")
    where: Path = Field(Path("x"), strict=False, description="Where")

class Other(PluginConfig):
    ring: Ring = Field(Ring(), description="Ring")

@register_method("nested", config=Config, roles=("student",))
class Nested(DistillMethod):
    pass

@register_callback("nested", config=Other)
class Watch:
    pass
"""


def test_schemas_of_nested_options_hold_all_that_they_refer_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "nested.py").write_text(NESTED)
    with toy_world():
        assert cli.main(["schema", "run", "--json", "--plugin", "nested.py"]) == 0
        whole = json.loads(capsys.readouterr().out)
        assert cli.main(["schema", "nested", "--json", "--plugin", "nested.py"]) == 0
        both = json.loads(capsys.readouterr().out)
        assert cli.main(["schema", "training", "--json"]) == 0
        training = json.loads(capsys.readouterr().out)
        assert cli.main(["schema", "nested", "--plugin", "nested.py"]) == 0
    assert "\nshape.width  a whole number >= 0  1 " in capsys.readouterr().out
    for schema in (whole, both, training):
        assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
        jsonschema.Draft202012Validator.check_schema(schema)
        assert all(resolved(schema, {"$ref": reference}) for reference in references(schema))
    assert training["title"] == "training"
    (method,) = (rule["then"]["properties"]["method_config"] for rule in whole["allOf"] if "nested" in str(rule["if"]))
    mapping = resolved(whole, method["anyOf"][0])["properties"]["shape"]["discriminator"]["mapping"]
    assert resolved(whole, {"$ref": mapping["ring"]})["properties"]["width"]["minimum"] == 0
    validator = jsonschema.Draft202012Validator(both)
    assert validator.is_valid({"shape": {"form": "ring", "width": 3}})
    assert validator.is_valid({"ring": {"width": 3}})
    assert not validator.is_valid({"ring": {"width": -1}})


def test_schema_run_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    with toy_world():
        assert cli.main(["schema", "run", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["required"] == ["recipe", "roles", "training"]
        assert cli.main(["schema", "run"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("run.yaml\n\nSECTION")
    assert "method_config" in out
