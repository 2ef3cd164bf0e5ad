"""Measuring on this machine: one cell at a time, its tasks together, round by round, so that a killed run resumes after its
last round and a cell that is decided stops costing forward passes. What was answered before is not asked again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import cast

from harness.baseline import Baseline
from harness.core.answer_block import Circumstances
from harness.core.command import DEFAULT_BASELINES
from harness.core.digest import digest_json
from harness.core.errors import MissingDependencyError
from harness.core.records import (
    ENGINE_IDENTITY,
    SCHEMA_VERSION,
    CellFailure,
    CellRecord,
    CellRun,
    Item,
    Origin,
    Provenance,
    TaskInfo,
)
from harness.execution.answers import Answers, Ask
from harness.execution.candidate import Candidate, Variant
from harness.execution.engine import describe_engine, harness_version, limit_threads, read_commit
from harness.execution.feed import ORDER, TaskFeed, fed_order
from harness.execution.matrix import CellPlan, Matrix, ModelEntry
from harness.execution.progress import Progress
from harness.execution.store import Store, StoredResult
from harness.execution.tasks import check_kind, make_task, probe_index
from harness.knowledge import ITEMS, KnowledgeTask
from harness.models.digest import digest_config
from harness.models.sources import ResolvedModel, anchored, resolve
from harness.scoring import Tokenizer, engine_of
from harness.stats.clusters import FEWEST_CLUSTERS
from harness.stats.sequential import ROUND_SHARES

log = logging.getLogger(__name__)

ARTIFACTS = "artifacts"
"""The folder of trained recoveries beside a profile's baselines."""

Undecided = Callable[[CellRun], Collection[str]]
"""Asked after every round: the tasks that still need items."""


@dataclass(frozen=True, slots=True)
class MeasureOptions:
    """How to measure. ``fresh``: nothing stored or unchanged is taken over. ``variant``: a deliberate variation, to
    measure its noise. ``baseline_dir``: where trained recoveries lie, in ``<profile>/artifacts``."""

    device: str = "auto"
    data: Path | None = None
    limit: int | None = None
    fresh: bool = False
    variant: Variant | None = None
    baseline_dir: Path = DEFAULT_BASELINES


def measure_cell(
    matrix: Matrix,
    plan: CellPlan,
    tasks: Sequence[str],
    *,
    options: MeasureOptions,
    store: Store,
    progress: Progress,
    baseline: Baseline | None = None,
    undecided: Undecided | None = None,
) -> CellRun:
    """Measure ``tasks`` of one cell; what is stored, or identical to the baseline's, costs no forward pass.

    ``undecided`` is asked after every round which tasks still need items; without it every item is measured.
    Raises HarnessError for everything that makes the cell INVALID; finished rounds stay in the store.
    """
    _check_torch()
    base = matrix.path.parent
    made = {
        name: make_task(name, plan.tasks[name], base, limit=options.limit, data=options.data, family=plan.model.family)
        for name in tasks
    }
    scorers = {name: check_kind(plan, name, task) for name, task in made.items()}
    candidate = make_candidate(matrix, plan, options=options, store=store, progress=progress)
    dense = candidate.dense
    recovery_digest = candidate.recovery_digest()  # first: a missing artifact is known before anything is compressed
    weights = candidate.weights()
    threads = options.variant.threads if options.variant else None
    with limit_threads(threads):
        engine = describe_engine(candidate.device, candidate.dtype)
    provenance = Provenance(
        model_source=plan.model.source,
        dense_digest=dense.weights_digest,
        weights_digest=weights.weights_digest,
        config_digest=candidate.config_digest,
        tokenizer_digest=dense.tokenizer_digest,
        recovery_digest=recovery_digest,
        engine=engine,
        harness_version=harness_version(),
        commit=read_commit(base),
        measured_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )

    def cell_run(feeds: Mapping[str, TaskFeed]) -> CellRun:
        record = CellRecord(
            schema_version=SCHEMA_VERSION,
            cell=plan.cell,
            profile=plan.profile,
            family=plan.model.family,
            compression=weights.compression,
            provenance=_as_measured(provenance, [made.circumstances for made in feeds.values()]),
            tasks={name: made.info for name, made in feeds.items()},
            scorers=scorers,
            origins={name: made.origin for name, made in feeds.items()},
            wall_s={name: made.circumstances.wall_s for name, made in feeds.items()},
            recovery_method=plan.recovery[0],
            recovery_recipe=candidate.recovery().recipe(),
            recovery_tensors=candidate.recovery_tensors(),
        )
        return CellRun(record=record, runs={name: made.task_run() for name, made in feeds.items()})

    measurement = _Measurement(candidate, provenance, made, scorers, options, store, baseline, progress)
    with limit_threads(threads):
        return measurement.run(cell_run, undecided)


