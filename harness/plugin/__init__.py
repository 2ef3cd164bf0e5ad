"""The pytest plugin: options, cases from the matrix, verdicts as outcomes, the report at the end.

Loading it imports no torch: that waits until the first cell is measured. Without a test that asks for ``harness_case``
it does nothing.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.core.errors import EXIT_USAGE, ConfigError, HarnessError
from harness.core.verdicts import POOLED, RECOVERED, Status
from harness.execution.matrix import Matrix, read_matrix
from harness.plugin.cases import CaseId, GateCase, case_ids
from harness.plugin.keys import (
    MATRICES,
    OF_CELL,
    SESSION,
    TROUBLE,
    VERDICT,
    attach,
    mark_crashed,
    note_refusal,
    settings_of,
    verdict_of,
)
from harness.plugin.settings import add_options

if TYPE_CHECKING:
    from harness.execution.latency import LatencyBench

LATENCY = "latency"
"""The mark of what measures times."""

_LAST = {POOLED: 1, RECOVERED: 2}
"""The cases that come after those of a cell's tasks, in this order."""


def pytest_addoption(parser: pytest.Parser) -> None:
    add_options(parser)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    config.stash[MATRICES] = {}
    config.addinivalue_line("markers", f"{LATENCY}: measures times; runs when it is asked for only (`-m {LATENCY}`)")
    if not hasattr(config, "workerinput"):
        from harness.plugin.closing import Closing

        config.pluginmanager.register(Closing(config), "harness-closing")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Under pytest-xdist a cell stays on one worker (its own groups come to nothing with pytest 9.2)."""
    if config.option.dist != "load":
        return None
    from harness.plugin.schedule import CellScheduling

    return CellScheduling(config, log)


# ------------------------------------------------------------------------------------------------ collection


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "harness_latency" in metafunc.fixturenames:
        models = _latency_models(metafunc)
        metafunc.parametrize("harness_latency", models, indirect=True, scope="session", ids=[name for _, name in models])
    if "harness_case" not in metafunc.fixturenames:
        return
    try:
        cases = case_ids(_matrix(metafunc.config, metafunc.definition.path.parent))
    except ConfigError as error:
        metafunc.config.stash[TROUBLE] = error  # told once collection is over: here it would be a traceback a test
        cases = []
    parameters = [pytest.param(case, id=str(case), marks=_marks(metafunc.config, case)) for case in cases]
    metafunc.parametrize("harness_case", parameters, indirect=True)


def _latency_models(metafunc: pytest.Metafunc) -> list[tuple[Matrix, str]]:
    from harness.execution.latency import latency_models

    try:
        matrix = _matrix(metafunc.config, metafunc.definition.path.parent)
    except ConfigError as error:
        metafunc.config.stash[TROUBLE] = error
        return []
    return [(matrix, name) for name in latency_models(matrix)]


def _marks(config: pytest.Config, case: CaseId) -> list[pytest.MarkDecorator]:
    """The marks of a task's case: its suite, group and cost; a cell's own cases have none of these, because they need every
    task. All cases of a cell that is recovered are marked so."""
    entry = case.plan.tasks.get(case.task)
    names = () if entry is None else entry.marks
    for name in names:
        config.addinivalue_line("markers", f"{name}: tasks of this suite, group or cost (matrix.toml)")
    if case.plan.cell.sibling is not None:
        config.addinivalue_line("markers", f"{RECOVERED}: every case of the cells that are recovered")
        names = (*names, RECOVERED)
    return [getattr(pytest.mark, name) for name in names]


def _matrix(config: pytest.Config, folder: Path) -> Matrix:
    settings = settings_of(config)
    path = settings.matrix or folder / "matrix.toml"
    matrices = config.stash[MATRICES]
    if path not in matrices:
        matrices[path] = read_matrix(path, settings.profile)
    return matrices[path]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A cell's cases side by side, its pool and its recovery last; all other tests stay where they are."""
    trouble = config.stash.get(TROUBLE, None)
    if trouble is not None:
        _refuse(config, items, str(trouble))
    _leave_out_latency(config, items)
    matrices = sorted({str(case.matrix.path) for case in map(_case, items) if case is not None})
    if len(matrices) > 1:
        _refuse(
            config,
            items,
            f"one run gates the cells of one matrix, and {len(matrices)} were collected ({', '.join(matrices)}): run them one "
            "by one, each with a --harness-report-dir of its own.",
        )
    places = [index for index, item in enumerate(items) if _case(item) is not None]
    cells: dict[str, int] = {}
    for index in places:
        cells.setdefault(_cell_id(items[index]), len(cells))
    ordered = sorted((items[i] for i in places), key=lambda item: (cells[_cell_id(item)], _LAST.get(_task(item), 0)))
    for index, item in zip(places, ordered, strict=True):
        items[index] = item


