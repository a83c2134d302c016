"""JSON Schema of the configuration, for editors, generated from the sections.

`shipper check` knows more: which values fit together, and some bounds.
"""

import ast
import inspect
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

from shipper.config import keys

Schema = dict[str, Any]

_WITH_REFERENCES = {"StateSection", "GraphiteSection", "SourceSection"}
_REFERENCE: Schema = {
    "description": "Reference to the value: an environment variable, a file, a systemd credential.",
    "type": "object",
    "properties": {kind: {"type": "string"} for kind in ("env", "file", "credential")},
    "minProperties": 1,
    "maxProperties": 1,
    "additionalProperties": False,
}


class _Generator(GenerateJsonSchema):
    """Pydantic's generator, for TOML: it has no null."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> Schema:
        """Describe a key that may be missing."""
        return self.generate_inner(schema["schema"])

    def dict_schema(self, schema: core_schema.DictSchema) -> Schema:
        """Describe a section of sections, and reject keys that do not match."""
        described = super().dict_schema(schema)
        return described | ({"additionalProperties": False} if "patternProperties" in described else {})

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> Schema:
        """Describe a default of a text or a number."""
        inner, default = self.generate_inner(schema["schema"]), schema.get("default")
        return inner | ({"default": default} if default and isinstance(default, str | int) else {})

    def field_title_should_be_set(self, _schema: object) -> bool:
        """Leave titles out: each key has a description."""
        return False


def schema() -> Schema:
    """Return the schema of `shipper.toml`."""
    document = keys.File.model_json_schema(schema_generator=_Generator, ref_template="#/definitions/{model}")
    definitions: dict[str, Schema] = document.pop("$defs")
    for name, key, text in _descriptions():
        definitions.get(name, document)["properties"][key]["description"] = text
    for name, section in definitions.items():
        del section["title"]
        section["properties"] = {key: _referring(name, key, value) for key, value in section["properties"].items()}
    job = definitions["JobSection"]
    needed = job.pop("required")  # of a job together with [defaults]
    definitions |= {
        "Defaults": job | {"description": "Keys of a job, for all jobs that do not have them."},
        "Reference": _REFERENCE,
    }
    properties = document["properties"] | {"defaults": {"$ref": "#/definitions/Defaults"}}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "shipper.toml",
        "description": "Rows to count, how often, and the Graphite that stores the counts.",
        "type": "object",
        "properties": properties,
        "required": ["graphite", "source"],  # files of conf.d may have all jobs
        "additionalProperties": False,
        "allOf": [_needed(key) for key in needed],
        "definitions": definitions,
    }


def _descriptions() -> Iterator[tuple[str, str, str]]:
    """Yield section, key, and the text below the key; pydantic would parse it at each start."""
    sections = (one for one in ast.parse(inspect.getsource(keys)).body if isinstance(one, ast.ClassDef))
    for section in sections:
        for key, text in pairwise(section.body):
            match key, text:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(words))):
                    yield section.name, name, inspect.cleandoc(words)


def _needed(key: str) -> Schema:
    """Require a key of each job, unless [defaults] has it."""
    has = {"properties": {"defaults": {"required": [key]}}, "required": ["defaults"]}
    return {"if": has, "else": {"properties": {"job": {"additionalProperties": {"required": [key]}}}}}


def _referring(section: str, key: str, value: Schema) -> Schema:
    """Allow a reference for each text of the sections in which references are resolved."""
    about = {name: value.pop(name) for name in ("description", "default") if name in value}
    reference = {"$ref": "#/definitions/Reference"}
    if key == "password":
        return about | reference
    if section not in _WITH_REFERENCES or value.get("type") != "string":
        return about | value
    return about | {"anyOf": [value, reference]}
