"""Calibration text: which text, and which of its tokens a recipe sees.

The shipped text was sampled once from the embedded default model (``data/README.md``); any other comes from a file:
``.txt`` (documents apart by blank lines) or ``.jsonl`` (one ``{"text": …}`` a line; C4 calls it ``.json``), also with ``.gz``.
"""

from __future__ import annotations

import gzip
import json
import random
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int

from harness.core.digest import digest_file, digest_json
from harness.core.errors import CompressionError, ConfigError, ContaminationError, FileFormatError
from harness.core.serial import read_bytes

if TYPE_CHECKING:
    from harness.core.probes import ProbeIndex

SHIPPED = Path(__file__).parent / "data" / "calibration.jsonl"
SHIPPED_SHA256 = "9f1fadaf1427f1260851a8139e0b47814a7d47ca29692616337f3d91cd1a02e7"
"""Of the file's bytes; ``scripts/sample_calibration_text.py --check`` prints it."""


@dataclass(frozen=True, slots=True)
class CalibrationSample:
    """The tokens that a compression sees: ``token_ids`` in blocks of one length."""

    token_ids: Int[np.ndarray, "samples tokens"]

    @property
    def digest(self) -> str:
        """The digest of the tokens and their blocks."""
        return digest_json(self.token_ids.tolist())


@dataclass(frozen=True, slots=True)
class CalibrationText:
    """Documents to calibrate on; ``name`` is what errors call them."""

    name: str
    documents: tuple[str, ...]

    @property
    def digest(self) -> str:
        """The digest of the documents in their order; what file they came from does not matter."""
        return digest_json(self.documents)

    def refuse_probes(self, index: ProbeIndex, kind: str = "calibration") -> None:
        """Raise ContaminationError when documents hold the probes' own text; ``kind`` is what the text is for."""
        found = {number: index.overlaps(document) for number, document in enumerate(self.documents, start=1)}
        holding = [number for number, grams in found.items() if grams]
        if holding:
            first = " ".join(found[holding[0]][0])
            raise ContaminationError(
                f"{kind} text {self.name}: {_listed(holding)} of the probes' own word sequences (first: {first!r}): "
                "knowledge won from it would prove nothing; take other text, or leave these documents out."
            )

    def without(self, numbers: Sequence[int]) -> CalibrationText:
        """The text without some documents, counted from 1. Raises ConfigError for one that it does not have, or none left."""
        unknown = [number for number in numbers if not 1 <= number <= len(self.documents)]
        if unknown:
            raise ConfigError(
                f"text {self.name} has {len(self.documents)} documents: document {unknown[0]} can't be left out."
            )
        kept = tuple(document for number, document in enumerate(self.documents, start=1) if number not in set(numbers))
        if not kept:
            raise ConfigError(f"text {self.name}: all of its {len(self.documents)} documents are left out.")
        return CalibrationText(self.name, kept)

    def draw(self, tokenizer: Any, *, n_samples: int, sample_tokens: int, seed: int, separator_id: int) -> CalibrationSample:
        """``n_samples`` blocks of ``sample_tokens`` tokens without overlap, the same for the same seed on every machine.

        The documents are put in an order drawn from the generator ``calibration-order:<seed>``, each after a
        ``separator_id`` (what the model takes for the beginning of a text), and the stream is cut into blocks.
        Raises CompressionError when the text is too short.
        """
        n_wanted = n_samples * sample_tokens
        generator = random.Random(f"calibration-order:{seed}")  # noqa: S311 - an order, not a secret
        order = sorted(range(len(self.documents)), key=[generator.random() for _ in self.documents].__getitem__)
        stream: list[int] = []
        for index in order:
            if len(stream) >= n_wanted:
                break
            stream += [separator_id, *tokenizer(self.documents[index], add_special_tokens=False)["input_ids"]]
        if len(stream) < n_wanted:
            raise CompressionError(
                f"calibration text {self.name} has {len(stream)} tokens, the recipe wants {n_samples} samples of "
                f"{sample_tokens} = {n_wanted}: take fewer or shorter samples, or a longer text."
            )
        return CalibrationSample(np.array(stream[:n_wanted], dtype=np.int64).reshape(n_samples, sample_tokens))


def shipped_text() -> CalibrationText:
    """The text that the project ships. Raises FileFormatError when it was edited."""
    if SHIPPED.exists() and digest_file(SHIPPED) != SHIPPED_SHA256:
        raise FileFormatError(f"{SHIPPED} is not the text that was shipped: restore it, or give your own text by its path.")
    return load_text(SHIPPED)


def load_text(path: Path) -> CalibrationText:
    """A calibration text from a user's file. Raises ConfigError for another kind of file, FileFormatError for a broken one."""
    kinds = [suffix for suffix in path.suffixes if suffix != ".gz"]
    if not kinds or kinds[-1] not in (".txt", ".jsonl", ".json"):
        raise ConfigError(f"calibration text {path} is of an unknown kind: expected .txt or .jsonl, or one of them with .gz.")
    data = read_bytes(path)
    try:
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise FileFormatError(f"calibration text {path} can't be read as UTF-8 text ({error}).") from error
    documents = _json_lines(path, text) if kinds[-1] != ".txt" else re.split(r"\n\s*\n", text)
    kept = tuple(document.strip() for document in documents if document.strip())
    if not kept:
        raise FileFormatError(f"calibration text {path} holds no text.")
    return CalibrationText(path.name, kept)


def _listed(numbers: Sequence[int], n_named: int = 20) -> str:
    """The holding documents, for a sentence.

    >>> _listed([3]), _listed([3, 7, 9], n_named=2)
    ('document 3 holds some', 'documents 3, 7 and 1 more hold some')
    """
    more = f" and {len(numbers) - n_named} more" if len(numbers) > n_named else ""
    named = ", ".join(str(number) for number in numbers[:n_named])
    return f"document {named} holds some" if len(numbers) == 1 else f"documents {named}{more} hold some"


def _json_lines(path: Path, text: str) -> list[str]:
    documents = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise FileFormatError(f"calibration text {path}, line {number}: not valid JSON ({error}).") from error
        if not isinstance(row, dict) or not isinstance(row.get("text"), str):
            raise FileFormatError(f'calibration text {path}, line {number}: expected an object with a string "text".')
        documents.append(row["text"])
    return documents
