"""The JSON Schema of the configuration, for editors: made from the models, so that it says what they say.

What a model reads with a function, this describes by that function's name. What must fit together, and some bounds,
only `shipper check` knows.
"""

import ast
import inspect
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

from shipper.config import sections, values

Schema = dict[str, Any]

_DURATION = r"[1-9][0-9]{0,9}[smhdwy]"
_IDENTIFIER = "[A-Za-z_][A-Za-z0-9_$]{0,63}"
_NODE = "[A-Za-z0-9_-]{1,100}"
_NODES = r"([A-Za-z0-9_-]|\{[^{}]*\})+"
_ARCHIVE = rf"\s*{_DURATION}:{_DURATION}\s*"


def _text(pattern: str) -> Schema:
    return {"type": "string", "pattern": f"^{pattern}$"}


_SCALAR = {"type": ["string", "number", "boolean"]}
_SCALARS = {"type": "array", "items": _SCALAR, "minItems": 1}
_TEST: Schema = {
    "type": "object",
    "properties": {
        "not": {"anyOf": [_SCALAR, _SCALARS]},
        "like": {"type": "string"},
        **dict.fromkeys(("ge", "gt", "le", "lt"), _SCALAR),
        "null": {"type": "boolean"},
    },
    "minProperties": 1,
    "additionalProperties": False,
}
_READ: dict[Callable[..., object], Schema] = {
    values.duration: _text(_DURATION),
    values.duration_or_false: {"anyOf": [_text(_DURATION), {"const": False}]},
    values.listen: _text(r"(off|unix:/.*|(127\.0\.0\.1|localhost|\[::1\]):[0-9]{1,5})"),
    values.render_url: _text("https?://[^?#]+"),
    values.retentions: _text(f"{_ARCHIVE}(,{_ARCHIVE})*"),
    values.identifier: _text(_IDENTIFIER),
    values.table: _text(rf"({_IDENTIFIER}\.)?{_IDENTIFIER}"),
    values.node: _text(_NODE),
    values.prefix: _text(rf"{_NODE}(\.{_NODE})*"),
    values.template: _text(rf"{_NODES}(\.{_NODES})*"),
    values.tag: _text(r"([A-Za-z0-9_.-]|\{[^{}]*\})+"),
    values.tag_name: _text(_NODE),
    values.start: {"anyOf": [{"enum": ["now", "beginning"]}, {"type": "integer", "minimum": 0}]},
    values.host: {"type": "string", "minLength": 1},
    values.path: _text("/.*"),
    values.url: _text(f"({'|'.join(values.DIALECTS)})://.*".replace("+", r"\+")),
    values.zone: {"type": "string", "minLength": 1},
    values.sources: {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]},
    values.cron: _text(r"(@[a-z]+|\s*\S+(\s+\S+){4}\s*)"),
    values.measure: _text(f"(count|(sum|max|min):{_IDENTIFIER})"),
    values.conditions: {"anyOf": [_SCALAR, _SCALARS, _TEST]},
    values.where_sql: {"type": "string"},
    values.groups: {
        "type": "array",
        "items": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
    },
}
"""What the file may hold where a function reads it."""

_DURATIONS = [_READ[read] for read in (values.duration, values.duration_or_false)]
_WITH_REFERENCES = {"StateSection", "GraphiteSection", "SourceSection"}
_REFERENCE: Schema = {
    "description": "The value stands elsewhere: an environment variable, a file, a systemd credential.",
    "type": "object",
    "properties": {kind: {"type": "string"} for kind in ("env", "file", "credential")},
    "minProperties": 1,
    "maxProperties": 1,
    "additionalProperties": False,
}


class _Generator(GenerateJsonSchema):
    """Describes what stands in the file, not what is made of it."""

    def function_before_schema(self, schema: core_schema.BeforeValidatorFunctionSchema) -> Schema:
        """Describe what the function reads."""
        return _READ[schema["function"]["function"]]

    def function_after_schema(self, schema: core_schema.AfterValidatorFunctionSchema) -> Schema:
        """Describe what the function accepts; pydantic has some of its own."""
        inner = self.generate_inner(schema["schema"])
        return inner | _READ.get(schema["function"]["function"], {})

    def nullable_schema(self, schema: core_schema.NullableSchema) -> Schema:
        """Describe a key that may be left out: TOML has no null."""
        return self.generate_inner(schema["schema"])

    def dict_schema(self, schema: core_schema.DictSchema) -> Schema:
        """Describe a section of sections: a key that is not a name is none."""
        found = super().dict_schema(schema)
        return found | ({"additionalProperties": False} if "patternProperties" in found else {})

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> Schema:
        """Tell a default that the file would say as it is, or as a duration."""
        inner, default = self.generate_inner(schema["schema"]), schema.get("default")
        if isinstance(default, int) and inner in _DURATIONS:
            default = values.as_duration(default)
        return inner | ({"default": default} if default and isinstance(default, str | int) else {})

    def field_title_should_be_set(self, _schema: object) -> bool:
        """Keep to the descriptions."""
        return False


def schema() -> Schema:
    """Return the schema of `shipper.toml`."""
    document = sections.File.model_json_schema(schema_generator=_Generator, ref_template="#/definitions/{model}")
    definitions: dict[str, Schema] = document.pop("$defs")
    told = _docstrings()
    for name, section in definitions.items():
        del section["title"]
        for key, value in section["properties"].items():
            section["properties"][key] = {"description": told[name][key]} | _referring(name, key, value)
    job = definitions["JobSection"]
    needed = job.pop("required")
    definitions |= {
        "Defaults": job | {"description": "Any key of a job, for all jobs that do not say otherwise."},
        "Reference": _REFERENCE,
    }
    properties = document["properties"] | {"defaults": {"$ref": "#/definitions/Defaults"}}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "shipper.toml",
        "description": "What to count, where, how often, and where the numbers go.",
        "type": "object",
        "properties": properties,
        "required": ["graphite", "source"],  # files of conf.d may have all jobs
        "additionalProperties": False,
        "allOf": [_needed(key) for key in needed],
        "definitions": definitions,
    }


def _needed(key: str) -> Schema:
    """Ask each job for a key that [defaults] does not have."""
    has = {"properties": {"defaults": {"required": [key]}}, "required": ["defaults"]}
    return {"if": has, "else": {"properties": {"job": {"additionalProperties": {"required": [key]}}}}}


def _referring(section: str, key: str, value: Schema) -> Schema:
    """Allow a reference where one is resolved: for each text of some sections."""
    reference = {"$ref": "#/definitions/Reference"}
    if key == "password":
        return reference
    if section not in _WITH_REFERENCES or not _is_text(value):
        return value
    default = {"default": value.pop("default")} if "default" in value else {}
    return default | {"anyOf": [*value.get("anyOf", [value]), reference]}


def _is_text(value: Schema) -> bool:
    return any(one.get("type") == "string" for one in value.get("anyOf", [value]))


def _docstrings() -> dict[str, dict[str, str]]:
    """Read what stands below each key in sections.py, by section."""
    classes = [node for node in ast.parse(inspect.getsource(sections)).body if isinstance(node, ast.ClassDef)]
    return {node.name: dict(_below(node)) for node in classes}


def _below(section: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for key, below in pairwise(section.body):
        match key, below:
            case ast.AnnAssign(target=ast.Name(name)), ast.Expr(ast.Constant(str(text))):
                yield name, text
