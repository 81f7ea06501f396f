"""Plain data, as YAML and JSON hold it, to frozen dataclasses and back, strictly.

The type hints of the dataclass are the whole schema: `int`, `float` (or a whole number), `bool`,
`str`, `Literal`, `tuple`, nested dataclasses, `Annotated[number, Range(...)]`, and
`Annotated[dict[str, ...], Options(...)]` for a mapping from known names to dataclasses.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from linocut.errors import ConfigError

Config = TypeVar("Config")


@dataclasses.dataclass(frozen=True)
class Range:
    """Closed interval that a number has to lie in."""

    lowest: float = -math.inf
    highest: float = math.inf


@dataclasses.dataclass(frozen=True)
class Options:
    """Names that a mapping may hold, each with the dataclass of its value."""

    configs: Mapping[str, type[Any]]


def from_mapping(cls: type[Config], raw: object, key: str = "") -> Config:
    """Build the dataclass `cls` from plain data; `key` is the dotted place that errors name."""
    where = key or "params.yaml"
    hints = get_type_hints(cls, include_extras=True)
    named = _require_known(raw, list(hints), where)
    missing = [name for name in hints if name not in named]
    if missing:
        raise ConfigError(f"{where} lacks {', '.join(missing)}; expected {', '.join(hints)}")
    prefix = f"{key}." if key else ""
    return cls(**{name: _typed(named[name], hint, prefix + name) for name, hint in hints.items()})


def to_mapping(config: Any) -> dict[str, Any]:
    """Plain data of a config dataclass, as JSON and YAML hold it (tuples become lists)."""
    return {field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_mapping(value)
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _typed(value: object, hint: Any, key: str) -> Any:
    """`value` as the type `hint` wants it, or a ConfigError that names `key`."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _constrained(value, arguments[0], arguments[1], key)
    if origin is Literal:
        if value not in arguments:
            raise ConfigError(f"{key} is {value!r}, expected one of {', '.join(arguments)}")
        return value
    if origin is tuple:
        return _items(value, arguments, key)
    if dataclasses.is_dataclass(hint):
        return from_mapping(hint, value, key)  # type: ignore[arg-type]  # a type, not an instance
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint or (hint is float and not math.isfinite(value)):  # type: ignore[arg-type]
        raise ConfigError(f"{key} is {value!r}, expected {_described(value, hint)}")
    return value


def _constrained(value: object, hint: Any, limit: Range | Options, key: str) -> Any:
    if isinstance(limit, Options):
        named = _require_known(value, list(limit.configs), key)
        return {
            name: from_mapping(limit.configs[name], raw, f"{key}.{name}")
            for name, raw in named.items()
        }
    number = _typed(value, hint, key)
    if not limit.lowest <= number <= limit.highest:
        raise ConfigError(f"{key} is {value!r}, expected {limit.lowest} to {limit.highest}")
    return number


def _items(value: object, hints: tuple[Any, ...], key: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise ConfigError(f"{key} is {value!r}, expected a list")
    if hints[-1] is Ellipsis:
        hints = hints[:1] * len(value)
    if len(value) != len(hints):
        raise ConfigError(f"{key} is {value!r}, expected {len(hints)} items")
    return tuple(
        _typed(item, hint, f"{key}[{index}]")
        for index, (item, hint) in enumerate(zip(value, hints, strict=True))
    )


def _described(value: object, hint: type) -> str:
    """What was expected; for `1e-4`, which YAML 1.1 reads as text, also how to write it."""
    if hint is float and isinstance(value, str):
        try:
            return f"a number: write {float(value)!r} with a dot, as in 1.0e-4"
        except ValueError:
            pass
    return {float: "a finite number", int: "a whole number", bool: "true or false"}.get(
        hint, "a text"
    )


def _require_known(raw: object, allowed: list[str], where: str) -> Mapping[str, object]:
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{where} is {raw!r}, expected a mapping of {', '.join(allowed)}")
    for name in raw:
        if name not in allowed:
            expected = ", ".join(allowed) or "no key at all"
            raise ConfigError(f"{where} has the unknown key {name!r}; expected {expected}")
    return raw
