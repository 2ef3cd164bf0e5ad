"""What differs between a baseline's provenance and a run's: in words, and as two questions: could anything change, and is it
allowed to differ?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from harness.core.errors import UnknownNameError
from harness.core.records import ENGINE_IDENTITY, CompressionRecord, Provenance
from harness.core.shelf import unknown_name

ENGINE_PARTS = (*ENGINE_IDENTITY, "threads", "cpu_capability", "hardware", "python")
"""The parts of ``Provenance.engine`` that can be required to stay as they were."""


def identity_differences(before: Provenance, now: Provenance) -> list[str]:
    """The parts that must agree before two measurements count as the same one, where they don't; [] when all agree.

    A part of the engine that either side does not tell counts as different.
    """
    found = [
        word
        for word, old, new in (
            ("weights", before.weights_digest, now.weights_digest),
            ("recovery", before.recovery_digest, now.recovery_digest),
            ("model config", before.config_digest, now.config_digest),
            ("tokenizer", before.tokenizer_digest, now.tokenizer_digest),
        )
        if old != new
    ]
    for part in ENGINE_IDENTITY:
        if part not in before.engine or before.engine[part] != now.engine.get(part):
            found.append(part)
    return found


def forbidden_differences(before: Provenance, now: Provenance, required: Sequence[str]) -> list[str]:
    """The parts of the engine that had to stay the same and did not, one phrase each; [] when all of ``required`` agree.

    A part that either side does not tell counts as different. Raises UnknownNameError for a name that is no engine part.
    """
    for part in required:
        if part not in ENGINE_PARTS:
            raise UnknownNameError(unknown_name("engine part", part, ENGINE_PARTS))
    return [
        f"{part}: {before.engine.get(part, 'not recorded')} -> {now.engine.get(part, 'not recorded')}"
        for part in required
        if part not in before.engine or before.engine[part] != now.engine.get(part)
    ]


def compare_provenance(
    before: Provenance, now: Provenance, compression_before: CompressionRecord, compression_now: CompressionRecord
) -> list[str]:
    """Everything that differs, one phrase each ("torch: 2.8.0 -> 2.9.1"), in a stable order; digests are cut short."""
    return [
        *_changed("", {"model": before.model_source}, {"model": now.model_source}),
        *_changed("", _digests(before), _digests(now)),
        *_changed("", before.engine, now.engine),
        *_changed("", {"harness": before.harness_version}, {"harness": now.harness_version}),
        *_changed("", _compression(compression_before), _compression(compression_now)),
        *_changed("recipe ", compression_before.recipe, compression_now.recipe),
    ]


def _digests(provenance: Provenance) -> dict[str, str]:
    return {
        "dense weights": provenance.dense_digest[:12],
        "weights": provenance.weights_digest[:12],
        "model config": provenance.config_digest[:12],
        "tokenizer": provenance.tokenizer_digest[:12],
        "recovery": provenance.recovery_digest[:12],
    }


def _compression(record: CompressionRecord) -> dict[str, object]:
    return {
        "compression": record.method,
        "stability": record.stability,
        "effective bits": record.effective_bits,
        "size in bytes": record.size_bytes,
    }


def _changed(prefix: str, before: Mapping[str, object], now: Mapping[str, object]) -> Iterator[str]:
    for key in [*before, *(key for key in now if key not in before)]:
        if before.get(key) != now.get(key):
            yield f"{prefix}{key}: {before.get(key, 'not recorded')} -> {now.get(key, 'not recorded')}"
