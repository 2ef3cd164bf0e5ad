"""From the matrix's task entries to tasks that a cell can be asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from harness.core.errors import ConfigError
from harness.core.probes import ProbeIndex
from harness.core.shelf import construct
from harness.execution.matrix import CellPlan, TaskEntry
from harness.knowledge import KNOWLEDGE, KnowledgeTask
from harness.scoring import identity_of

_PATHS = ("folder", "file", "include", "vocabulary", "names")
"""Fields of tasks that are paths."""


def make_task(
    name: str,
    entry: TaskEntry,
    base: Path,
    *,
    limit: int | None = None,
    data: Path | None = None,
    family: str | None = None,
) -> KnowledgeTask:
    """A task from its matrix entry; fields that are paths (``file``, ``folder`` …) start at ``base``, the matrix's folder.

    ``data`` is the offline mirror, for suites that load data sets; ``family`` the model's, for suites whose items depend on
    how it reads. Raises ConfigError.
    """
    suite = KNOWLEDGE.load(entry.suite)
    fields: dict[str, Any] = dict(entry.options)
    given: dict[str, Any] = {"limit": limit}
    for key in _PATHS:
        if (path := fields.get(key)) is not None:
            if not isinstance(path, str):
                raise ConfigError(f"task {name!r} of the matrix: {key} is {path!r}, expected a path in quotes.")
            fields[key] = base / path
    if "data" in suite.__dataclass_fields__:
        given["data"] = data
    if "family" in suite.__dataclass_fields__:
        given["family"] = family
    return cast(KnowledgeTask, construct("task", name, suite, fields, given))


def check_kind(plan: CellPlan, name: str, task: KnowledgeTask) -> str:
    """Protocol and version by which the cell's family answers this task. Raises ConfigError where it can't."""
    try:
        return identity_of(task.kind, plan.model.family)
    except ConfigError as error:
        raise ConfigError(f"{plan.cell.id}-{name}: {error}") from error


def probe_index(plan: CellPlan, base: Path, data: Path | None) -> ProbeIndex:
    """Every n-gram that the cell's tasks probe, for the check of calibration and training text."""
    found = ProbeIndex(frozenset())
    for name, entry in plan.tasks.items():
        task = make_task(name, entry, base, data=data)
        found |= ProbeIndex.of(task.probe_sentences(), task.probe_words)
    return found
