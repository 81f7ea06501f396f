"""Which keys of params.yaml a stage reads: its `main`, and what that hands parameters to.

    python tests/params_read.py     print them, stage by stage

DVC runs a stage again when one of the parameters changes that dvc.yaml lists for it; the test of
the pipeline compares the list with this. Sections are followed by name through assignments, calls,
`dataclasses.replace` and attributes of `self`. What is done with one otherwise reads all of it.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import inspect
import pathlib
import re
import sys
import textwrap
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from linocut.lab.config import params as config

ROOT = pathlib.Path(__file__).resolve().parents[1]
Place = tuple[str, ...]
"""A key of params.yaml, part by part; `*` is the option of the cell."""


def read_by(stage: pathlib.Path) -> set[str]:
    """Keys of numbers that a stage script reads, dotted; `arch.*` and such for those of a cell."""
    specification = importlib.util.spec_from_file_location(f"stage_{stage.stem}", stage)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    path = list(sys.path)
    specification.loader.exec_module(module)
    sys.path[:] = path
    reader = _Reader()
    reader.follow(module.main, {"params": {()}})
    whole = {place for place in reader.read if len(place) == 1}
    return {".".join(place) for place in reader.read if place in whole or place[:1] not in whole}


def numbers_under(key: str) -> set[str]:
    """A key that dvc.yaml lists, as the keys of all numbers that it stands for."""
    place = tuple(re.sub(r"\$\{item\.\w+\}", "*", key).split("."))
    return {".".join(found) for found in _leaves(place)}


def _type_at(place: Place) -> Any:
    found: Any = config.Params
    for part in _kept(place):
        if typing.get_origin(found) is dict:
            found = typing.get_args(found)[1]
        elif dataclasses.is_dataclass(found):
            found = typing.get_type_hints(found).get(part)
    return found


def _kept(place: Place) -> Place:
    """Without the marks of fields that were replaced by values of another origin."""
    return tuple(part for part in place if not part.startswith("-"))


def _leaves(place: Place) -> Iterator[Place]:
    """The numbers at and under a place; of what is no field, a property for example, none."""
    if any(f"-{part}" in place[:index] for index, part in enumerate(place)):
        return  # replaced
    kind = _type_at(place)
    if kind is None:
        return
    axis = place and place[0] in ("arch", "loss", "task")
    if axis or not dataclasses.is_dataclass(kind):
        yield _kept(place)[:2] if axis else _kept(place)
    else:
        for field in dataclasses.fields(kind):  # type: ignore[arg-type]
            yield from _leaves((*place, field.name))


class _Reader:
    def __init__(self) -> None:
        self.read: set[Place] = set()
        self._done: set[Any] = set()

    def follow(self, called: Any, places: Mapping[str, set[Place]]) -> None:
        """Everything that a function or a class does with the arguments that are sections."""
        called = inspect.unwrap(called)
        key = (called, tuple(sorted((name, frozenset(found)) for name, found in places.items())))
        if key in self._done:
            return
        self._done.add(key)
        if not inspect.isclass(called):
            _Body(self, called, places).visit_all()
            return
        own = {f"self.{name}": found for name, found in places.items()}
        for kind in called.__mro__:
            if kind.__module__.startswith("linocut."):
                for method in vars(kind).values():
                    if inspect.isfunction(method) and method.__module__ == kind.__module__:
                        further = places if method.__name__ == "__init__" else {}
                        _Body(self, method, {**own, **further}, called).visit_all()
        for function in vars(sys.modules[called.__module__]).values():
            if inspect.isfunction(function) and function.__module__ == called.__module__:
                for name, annotation in function.__annotations__.items():
                    if annotation in (called, called.__name__):
                        taken = {f"{name}.{field}": found for field, found in places.items()}
                        _Body(self, function, taken).visit_all()

    def all_of(self, place: Place) -> None:
        self.read.update(_leaves(place))


class _Body(ast.NodeVisitor):
    """One function, with what its names stand for."""

    def __init__(
        self, reader: _Reader, function: Any, names: Mapping[str, set[Place]], owner: Any = None
    ) -> None:
        self.reader, self.function, self.owner = reader, function, owner
        self.names = {name: set(found) for name, found in names.items()}
        self.imported: dict[str, Any] = {}
        try:
            self.body = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0].body
        except (OSError, TypeError, AttributeError):  # made by a decorator
            self.body = []

    def visit_all(self) -> None:
        for _ in range(2):  # a name may be used above the line that binds it
            for statement in self.body:
                self.visit(statement)

    def places(self, node: ast.AST) -> set[Place]:
        """The keys that an expression stands for; none for what is no parameter."""
        if isinstance(node, ast.Name):
            return self.names.get(node.id, set())
        if isinstance(node, ast.IfExp):
            return self.places(node.body) | self.places(node.orelse)
        if isinstance(node, ast.Attribute):
            if ast.unparse(node) in self.names:
                return self.names[ast.unparse(node)]
            return {self._step(place, node.attr) for place in self.places(node.value)}
        if isinstance(node, ast.Subscript):
            found = self.places(node.value)
            return {(*p, "*") if typing.get_origin(_type_at(p)) is dict else p for p in found}
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "dataclasses.replace":
            replaced = {f"-{word.arg}" for word in node.keywords}
            return {(*place, *sorted(replaced)) for place in self.places(node.args[0])}
        return set()

    def _step(self, place: Place, name: str) -> Place:
        kind = _type_at(place)
        found = getattr(kind, name, None)
        if isinstance(found, property):
            self.reader.follow(found.fget, {"self": {place}})
        return place if typing.get_origin(kind) is dict else (*place, name)

    def visit(self, node: ast.AST) -> None:
        found = self.places(node) if isinstance(node, ast.expr) else set()
        if found and not isinstance(node, ast.Call):
            for place in found:
                self.reader.all_of(place)
            return
        super().visit(node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = importlib.import_module(str(node.module))
        for alias in node.names:
            found = getattr(module, alias.name, None)
            name = f"{node.module}.{alias.name}"
            self.imported[alias.name] = (
                found if found is not None else importlib.import_module(name)
            )

    def visit_Assign(self, node: ast.Assign) -> None:
        target, value = node.targets[0], node.value
        pairs = [(target, value)]
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
            pairs = list(zip(target.elts, value.elts, strict=True))
        for one, its_value in pairs:
            if not self._bind(one, its_value):
                self.visit(its_value)

    def _bind(self, target: ast.expr, value: ast.expr) -> bool:
        """Whether `target` now stands for a section, read only where something is taken from it."""
        sections = {p for p in self.places(value) if dataclasses.is_dataclass(_type_at(p))}
        if not sections:
            return False
        self.names.setdefault(ast.unparse(target), set()).update(sections)
        if isinstance(value, ast.Call):
            for keyword in value.keywords:
                self.visit(keyword.value)
        if isinstance(value, ast.IfExp):
            self.visit(value.test)
        return True

    def visit_Call(self, node: ast.Call) -> None:
        self.visit(node.func)
        text = ast.unparse(node.func)
        if text in ("isinstance", "stage.watched"):  # the latter reads what dvc.yaml lists
            return
        called = self._called(node.func)
        given: dict[str, set[Place]] = {}
        arguments = [*enumerate(node.args), *((word.arg, word.value) for word in node.keywords)]
        if text == "dataclasses.replace":
            arguments = arguments[1:]
        for position, value in arguments:
            sections = {p for p in self.places(value) if dataclasses.is_dataclass(_type_at(p))}
            name = self._parameter(called, position)
            if sections and name is not None:
                given[name] = sections
                if isinstance(value, ast.Call):
                    self.visit(value)
            else:
                self.visit(value)
        if given:
            self.reader.follow(called, given)

    def _called(self, node: ast.expr) -> Any:
        """The function or class of this project that a call names, or None."""
        parts = ast.unparse(node).split(".")
        if parts[0] == "super()":
            if self.owner is None:
                return None
            kinds = [kind.__qualname__ for kind in self.owner.__mro__]
            above = self.owner.__mro__[1 + kinds.index(self.function.__qualname__.split(".")[0]) :]
            return next((vars(kind)[parts[1]] for kind in above if parts[1] in vars(kind)), None)
        known = {**getattr(self.function, "__globals__", {}), **self.imported}
        found = self.owner if parts[0] == "self" else known.get(parts[0])
        for part in parts[1:]:
            found = getattr(found, part, None)
        inside = getattr(found, "__module__", "") or ""
        return found if callable(found) and inside.startswith(("linocut.", "stage_")) else None

    def _parameter(
        self, called: Callable[..., Any] | None, position: int | str | None
    ) -> str | None:
        if called is None or position is None:
            return None
        try:
            names = [name for name in inspect.signature(called).parameters if name != "self"]
        except ValueError:  # an exception, say
            return None
        if isinstance(position, str):
            return position if position in names else None
        return names[position] if position < len(names) else None


if __name__ == "__main__":
    for script in sorted((ROOT / "stages").glob("*.py")):
        print(script.stem, *sorted(read_by(script)), sep="\n  ")
