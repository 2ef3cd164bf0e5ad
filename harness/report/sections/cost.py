"""What recovering costs: extra numbers, and how many times longer reading and answering take, each side beside another."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.core.latency import Latency, Side, Timing
from harness.core.verdicts import NotEstimable
from harness.report import format as fmt
from harness.report.bundle import RunBundle
from harness.report.view import EstimateView, anchor
from harness.stats.latency import time_ratio

NONE, PROMPT, IDP, LORA = "none", "prompt", "idp", "lora"
_PAPER = "Hoang et al. (2023)"


@dataclass(frozen=True, slots=True)
class SideRow:
    """One side: its extra numbers, how many times more LoRA has, and its median time in each column."""

    side: str
    n_extra: str
    fewer: str
    times: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RatioRow:
    """One side's time over another's, column by column."""

    side: str
    ratios: tuple[EstimateView, ...]


@dataclass(frozen=True, slots=True)
class RatioGroup:
    """What several sides are compared with; ``claim`` is what the paper says of it, or ""."""

    over: str
    claim: str
    rows: tuple[RatioRow, ...]


@dataclass(frozen=True, slots=True)
class ModelCost:
    """One model. ``columns``: phase and batch size."""

    id: str
    model: str
    read: str
    columns: tuple[str, ...]
    sides: tuple[SideRow, ...]
    groups: tuple[RatioGroup, ...]


@dataclass(frozen=True, slots=True)
class CostView:
    """All models whose times were measured."""

    title: str
    models: tuple[ModelCost, ...]
    unreadable: tuple[str, ...]


def view_cost(bundle: RunBundle) -> CostView:
    """The cost of recovering, of a run."""
    return CostView(
        title="Cost of recovering",
        models=tuple(_model(made) for made in bundle.latencies),
        unreadable=tuple(fmt.visible(sentence) for sentence in bundle.unreadable_latencies),
    )


def _model(made: Latency) -> ModelCost:
    engine = made.engine
    where = ", ".join(fmt.visible(engine[name]) for name in ("hardware", "device", "dtype") if name in engine)
    threads = f", {fmt.visible(engine['threads'])} threads" if "threads" in engine else ""
    return ModelCost(
        id=anchor("cost", made.model),
        model=fmt.visible(made.model),
        read=f"Contexts of {fmt.count(made.context_tokens)} tokens, then {fmt.count(made.new_tokens)} more; every prompt has "
        f"{fmt.count(made.prompt_tokens)} positions. On {where}{threads}, {fmt.moment(made.measured_at)}.",
        columns=tuple(f"{timing.phase}, batch {timing.batch}" for timing in made.timings),
        sides=tuple(_side(made, side) for side in made.sides),
        groups=tuple(_groups(made)),
    )


def _side(made: Latency, side: Side) -> SideRow:
    lora = max((one.n_extra for one in made.sides if one.method == LORA), default=0)
    is_smaller = side.method in (PROMPT, IDP) and 0 < side.n_extra < lora
    return SideRow(
        side=fmt.visible(side.name),
        n_extra=fmt.count(side.n_extra),
        fewer=f"{fmt.ratio(lora / side.n_extra)} × fewer" if is_smaller else "",
        times=tuple(_median(timing, side) for timing in made.timings),
    )


def _median(timing: Timing, side: Side) -> str:
    seconds = timing.seconds.get(side.name)
    return f"{fmt.ratio(1000 * statistics.median(seconds))}{fmt.NBSP}ms" if seconds else "not timed"


def _groups(made: Latency) -> Iterator[RatioGroup]:
    by_method: dict[str, list[Side]] = {}
    for side in made.sides:
        by_method.setdefault(side.method, []).append(side)
    prompts, loras = by_method.get(PROMPT, []), by_method.get(LORA, [])
    idp = by_method.get(IDP, [])
    for plain in by_method.get(NONE, []):
        yield _group(made, plain, "", [side for side in made.sides if side != plain])
    for prompt in prompts:
        yield _group(made, prompt, f"Choosing costs nothing, by {_PAPER}: 1 in prefill and decode.", idp)
    for lora in loras:
        claim = f"60 % lower latency than LoRA, by {_PAPER}: 0.40." if lora.n_extra else ""
        yield _group(made, lora, claim, [*prompts, *idp])


def _group(made: Latency, over: Side, claim: str, sides: Sequence[Side]) -> RatioGroup:
    rows = tuple(
        RatioRow(fmt.visible(side.name), tuple(_ratio(timing, side, over) for timing in made.timings)) for side in sides
    )
    return RatioGroup(fmt.visible(over.name), claim, rows)


def _ratio(timing: Timing, side: Side, over: Side) -> EstimateView:
    found = time_ratio(timing, side.name, over.name)
    if isinstance(found, NotEstimable):
        return EstimateView("undefined", "", found.reason)
    n_rounds = len(timing.seconds[side.name])
    note = f"{fmt.percent(found.level, 0)} interval, {found.method}, {fmt.plural(n_rounds, 'round')}"
    return EstimateView(fmt.ratio(found.value), f"[{fmt.ratio(found.low)}, {fmt.ratio(found.high)}]", note)
