"""Size against retention: drawn where the numbers say, readable, and said in words too."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from harness.report.bundle import cell_of
from harness.report.dense import compared_dense
from harness.report.scatter import CHARACTER, Point, Scale, draw_panel
from harness.report.sections.sizes import fronts, main_case, view_sizes
from harness.report.trend import LEAST_REACH, MOST_POINTS, TrendPoint, draw_trend

ROUNDING = 1e-9
"""Of sums of drawing units."""


def point(label: str, size: int, value: float, half: float = 0.02) -> Point:
    return Point(label, size, value, value - half, value + half, "circle", False, "pass", f"{label} in words")


def test_every_model_has_a_panel_and_all_share_the_upward_axis(families):
    view = view_sizes(families)
    assert [(panel.family, panel.model) for panel in view.panels] == [
        ("decoder", "llama"),
        ("encoder", "bert"),
        ("seq2seq", "t5"),
    ]
    assert len({tuple(tick.text for tick in panel.panel.y_ticks) for panel in view.panels}) == 1
    assert [len(panel.panel.marks) for panel in view.panels] == [3, 3, 3], "the dense cell is the line"
    assert len(view.rows) == 12


def test_words_say_what_the_drawing_says(families):
    view = view_sizes(families)
    rows = {row.cell: row for row in view.rows}
    for panel in view.panels:
        for mark in panel.panel.marks:
            cell, _, said = mark.words.partition(": ")
            assert said == f"{rows[cell].size}, keeps {rows[cell].retention.text} {rows[cell].retention.interval}"
            assert mark.words in panel.words


def test_a_bad_cell_is_named_and_not_only_coloured(families):
    marks = [mark for panel in view_sizes(families).panels for mark in panel.panel.marks]
    red = [mark for mark in marks if mark.tone == "regressed"]
    assert [mark.label for mark in red] == ["4bit-rtn, regressed"]
    assert {mark.label for mark in marks if mark.hollow} == {"4bit-gptq + lora", "8bit-dynamic + lora"}


def test_methods_have_markers_of_their_own(families):
    view = view_sizes(families)
    assert len({one.shape for one in view.methods}) == len(view.methods) == 4


def test_places_are_proportional_to_size_and_retention():
    points = [point("a", 100_000_000, 0.5), point("b", 200_000_000, 0.75), point("c", 300_000_000, 1.0)]
    drawn = draw_panel(points, 400_000_000, Scale(0.0, 1.0, 0.25), 3)
    xs, ys = ([float(getattr(mark, axis)) for mark in drawn.marks] for axis in "xy")
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.11)
    assert xs[0] - float(drawn.left) == pytest.approx(xs[1] - xs[0], abs=0.11), "the axis starts at nothing"
    assert ys[0] - ys[1] == pytest.approx(ys[1] - ys[2], abs=0.11)
    assert ys[2] == float(drawn.reference)


def boxes(drawn, points):
    for mark, one in zip(drawn.marks, points, strict=True):
        wide, x, y = len(one.label) * CHARACTER, float(mark.label_x), float(mark.label_y) - 4
        yield (x - wide if mark.label_end else x, y - 7, x if mark.label_end else x + wide, y + 7)


@given(st.lists(st.tuples(st.integers(20, 400), st.floats(0.3, 1.05)), min_size=1, max_size=8))
@example([(50, 1.0), (50, 1.05), (50, 1.05), (23, 1.0), (21, 1.05), (50, 0.98)])
def test_labels_stay_inside_and_do_not_cover_each_other(found):
    points = [point(f"{i}bit-method", size * 1_000_000, value) for i, (size, value) in enumerate(found)]
    drawn = draw_panel(points, 420_000_000, Scale.over(points), 3)
    placed = list(boxes(drawn, points))
    for box in placed:
        assert box[0] > -ROUNDING
        assert box[2] <= drawn.width + ROUNDING
        assert box[3] <= drawn.height + ROUNDING
    for a, b in combinations(placed, 2):
        assert any(one <= other + ROUNDING for one, other in ((a[2], b[0]), (b[2], a[0]), (a[3], b[1]), (b[3], a[1])))


def test_cells_of_the_same_size_stand_side_by_side():
    points = [point("a", 100_000_000, 0.80), point("b", 100_000_000, 0.81), point("c", 100_000_000, 0.4)]
    xs = [float(mark.x) for mark in draw_panel(points, 200_000_000, Scale.over(points), 1).marks]
    assert xs[1] - xs[0] >= 10
    assert xs[2] == xs[0], "far apart in height, nobody has to move"


@given(st.lists(st.floats(0, 1.5), min_size=1, max_size=6))
def test_the_scale_holds_everything_and_the_dense_line(values):
    points = [point("a", 1, value) for value in values]
    scale = Scale.over(points)
    assert scale.low <= max(0, min(p.low for p in points))
    assert scale.high >= max(1.0, *(p.high for p in points)) - 1e-9
    assert scale.low <= 1.0 <= scale.high


def test_a_cell_without_a_retention_is_a_row_and_no_point(bundle):
    view = view_sizes(replace(bundle, dense={}))
    assert view.panels == ()
    assert all(row.retention.text in ("unknown", "itself") for row in view.rows)
    assert {row.share for row in view.rows} == {"unknown"}


def test_a_trend_joins_only_what_can_be_compared_and_keeps_gaps():
    points = [TrendPoint(0.5, 0.4, 0.6, False), TrendPoint(0.55, 0.45, 0.65, True), None, TrendPoint(0.5, 0.4, 0.6, False)]
    drawn = draw_trend(points, "words")
    assert drawn.line.count("M") == 1
    assert drawn.whiskers.count("M") == len(drawn.dots) == 3
    assert [dot.last for dot in drawn.dots] == [False, False, True]
    assert draw_trend([None, None], "nothing") is None


def test_a_trend_draws_the_newest_and_does_not_blow_up_noise():
    points = [TrendPoint(0.5 + i / 1e6, 0.5, 0.5 + i / 1e6, True) for i in range(100)]
    drawn = draw_trend(points, "words")
    assert len(drawn.dots) == MOST_POINTS
    heights = [float(dot.y) for dot in drawn.dots]
    assert max(heights) - min(heights) < 1, f"a change far below {LEAST_REACH} looks flat"


def test_the_front_is_what_nothing_beats_at_size_and_retention(families):
    view, compared = view_sizes(families), compared_dense(families)
    rows = {row.cell: row for row in view.rows}
    for panel in view.panels:
        cells = [mark.words.partition(": ")[0] for mark in panel.panel.marks]
        kept = {cell: compared[cell][main_case_of(families, cell)].retention.value for cell in cells}
        size = {cell: rows[cell].size_bytes for cell in cells}
        size["dense"], kept["dense"] = rows[f"{panel.model}_none_none"].size_bytes, 1.0
        best = [
            one
            for one in cells
            if all((size[o], -kept[o]) == (size[one], -kept[one]) or size[o] > size[one] or kept[o] < kept[one] for o in size)
        ]
        assert sorted(best) == sorted(fronts(families)[panel.model])
        assert {cell for cell in cells if rows[cell].front} == set(best)
        assert panel.front.count("L") == max(0, len(best) - 1)


def main_case_of(bundle, cell):
    run = next(run for run in bundle.cells if cell_of(run).id == cell)
    return main_case(run, compared_dense(bundle)[cell])
