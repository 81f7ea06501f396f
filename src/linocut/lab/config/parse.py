"""Plain data, as YAML and JSON hold it, to frozen classes and back, strictly.

    dict --parse(Section)--> Section, checked --plain--> dict

pydantic checks; the messages are written here, because people meet them: one line with the dotted
key, its value, and what is allowed.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar

import pydantic
import pydantic.dataclasses
from pydantic_core import ErrorDetails

from linocut.errors import ConfigError

Config = TypeVar("Config")

STRICT = pydantic.ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
"""For every class of numbers: no guessing of types, no unknown keys."""

_UNKNOWN = ("unexpected_keyword_argument", "extra_forbidden")
_EXPECTED = {
    "bool_type": "true or false",
    "dataclass_type": "a mapping",
    "dict_type": "a mapping",
    "finite_number": "a finite number",
    "float_type": "a finite number",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "model_type": "a mapping",
    "string_type": "a text",
    "tuple_type": "a list",
}
_LIMITS = {
    "greater_than": ("more than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}


def parse(cls: type[Config], raw: object, key: str = "", where: str = "params.yaml") -> Config:
    """Build `cls`, a dataclass or a model of pydantic, from plain data.

    Args:
        cls: what to build.
        raw: mappings, lists, texts and numbers.
        key: dotted place of `raw` in its file; nothing for the whole of it.
        where: what errors call the whole.

    Raises:
        ConfigError: a key is missing or unknown, or a value is of the wrong type or out of range.
    """
    if not isinstance(raw, Mapping):
        names = ", ".join(_fields(cls))
        raise ConfigError(f"{key or where} is {raw!r}, expected a mapping of {names}")
    try:
        # The strict rules for JSON: a list will do for a tuple, a whole number for a float.
        checker: pydantic.TypeAdapter[Config] = pydantic.TypeAdapter(_strict(cls))  # type: ignore[arg-type]
        return checker.validate_json(json.dumps(raw, default=str))
    except pydantic.ValidationError as error:
        raise ConfigError(_message(cls, error.errors(), key, where)) from None


def plain(value: Any) -> Any:
    """What YAML and JSON hold of a config: mappings and lists in place of classes and tuples."""
    if hasattr(value, "as_plain"):
        return value.as_plain()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return {name: plain(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


@functools.cache
def _strict(cls: Any) -> Any:
    """A class that checks what it is made of, also of a dataclass of the standard library."""
    parameters = getattr(cls, "__dataclass_params__", None)
    if parameters is None or hasattr(cls, "__pydantic_validator__"):
        return cls
    strict: Any = pydantic.dataclasses.dataclass(cls, frozen=parameters.frozen, config=STRICT)
    strict.__module__ = cls.__module__
    return strict


def _message(cls: type, problems: Sequence[ErrorDetails], key: str, where: str) -> str:
    """The first problem in a line; a misspelt key goes before the one that it leaves missing."""
    problem = min(problems, key=lambda one: one["type"] not in _UNKNOWN)
    place, kind, value = problem["loc"], problem["type"], problem["input"]
    name = _dotted(key, place) or where
    parent = _dotted(key, place[:-1]) or where
    if kind in _UNKNOWN:
        owner = _type_at(cls, place[:-1])
        names = ", ".join(_fields(owner)) or "no key at all"
        return f"{parent} has the unknown key {place[-1]!r}; {_called(owner)} takes {names}"
    if kind == "missing" and isinstance(place[-1], str):
        missing = [one["loc"][-1] for one in problems if one["loc"][:-1] == place[:-1]]
        names = ", ".join(_fields(_type_at(cls, place[:-1])))
        return f"{parent} lacks {', '.join(map(str, missing))}; expected {names}"
    if kind == "missing":
        count = len(typing.get_args(_type_at(cls, place[:-1])))
        return f"{parent} is {value!r}, expected {count} items"
    context = problem.get("ctx", {})
    if kind in _LIMITS:
        words, bound = _LIMITS[kind]
        expected = f"{words} {context[bound]}"
    elif kind == "too_long":
        expected = f"{context['max_length']} items"
    elif kind == "literal_error":
        expected = str(context["expected"])
    elif kind == "float_type" and isinstance(value, str) and _is_number(value):
        expected = f"a number: write {float(value)!r} with a dot, as in 1.0e-4"
    else:
        expected = _EXPECTED.get(kind, problem["msg"])
    return f"{name} is {value!r}, expected {expected}"


def _dotted(key: str, place: Sequence[str | int]) -> str:
    """`("rates", 1)` under `code` -> `code.rates[1]`."""
    text = key
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.lstrip(".")


def _type_at(cls: Any, place: Sequence[str | int]) -> Any:
    """The type of the field at a place, without its limits."""
    for part in place:
        if isinstance(part, str) and typing.get_origin(cls) is None:
            cls = typing.get_type_hints(cls, include_extras=True)[part]
        else:
            cls = typing.get_args(cls)[-1]  # of a dict[str, X] or a tuple[X, ...]
        if typing.get_origin(cls) is Annotated:
            cls = typing.get_args(cls)[0]
    return cls


def _fields(cls: Any) -> list[str]:
    if isinstance(cls, type) and issubclass(cls, pydantic.BaseModel):
        return list(cls.model_fields)
    return [field.name for field in dataclasses.fields(cls)]


def _called(cls: Any) -> str:
    """Where somebody would add a key: module and class, or the function that takes it."""
    if issubclass(cls, pydantic.BaseModel):
        return str(cls.model_config["title"])
    return f"{cls.__module__}:{cls.__name__}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