def make_candidate(matrix: Matrix, plan: CellPlan, *, options: MeasureOptions, store: Store, progress: Progress) -> Candidate:
    """The model of a cell, resolved but not yet made. Raises HarnessError where there is none."""
    _check_torch()
    base = matrix.path.parent
    dense = resolve_model(plan.model, base, store, progress)
    device, dtype = _place(options.device, plan.model.dtype)
    return Candidate(
        plan=plan,
        dense=dense,
        config_digest=digest_config(dense.folder),
        store=store,
        device=device,
        dtype=dtype,
        probes=lambda: probe_index(plan, base, options.data),
        base=base,
        artifacts=options.baseline_dir / plan.profile / ARTIFACTS,
        fresh=options.fresh,
        variant=options.variant,
    )


def _as_measured(provenance: Provenance, circumstances: Sequence[Circumstances]) -> Provenance:
    """The provenance of what was measured last: stored results keep the commit, time and engine of their forward passes."""
    last = max(circumstances, key=lambda then: then.measured_at, default=None)
    if last is None:
        return provenance
    return replace(provenance, commit=last.commit, measured_at=last.measured_at, engine=last.engine)


@dataclass(slots=True)
class _Measurement:
    """The tasks of one candidate: from the store, from an identical baseline, or by forward passes."""

    candidate: Candidate
    provenance: Provenance
    tasks: Mapping[str, KnowledgeTask]
    scorers: Mapping[str, str]
    options: MeasureOptions
    store: Store
    baseline: Baseline | None
    progress: Progress
    _answers: dict[str, Answers] = field(default_factory=dict)
    _asks: dict[str, Ask] = field(default_factory=dict)
    _n_before: int = 0
    _n_all: int = 0

    def run(self, cell_run: Callable[[Mapping[str, TaskFeed]], CellRun], undecided: Undecided | None) -> CellRun:
        """Feed the tasks until all are complete, or none is undecided any more."""
        scopes = {name: self._scope(name) for name in self.tasks}
        keys = {name: self._key(name, task, scopes[name]) for name, task in self.tasks.items()}
        feeds = {} if self.options.fresh else self._stored(keys)
        with ExitStack() as locks:
            for scope in sorted({scope for name, scope in scopes.items() if name not in feeds}):
                locks.enter_context(self.store.lock(scope))
                self._answers[scope] = self.store.answers(scope)
                if self.options.fresh:
                    self._answers[scope].drop()
            if not self.options.fresh:
                feeds |= self._stored({name: key for name, key in keys.items() if name not in feeds})  # made meanwhile
            feeds |= {name: self._open(name, key, scopes[name]) for name, key in keys.items() if name not in feeds}
            feeds = {name: feeds[name] for name in self.tasks}
            self._warn_of_few_relations(feeds)
            self._feed(feeds, cell_run, undecided)
        return cell_run(feeds)

    def _stored(self, keys: Mapping[str, str]) -> dict[str, TaskFeed]:
        found = {name: self.store.find_result(key) for name, key in keys.items()}
        return {
            name: self._finished(name, keys[name], result, "stored") for name, result in found.items() if result is not None
        }

    def _finished(self, name: str, key: str, result: StoredResult, origin: Origin) -> TaskFeed:
        result = replace(result, info=self._named(name, result.info, result.items))
        cell = self.candidate.plan.cell.id
        task, scorer = self.tasks[name], self.scorers[name]
        return TaskFeed.finished(result, cell=cell, key=key, task=task, scorer=scorer, origin=origin)

    def _named(self, name: str, info: TaskInfo, items: Sequence[Item]) -> TaskInfo:
        """What a task asks, with what the matrix says of it: its name, and whether groups of its items stand for others."""
        said = self.candidate.plan.tasks[name].clusters
        clusters = self.tasks[name].clusters if said is None else said
        return replace(info, name=name, n_clusters=len({item.group for item in items}) if clusters else None)

    def _warn_of_few_relations(self, feeds: Mapping[str, TaskFeed]) -> None:
        """Say, once a cell, that a line of the matrix has no effect; of whole tasks only: a limited one may have more."""
        plan = self.candidate.plan
        for name, made in feeds.items():
            n_relations = made.info.n_clusters
            if self.options.variant is not None or self.options.limit is not None or n_relations is None:
                continue
            if plan.tasks[name].clusters and n_relations < FEWEST_CLUSTERS:
                what = "1 relation is" if n_relations == 1 else f"{n_relations} relations are"
                self.progress.say(
                    f"{plan.cell.id}-{name}: `clusters = true` has no effect, as {what} too few to stand for others (at least "
                    f"{FEWEST_CLUSTERS} are needed) and items are tested one by one: ask more relations, or take the line out."
                )

    def _open(self, name: str, key: str, scope: str) -> TaskFeed:
        """A task that is not stored: the baseline's where nothing that decides its outcomes has changed, else to be fed."""
        if self.options.fresh:
            self.store.drop_result(key)
        info, items = self.tasks[name].build(cast(Tokenizer, self.candidate.tokenizer()))
        info = self._named(name, info, items)
        now = Circumstances(self.provenance.commit, self.provenance.measured_at, self.provenance.engine, 0.0)
        if self.baseline is not None and not self.options.fresh:
            unchanged = self.baseline.outcomes_if_identical(self.provenance, info, self.scorers[name])
            if unchanged is not None:
                return self._finished(name, key, StoredResult(info, items, unchanged, now), "baseline")
        ordered = fed_order(items, self.provenance.weights_digest)
        cell, answers = self.candidate.plan.cell.id, self._answers[scope]
        return TaskFeed(cell, key, self.tasks[name], self.scorers[name], info, ordered, now, answers)

    def _feed(
        self,
        feeds: Mapping[str, TaskFeed],
        cell_run: Callable[[Mapping[str, TaskFeed]], CellRun],
        undecided: Undecided | None,
    ) -> None:
        fed = {name: feed for name, feed in feeds.items() if not feed.is_complete}
        self._n_all = sum(len(feed.items) for feed in fed.values())
        open_tasks: Collection[str] = fed
        for index in range(len(ROUND_SHARES)):
            for name in (name for name in fed if name in open_tasks):
                self._n_before = sum(feed.n_fed for feed in fed.values())
                feeds[name].feed(index, self._ask)
                if feeds[name].is_complete:
                    feeds[name].keep(self.store)
            if undecided is not None and index < len(ROUND_SHARES) - 1:
                open_tasks = undecided(cell_run(feeds))
            if not any(name in open_tasks for name in fed):
                break
        n_fed = sum(feed.n_fed for feed in fed.values())
        if n_fed < self._n_all:
            self.progress.say(
                f"{self.candidate.plan.cell.id}: decided after {n_fed:,} of {self._n_all:,} items; the rest was not measured"
            )

    def _scope(self, name: str) -> str:
        """The digest of all that decides an answer but its request: no other weights, recovery or scorer are served it."""
        engine = {part: self.provenance.engine[part] for part in ENGINE_IDENTITY}
        variant = self.options.variant
        made_from = [
            self.provenance.weights_digest,
            self.provenance.recovery_digest,
            self.provenance.config_digest,
            self.provenance.tokenizer_digest,
            self.candidate.plan.model.family,
            self.scorers[name],
            engine,
            None if variant is None else [variant.label, variant.threads, variant.batch_tokens],
        ]
        return digest_json(made_from)

    def _key(self, name: str, task: KnowledgeTask, scope: str) -> str:
        """The digest of all that decides a task's result."""
        entry = self.candidate.plan.tasks[name]
        return digest_json(
            [scope, name, entry.suite, dict(entry.options), task.spec_digest(), self.options.limit, ORDER, ITEMS]
        )

    def _ask(self, task: KnowledgeTask) -> Ask:
        """The model made ready to answer this kind of task, once a cell."""
        shelf, verb = engine_of(task.kind)
        if shelf.name not in self._asks:
            family, model = self.candidate.plan.model.family, self.candidate.model()
            if not self._asks:
                self.progress.start(f"{self.candidate.plan.cell.id}: measuring items")
            variant = self.options.variant
            settings = {} if variant is None or variant.batch_tokens is None else {"batch_tokens": variant.batch_tokens}
            made = shelf.load(family)(model, progress=self._tell, **settings)
            self._asks[shelf.name] = Ask(getattr(made, verb), cast(str, getattr(made, "path", "")))
        return self._asks[shelf.name]

    def _tell(self, n_done: int, _: int) -> None:
        self.progress.update(self._n_before + n_done, self._n_all)


def crashed(plan: CellPlan, error: Exception) -> CellFailure:
    """The failure of a cell whose measuring ended in somebody's own error; the traceback goes to the log."""
    log.debug("measuring %s crashed", plan.cell.id, exc_info=error)
    first_line = str(error).strip().partition("\n")[0]
    reason = (
        f"measuring crashed ({type(error).__name__}: {first_line}): nothing was judged; finished work is stored, run again."
    )
    return CellFailure(cell=plan.cell, profile=plan.profile, reason=reason)


def resolve_model(model: ModelEntry, base: Path, store: Store, progress: Progress) -> ResolvedModel:
    """The local folder of a matrix entry's source; relative paths start at ``base``, the matrix's folder."""
    return resolve(anchored(model.source, base), model.sha256, store.root, progress.say)


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
