"""The page of the cost: ratios are those of the medians, the paper's figure stands beside ours, and nothing is made up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.core.latency import Latency, Side, Timing
from harness.report import report
from harness.report.sections.cost import view_cost

SIDES = (
    Side("none", "none", 0, 0),
    Side("prompt of 20", "prompt", 1000, 1),
    Side("idp, 2 prompts", "idp", 2000, 2),
    Side("lora, unmerged", "lora", 20_500, 0),
    Side("lora, merged", "lora", 0, 0),
)


def seconds(**times: float) -> dict[str, tuple[float, ...]]:
    names = {
        "none": "none",
        "prompt": "prompt of 20",
        "idp": "idp, 2 prompts",
        "lora": "lora, unmerged",
        "merged": "lora, merged",
    }
    return {names[name]: tuple(one * drift for drift in (1.0, 1.1, 0.9, 1.2, 1.05)) for name, one in times.items()}


@pytest.fixture
def made(bundle):  # type: ignore[no-untyped-def]
    timings = (
        Timing("prefill", 1, seconds(none=0.1, prompt=0.1, idp=0.102, lora=0.2, merged=0.1)),
        Timing("decode", 8, seconds(none=0.01, prompt=0.01, idp=0.01, lora=0.01)),
    )
    engine = {"hardware": "x86_64", "device": "cpu", "dtype": "float32", "threads": "2"}
    one = Latency(1, "llama", "embedded", 128, 8, 20, SIDES, timings, engine, "2031-05-06T07:08:09+00:00")
    return replace(bundle, latencies=(one,), unreadable_latencies=("a <b>broken</b> file",))


def test_ratios_stand_beside_what_the_paper_says(made) -> None:  # type: ignore[no-untyped-def]
    (model,) = view_cost(made).models
    assert model.columns == ("prefill, batch 1", "decode, batch 8")
    assert [(row.side, row.n_extra, row.fewer) for row in model.sides] == [
        ("none", "0", ""),
        ("prompt of 20", "1,000", "20.5 × fewer"),
        ("idp, 2 prompts", "2,000", "10.2 × fewer"),
        ("lora, unmerged", "20,500", ""),
        ("lora, merged", "0", ""),
    ]
    assert model.sides[0].times == ("105\u00a0ms", "10.5\u00a0ms")
    groups = {group.over: group for group in model.groups}
    assert list(groups) == ["none", "prompt of 20", "lora, unmerged", "lora, merged"]
    assert [row.side for row in groups["prompt of 20"].rows] == ["idp, 2 prompts"]
    assert groups["prompt of 20"].rows[0].ratios[0].text == "1.02"
    assert groups["prompt of 20"].rows[0].ratios[0].interval == "[1.02, 1.02]"  # what drifts, drifts for both
    assert "0.40" in groups["lora, unmerged"].claim
    assert [one.text for row in groups["lora, unmerged"].rows for one in row.ratios] == ["0.50", "1.00", "0.51", "1.00"]
    missing = groups["none"].rows[-1].ratios[1]
    assert (missing.text, missing.note) == ("undefined", "lora, merged was not timed")
    assert model.sides[-1].times[1] == "not timed"


def test_the_page_has_it_and_escapes(made) -> None:  # type: ignore[no-untyped-def]
    page = report(made)["index.html"].decode()
    assert "a &lt;b&gt;broken&lt;/b&gt; file" in page
    assert "over that of “lora, unmerged”" in page
    assert "2 threads" in page


def test_a_prompt_that_is_larger_than_lora_is_not_called_smaller(made) -> None:  # type: ignore[no-untyped-def]
    (one,) = made.latencies
    sides = (*SIDES[:2], Side("idp, 2 prompts", "idp", 30_000, 2), *SIDES[3:])
    (model,) = view_cost(replace(made, latencies=(replace(one, sides=sides),))).models
    assert [row.fewer for row in model.sides] == ["", "20.5 × fewer", "", "", ""]
