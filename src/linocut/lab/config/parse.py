"""Plain data, as YAML and JSON hold it, to frozen classes and back, strictly; names to objects.

    dict --parse(Section)--> Section, checked --plain--> dict
    target: plugins.charbonnier:charbonnier --find--> plugins/charbonnier.py of this checkout
    target: linocut.lab.networks.losses:l1  --find--> this library

pydantic checks; the messages are written here, because people meet them: one line with the dotted
key, its value, and what is allowed.

A target, the loss or architecture of an option, lies in the library or in the folder `plugins/` of
the checkout and nowhere else: these are what DVC watches, and a model.json from a stranger can name
nothing but what one has put there. Its numbers are checked against its signature, so nothing has to
be registered.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import importlib
import inspect
import json
import pathlib
import sys
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

import pydantic
import pydantic.dataclasses
from pydantic_core import ErrorDetails

from linocut.errors import ConfigError
from linocut.files import sha256_of

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


# --- targets: losses and architectures by the names of their Python objects -----------------------


LIBRARY, PLUGINS = "linocut", "plugins"
CHECKOUT = pathlib.Path(__file__).resolve().parents[4]
"""The folder that `plugins/` lies in, beside `src/`."""


def find(target: str, key: str = "target") -> Any:
    """The function or class that `target` names.

    Args:
        target: `module:name`, the module one of `linocut` or of `plugins`.
        key: what errors call the target.

    Raises:
        ConfigError: there is no such object; says where it was looked for.
    """
    found = f"{key} is {target!r}"
    module_name, colon, name = str(target).partition(":")
    package = module_name.partition(".")[0]
    if not colon or not name.isidentifier() or package not in (LIBRARY, PLUGINS):
        raise ConfigError(
            f"{found}, expected module:name with a module of linocut or of {CHECKOUT / PLUGINS}, "
            "as in plugins.charbonnier:charbonnier"
        )
    if package == PLUGINS:
        if not plugin_file(module_name).is_file():
            raise ConfigError(
                f"{found}, but {plugin_file(module_name)} does not exist (a temporary experiment "
                "has the files that git knows: git add it)"
            )
        if str(CHECKOUT) not in sys.path:
            sys.path.append(str(CHECKOUT))
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # it is code of somebody else, which may do anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigError(f"{found}, but importing {module_name} fails: {reason}") from None
    if not hasattr(module, name):
        offered = [n for n, o in vars(module).items() if _is_offered(n, o, module_name)]
        raise ConfigError(
            f"{found}, but {module.__file__} has no {name!r}; it has {', '.join(offered)}"
        )
    return getattr(module, name)


def numbers_of_function(function: Any, target: str, raw: object, key: str) -> dict[str, Any]:
    """The keyword-only arguments of a function, checked against its annotations.

    Raises:
        ConfigError: it takes other arguments than two pictures and these numbers.
    """
    if not callable(function) or inspect.isclass(function):
        raise ConfigError(f"{key}.target is {target!r}, which is no function")
    parameters = inspect.signature(function).parameters.values()
    pictures = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    keywords = [p for p in parameters if p.kind is p.KEYWORD_ONLY]
    hints = typing.get_type_hints(function, include_extras=True)
    bare = [p.name for p in keywords if p.name not in hints]
    if len(pictures) != 2 or len(pictures) + len(keywords) != len(parameters) or bare:
        raise ConfigError(
            f"{key}.target is {target!r}, which takes {inspect.signature(function)}; expected "
            "(x_hat, x, *, number: float), every number with its type"
        )
    fields: dict[str, Any] = {
        p.name: (hints[p.name], ... if p.default is p.empty else p.default) for p in keywords
    }
    model = pydantic.create_model(target, __config__=STRICT | {"title": target}, **fields)
    checked: pydantic.BaseModel = parse(model, raw, key)
    return checked.model_dump()


def config_type(network: Any, target: str, key: str = "target") -> type[Any]:
    """The class of numbers that a class of networks is built from.

    Raises:
        ConfigError: it is no class with `analysis` and `synthesis`, or takes something else.
    """
    hints = {}
    if inspect.isclass(network) and hasattr(network, "analysis") and hasattr(network, "synthesis"):
        hints = typing.get_type_hints(network.__init__)
    config = hints.get("config")
    if not inspect.isclass(config):
        raise ConfigError(
            f"{key} is {target!r}, expected a class with analysis, synthesis, and a constructor "
            "(self, config: C), where C is a dataclass of numbers"
        )
    return config


def sources(targets: Iterable[str]) -> dict[str, str]:
    """Files of `plugins/` that these targets are made of, each with its SHA-256; none of ours."""
    found: dict[str, str] = {}
    waiting = [name.partition(":")[0] for name in targets]
    while waiting:
        name = waiting.pop()
        file = plugin_file(name)
        where = file.relative_to(CHECKOUT).as_posix()
        if name.partition(".")[0] != PLUGINS or where in found or not file.is_file():
            continue
        content = file.read_bytes()
        found[where] = sha256_of(content)
        waiting += _imported(content)
    return dict(sorted(found.items()))


def record(targets: Iterable[str], file: pathlib.Path) -> None:
    """Write what `sources` finds: what a stage of DVC depends on."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(sources(targets), indent=2) + "\n", encoding="utf-8")


def plugin_file(module: str) -> pathlib.Path:
    """`plugins.a.b` -> plugins/a/b.py, or plugins/a/b/__init__.py where that is there."""
    path = CHECKOUT.joinpath(*module.split("."))
    package = path / "__init__.py"
    return package if package.is_file() else path.with_suffix(".py")


def _imported(source: bytes) -> list[str]:
    """Names that a module may import, those of modules and those of what is in them."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names


def _is_offered(name: str, value: object, module: str) -> bool:
    public = not name.startswith("_") and isinstance(value, Callable)  # type: ignore[arg-type]
    return public and getattr(value, "__module__", None) == module


def split(raw: object, key: str) -> tuple[str, Mapping[str, object]]:
    """The target of an option of conf/, and the rest of it.

    Raises:
        ConfigError: there is none.
    """
    if not isinstance(raw, Mapping) or not isinstance(raw.get("target"), str):
        raise ConfigError(
            f"{key} is {raw!r}, expected a mapping with `target: module:name` and its numbers"
        )
    return raw["target"], {name: value for name, value in raw.items() if name != "target"}
