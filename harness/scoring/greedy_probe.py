"""Whether rows in slots get the next-token scores of transformers' own ``generate``: found out on a few made-up prompts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from harness.models.loaded import LoadedModel
from harness.scoring.answers import AGREE_NATS
from harness.scoring.greedy import Ask, GreedyEngine, find_beginnings
from harness.scoring.left_padded import feed
from harness.scoring.limits import deepest_path, rope_by_batch
from harness.scoring.stops import StopStrings

_Told = tuple[list[Tensor], list[int]]
"""Next-token scores [vocabulary] of each step, and the tokens that were taken."""

N_NEW = 2
_ROWS = 2
"""Rows that run side by side: fewer than the prompts, so that some wait for a slot."""

_CHANGES_NOTHING = frozenset(
    {
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
        "decoder_start_token_id",
        "do_sample",
        "temperature",
        "top_k",
        "top_p",
        "top_h",
        "min_p",
        "typical_p",
        "epsilon_cutoff",
        "eta_cutoff",
        "max_length",
        "max_new_tokens",
        "length_penalty",
        "early_stopping",
        "repetition_penalty",
        "use_cache",
        "cache_implementation",
        "cache_config",
        "max_cache_len",
        "renormalize_logits",
        "transformers_version",
        "output_attentions",
        "output_hidden_states",
        "output_scores",
        "output_logits",
        "return_dict_in_generate",
        "num_assistant_tokens",
        "num_assistant_tokens_schedule",
        "assistant_confidence_threshold",
        "assistant_lookbehind",
        "target_lookbehind",
        "compile_config",
        "disable_compile",
        "continuous_batching_config",
        "is_assistant",
        "low_memory",
        "prefill_chunk_size",
    }
)
"""Fields of a generation config that leave the likeliest token as it is, or that the engine heeds (the repetition penalty)."""

_NEUTRAL: dict[str, object] = {
    "num_beams": 1,
    "num_return_sequences": 1,
    "num_beam_groups": 1,
    "guidance_scale": 1,
    "encoder_repetition_penalty": 1,
}


def engine_that_holds(model: LoadedModel, *, ends: frozenset[int], batch_tokens: int, window: int) -> GreedyEngine | None:
    """The engine, where it gives a probe with shared beginnings, waiting rows and several lengths the scores of ``generate``.

    What a wrong mask or a missing cap does is far larger in trained models than ``AGREE_NATS``.
    """
    if rope_by_batch(model.module.config) or _steers_otherwise(model):
        return None
    if window <= N_NEW:
        return None
    stops = StopStrings(model.tokenizer, ())
    asks = [Ask(tokens, stops, N_NEW) for tokens in _probe(model, window - N_NEW)]
    width = max(len(ask.tokens) for ask in asks) + N_NEW
    seen: dict[int, list[Tensor]] = defaultdict(list)
    try:
        small = GreedyEngine(model, ends=ends, cache_tokens=_ROWS * width)
        made = small.generate(
            asks, find_beginnings([ask.tokens for ask in asks], 2), watch=lambda i, s: seen[i].append(s.clone())
        )
        engine = GreedyEngine(model, ends=ends, cache_tokens=batch_tokens)
    except (TypeError, ValueError, RuntimeError, IndexError, KeyError, AttributeError):
        return None  # an architecture that attends in other ways or keeps other things says so in many ways
    engine.windows = small.windows
    plain = [_plain(model, ask.tokens) for ask in asks]
    # weights ruined by compression multiply rounding errors
    noise_nats = max(_differences(plain[0], _plain(model, asks[0].tokens, n_copies=2)))
    tolerance_nats = max(AGREE_NATS[model.dtype], 10 * noise_nats)
    found = [nats for i in range(len(asks)) for nats in _differences((seen[i], made[i]), plain[i])]
    return engine if all(nats <= tolerance_nats for nats in found) else None


def deepest_row(config: Any, windows: Mapping[int, int | None]) -> int | None:
    """How long a row may become before it reaches beyond a window whose working is not known. None: as long as it likes.

    It is known where each layer that slides by its config told the attention so (``windows``).
    """
    deepest = deepest_path(config)
    window = getattr(config, "sliding_window", None)
    if deepest is None or deepest != window:
        return deepest
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"] * len(windows)
    known = all(windows.get(i) == (window if kind == "sliding_attention" else None) for i, kind in enumerate(kinds))
    return None if known and set(kinds) <= {"sliding_attention", "full_attention"} else deepest


def _probe(model: LoadedModel, longest: int) -> list[tuple[int, ...]]:
    """Made-up prompts: three that share a beginning, and one that doesn't."""
    vocabulary = model.module.get_input_embeddings().num_embeddings  # type: ignore[operator]

    def tokens(start: int, n: int) -> tuple[int, ...]:
        return tuple((start + 17 * i * i + 5 * i) % vocabulary for i in range(n))

    stem = tokens(11, 6)
    prompts = (stem + tokens(101, 4), stem + tokens(203, 2), stem + tokens(307, 5), tokens(29, 5))
    return [prompt[-longest:] for prompt in prompts]


def _plain(model: LoadedModel, tokens: Sequence[int], n_copies: int = 1) -> _Told:
    """What ``generate`` makes of a prompt, fed beside copies of itself."""
    out = feed(model, [tokens] * n_copies, N_NEW, return_dict_in_generate=True, output_logits=True)
    return [scores[0].float() for scores in out.logits], out.sequences[0, len(tokens) :].tolist()


def _differences(some: _Told, others: _Told) -> list[float]:
    """The largest difference of a log-probability at each step, as long as the same tokens were taken."""
    (scores, made), (other_scores, other_made) = some, others
    n_same = next((i for i, (a, b) in enumerate(zip(made, other_made, strict=False)) if a != b), len(made))
    pairs = zip(scores[: n_same + 1], other_scores[: n_same + 1], strict=False)
    return [float((a.log_softmax(-1) - b.log_softmax(-1)).abs().max()) for a, b in pairs]


def _steers_otherwise(model: LoadedModel) -> bool:
    """Whether the model's generation config asks for more than the likeliest token after a repetition penalty."""
    asked = model.module.generation_config.to_dict()  # type: ignore[union-attr,operator]
    return any(
        value and value != _NEUTRAL.get(name)
        for name, value in asked.items()
        if name not in _CHANGES_NOTHING and not name.startswith("_")
    )
