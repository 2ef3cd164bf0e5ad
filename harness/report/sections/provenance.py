"""Where every number came from: sources, digests, recipe, engine, versions; and what differs from the baseline's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from harness.core.records import CellRecord, CellRun, CompressionRecord, Origin, Provenance, TaskInfo
from harness.report import format as fmt
from harness.report.bundle import Reference, RunBundle
from harness.report.view import anchor

SOURCES: dict[Origin, str] = {
    "measured": "measured in this run",
    "stored": "taken from the run store",
    "baseline": "taken from the committed baseline",
}


@dataclass(frozen=True, slots=True)
class FactRow:
    """One fact of a candidate beside its baseline's; ``whole`` is the untruncated text where ``candidate`` is a digest."""

    name: str
    candidate: str
    baseline: str
    candidate_whole: str
    baseline_whole: str
    differs: bool
    is_digest: bool


@dataclass(frozen=True, slots=True)
class CellProvenance:
    """One cell's provenance. ``summary`` says how much differs from the baseline."""

    cell: str
    id: str
    summary: str
    rows: tuple[FactRow, ...]


@dataclass(frozen=True, slots=True)
class ProvenanceView:
    """Provenance of all measured cells, and where the dense references come from."""

    title: str
    dense: tuple[str, ...]
    cells: tuple[CellProvenance, ...]


def view_provenance(bundle: RunBundle) -> ProvenanceView:
    """The provenance of a run."""
    cells = (entry for entry in bundle.cells if isinstance(entry, CellRun))
    return ProvenanceView(
        title="Provenance",
        dense=tuple(_dense_line(model, bundle.dense[model]) for model in sorted(bundle.dense)),
        cells=tuple(_cell(entry.record, bundle.baselines.get(entry.record.cell.id)) for entry in cells),
    )


def _dense_line(model: str, reference: Reference) -> str:
    seen = f"{SOURCES[reference.source]}, measured {fmt.moment(reference.provenance.measured_at)}"
    weights = fmt.short_digest(reference.provenance.weights_digest)
    return f"{model}: the dense reference {reference.cell.id} is {seen}, weights {weights}"


def _cell(record: CellRecord, baseline: Reference | None) -> CellProvenance:
    here = _facts(record.provenance, record.compression, record.tasks, record.scorers)
    asked = {} if baseline is None else {name: baseline.tasks[name] for name in record.tasks if name in baseline.tasks}
    there = {} if baseline is None else _facts(baseline.provenance, baseline.compression, asked, baseline.scorers)
    names = list(dict.fromkeys([*here, *there]))
    rows = tuple(_row(name, here.get(name), there.get(name), baseline is not None) for name in names)
    n_different = sum(row.differs for row in rows)
    if baseline is None:
        summary = "no baseline to compare with"
    elif n_different:
        summary = f"{fmt.plural(n_different, 'difference')} from the baseline"
    else:
        summary = "the same as the baseline's in everything"
    return CellProvenance(record.cell.id, anchor("provenance", record.cell.id), summary, rows)


def _row(name: str, here: str | None, there: str | None, compared: bool) -> FactRow:
    is_digest = name.endswith("digest")
    shown = [_show(text, is_digest) for text in (here, there if compared else "")]
    differs = compared and here != there and name not in _EXPECTED_TO_DIFFER
    return FactRow(name, shown[0], shown[1], fmt.visible(here or ""), fmt.visible(there or ""), differs, is_digest)


_EXPECTED_TO_DIFFER = ("measured at", "commit")
"""Of two runs always; a difference here says nothing."""


def _show(text: str | None, is_digest: bool) -> str:
    if text is None:
        return "not recorded"
    return fmt.short_digest(text) if is_digest else fmt.visible(text)


def _facts(
    provenance: Provenance, compression: CompressionRecord, tasks: Mapping[str, TaskInfo], scorers: Mapping[str, str]
) -> dict[str, str]:
    found = {
        "model source": provenance.model_source,
        "dense weights digest": provenance.dense_digest,
        "weights digest": provenance.weights_digest,
        "config digest": provenance.config_digest,
        "tokenizer digest": provenance.tokenizer_digest,
        "compression": f"{compression.method} ({compression.stability})",
        "recipe": json.dumps(compression.recipe, sort_keys=True, ensure_ascii=False),
        "recipe digest": compression.recipe_digest,
        "recovery digest": provenance.recovery_digest,
        "size": fmt.size(compression.size_bytes),
        "effective bits": fmt.bits(compression.effective_bits),
        "harness": provenance.harness_version,
        "commit": provenance.commit,
        "measured at": fmt.moment(provenance.measured_at),
    }
    found |= {f"engine: {name}": provenance.engine[name] for name in sorted(provenance.engine)}
    for name, info in tasks.items():
        found[f"{name}: data"] = info.data_version
        found[f"{name}: tie rule"] = info.tie_rule
        found[f"{name}: scorer"] = scorers.get(name, "not recorded")
        found[f"{name}: task digest"] = info.spec_digest
        found[f"{name}: items digest"] = info.items_digest
    return found
