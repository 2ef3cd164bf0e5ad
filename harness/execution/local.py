"""Measuring on this machine: one cell at a time, each task in blocks that a killed run resumes after."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, cast

from harness.baseline import Baseline
from harness.core.digest import digest_json
from harness.core.errors import ConfigError, MissingDependencyError
from harness.core.probes import ProbeIndex
from harness.core.records import (
    ENGINE_IDENTITY,
    SCHEMA_VERSION,
    CellFailure,
    CellRecord,
    CellRun,
    Item,
    ItemOutcome,
    Origin,
    Outcomes,
    Provenance,
    TaskInfo,
    TaskRun,
)
from harness.execution.candidate import Candidate, Variant, make_method
from harness.execution.engine import describe_engine, harness_version, read_commit
from harness.execution.matrix import CellPlan, Matrix, ModelEntry, TaskEntry
from harness.execution.progress import Progress
from harness.execution.store import BLOCK_ITEMS, Circumstances, Store, StoredResult
from harness.knowledge import KNOWLEDGE, KnowledgeTask
from harness.models.digest import digest_config
from harness.models.sources import ResolvedModel, parse_source, resolve
from harness.scoring import GENERATORS, SCORERS, Answer, Generator, Prompt, Request, Scorer, Tokenizer, identity_of

log = logging.getLogger(__name__)

_Ask = Callable[[Sequence[Sequence[Request | Prompt]]], Sequence[Sequence[Answer]]]
"""From the requests of some items to the answers."""


@dataclass(frozen=True, slots=True)
class MeasureOptions:
    """How to measure. ``fresh``: nothing stored or unchanged is taken over. ``variant``: a deliberate re-compression."""

    device: str = "auto"
    data: Path | None = None
    limit: int | None = None
    fresh: bool = False
    variant: Variant | None = None


def measure_cell(
    matrix: Matrix,
    plan: CellPlan,
    tasks: Sequence[str],
    *,
    options: MeasureOptions,
    store: Store,
    progress: Progress,
    baseline: Baseline | None = None,
) -> CellRun:
    """Measure ``tasks`` of one cell; what is stored, or identical to the baseline's, costs no forward pass.

    Raises HarnessError for everything that makes the cell INVALID; finished blocks stay in the store.
    """
    _check_torch()
    base = matrix.path.parent
    made = {name: make_task(name, plan.tasks[name], base, limit=options.limit, data=options.data) for name in tasks}
    for name, task in made.items():
        _check_kind(plan, name, task)
    dense = resolve_model(plan.model, base, store, progress)
    device, dtype = _place(options.device, plan.model.dtype)
    config_digest = digest_config(dense.folder)
    candidate = Candidate(
        plan=plan,
        dense=dense,
        config_digest=config_digest,
        store=store,
        device=device,
        dtype=dtype,
        probes=lambda: _probe_index(plan, base, options.data),
        base=base,
        fresh=options.fresh,
        variant=options.variant,
    )
    weights = candidate.weights()
    provenance = Provenance(
        model_source=plan.model.source,
        dense_digest=dense.weights_digest,
        weights_digest=weights.weights_digest,
        config_digest=config_digest,
        tokenizer_digest=dense.tokenizer_digest,
        recovery_digest=candidate.recovery_digest(),
        engine=describe_engine(device, dtype),
        harness_version=harness_version(),
        commit=read_commit(base),
        measured_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
    measured = {
        name: _Measurement(candidate, provenance, task, name, options, store, baseline, progress).run()
        for name, task in made.items()
    }
    record = CellRecord(
        schema_version=SCHEMA_VERSION,
        cell=plan.cell,
        profile=plan.profile,
        family=plan.model.family,
        compression=weights.compression,
        provenance=_as_measured(provenance, [then for _, then in measured.values()]),
        tasks={name: run.info for name, (run, _) in measured.items()},
        scorers={name: run.scorer for name, (run, _) in measured.items()},
        origins={name: run.origin for name, (run, _) in measured.items()},
        wall_s={name: then.wall_s for name, (_, then) in measured.items()},
    )
    return CellRun(record=record, runs={name: run for name, (run, _) in measured.items()})


def _as_measured(provenance: Provenance, circumstances: Sequence[Circumstances]) -> Provenance:
    """The provenance of what was measured last: stored results keep the commit, time and engine of their forward passes."""
    last = max(circumstances, key=lambda then: then.measured_at, default=None)
    if last is None:
        return provenance
    return replace(provenance, commit=last.commit, measured_at=last.measured_at, engine=last.engine)


@dataclass(slots=True)
class _Measurement:
    """One task on one candidate: from the store, from an identical baseline, or by forward passes."""

    candidate: Candidate
    provenance: Provenance
    task: KnowledgeTask
    name: str
    options: MeasureOptions
    store: Store
    baseline: Baseline | None
    progress: Progress
    _n_before: int = 0

    def run(self) -> tuple[TaskRun, Circumstances]:
        """The task run, and the circumstances of its forward passes (as they were, where it was stored)."""
        key = self._key()
        if not self.options.fresh and (found := self.store.find_result(key)):
            return self._task_run(found, "stored"), found.circumstances
        with self.store.lock(key):
            if self.options.fresh:
                self.store.drop_result(key)
            elif found := self.store.find_result(key):  # another process made it meanwhile
                return self._task_run(found, "stored"), found.circumstances
            info, items = self.task.build(self._tokenizer())
            info = replace(info, name=self.name)
            unchanged = None if self.options.fresh else self._unchanged(info)
            if unchanged is not None:
                nothing = self._circumstances(0.0)
                return self._task_run(StoredResult(info, items, unchanged, nothing), "baseline"), nothing
            started_s = time.perf_counter()
            outcomes = self._measure(key, items)
            result = StoredResult(info, items, outcomes, self._circumstances(time.perf_counter() - started_s))
            self.store.put_result(key, result, self._scorer_identity())
            return self._task_run(result, "measured"), result.circumstances

    def _circumstances(self, wall_s: float) -> Circumstances:
        return Circumstances(self.provenance.commit, self.provenance.measured_at, self.provenance.engine, wall_s)

    def _measure(self, key: str, items: tuple[Item, ...]) -> Outcomes:
        starts = range(0, len(items), BLOCK_ITEMS)
        blocks: list[Outcomes] = []
        ask: _Ask | None = None
        for index, start in enumerate(starts):
            block = items[start : start + BLOCK_ITEMS]
            done = self.store.find_block(key, index, tuple(item.digest for item in block))
            if done is None:
                ask = ask or self._make_ask(lambda n, _: self.progress.update(self._n_before + n, len(items)))
                self._n_before = start
                done = self._outcomes(ask, block)
                self.store.put_block(key, index, done)
            blocks.append(done)
        return Outcomes.concatenate(blocks)

    def _outcomes(self, ask: _Ask, block: Sequence[Item]) -> Outcomes:
        answers = ask([self.task.requests(item) for item in block])
        rows: list[ItemOutcome] = [self.task.outcome(item, found) for item, found in zip(block, answers, strict=True)]
        made = Outcomes.of(tuple(item.digest for item in block), rows)
        return made if self.task.keeps_option_scores else replace(made, option_logliks_nats=None)

    def _key(self) -> str:
        engine = {part: self.provenance.engine[part] for part in ENGINE_IDENTITY}
        made_from = [
            self.provenance.weights_digest,
            self.provenance.recovery_digest,
            self.provenance.config_digest,
            self.provenance.tokenizer_digest,
            self.task.spec_digest(),
            self.options.limit,
            self._scorer_identity(),
            engine,
        ]
        return digest_json(made_from)

    def _unchanged(self, info: TaskInfo) -> Outcomes | None:
        if self.baseline is None:
            return None
        return self.baseline.outcomes_if_identical(self.provenance, info, self._scorer_identity())

    def _task_run(self, result: StoredResult, origin: Origin) -> TaskRun:
        return TaskRun(
            cell=self.candidate.plan.cell.id,
            info=replace(result.info, name=self.name),
            items=result.items,
            outcomes=result.outcomes,
            scorer=self._scorer_identity(),
            origin=origin,
        )

    def _tokenizer(self) -> Tokenizer:
        return cast(Tokenizer, self.candidate.tokenizer())

    def _make_ask(self, tell: Callable[[int, int], None]) -> _Ask:
        """The model made ready to answer this kind of task."""
        family, model = self.candidate.plan.model.family, self.candidate.model()
        generates = self.task.kind == "generation"
        made = (GENERATORS if generates else SCORERS).load(family)(model, progress=tell)
        self.progress.start(f"{self.candidate.plan.cell.id}-{self.name}: {'generating' if generates else 'scoring'} items")
        return cast(_Ask, cast(Generator, made).generate if generates else cast(Scorer, made).score)

    def _scorer_identity(self) -> str:
        return identity_of(self.task.kind, self.candidate.plan.model.family)


def crashed(plan: CellPlan, error: Exception) -> CellFailure:
    """The failure of a cell whose measuring ended in somebody's own error; the traceback goes to the log."""
    log.debug("measuring %s crashed", plan.cell.id, exc_info=error)
    first_line = str(error).strip().partition("\n")[0]
    reason = (
        f"measuring crashed ({type(error).__name__}: {first_line}): nothing was judged; finished work is stored, run again."
    )
    return CellFailure(cell=plan.cell, profile=plan.profile, reason=reason)


