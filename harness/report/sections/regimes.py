"""Regimes: layer by layer, how like its dense model each analysed cell attends and computes, and what goes to the prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from harness.core.records import CellRun
from harness.core.regimes import LayerValue, Regimes, Stack
from harness.core.verdicts import Estimate
from harness.report import format as fmt
from harness.report.bundle import RunBundle
from harness.report.curves import ChartView, MapView, Spread, draw_chart, draw_map
from harness.report.sections.sizes import SHAPES
from harness.report.view import EstimateView, anchor

N_COLOURS = 6
"""Colours of lines in the page's style; after the last they begin again, with other markers."""


@dataclass(frozen=True, slots=True)
class KeyView:
    """A line's colour and marker, and the cell that it stands for."""

    colour: int
    shape: str
    label: str


@dataclass(frozen=True, slots=True)
class LineChart:
    """One quantity of all cells of a model; ``words`` say it for who can't see it."""

    title: str
    words: str
    chart: ChartView


@dataclass(frozen=True, slots=True)
class HeadMap:
    """One quantity of one cell, layer by head."""

    title: str
    words: str
    map: MapView


@dataclass(frozen=True, slots=True)
class ModelRegimes:
    """One stack of one model: lines of all cells, then each cell's maps. ``shades`` says what the shades stand for."""

    id: str
    title: str
    keys: tuple[KeyView, ...]
    charts: tuple[LineChart, ...]
    maps: tuple[HeadMap, ...]
    shades: str


@dataclass(frozen=True, slots=True)
class RegimeRow:
    """One stack of one cell in numbers; layers count from 0. ``note``: what a reader must know of where they come from."""

    cell: str
    href: str
    stack: str
    attention: EstimateView
    outputs: EstimateView
    to_root: EstimateView
    even: str
    read: str
    note: str


@dataclass(frozen=True, slots=True)
class RegimesView:
    """All analysed cells."""

    title: str
    models: tuple[ModelRegimes, ...]
    rows: tuple[RegimeRow, ...]
    unreadable: tuple[str, ...]


def view_regimes(bundle: RunBundle) -> RegimesView:
    """The regimes of a run."""
    groups: dict[tuple[str, str], list[tuple[Regimes, Stack]]] = {}
    for made in bundle.regimes:
        for stack in made.stacks:
            groups.setdefault((made.cell.model, stack.name), []).append((made, stack))
    runs = {run.record.cell.id: run for run in bundle.cells if isinstance(run, CellRun)}
    return RegimesView(
        title="Regimes",
        models=tuple(_model(*name, found) for name, found in groups.items()),
        rows=tuple(_row(made, stack, runs.get(made.cell.id)) for found in groups.values() for made, stack in found),
        unreadable=tuple(fmt.visible(sentence) for sentence in bundle.unreadable_regimes),
    )


def _model(model: str, stack: str, found: Sequence[tuple[Regimes, Stack]]) -> ModelRegimes:
    lowest = min((v for _, one in found for layer in one.attention_heads for v in layer if v is not None), default=0.0)
    highest = max((v for _, one in found for layer in one.to_root_heads for v in layer if v is not None), default=0.0)
    shades = f"Attention maps: the lightest shade is a cosine of {fmt.cosine(lowest)}, the darkest 1."
    if highest:
        shades += f" Attention to the prompt: the lightest is none, the darkest {fmt.percent(highest)}."
    return ModelRegimes(
        id=anchor("regimes", model, stack),
        title=model if stack in ("decoder", "encoder") and len({one.name for _, one in found}) == 1 else f"{model}, {stack}",
        keys=tuple(
            KeyView(number % N_COLOURS, SHAPES[number % len(SHAPES)], _label(made)) for number, (made, _) in enumerate(found)
        ),
        charts=tuple(_charts(found)),
        maps=tuple(_maps(found, lowest, highest)),
        shades=shades,
    )


