"""The frozen types that cross a boundary between rooms or go to disk.

``@record`` makes a frozen, slotted dataclass that ``core.serial`` reads strictly: unknown keys, wrong types, NaN and
infinities are refused. Columns over items are NumPy arrays and live in parquet, beside a record in JSON.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

from typing_extensions import dataclass_transform

from harness.core.digest import digest_json
from harness.core.errors import CellIdError
from harness.core.outcomes import Outcomes

T = TypeVar("T")

SCHEMA_VERSION = 1

Stability = Literal["stable", "re-compressed"]
"""Whether compressing again gives the same weights to the bit on every machine, or moves with threads and kernels."""

ScoreClass = Literal["log_likelihood", "generation", "perplexity"]
"""How a task's answers come about; it decides which measured A/A flip rate applies. Of "perplexity" nothing is right or wrong:
it is reported and not gated."""

Origin = Literal["measured", "stored", "baseline"]
"""Where a task run came from: forward passes now, the run store, or the baseline of an identical cell."""

_ID_PART = re.compile(r"[a-z0-9][a-z0-9.\-]*")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def record(cls: type[T]) -> type[T]:
    """A frozen, slotted dataclass whose files are read strictly."""
    made = dataclass(frozen=True, slots=True)(cls)
    made.__pydantic_config__ = {"extra": "forbid", "allow_inf_nan": False}  # type: ignore[attr-defined]
    return made


# ------------------------------------------------------------------------------------------------ cells


@record
class Cell:
    """One cell of the matrix: a model, a compression and a recovery, by their names in the matrix."""

    model: str
    compression: str
    recovery: str

    def __post_init__(self) -> None:
        for part in (self.model, self.compression, self.recovery):
            if not _ID_PART.fullmatch(part):
                raise CellIdError(
                    f"cell id part {part!r} is not allowed: expected lower-case letters, digits, '.' and '-' "
                    "(no '_', '/' or space), starting with a letter or digit; rename it in the matrix."
                )

    @property
    def id(self) -> str:
        """``<model>_<compression>_<recovery>``, as tests, files and reports name the cell."""
        return f"{self.model}_{self.compression}_{self.recovery}"

    @property
    def is_dense(self) -> bool:
        """Whether the cell is its model as it came."""
        return self.compression == "none" and self.recovery == "none"

    @property
    def dense(self) -> Cell:
        """The cell of the same model as it came."""
        return Cell(self.model, "none", "none")

    @property
    def sibling(self) -> Cell | None:
        """The compressed cell that a recovered one starts from; None where nothing is recovered."""
        return None if self.recovery == "none" else Cell(self.model, self.compression, "none")

    @classmethod
    def parse(cls, text: str) -> Cell:
        """The cell of an id. Raises CellIdError for anything that is not three allowed parts.

        >>> Cell.parse("llama_4bit-rtn_none").compression
        '4bit-rtn'
        """
        parts = text.split("_")
        if len(parts) != 3:
            raise CellIdError(f"cell id {text!r} is not <model>_<compression>_<recovery>: it has {len(parts)} parts.")
        return cls(*parts)


# ------------------------------------------------------------------------------------------------ items


@record
class Item:
    """One probe item: what is asked, which answers compete, which of them are right.

    ``prompt`` shows the blank as ``[Y]`` where there is one. ``gold`` are positions in ``options``. ``group`` is the
    relation (a stratum, or a cluster where relations stand for others: ``TaskInfo.n_clusters``).
    """

    id: str
    group: str
    prompt: str
    options: tuple[str, ...]
    gold: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.gold or not all(0 <= g < len(self.options) for g in self.gold):
            raise ValueError(f"item {self.id!r}: gold {self.gold} does not point into its {len(self.options)} options")

    @property
    def digest(self) -> str:
        """The item's identity: any change of wording, options, their order or the right answers changes it."""
        return digest_json([self.id, self.group, self.prompt, self.options, self.gold])


@record
class TaskInfo:
    """What a task asks, fixed before any model is seen.

    ``spec_digest`` covers everything the items are made from (data, templates, protocol) but the tokenizer
    and the limit.
    ``chance`` is the mean share of right options; ``majority`` the accuracy of always giving the commonest answer.
    ``excluded`` counts facts that the protocol can't ask, by reason. ``pooled``: whether the task's items enter the
    cell's pool (the same facts asked another way are guards and do not). ``limit``: the cut to so many items that was
    asked for (``--harness-limit``), None for all of them; a limited run can't become a baseline. ``n_clusters``: how many
    groups the items come in, where these stand for others like them; None where they stand for themselves (fixed strata).
    """

    name: str
    protocol: str
    score_class: ScoreClass
    pooled: bool
    tie_rule: str
    data_version: str
    spec_digest: str
    items_digest: str
    n_items: int
    chance: float
    majority: float
    excluded: dict[str, int]
    limit: int | None = None
    n_clusters: int | None = None

    def __post_init__(self) -> None:
        if self.n_items < 0 or (self.limit is not None and self.limit < 1):
            raise ValueError(f"task {self.name!r} with {self.n_items} items and limit {self.limit}: there can be no such task")
        if not (0 <= self.chance <= 1 and 0 <= self.majority <= 1):
            raise ValueError(
                f"task {self.name!r}: chance {self.chance} and majority {self.majority} are no shares of its items"
            )


