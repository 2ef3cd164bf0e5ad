"""The matrix of cells: ``matrix.toml`` read, checked and expanded, without touching torch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from harness.compression import COMPRESSION
from harness.core.errors import ConfigError, UnknownNameError
from harness.core.records import Cell, record
from harness.core.serial import read_toml
from harness.core.shelf import Shelf, unknown_name
from harness.core.verdicts import POOLED, RECOVERED
from harness.knowledge import KNOWLEDGE
from harness.models import MODELS
from harness.recovery import RECOVERY

_MARK = re.compile(r"[a-z][a-z_]*")
_FILE_NAME = re.compile(r"[A-Za-z0-9][\w.\-]*")


@record
class ModelEntry:
    """A model of a profile. ``sha256`` pins the file of ``wheel:`` and ``gguf:`` sources; ``dtype`` "auto" is float32 on a
    CPU and bfloat16 on a GPU."""

    source: str
    family: str
    sha256: str | None = None
    dtype: str = "auto"


@record
class Profile:
    """Where cells run: the models that a name stands for there."""

    models: dict[str, ModelEntry]
    about: str = ""


Cost = Literal["quick", "long"]
"""Whether a task takes seconds to minutes of the embedded model on a CPU, or more."""


@dataclass(frozen=True, slots=True)
class TaskEntry:
    """A task: a suite of the knowledge shelf and the suite's own fields.

    ``group`` says what kind of knowledge it asks for (world_knowledge, common_sense, language, or a word of one's own) and
    ``cost`` how long it takes: both become marks of its cases, as the suite does, and change nothing that is measured.
    Nor does ``clusters``: whether the groups of its items stand for others (None: as the suite has it).
    """

    suite: str
    options: Mapping[str, Any]
    group: str | None = None
    cost: Cost = "quick"
    clusters: bool | None = None

    @property
    def marks(self) -> tuple[str, ...]:
        """What ``pytest -m`` selects its cases by."""
        return tuple(dict.fromkeys((self.suite, *([self.group] if self.group else []), self.cost)))


@record
class Grid:
    """Cells as a product; their tasks are measured on each of them. ``n_items``: of each task a fixed sample of so many items,
    for suites that have a field of that name."""

    profiles: tuple[str, ...]
    models: tuple[str, ...]
    compressions: tuple[str, ...]
    recoveries: tuple[str, ...]
    tasks: tuple[str, ...]
    n_items: int | None = None


@record
class MatrixFile:
    """``matrix.toml`` as written."""

    profiles: dict[str, Profile]
    compressions: dict[str, dict[str, Any]]
    recoveries: dict[str, dict[str, Any]]
    tasks: dict[str, dict[str, Any]]
    grid: tuple[Grid, ...]


@dataclass(frozen=True, slots=True)
class CellPlan:
    """One declared cell of a profile with everything that measuring it needs. ``compression`` and ``recovery`` are the
    method's name and its recipe fields; ``tasks`` maps task names to (suite, options) in matrix order."""

    cell: Cell
    profile: str
    model: ModelEntry
    compression: tuple[str, Mapping[str, Any]]
    recovery: tuple[str, Mapping[str, Any]]
    tasks: Mapping[str, TaskEntry]


@dataclass(frozen=True, slots=True)
class Matrix:
    """The cells of one profile by id, in the order of the file."""

    path: Path
    profile: str
    cells: Mapping[str, CellPlan]

    def plan(self, cell_id: str) -> CellPlan:
        """The plan of a cell id. Raises UnknownNameError with the nearest ids."""
        Cell.parse(cell_id)
        found = self.cells.get(cell_id)
        if found is None:
            raise UnknownNameError(f"profile {self.profile!r}: {unknown_name('cell', cell_id, self.cells)}")
        return found

    def dense_of(self, plan: CellPlan) -> CellPlan | None:
        """The declared dense cell of the same model, if there is one."""
        return self.cells.get(plan.cell.dense.id)

    @property
    def n_tasks(self) -> int:
        """All (cell, task) pairs of the profile: the family of the task tests."""
        return sum(len(plan.tasks) for plan in self.cells.values())


def read_matrix(path: Path, profile: str) -> Matrix:
    """The matrix of one profile. Raises ConfigError (file, line, key), UnknownNameError (with "did you mean"), CellIdError."""
    text = read_toml(path, MatrixFile)
    try:
        _known("profile", [profile], text.profiles)
        _check_entries(text)
        cells = _cells(text, profile)
    except ConfigError as error:
        raise type(error)(f"{path}: {error}") from error
    if not cells:
        raise ConfigError(f"{path}: profile {profile!r} has no cells: name it in the `profiles` of a [[grid]].")
    return Matrix(path=path, profile=profile, cells=cells)


def declared_cells(path: Path) -> frozenset[str]:
    """The ids of the cells of every profile. Raises as ``read_matrix``."""
    text = read_toml(path, MatrixFile)
    return frozenset(cell for profile in text.profiles for cell in _cells(text, profile))


def _cells(text: MatrixFile, profile: str) -> dict[str, CellPlan]:
    """Every cell of a profile; one that several grids name has the tasks of all of them."""
    cells: dict[str, CellPlan] = {}
    for grid in text.grid:
        if profile in grid.profiles:
            for plan in _expand(text, grid, profile):
                known = cells.get(plan.cell.id)
                cells[plan.cell.id] = replace(known, tasks={**known.tasks, **plan.tasks}) if known else plan
    return cells


def _check_entries(text: MatrixFile) -> None:
    for profile in text.profiles.values():
        _known("model family", [m.family for m in profile.models.values()], MODELS)
    _named("method", "compression", text.compressions, COMPRESSION)
    _named("method", "recovery", text.recoveries, RECOVERY)
    _named("suite", "task", text.tasks, KNOWLEDGE)
    for name in (*text.profiles, *text.tasks):
        if not _FILE_NAME.fullmatch(name):
            raise ConfigError(f"{name!r} can't be the name of a profile or task: use letters, digits, '_', '-' and '.'.")
    for name, fields in text.tasks.items():
        group, cost = fields.get("group", "other"), fields.get("cost", "quick")
        if not isinstance(group, str) or not _MARK.fullmatch(group):
            raise ConfigError(f"task {name!r} has the group {group!r}: expected a word of lower-case letters and '_'.")
        if group == RECOVERED:
            raise ConfigError(f"task {name!r} has the group {group!r}, the mark of recovered cells: take another word.")
        if not isinstance(fields.get("clusters", False), bool):
            raise ConfigError(f"task {name!r} has `clusters` {fields['clusters']!r}: expected true or false.")
        if cost not in get_args(Cost):
            raise ConfigError(f"task {name!r} has the cost {cost!r}: expected {' or '.join(map(repr, get_args(Cost)))}.")
    for name in (POOLED, RECOVERED):
        if name in text.tasks:
            raise ConfigError(f"a task can't be called {name!r}: that is the name of a cell's own case; rename it.")
    for grid in text.grid:
        _known("profile", grid.profiles, text.profiles)
        _known("compression", grid.compressions, text.compressions)
        _known("recovery", grid.recoveries, text.recoveries)
        _known("task", grid.tasks, text.tasks)


def _named(key: str, kind: str, entries: Mapping[str, Mapping[str, Any]], shelf: Shelf) -> None:
    """Every entry names what it is on the shelf, under ``key``."""
    for name, fields in entries.items():
        chosen = fields.get(key)
        if not isinstance(chosen, str):
            raise ConfigError(f"{kind} {name!r} has no `{key}`; known: {', '.join(sorted(shelf))}.")
        _known(f"{kind} {key}", [chosen], shelf)


def _known(kind: str, names: Iterable[str], known: Iterable[str]) -> None:
    for name in names:
        if name not in known:
            raise UnknownNameError(unknown_name(kind, name, known))


def _expand(text: MatrixFile, grid: Grid, profile: str) -> Iterable[CellPlan]:
    models = text.profiles[profile].models
    _known(f"model of profile {profile!r}", grid.models, models)
    for model in grid.models:
        for compression in grid.compressions:
            for recovery in grid.recoveries:
                yield CellPlan(
                    cell=Cell(model, compression, recovery),
                    profile=profile,
                    model=models[model],
                    compression=_split("method", text.compressions[compression]),
                    recovery=_split("method", text.recoveries[recovery]),
                    tasks={name: _task(text.tasks[name], grid.n_items) for name in grid.tasks},
                )


def _task(fields: Mapping[str, Any], n_items: int | None) -> TaskEntry:
    suite, options = _split("suite", fields)
    own = {key: value for key, value in options.items() if key not in ("group", "cost", "clusters")}
    if n_items is not None:
        own = {"n_items": n_items, **own}  # what the task says of itself counts
    return TaskEntry(suite, own, fields.get("group"), fields.get("cost", "quick"), fields.get("clusters"))


def _split(name: str, fields: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    return fields[name], {key: value for key, value in fields.items() if key != name}
