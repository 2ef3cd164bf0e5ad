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
    env.finalize = _note_null


@contextmanager
def noting_nulls() -> Iterator[list[None]]:
    """Around rendering: what a template writes as "None" in here is in the list. A field that it only looks at is not."""
    found: list[None] = []
    token = _NULLS.set(found)
    try:
        yield found
    finally:
        _NULLS.reset(token)


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
    if not isinstance(options, list | tuple) or not all(isinstance(option, str) and option for option in options):
        raise ValueError(f"the first document's options are {options!r}, expected texts, none of them empty")


def _note_null(value: Any) -> Any:
    """What an expression of a template gives, unchanged."""
    if value is None and (found := _NULLS.get(None)) is not None:
        found.append(value)
    return value


def _bounded(read: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def read_field(value: Any, name: Any) -> Any:
        if isinstance(name, str) and name.startswith("__"):
            raise PermissionError(f"a template may read fields only, and this one reaches for {name!r}")
        return read(value, name)

    return read_field
