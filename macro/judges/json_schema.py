"""The schemas of answers: a small part of JSON Schema, and validation of a value against one.

    schema = obj(label=text(), box=array(number(0, 1), 4, 4))
    schema_error({"label": "dog", "box": [0, 0, 1]}, schema)    "box has 3 entries, not 4"

Only keywords that servers with strict structured outputs support. Every text must be
non-blank. Read next: `chat.py`.
"""

import json
import math
import re
from typing import Any

Schema = dict[str, Any]

_NAMES = {
    "object": "an object", "array": "a list", "string": "a text", "number": "a number",
    "integer": "a whole number", "boolean": "true or false",
}  # fmt: skip


def text() -> Schema:
    return {"type": "string"}


def boolean() -> Schema:
    return {"type": "boolean"}


def number(low: int | float, high: int | float) -> Schema:
    return {"type": "number", "minimum": low, "maximum": high}


def integer(low: int, high: int) -> Schema:
    return {"type": "integer", "minimum": low, "maximum": high}


def array(items: Schema, least: int, most: int) -> Schema:
    return {"type": "array", "items": items, "minItems": least, "maxItems": most}


def obj(**fields: Schema) -> Schema:
    """An object of exactly these fields, in this order: what the model should consider first comes first."""
    return {
        "type": "object", "properties": fields, "required": list(fields), "additionalProperties": False,
    }  # fmt: skip


def schema_error(value: Any, schema: Schema, at: str = "the answer") -> str | None:
    """What is wrong with a value, in a few words, or None.

    Extra fields are no error, since servers without structured outputs tend to add some.
    """
    kind = schema["type"]
    if not _is(value, kind):
        return f"{at} is not {_NAMES[kind]}"
    if kind == "string":
        return _fault_in_text(value, at)
    if kind in ("number", "integer") and not schema["minimum"] <= value <= schema["maximum"]:
        return f"{at} is {value:g}, outside {schema['minimum']:g} to {schema['maximum']:g}"
    if kind == "array":
        return _fault_in_array(value, schema, at)
    if kind == "object":
        for name, field in schema["properties"].items():
            if name not in value:
                return f"{at} has no field {name!r}"
            fault = schema_error(value[name], field, name if at == "the answer" else f"{at}.{name}")
            if fault:
                return fault
    return None


def _is(value: Any, kind: str) -> bool:
    if kind == "number":
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}[kind]


def _fault_in_text(value: str, at: str) -> str | None:
    if not value.strip():
        return f"{at} is empty"
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which no file can hold
        return f"{at} holds half a character"
    return None


def _fault_in_array(value: list, schema: Schema, at: str) -> str | None:
    least, most = schema["minItems"], schema["maxItems"]
    if not least <= len(value) <= most:
        wanted = f"{least}" if least == most else f"{least} to {most}"
        return f"{at} has {len(value)} entries, not {wanted}"
    faults = (schema_error(item, schema["items"], f"{at}[{n}]") for n, item in enumerate(value))
    return next((fault for fault in faults if fault), None)


def only_promised(value: Any, schema: Schema) -> Any:
    """A valid value without its extra fields."""
    if schema["type"] == "object":
        return {name: only_promised(value[name], field) for name, field in schema["properties"].items()}
    if schema["type"] == "array":
        return [only_promised(item, schema["items"]) for item in value]
    return value


# ---- parsing what models write ----

_THOUGHT = re.compile(r"<think>.*?(</think>|\Z)", re.DOTALL)
_DECODER = json.JSONDecoder(parse_constant=lambda name: _refuse(name))


def _refuse(name: str):
    raise ValueError(f"{name} is not JSON")


def extract_json(written: str) -> dict | None:
    """The JSON object in a text: the whole text, or the longest object among thoughts, prose or code fences."""
    written = _THOUGHT.sub("", written)
    longest, size, at = None, 0, written.find("{")
    while at >= 0:
        try:
            found, end = _DECODER.raw_decode(written, at)
        except (ValueError, RecursionError):
            end = at + 1
        else:
            if end - at > size:
                longest, size = found, end - at
        at = written.find("{", end)
    return longest
