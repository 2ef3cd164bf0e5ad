"""Small tokenizers of every kind that the registry's models have, made from a few texts: byte-level BPE, WordPiece, Unigram.

Those of a real architecture are made through transformers' own class for it, so that they are saved and loaded as the real
ones are, with that class's normalizer, cut into words and special tokens. WordPiece and Unigram get their pieces from
byte-pair encoding too: the trainers that the tokenizers package has for them give other tokens every time.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, repeat
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AlbertTokenizer, BertTokenizer, PreTrainedTokenizerFast, RobertaTokenizer, T5Tokenizer

_TEXTS = (
    "The capital of France is Paris. The capital of Germany is Berlin. The currency of Japan is the yen.",
    "Lisbon is the capital of Portugal, and the people there speak Portuguese. The symbol of gold is Au.",
)

_SIGNS = "".join(chr(code) for code in range(33, 127))
"""Every printable ASCII character: none of them may be unknown."""

N_SENTINELS = 4


def tiny_tokenizer(*, adds_bos: bool = False) -> Any:
    """A byte-level BPE tokenizer of 320 tokens with BOS and EOS; ``adds_bos``: whether it puts BOS before every text."""
    special = ["<s>", "</s>"]
    backend = _byte_level(_TEXTS, 320, special)
    if adds_bos:
        backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    fast: Any = PreTrainedTokenizerFast  # not annotated
    roles = {"bos_token": special[0], "eos_token": special[1]}
    return fast(tokenizer_object=backend, clean_up_tokenization_spaces=False, **roles)


def bert_tokenizer(texts: Sequence[str] = _TEXTS, *, n_pieces: int = 60) -> Any:
    """An uncased WordPiece tokenizer as BERT and DistilBERT have it, with [MASK]."""
    made: Any = BertTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = _count_pieces(texts, n_pieces, _cut_as(made.backend_tokenizer))
    alphabet = sorted({*_SIGNS.lower(), *(character for _, piece in pieces for character in piece)})
    marked = [piece if is_first else f"##{piece}" for is_first, piece in pieces]
    tokens = dict.fromkeys([*special, *alphabet, *(f"##{character}" for character in alphabet), *marked])
    return BertTokenizer(vocab={token: number for number, token in enumerate(tokens)})


def roberta_tokenizer(texts: Sequence[str] = _TEXTS) -> Any:
    """A byte-level BPE tokenizer as RoBERTa and BART have it, with <mask>."""
    backend = _byte_level(texts, 324, ["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    model = json.loads(backend.to_str())["model"]
    mask: Any = AddedToken("<mask>", lstrip=True)  # as roberta-base has it: the mask takes the space before it along
    merges: Any = [tuple(pair) for pair in model["merges"]]
    return RobertaTokenizer(vocab=model["vocab"], merges=merges, mask_token=mask)


def albert_tokenizer(texts: Sequence[str] = _TEXTS) -> Any:
    """An uncased Unigram tokenizer as ALBERT has it, with [MASK]."""
    special = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]
    return AlbertTokenizer(vocab=_unigram([text.lower() for text in texts], 60, special))


def t5_tokenizer(texts: Sequence[str] = _TEXTS, *, n_pieces: int = 60) -> Any:
    """A Unigram tokenizer as T5 has it, with a few sentinels <extra_id_N> behind its vocabulary."""
    return T5Tokenizer(vocab=_unigram(texts, n_pieces, ["<pad>", "</s>", "<unk>"]), extra_ids=N_SENTINELS)


def _byte_level(texts: Sequence[str], n_tokens: int, special: list[str]) -> Tokenizer:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=n_tokens, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(texts, trainer)
    return backend


def _unigram(texts: Sequence[str], n_pieces: int, special: list[str]) -> list[tuple[str, float]]:
    """Tokens with their log-probabilities: special ones, pieces, and at half a count each the characters left over.

    Signs stand alone, as SentencePiece keeps them: no token joins a word and its full stop.
    """
    cut = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()])
    counts: dict[str, float] = dict.fromkeys([*_SIGNS, "▁"], 0.5)
    pieces = _count_pieces(texts, n_pieces, lambda text: [word for word, _ in cut.pre_tokenize_str(text)])
    for (_, piece), count in pieces.items():
        counts[piece] = counts.get(piece, 0) + count
    total = sum(counts.values())
    return [*((token, 0.0) for token in special), *((piece, math.log(n / total)) for piece, n in counts.items())]


def _cut_as(backend: Tokenizer) -> Callable[[str], list[str]]:
    """A text as the words that a tokenizer's model gets to see."""

    def cut(text: str) -> list[str]:
        return [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(backend.normalizer.normalize_str(text))]

    return cut


def _count_pieces(texts: Iterable[str], n_pieces: int, cut: Callable[[str], list[str]]) -> Counter[tuple[bool, str]]:
    """How often each piece of a word, (whether it is the word's first, piece), occurs, commonest first.

    The pieces are ``n_pieces`` merges of byte-pair encoding and the characters.
    """
    words = Counter(word for text in texts for word in cut(text))
    alphabet = sorted({character for word in words for character in word})
    trainer = trainers.BpeTrainer(
        vocab_size=len(alphabet) + n_pieces, initial_alphabet=alphabet, limit_alphabet=len(alphabet), show_progress=False
    )
    backend = Tokenizer(models.BPE())
    backend.train_from_iterator(chain.from_iterable(repeat(word, count) for word, count in sorted(words.items())), trainer)
    counts: Counter[tuple[bool, str]] = Counter()
    for word, count in sorted(words.items()):
        for place, piece in enumerate(backend.encode(word).tokens):
            counts[place == 0, piece] += count
    return Counter(dict(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))))
