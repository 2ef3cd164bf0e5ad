"""Greedy generation: the text of lm-eval's ``hf`` model class, for decoders and encoder-decoders.

Decoders generate in slots (``greedy``): rows that end make room for others, and what prompts begin with is fed once. Where
an architecture can't do that, and for encoder-decoders, transformers' own ``generate`` is fed batches of one kind (stop
strings, length), padded on the left. Padding and neighbours leave a text as it is but for rounding; a model whose next-token
scores they move by more than that is fed one prompt at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar, Literal

from harness.core.errors import ConfigError
from harness.models.loaded import LoadedModel
from harness.models.roots import KeysValues
from harness.scoring import Generated, Progress, Prompt
from harness.scoring.answers import PartsDone, refuse_soft_roots
from harness.scoring.encode import window_tokens
from harness.scoring.greedy import Ask, find_beginnings
from harness.scoring.greedy_probe import deepest_row, engine_that_holds
from harness.scoring.left_padded import LeftPadded
from harness.scoring.rooted import body, keep_root, room_beside_roots
from harness.scoring.stems import SHORTEST_STEM_TOKENS
from harness.scoring.stops import StopStrings, end_tokens

GenerationPath = Literal["continuous", "plain"]

BATCH_TOKENS = 8192
"""Tokens of the rows that run side by side, those to be made among them: what the cache of keys and values has to hold."""


class GreedyGenerator:
    """Generates with a loaded model, always taking the likeliest token. ``path`` says how: "continuous", or "plain" where
    that does not hold, which a small probe finds out at construction.

    Prompts that reach beyond a window that slides are generated plainly where it is not known how it does. What prompts
    begin with (at least ``shortest_stem`` tokens) is fed once for all of them.
    """

    identity: ClassVar[str] = "greedy/1"

    def __init__(
        self,
        model: LoadedModel,
        *,
        batch_tokens: int = BATCH_TOKENS,
        path: Literal["auto", "plain"] = "auto",
        shortest_stem: int = SHORTEST_STEM_TOKENS,
        progress: Progress | None = None,
    ) -> None:
        if batch_tokens < 1:
            raise ConfigError(f"batch_tokens is {batch_tokens}: expected at least 1.")
        config: Any = model.module.config
        self._model = model
        self._is_encoder_decoder = bool(config.is_encoder_decoder)
        if self._is_encoder_decoder:
            refuse_soft_roots(model, "generating text")
        self._window = room_beside_roots(model, window_tokens(config, model.tokenizer))
        self._shortest_stem = shortest_stem
        self._progress = progress
        self._ends = ends = end_tokens(model)
        may_run = path == "auto" and not self._is_encoder_decoder
        self._engine = engine_that_holds(model, ends=ends, batch_tokens=batch_tokens, window=self._window) if may_run else None
        self.path: GenerationPath = "continuous" if self._engine else "plain"
        self._deepest = min(self._window, deepest_row(config, self._engine.windows) or self._window) if self._engine else 0
        is_enough = self._deepest == self._window
        if not is_enough:
            refuse_soft_roots(model, "generating text plainly")
        self._kept: dict[int, KeysValues | None] = {}
        self._left_padded = None if is_enough else LeftPadded(model, ends=ends, batch_tokens=batch_tokens)

    @property
    def tokens_fed(self) -> int:
        """How many tokens were fed, padding left out."""
        return sum(engine.tokens_fed for engine in (self._engine, self._left_padded) if engine)

    def generate(self, groups: Sequence[Sequence[Prompt]]) -> list[list[Generated]]:
        """The texts of each group's prompts, in order. Raises ConfigError for a prompt that leaves no room for its context."""
        flat = [(g, prompt) for g, group in enumerate(groups) for prompt in group]
        stops = {kind: StopStrings(self._model.tokenizer, kind) for kind in {prompt.stop for _, prompt in flat}}
        encoded = [self._encode(prompt) for _, prompt in flat]
        asks = [
            Ask(tokens, stops[prompt.stop], prompt.max_new_tokens)
            for (_, prompt), (tokens, _) in zip(flat, encoded, strict=True)
        ]
        done = PartsDone(self._progress, len(groups), [g for g, _ in flat])

        def tell(positions: Sequence[int]) -> None:
            done.tell(flat[position][0] for position in positions)

        made: dict[int, list[int]] = {}
        roots = self._choose([ask.tokens for ask in asks])
        if self._engine:
            behind: dict[int, list[int]] = {}
            for position, root in enumerate(roots):
                if len(asks[position].tokens) + asks[position].max_new_tokens <= self._deepest:
                    behind.setdefault(root, []).append(position)
            for root, fit in sorted(behind.items()):
                chosen = [asks[position] for position in fit]
                stems = find_beginnings([ask.tokens for ask in chosen], self._shortest_stem)
                done_here = partial(_tell_one, tell, fit)
                rows = self._engine.generate(chosen, stems, root=self._keep(root), done=done_here)
                made.update(zip(fit, rows, strict=True))
        if self._left_padded:
            made |= self._left_padded.generate({p: ask for p, ask in enumerate(asks) if p not in made}, tell)
        has_choice = self._model.soft_roots is not None and self._model.soft_roots.has_choice
        told = [root if has_choice else None for root in roots]
        texts = iter([self._generated(ask, made[p], encoded[p][1], told[p]) for p, ask in enumerate(asks)])
        return [[next(texts) for _ in group] for group in groups]

    def _generated(self, ask: Ask, made: Sequence[int], n_cut: int, root: int | None) -> Generated:
        is_ended = len(made) < ask.max_new_tokens or made[-1] in self._ends or ask.stops.end(made)
        return Generated(ask.stops.text(made), len(made), is_ended, n_cut, root)

    def _choose(self, contexts: Sequence[tuple[int, ...]]) -> Sequence[int]:
        """The soft root of each context, 0 where there is none."""
        if self._model.soft_roots is None:
            return [0] * len(contexts)
        distinct = list(dict.fromkeys(contexts))
        chosen = dict(zip(distinct, self._model.soft_roots.choose(distinct), strict=True))
        return [chosen[context] for context in contexts]

    def _keep(self, root: int) -> KeysValues | None:
        """The keys and values of a root, made when it is first asked for."""
        if self._model.soft_roots is not None and root not in self._kept:
            self._kept[root] = keep_root(body(self._model), self._model.soft_roots.roots[root])
        return self._kept.get(root)

    def _encode(self, prompt: Prompt) -> tuple[tuple[int, ...], int]:
        """The context's tokens, cut on the left where it does not fit beside what is to be made, and how many were cut off."""
        room = self._window - (0 if self._is_encoder_decoder else prompt.max_new_tokens)
        if room < 1 or prompt.max_new_tokens < 1:
            raise ConfigError(
                f"a task asks for {prompt.max_new_tokens} new tokens, the model takes {self._window} in all: expected at "
                "least one and fewer than that; take another task, or change max_gen_toks in its YAML."
            )
        tokenizer = self._model.tokenizer
        special = self._is_encoder_decoder or not (tokenizer.bos_token and prompt.context.startswith(tokenizer.bos_token))
        ids: list[int] = tokenizer.encode(prompt.context, add_special_tokens=special, verbose=False)
        return tuple(ids[-room:]) or (self._model.prefix_token_id,), max(0, len(ids) - room)


def _tell_one(tell: Callable[[Sequence[int]], None], positions: Sequence[int], index: int) -> None:
    tell([positions[index]])
