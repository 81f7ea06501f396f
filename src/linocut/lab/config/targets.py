"""Losses and architectures by the names of their Python objects, one's own like the built-in ones.

    target: plugins.charbonnier:charbonnier     plugins/charbonnier.py of this checkout
    target: linocut.lab.networks.losses:l1      this library

A target lies in the library or in the folder `plugins/` of the checkout and nowhere else: these are
what DVC watches, and a model.json from a stranger can name nothing but what one has put there.
Its numbers are checked against its signature, so nothing has to be registered.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import pathlib
import sys
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pydantic

from linocut.errors import ConfigError
from linocut.files import sha256_of
from linocut.lab.config.parse import STRICT, parse

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
