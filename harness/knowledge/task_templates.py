"""The templates of a task file: compiled once, kept out of Python's internals, and tried one by one to say which one fails."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

TEMPLATES = ("description", "doc_to_text", "doc_to_choice", "doc_to_target", "gen_prefix")
"""The keys that lm-eval renders for a document, in its order."""

_NULLS: ContextVar[list[None]] = ContextVar("nulls")


def bound_templates(env: Any) -> None:
    """Give lm-eval's template environment a memory, because compiling the same templates for every document is nine tenths of
    the time that building a task takes, and bounds: a task file's templates may not reach into Python's internals."""
    env.from_string = lru_cache(maxsize=256)(env.from_string)
    env.getattr, env.getitem = _bounded(env.getattr), _bounded(env.getitem)
    env.template_class = _noting(env.template_class)
    is_none = env.tests["none"]
    env.tests["none"] = lambda value: isinstance(value, _Null) or is_none(value)


@contextmanager
def noting_nulls() -> Iterator[list[None]]:
    """Around rendering: the list has an entry for each null field of a document that becomes a part of the text in here, by
    whatever way. A field that a template only looks at (``is none``, ``or ""``) is no part of it."""
    found: list[None] = []
    token = _NULLS.set(found)
    try:
        yield found
    finally:
        _NULLS.reset(token)


class _Null:
    """A null of a document, in its templates: false, equal to None, and noted when anything else is done with it."""

    def __bool__(self) -> bool:
        return False

    def __eq__(self, other: object) -> bool:
        return other is None or isinstance(other, _Null)

    def __hash__(self) -> int:
        return hash(None)

    def __str__(self) -> str:
        _NULLS.get([]).append(None)
        return "None"

    __repr__ = __str__

    def __call__(self, *_: object, **__: object) -> _Null:
        str(self)
        return self

    def __getattr__(self, name: str) -> _Null:
        if name.startswith("__"):  # jinja2 asks what it can do (__html__)
            raise AttributeError(name)
        return self()

    def __iter__(self) -> Iterator[object]:
        str(self)
        return iter(())

    def __len__(self) -> int:
        return len(list(self))

    def __add__(self, other: object) -> str:
        return f"{self}{other}"

    def __radd__(self, other: object) -> str:
        return f"{other}{self}"

    __getitem__ = __mod__ = __mul__ = __sub__ = __call__


def _noting(base: Any) -> Any:
    """A class of templates whose documents' nulls are noted where ``noting_nulls`` asks for it."""

    class Noting(base):  # type: ignore[misc] # jinja2's, which this module does not import
        def render(self, *args: Any, **fields: Any) -> str:
            if _NULLS.get(None) is not None:
                fields = {name: _marked(value) for name, value in fields.items()}
            text: str = super().render(*args, **fields)
            return text

    return Noting


def _marked(value: Any) -> Any:
    """A field with each None in it as a ``_Null``."""
    if value is None:
        return _Null()
    if isinstance(value, dict):
        return {key: _marked(part) for key, part in value.items()}
    return [_marked(part) for part in value] if isinstance(value, list) else value


def try_templates(
    config: Mapping[str, Any],
    doc: Mapping[str, Any],
    render: Callable[[str, Mapping[str, Any]], str],
    naming: Callable[[str], AbstractContextManager[None]],
) -> None:
    """Render each template by itself inside of ``naming(key)``, which says what went wrong with its key.

    A name of one of the data's fields is no template, and options are read as a Python list, both as lm-eval has it; of the
    first document's options it wants to see how each begins.
    """
    for key in TEMPLATES:
        template = config.get(key)
        if isinstance(template, str):
            with naming(key):
                made = doc[template] if template in doc else render(template, doc)
                if key == "doc_to_choice":
                    _check_options(made if template in doc else ast.literal_eval(made))


def _check_options(options: Any) -> None:
    if not isinstance(options, list | tuple) or not options or not all(isinstance(one, str) and one for one in options):
        raise ValueError(f"the first document's options are {options!r}, expected texts, none of them empty")


def _bounded(read: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def read_field(value: Any, name: Any) -> Any:
        if isinstance(name, str) and name.startswith("__"):
            raise PermissionError(f"a template may read fields only, and this one reaches for {name!r}")
        return read(value, name)

    return read_field