def _charts(found: Sequence[tuple[Regimes, Stack]]) -> Iterable[LineChart]:
    evens = {made.even_share for made, one in found if one.to_root}
    kinds: tuple[tuple[str, Callable[[Stack], tuple[LayerValue, ...]], float | None, float | None], ...] = (
        ("Attention maps, cosine to dense", lambda one: one.attention, 1.0, None),
        ("Block outputs, cosine to dense", lambda one: one.outputs, 1.0, None),
        ("Share of attention on the prompt", lambda one: one.to_root, 0.0, evens.pop() if len(evens) == 1 else None),
    )
    for title, layers_of, top, even in kinds:
        curves = [[_spread(value) for value in layers_of(one)] for _, one in found]
        if any(value is not None for curve in curves for value in curve):
            said = "; ".join(
                f"{made.cell.id}: {', '.join(_plain(value) for value in layers_of(one))}"
                for made, one in found
                if layers_of(one)
            )
            yield LineChart(title, f"{title}, by layer. {said}", draw_chart(curves, top=top, reference=even))


def _maps(found: Sequence[tuple[Regimes, Stack]], lowest: float, highest: float) -> Iterable[HeadMap]:
    for made, one in found:
        yield _map(f"{_label(made)}: attention maps", one.attention_heads, lowest, 1.0)
        if one.to_root_heads:
            yield _map(f"{_label(made)}: attention to the prompt", one.to_root_heads, 0.0, highest)


def _map(title: str, heads: Sequence[Sequence[float | None]], low: float, high: float) -> HeadMap:
    n_layers, n_heads = len(heads), max((len(layer) for layer in heads), default=0)
    words = (
        f"{title}, {fmt.plural(n_layers, 'layer')} across, {fmt.plural(n_heads, 'head')} down; the numbers are in report.json"
    )
    return HeadMap(title, words, draw_map(heads, low, high))


def _label(made: Regimes) -> str:
    cell = made.cell
    return cell.compression if cell.recovery == "none" else f"{cell.compression} + {cell.recovery}"


def _spread(value: LayerValue) -> Spread | None:
    return Spread(value.value, value.low, value.high) if isinstance(value, Estimate) else None


def _plain(value: LayerValue) -> str:
    return fmt.cosine(value.value) if isinstance(value, Estimate) else "undefined"


def _row(made: Regimes, stack: Stack, run: CellRun | None) -> RegimeRow:
    here = None if run is None else run.record.provenance
    other = here is not None and (here.weights_digest, here.recovery_digest) != (made.weights_digest, made.recovery_digest)
    chosen = [f"{n} × the prompt of {positions}" for positions, n in made.roots] if len(made.roots) > 1 else []
    notes = [*chosen, *(["other weights or another recovery than this run measured: analyse it again"] if other else [])]
    return RegimeRow(
        cell=made.cell.id,
        href=anchor("cell", made.cell.id) if run is not None else "",
        stack=stack.name,
        attention=_extreme(stack.attention, min, fmt.cosine),
        outputs=_extreme(stack.outputs, min, fmt.cosine),
        to_root=_extreme(stack.to_root, max, fmt.percent),
        even=fmt.percent(made.even_share) if stack.to_root and made.even_share is not None else "",
        read=f"{fmt.plural(made.n_texts, 'text')} of {fmt.count(made.n_tokens)} tokens, {fmt.visible(made.text)}, "
        f"{fmt.moment(made.measured_at)}",
        note="; ".join(notes),
    )


def _extreme(layers: Sequence[LayerValue], pick: Callable[..., int], shown: Callable[[float], str]) -> EstimateView:
    """The layer that stands out, with its interval; what does not exist in a cell is left blank."""
    known = {i: one for i, one in enumerate(layers) if isinstance(one, Estimate)}
    if not known:
        return EstimateView("undefined" if layers else "", "", "no layer has finite numbers" if layers else "")
    layer = pick(known, key=lambda i: known[i].value)
    one = known[layer]
    return EstimateView(
        f"{shown(one.value)} in layer {layer}",
        f"[{shown(one.low)}, {shown(one.high)}]",
        f"{fmt.percent(one.level, 0)} interval, {one.method}",
    )
