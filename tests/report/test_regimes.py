"""The page of the regimes: lines and maps are where the numbers say, gaps are gaps, and other weights are told."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from harness.core.records import Cell
from harness.core.regimes import Regimes, Stack
from harness.core.verdicts import Estimate, NotEstimable
from harness.report import report
from harness.report.curves import BOTTOM, HEIGHT, TOP, Spread, draw_chart, draw_map
from harness.report.sections.regimes import view_regimes


def layers(*values: float | None) -> tuple[Estimate | NotEstimable, ...]:
    return tuple(
        NotEstimable("nothing finite") if value is None else Estimate(value, value - 0.01, value + 0.01, 0.95, "bootstrap")
        for value in values
    )


def regimes(cell: str, *stacks: Stack, roots: tuple[tuple[int, int], ...] = (), **changes: object) -> Regimes:
    made = Regimes(
        schema_version=1,
        cell=Cell.parse(cell),
        dense_digest="d",
        weights_digest="w",
        recovery_digest="r",
        recovery_method="prompt",
        text="<i>text</i>.jsonl",
        text_digest="t",
        n_texts=16,
        n_tokens=64,
        roots=roots,
        even_share=0.4 if roots else None,
        stacks=stacks,
        engine={},
        measured_at="2031-05-06T07:08:09+00:00",
    )
    return replace(made, **changes)


PLAIN = Stack("decoder", layers(0.9, 0.8, 0.7), ((0.9, 0.9), (0.6, 1.0), (None, 0.7)), layers(0.99, 0.97, None))
PROMPTED = replace(PLAIN, to_root=layers(0.1, 0.5, 0.3), to_root_heads=((0.1, 0.1), (0.4, 0.6), (0.3, 0.3)))


@pytest.fixture
def made(bundle):  # type: ignore[no-untyped-def]
    four = next(run.record for run in bundle.cells if hasattr(run, "record") and run.record.cell.id == "llama_4bit-rtn_none")
    here = {name: getattr(four.provenance, f"{name}_digest") for name in ("weights", "recovery")}
    return replace(
        bundle,
        regimes=(
            regimes("llama_4bit-rtn_none", PLAIN, **{f"{name}_digest": digest for name, digest in here.items()}),
            regimes("llama_3bit-rtn_none", PLAIN),
            regimes("llama_4bit-gptq_idp", PROMPTED, roots=((10, 4), (20, 12))),
            regimes("t5_4bit-rtn_none", replace(PLAIN, name="encoder"), replace(PLAIN, name="cross", outputs=())),
        ),
        unreadable_regimes=("a <b>broken</b> file",),
    )


def test_cells_of_a_model_share_their_charts_and_stacks_have_their_own(made) -> None:  # type: ignore[no-untyped-def]
    view = view_regimes(made)
    assert [one.title for one in view.models] == ["llama", "t5", "t5, cross"]
    llama, _, cross = view.models
    assert [chart.title.partition(",")[0] for chart in llama.charts] == [
        "Attention maps",
        "Block outputs",
        "Share of attention on the prompt",
    ]
    assert [key.label for key in llama.keys] == ["4bit-rtn", "3bit-rtn", "4bit-gptq + idp"]
    assert [len(chart.chart.curves) for chart in llama.charts] == [3, 3, 3]
    assert [bool(curve.line) for curve in llama.charts[2].chart.curves] == [False, False, True]
    assert llama.charts[2].chart.reference
    assert len(cross.charts) == 1
    assert "llama_4bit-gptq_idp: 0.100, 0.500, 0.300" in llama.charts[2].words
    assert "4bit-rtn_none: 0.990, 0.970, undefined" in llama.charts[1].words


def test_a_row_says_which_layer_stands_out_and_whose_weights_they_were(made) -> None:  # type: ignore[no-untyped-def]
    here, other, chosen, *_ = view_regimes(made).rows
    assert (here.attention.text, here.outputs.text) == ("0.700 in layer 2", "0.970 in layer 1")
    assert (here.to_root.text, here.even, here.note) == ("", "", "")
    assert other.note == "other weights or another recovery than this run measured: analyse it again"
    assert chosen.note.startswith("4 × the prompt of 10; 12 × the prompt of 20; other weights")
    assert chosen.to_root.text == "50.0\u00a0% in layer 1"
    assert chosen.even == "40.0\u00a0%"


def test_lines_are_where_the_numbers_say_and_break_where_nothing_is_known() -> None:
    curve = [Spread(1.0, 1.0, 1.0), None, Spread(0.5, 0.4, 0.6), Spread(0.0, 0.0, 0.0)]
    chart = draw_chart([curve], top=1.0)
    heights = [float(y) for y in re.findall(r" ([\d.]+)", chart.curves[0].line)]
    assert heights == pytest.approx([TOP, (TOP + HEIGHT - BOTTOM) / 2, HEIGHT - BOTTOM])
    assert chart.curves[0].line.count("M") == 2
    assert [tick.text for tick in chart.y_ticks] == ["0.00", "0.25", "0.50", "0.75", "1.00"]
    flat = draw_chart([[Spread(1.0, 1.0, 1.0)] * 30], top=1.0)
    assert [tick.text for tick in flat.y_ticks][-1] == "1.000"
    assert len(flat.x_ticks) <= 8


def test_a_map_has_a_square_for_every_head_that_is_defined() -> None:
    drawn = draw_map(PLAIN.attention_heads, 0.6, 1.0)
    assert sum(path.count("Z") for _, path in drawn.shades) == 5
    assert dict(drawn.shades)[7] == "M9 9h9v9h-9Z"
    assert dict(drawn.shades)[0] == "M9 0h9v9h-9Z"


def test_the_page_escapes_and_report_json_has_every_number(made) -> None:  # type: ignore[no-untyped-def]
    files = report(made)
    page = files["index.html"].decode()
    assert "<i>text</i>" not in page
    assert "a &lt;b&gt;broken&lt;/b&gt; file" in page
    raw = json.loads(files["report.json"])["run"]["regimes"]
    assert raw[2]["stacks"][0]["to_root_heads"] == [[0.1, 0.1], [0.4, 0.6], [0.3, 0.3]]
    assert raw[0]["stacks"][0]["outputs"][2] == {"reason": "nothing finite"}
