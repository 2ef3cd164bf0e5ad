"""What `harness analyze` leaves of a cell: how like the dense model it attends and computes, layer by layer.

    <run folder>/regimes/<cell id>.json

Beside the records of the cells, because it is no answer to anything and no verdict comes from it: a run is whole without.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from harness.core.errors import FileFormatError
from harness.core.records import Cell, record
from harness.core.serial import read_json, write_json
from harness.core.verdicts import Estimate, NotEstimable

REGIMES = "regimes"

LayerValue = Estimate | NotEstimable
"""A mean over texts, tokens and, of attention, heads, with its interval over texts."""


@record
class Stack:
    """One kind of attention of a model: "decoder", "encoder", or "cross", by which a decoder reads an encoder's states.

    Layers come in the model's order, heads within them; a head's mean is None where it is undefined. ``attention``: cosines
    to the dense model's attention maps; ``outputs``: to its blocks' outputs, none for "cross", whose block is the decoder's;
    ``to_root``: the share of attention on what stands before every input, none where nothing does.
    """

    name: str
    attention: tuple[LayerValue, ...]
    attention_heads: tuple[tuple[float | None, ...], ...]
    outputs: tuple[LayerValue, ...] = ()
    to_root: tuple[LayerValue, ...] = ()
    to_root_heads: tuple[tuple[float | None, ...], ...] = ()


@record
class Regimes:
    """One cell beside its dense model on ``n_texts`` texts of ``n_tokens`` tokens each.

    ``roots``: for each root, by its number, its positions and how many texts were read behind it. ``even_share``: what
    ``to_root`` would be if every token attended to all that it sees alike; None without roots. ``weights_digest`` and
    ``recovery_digest`` are those of the cell's provenance, ``measured_at`` is ISO 8601.
    """

    schema_version: int
    cell: Cell
    dense_digest: str
    weights_digest: str
    recovery_digest: str
    recovery_method: str
    text: str
    text_digest: str
    n_texts: int
    n_tokens: int
    roots: tuple[tuple[int, int], ...]
    even_share: float | None
    stacks: tuple[Stack, ...]
    engine: dict[str, str]
    measured_at: str


def write_regimes(folder: Path, made: Regimes) -> Path:
    """Write a cell's regimes into a run folder, in an older one's place. Raises StorageError."""
    path = folder / REGIMES / f"{made.cell.id}.json"
    write_json(path, made)
    return path


def read_regimes(folder: Path) -> tuple[tuple[Regimes, ...], tuple[str, ...]]:
    """The regimes of a run folder by cell id; and a sentence for each file that can't be read."""
    made = list(_read_all(folder / REGIMES))
    return tuple(one for one in made if isinstance(one, Regimes)), tuple(one for one in made if isinstance(one, str))


def _read_all(home: Path) -> Iterator[Regimes | str]:
    for path in sorted(home.glob("*.json")):
        try:
            made = read_json(path, Regimes)
        except FileFormatError as error:
            yield f"{error} Run `harness analyze {path.stem}` again, or remove it."
            continue
        if made.cell.id != path.stem:
            yield f"{path} is of the cell {made.cell.id}: it was moved; run `harness analyze {path.stem}`, or remove it."
            continue
        yield made
