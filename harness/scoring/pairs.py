"""From requests to what an encoder-decoder is fed: a context for the encoder, a target for the decoder.

*continuation* (``lm_eval.models.huggingface.HFLM`` 0.4.13 to the letter): the context alone goes to the encoder with the
tokenizer's special tokens (T5: EOS at the end), cut on the left to the window; the continuation is encoded by itself without
special tokens, and no EOS is scored. An empty context is the prefix token (BOS, else EOS).
*sentence*: the encoder gets the whole sentence with ``<extra_id_0>`` in place of the answer's tokens, as T5 was trained; the
target is ``<extra_id_0>``, the answer's tokens and the closing ``<extra_id_1>``, which says that the answer ends. All but the
first are scored. *blank*: the same without the closing one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.models.loaded import LoadedModel
from harness.models.seq2seq import sentinel
from harness.scoring import Request
from harness.scoring.encode import Reader, check_length, move_spaces
from harness.scoring.gap import read_sentences


@dataclass(frozen=True, slots=True)
class Pair:
    """A request as tokens: what the encoder is fed, what the decoder is to say, how many tokens at its end are scored, and how
    many of the context were cut off."""

    context: tuple[int, ...]
    target: tuple[int, ...]
    n_scored: int
    n_cut: int = 0


def encode_pairs(groups: Sequence[Sequence[Request]], model: LoadedModel, window: int) -> list[list[Pair]]:
    """Every request as a pair. Raises ScoreError for one that can't be asked, ModelError without sentinels."""
    texts = [[request for request in group if request.reading == "continuation"] for group in groups]
    continued = iter(_continuations([request for group in texts for request in group], model, window))
    made = []
    for group in groups:
        gapped = iter(_gaps([request for request in group if request.reading != "continuation"], model, window))
        made.append([next(continued if request.reading == "continuation" else gapped) for request in group])
    return made


def target_lengths(requests: Sequence[Request], model: Reader) -> list[int]:
    """How many tokens of each continuation are scored, whatever the window."""
    return [len(target) for _, target in _split(requests, model)]


def _continuations(requests: Sequence[Request], model: Reader, window: int) -> list[Pair]:
    pairs = []
    for request, (context, target) in zip(requests, _split(requests, model), strict=True):
        check_length(len(target), window, *move_spaces(request))
        pairs.append(Pair(tuple(context[-window:]), tuple(target), len(target), max(0, len(context) - window)))
    return pairs


def _split(requests: Sequence[Request], model: Reader) -> list[tuple[list[int], list[int]]]:
    """The tokens of each context, and of what is scored."""
    if not requests:
        return []
    split = [move_spaces(request) for request in requests]
    prefix = model.prefix_token_id
    prefix_text = model.tokenizer.decode(prefix)
    texts = {text for text, _ in split if text}
    contexts = _encode([text for text in texts if not text.startswith(prefix_text)], model, special=True)
    contexts |= _encode([text for text in texts if text.startswith(prefix_text)], model, special=False)
    targets = _encode([continuation for _, continuation in split], model, special=False)
    made = []
    for text, continuation in split:
        context, target = contexts.get(text, [prefix]), targets[continuation]
        made.append((context, target[1:] if not text and target[:1] == context else target))
    return made


def _gaps(requests: Sequence[Request], model: LoadedModel, window: int) -> list[Pair]:
    if not requests:
        return []
    opening, closing = sentinel(model, 0), sentinel(model, 1)
    sentences = read_sentences(requests, model, window, gaps=("sentence", "blank"))
    ends = [(closing,) if request.reading == "sentence" else () for request in requests]
    return [
        Pair(sentence.without_answer(opening), (opening, *sentence.answer, *end), len(sentence.answer) + len(end))
        for sentence, end in zip(sentences, ends, strict=True)
    ]


def _encode(texts: Sequence[str], model: Reader, *, special: bool) -> dict[str, list[int]]:
    rows = model.tokenizer(list(texts), add_special_tokens=special, verbose=False)["input_ids"] if texts else []
    return dict(zip(texts, rows, strict=True))
