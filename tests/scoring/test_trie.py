"""The trie: each prefix once, and every path seen as if it stood alone."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, takewhile

from hypothesis import given
from hypothesis import strategies as st

from harness.scoring.encode import Encoded
from harness.scoring.plan import plan_batches, plan_packed
from harness.scoring.stems import find_stems, tokens_to_feed
from harness.scoring.trie import Trie, make_tries

_REQUESTS = st.lists(
    st.lists(st.integers(0, 3), min_size=2, max_size=7).flatmap(
        lambda tokens: st.builds(Encoded, st.just(tuple(tokens)), st.integers(1, len(tokens) - 1))
    ),
    max_size=8,
)


def _path(trie: Trie, node: int) -> tuple[int, ...]:
    if node < 0:
        return ()
    return (*_path(trie, int(trie.parents[node])), int(trie.tokens[node]))


@given(_REQUESTS, st.integers(1, 12))
def test_every_read_stands_after_its_requests_own_prefix(requests: list[Encoded], max_nodes: int) -> None:
    tries = make_tries(3, requests, max_nodes=max_nodes)
    assert [index for trie in tries for index in trie.requests] == list(range(len(requests)))
    for trie in tries:
        assert trie.group == 3
        for index, reads in zip(trie.requests, trie.reads, strict=True):
            tokens, n = requests[index].tokens, requests[index].n_scored
            wanted = [(tokens[:at], tokens[at]) for at in range(len(tokens) - n, len(tokens))]
            assert [(_path(trie, node), token) for node, token in reads] == wanted


@given(_REQUESTS)
def test_each_distinct_prefix_is_one_node_that_sees_its_ancestors_only(requests: list[Encoded]) -> None:
    for trie in make_tries(0, requests, max_nodes=10**6):
        paths = [_path(trie, node) for node in range(trie.n_nodes)]
        wanted = {request.tokens[:n] for request in requests for n in range(1, len(request.tokens))}
        assert len(paths) == len(set(paths))
        assert set(paths) == wanted
        assert [len(path) - 1 for path in paths] == trie.depths.tolist()
        seen = trie.visible()
        for node, path in enumerate(paths):
            assert [paths[other] for other in seen[node].nonzero()[0]] == [path[: n + 1] for n in range(len(path))]


@given(_REQUESTS, st.integers(1, 12))
def test_a_trie_outgrows_its_limit_only_for_a_single_request(requests: list[Encoded], max_nodes: int) -> None:
    assert all(t.n_nodes <= max_nodes or len(t.requests) == 1 for t in make_tries(0, requests, max_nodes=max_nodes))


@given(st.lists(st.integers(1, 50)), st.integers(1, 200))
def test_a_plan_feeds_every_row_once_longest_first_within_the_budget(lengths: list[int], budget: int) -> None:
    batches = plan_batches(lengths, budget_tokens=budget)
    fed = [position for batch in batches for position in batch]
    assert sorted(fed) == list(range(len(lengths)))
    assert [lengths[p] for p in fed] == sorted(lengths, reverse=True)
    assert all(len(batch) == 1 or len(batch) * lengths[batch[0]] <= budget for batch in batches)


_GROUPS = st.lists(_REQUESTS.filter(bool), max_size=7)


@given(_GROUPS, st.integers(1, 4))
def test_stems_are_beginnings_of_their_tries_that_nothing_is_read_of(groups: list[list[Encoded]], shortest: int) -> None:
    tries = [make_tries(number, requests, max_nodes=10**6)[0] for number, requests in enumerate(groups)]
    stems = find_stems(tries, shortest)
    assert sorted(position for stem in stems for position in stem.members) == list(range(len(tries)))
    for stem in stems:
        n = len(stem.tokens)
        assert n == 0 or (n >= shortest and len(stem.members) > 1)
        for position in stem.members:
            paths = [request.tokens[: len(request.tokens) - request.n_scored] for request in groups[position]]
            assert all(path[:n] == stem.tokens and len(path) > n for path in paths)


@given(_GROUPS, st.integers(1, 4), st.integers(0, 5))
def test_no_other_way_to_share_one_stem_each_feeds_less(groups: list[list[Encoded]], shortest: int, pass_tokens: int) -> None:
    tries = [make_tries(number, requests, max_nodes=10**6)[0] for number, requests in enumerate(groups)]
    stems = find_stems(tries, shortest, pass_tokens=pass_tokens)
    n_fed = tokens_to_feed(tries, stems) + pass_tokens * sum(bool(stem.tokens) for stem in stems)
    shared = []
    for requests in groups:
        before = [request.tokens[: len(request.tokens) - request.n_scored] for request in requests]
        shared.append(_common([path[:-1] for path in before]))
    best = max(map(sum, _savings(shared, shortest, pass_tokens)), default=0)
    assert n_fed == sum(trie.n_nodes for trie in tries) - best


def _savings(beginnings: list[tuple[int, ...]], shortest: int, pass_tokens: int) -> Iterator[list[int]]:
    """What each way to part the beginnings saves, part by part."""
    if not beginnings:
        yield []
        return
    first, rest = beginnings[0], range(1, len(beginnings))
    for n in range(len(beginnings)):
        for others in combinations(rest, n):
            length = len(_common([first, *(beginnings[i] for i in others)]))
            saved = max(0, n * length - pass_tokens) if length >= shortest else 0
            left = [beginnings[i] for i in rest if i not in others]
            yield from ([saved, *more] for more in _savings(left, shortest, pass_tokens))


def _common(paths: list[tuple[int, ...]]) -> tuple[int, ...]:
    columns = takewhile(lambda tokens: len(set(tokens)) == 1, zip(*paths, strict=False))
    return tuple(tokens[0] for tokens in columns)


def test_what_fits_is_packed_full_whatever_does_not_fit() -> None:
    batches = plan_packed([4000] * 5 + [10] * 500, budget_tokens=1024)
    assert [len(batch) for batch in batches] == [1] * 5 + [100] * 5
