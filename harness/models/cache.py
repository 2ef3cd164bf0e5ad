"""The cache of converted models: ``<cache>/models/<SHA-256 of what was converted>/``, made whole or not at all, once.

A folder carries ``manifest.json`` with its digests and the sizes of its files. On every use the sizes are compared; a
folder that is truncated, edited or made by another converter is thrown away and made again, never served.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from harness.core.digest import digest_json
from harness.core.errors import FileFormatError, ModelError
from harness.core.records import SCHEMA_VERSION, record
from harness.core.serial import read_json, storage_errors, write_json
from harness.models.digest import digest_tokenizer, digest_weights_folder

CONVERTER_VERSION = 1
"""Raised whenever the same file would be converted to other weights or another tokenizer."""

MANIFEST = "manifest.json"

NOTES = Path("models", "digests")
"""Where in the cache digests are noted."""

log = logging.getLogger(__name__)

Tell = Callable[[str], None]


@record
class Digests:
    """What identifies a model's weights and tokenizer."""

    weights_digest: str
    tokenizer_digest: str


@record
class _Note:
    """Digests noted under a key, and the digest of both: one letter of a digest looks like any other."""

    key: str
    digests: Digests
    digest: str


@record
class Manifest:
    """What a converted folder is and how large its files must be."""

    schema_version: int
    converter_version: int
    source_sha256: str
    weights_digest: str
    tokenizer_digest: str
    sizes_bytes: dict[str, int]


def cache_root() -> Path:
    """``$HARNESS_CACHE``, else ``retention-harness`` in the user's cache folder."""
    chosen = os.environ.get("HARNESS_CACHE")
    if chosen:
        return Path(chosen).expanduser().resolve()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "retention-harness"


def converted(
    sha256: str,
    fetch: Callable[[Path], Path],
    cache_dir: Path,
    tell: Tell,
    *,
    verify: bool = False,
    convert: Callable[[Path, Path], None] | None = None,
) -> tuple[Path, Digests]:
    """The folder of the converted GGUF file with this SHA-256; ``fetch(temporary folder)`` brings the file when needed.

    ``convert(what was fetched, target folder)`` is for what is no GGUF file; ``sha256`` is then of its content.

    Two processes never convert at once: the second waits and reads what the first made.
    """
    folder = cache_dir / "models" / sha256
    manifest = _intact(folder, sha256, verify=verify)
    if manifest is None:
        with storage_errors(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(folder.with_suffix(".lock")):
                manifest = _intact(folder, sha256, verify=verify) or _make(folder, sha256, fetch, tell, convert)
    return folder, Digests(manifest.weights_digest, manifest.tokenizer_digest)


def noted(key: str, measure: Callable[[], Digests], cache_dir: Path) -> Digests:
    """Digests that take long to compute, noted under a key that changes with the files; broken notes are made anew."""
    path = cache_dir / NOTES / f"{key}.json"
    if path.exists():
        try:
            return _read_note(path)
        except FileFormatError as error:
            log.warning("noted digests are broken and are made again: %s", error)
    digests = measure()
    write_json(path, _Note(key, digests, digest_json([key, digests.weights_digest, digests.tokenizer_digest])))
    return digests


def note_faults(cache_dir: Path) -> list[str]:
    """What is wrong with the notes of ``noted``; broken ones are removed."""
    faults = []
    for path in sorted((cache_dir / NOTES).glob("*.json")):
        try:
            _read_note(path)
        except FileFormatError as error:
            path.unlink(missing_ok=True)
            faults.append(str(error))
    return faults


def _read_note(path: Path) -> Digests:
    note = read_json(path, _Note)
    digests = note.digests
    if (note.key, note.digest) != (path.stem, digest_json([path.stem, digests.weights_digest, digests.tokenizer_digest])):
        raise FileFormatError(f"{path} is not what was noted.")
    return digests


def check_folder(folder: Path, weights_digest: str) -> None:
    """Raise ModelError when a folder of this cache does not hold the weights that its manifest promises.

    The manifest goes, so that the next ``resolve`` makes the folder again. Other folders have no manifest and pass.
    """
    if not (folder / MANIFEST).is_file():
        return
    try:
        promised = read_json(folder / MANIFEST, Manifest)
        edited = promised.weights_digest != weights_digest or promised.tokenizer_digest != digest_tokenizer(folder)
    except FileFormatError:
        edited = True
    if edited:
        (folder / MANIFEST).unlink(missing_ok=True)
        raise ModelError(f"the cached model {folder} was edited since it was converted: run again, it will be made anew.")


def converted_fault(folder: Path) -> str | None:
    """What is wrong with a converted model, found by reading all of it; None: nothing. A broken one is made again."""
    if _intact(folder, folder.name, verify=True) is not None:
        return None
    (folder / MANIFEST).unlink(missing_ok=True)
    return f"{folder} is not what was converted."


# ------------------------------------------------------------------------------------------------ making and checking


def _make(
    folder: Path,
    sha256: str,
    fetch: Callable[[Path], Path],
    tell: Tell,
    convert: Callable[[Path, Path], None] | None,
) -> Manifest:
    for dead in folder.parent.glob(f".{sha256}.*"):  # we hold the lock: whoever made these was killed
        shutil.rmtree(dead, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f".{sha256}.", dir=folder.parent) as temporary:
        file = fetch(Path(temporary))
        tell(f"converting {file.name} to safetensors (once)")
        fresh = Path(temporary) / "folder"
        (convert or _convert_gguf)(file, fresh)
        tell("digesting the converted weights")
        manifest = Manifest(
            schema_version=SCHEMA_VERSION,
            converter_version=CONVERTER_VERSION,
            source_sha256=sha256,
            weights_digest=digest_weights_folder(fresh),
            tokenizer_digest=digest_tokenizer(fresh),
            sizes_bytes=_sizes(fresh),
        )
        write_json(fresh / MANIFEST, manifest)
        if folder.exists():
            folder.rename(Path(temporary) / "broken")
        fresh.rename(folder)
    return manifest


def _convert_gguf(file: Path, folder: Path) -> None:
    from harness.models.gguf import convert

    convert(file, folder)


def _intact(folder: Path, sha256: str, *, verify: bool) -> Manifest | None:
    """The manifest of a folder that is what it should be, else None."""
    try:
        manifest = read_json(folder / MANIFEST, Manifest)
    except FileFormatError:
        return None
    right = (CONVERTER_VERSION, sha256, manifest.sizes_bytes)
    if (manifest.converter_version, manifest.source_sha256, _sizes(folder)) != right:
        return None
    if not verify:
        return manifest
    try:
        digests = (digest_weights_folder(folder), digest_tokenizer(folder))
    except ModelError:
        return None
    return manifest if digests == (manifest.weights_digest, manifest.tokenizer_digest) else None


def _sizes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.is_file() and path.name != MANIFEST}