def _leave_out_latency(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Times are measured when they are asked for: by their mark, or where nothing else was selected."""
    timed = [item for item in items if item.get_closest_marker(LATENCY) is not None]
    if not timed:
        return
    if len(timed) < len(items) and LATENCY not in config.option.markexpr:
        config.hook.pytest_deselected(items=timed)
        items[:] = [item for item in items if item not in timed]
    elif not config.option.collectonly and not config.pluginmanager.has_plugin("benchmark"):
        _refuse(
            config, items, "times are measured with pytest-benchmark, which is not installed: pip install pytest-benchmark."
        )


def _refuse(config: pytest.Config, items: list[pytest.Item], sentence: str) -> None:
    """End a run that can't be as it was asked for; a worker of xdist leaves that to its controller, with nothing to run."""
    if not note_refusal(config, sentence, EXIT_USAGE):
        raise pytest.UsageError(sentence)
    items.clear()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Note which tasks this run's selection measures for each cell, and which recoveries it asks for."""
    selected: dict[str, list[str]] = {}
    for item in session.items:
        if _case(item) is not None and _task(item) not in _LAST:
            selected.setdefault(_cell_id(item), []).append(_task(item))
    recovered = frozenset(_cell_id(item) for item in session.items if _task(item) == RECOVERED)
    has_cases = any(_case(item) is not None for item in session.items)
    if has_cases and not session.config.option.collectonly:
        from harness.plugin.session import GateSession
        from harness.plugin.terminal import make_progress

        config = session.config
        config.stash[SESSION] = GateSession(
            settings=settings_of(config),
            progress=make_progress(config),
            selected={cell: tuple(tasks) for cell, tasks in selected.items()},
            recovered=recovered,
        )


def _case(item: pytest.Item) -> CaseId | None:
    callspec = getattr(item, "callspec", None)
    found = callspec.params.get("harness_case") if callspec is not None else None
    return found if isinstance(found, CaseId) else None


def _cell_id(item: pytest.Item) -> str:
    case = _case(item)
    return case.plan.cell.id if case else ""


def _task(item: pytest.Item) -> str:
    case = _case(item)
    return case.task if case else ""


# ------------------------------------------------------------------------------------------------ running


@pytest.fixture
def harness_case(request: pytest.FixtureRequest) -> GateCase:
    """One judged case of the gate; ``harness_case.check()`` ends the test as the verdict says."""
    case: CaseId = request.param
    try:
        verdict, skipped = request.config.stash[SESSION].case(case)
    except HarnessError as error:  # nothing that one cell could answer for: the policy, the request, the report folder
        told = request.config.stash[SESSION].settings.place(case.matrix.path).complete(str(error))
        if not note_refusal(request.config, told, error.exit_code):
            pytest.exit(f"harness: {told}", returncode=error.exit_code)
        request.session.shouldstop = told
        pytest.fail(told, pytrace=False)
    if verdict is not None:
        request.node.stash[VERDICT] = verdict
        request.node.stash[OF_CELL] = request.config.stash[SESSION].verdicts_of(case)
        if verdict.status is Status.INVALID:
            pytest.fail(f"INVALID: {verdict.reason}", pytrace=False)  # in a fixture: an error, not a failure
    return GateCase(str(case), verdict, skipped)


@pytest.fixture(scope="session")
def harness_latency(request: pytest.FixtureRequest) -> LatencyBench:
    """One model's sides, ready to be timed against each other; skips under xdist, whose workers disturb each other."""
    from harness.execution.latency import LatencyBench
    from harness.execution.store import Store
    from harness.plugin.terminal import make_progress

    if hasattr(request.config, "workerinput"):
        pytest.skip("times are not measured under xdist: its workers share the machine; run without -n")
    (matrix, model), settings = request.param, settings_of(request.config)
    try:
        return LatencyBench.open(
            matrix,
            model,
            device=settings.device,
            folder=settings.report_dir,
            store=Store.default(),
            progress=make_progress(request.config),
        )
    except HarnessError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    case, verdict = _case(item), item.stash.get(VERDICT, None)
    if case is None:
        return report
    if verdict is None and report.failed:
        mark_crashed(report)
    if verdict is not None and (report.when == "call" or (report.when == "setup" and report.failed)):
        attach(report, verdict, item.stash[OF_CELL], case.matrix.path)
    return report


def pytest_report_teststatus(
    report: pytest.CollectReport | pytest.TestReport,
) -> tuple[str, str, tuple[str, dict[str, bool]]] | None:
    if not isinstance(report, pytest.TestReport) or report.when != "call":
        return None
    verdict = verdict_of(report)
    if verdict is None:
        return None
    from harness.plugin.terminal import status_of

    return status_of(verdict)