@record
class ItemOutcome:
    """What one model answered to one item. ``answer`` and ``rank`` refer to the item's options; rank 1 is best.

    A generated answer has its ``text``, and ``answer`` -1 where it is none of the options (``rank`` is then their number + 1),
    or ``UNPARSED`` where there was none: it is wrong, but apart from the wrong ones.

    ``margin_nats`` is the best right option's score minus the best wrong one's; where every option is right or wrong
    alone it is 0; of a perplexity it is the text's log-likelihood by word or byte.
    ``near_tie``: the decision hangs on less than the scorer's numerical noise. ``is_cut``: a context did not fit into the
    model's window, and its beginning was cut off.
    """

    answer: int
    correct: bool
    rank: int
    margin_nats: float
    near_tie: bool
    option_logliks_nats: tuple[float, ...]
    text: str | None = None
    is_cut: bool = False


@runtime_checkable
class Items(Protocol):
    """The items of a task run, in its order: a tuple in memory, or a file that is read when an item is looked at."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Item]: ...
    def __getitem__(self, index: int, /) -> Item: ...


@dataclass(frozen=True, slots=True, eq=False)
class TaskRun:
    """One task measured on one cell: what was asked (``info``, ``items``) and what came (``outcomes``).

    ``items`` is empty when only outcomes were kept (a baseline holds no data set text).
    """

    cell: str
    info: TaskInfo
    items: Items
    outcomes: Outcomes
    scorer: str
    origin: Origin

    def __post_init__(self) -> None:
        in_memory = isinstance(self.items, tuple) and self.items
        if in_memory and tuple(item.digest for item in self.items) != self.outcomes.digests:
            raise ValueError(f"{self.cell}-{self.info.name}: the outcomes are not those of the items")


# ------------------------------------------------------------------------------------------------ cells as measured


@record
class CompressionCost:
    """What a compression left and took, as measured. Over all layers that could be compressed: ``sparsity``, the share of
    weights that are 0; ``error_mean`` and ``error_max``, of each layer's change as a share of its dense norm, None where the
    dense weights could not be laid beside; ``worst_layer`` has the largest ("" then).

    ``memory_bytes`` is the model as this harness holds it (quantization is simulated), ``peak_memory_bytes`` the most that the
    process held while compressing (torch's own count on CUDA).
    """

    sparsity: float
    error_mean: float | None
    error_max: float | None
    worst_layer: str
    memory_bytes: int
    peak_memory_bytes: int


@record
class CompressionRecord:
    """What a compression did and cost. Bits and bytes count scales and zeros; unquantized weights count as stored.

    ``effective_bits`` is the mean over the compressed weights only; ``size_bytes`` is the whole model's.
    ``wall_s`` is 0.0 only where nothing was done (``none``). ``cost`` is None there, and in records older than it.
    """

    method: str
    recipe: dict[str, Any]
    recipe_digest: str
    stability: Stability
    effective_bits: float
    size_bytes: int
    n_weights_compressed: int
    n_weights_total: int
    wall_s: float
    cost: CompressionCost | None = None


@record
class Provenance:
    """Where a measured cell came from.

    ``config_digest``: of what the model's config says about its forward pass. ``engine``: versions, device, dtype, threads
    (see ``ENGINE_IDENTITY``). ``commit``, ``measured_at`` and ``engine`` are those of the forward passes, also when these
    were stored.
    """

    model_source: str
    dense_digest: str
    weights_digest: str
    config_digest: str
    tokenizer_digest: str
    recovery_digest: str
    engine: dict[str, str]
    harness_version: str
    commit: str
    measured_at: str


ENGINE_IDENTITY = ("torch", "transformers", "device", "dtype", "attention")
"""The parts of ``Provenance.engine`` that must agree before two runs of the same weights count as identical."""


@record
class CellRecord:
    """A measured cell without its item-level outcomes; those lie beside it, one parquet file a task. ``recovery_method`` is
    the method behind the recovery's name in the matrix, ``recovery_recipe`` its fields, ``recovery_tensors`` the digest of
    what was trained for it ("" where nothing was); all three are empty in records older than them."""

    schema_version: int
    cell: Cell
    profile: str
    family: str
    compression: CompressionRecord
    provenance: Provenance
    tasks: dict[str, TaskInfo]
    scorers: dict[str, str]
    origins: dict[str, Origin]
    wall_s: dict[str, float]
    recovery_method: str = "none"
    recovery_recipe: dict[str, Any] = field(default_factory=dict)
    recovery_tensors: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class CellRun:
    """A measured cell: its record and its task runs by task name (a part of the declared ones after ``-k`` or a limit)."""

    record: CellRecord
    runs: Mapping[str, TaskRun]


@dataclass(frozen=True, slots=True)
class CellFailure:
    """A cell that could not be measured: the sentence that says why. Judged INVALID, never a regression."""

    cell: Cell
    profile: str
    reason: str