def make_task(name: str, entry: TaskEntry, base: Path, *, limit: int | None = None, data: Path | None = None) -> KnowledgeTask:
    """A task from its matrix entry; its option ``folder`` is a path that starts at ``base``, the matrix's folder.

    ``data`` is the offline mirror, for suites that load data sets. Raises ConfigError.
    """
    folder = entry.options.get("folder")
    if folder is not None and not isinstance(folder, str):
        raise ConfigError(f"task {name!r} of the matrix: folder is {folder!r}, expected a path in quotes.")
    suite = KNOWLEDGE.load(entry.suite)
    given: dict[str, Any] = {"limit": limit, "data": data} if "data" in suite.__dataclass_fields__ else {"limit": limit}
    options = {**entry.options, **({"folder": base / folder} if folder else {})}
    return cast(KnowledgeTask, make_method("task", name, suite, {**given, **options}))


def _check_kind(plan: CellPlan, name: str, task: KnowledgeTask) -> None:
    """Raise ConfigError where a model of this family can't answer this kind of task."""
    try:
        identity_of(task.kind, plan.model.family)
    except ConfigError as error:
        raise ConfigError(f"{plan.cell.id}-{name}: {error}") from error


def _probe_index(plan: CellPlan, base: Path, data: Path | None) -> ProbeIndex:
    def sentences() -> Iterable[str]:
        for name, entry in plan.tasks.items():
            yield from make_task(name, entry, base, data=data).probe_sentences()

    return ProbeIndex.of(sentences())


def resolve_model(model: ModelEntry, base: Path, store: Store, progress: Progress) -> ResolvedModel:
    """The local folder of a matrix entry's source; relative paths start at ``base``, the matrix's folder."""
    source: Any = parse_source(model.source)
    kind = model.source.partition(":")[0]
    spec = f"{kind}:{base / Path(source.path).expanduser()}" if kind in ("dir", "gguf") else model.source
    return resolve(spec, model.sha256, store.root, progress.say)


def _place(device: str, dtype: str) -> tuple[str, str]:
    from harness.models.device import pick_device, pick_dtype

    chosen = pick_device(device)
    return chosen, pick_dtype(dtype, chosen)


def _check_torch() -> None:
    try:
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"measuring needs the package {error.name!r}: pip install 'retention-harness[measure]' "
            "(judging and reporting stored runs works without)."
        ) from error
