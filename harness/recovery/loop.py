"""The training loop of every recovery: one model that does not change, a few tensors that do.

What a step does depends on the recipe, the blocks and the step's number alone, and everything else lies in the checkpoint:
a training that was killed goes on at its last validation and ends with the same tensors as one that was not.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from harness.core.errors import RecoveryError
from harness.recovery.artifact import TrainingSummary
from harness.recovery.checkpoint import Progressed, read_checkpoint, write_checkpoint
from harness.recovery.training import Blocks, TrainingBlocks, TrainingRecipe, batch_of
from harness.scoring.memory import is_out_of_memory, make_room

log = logging.getLogger(__name__)

_IGNORED = -100
"""The label of a token that is read and not predicted, by transformers' convention."""


@dataclass(frozen=True, slots=True)
class Step:
    """What a training tells of a step: its number of how many, the training loss (mean nats a token) since the last
    validation, and the best validation perplexity so far."""

    number: int
    n_steps: int
    loss_nats: float
    perplexity: float


Tell = Callable[[Step], None]


@dataclass(frozen=True, slots=True, eq=False)
class Trainee:
    """What is trained: ``parameters`` by the names that the artifact gives them, and the peft model around the frozen one
    that they act in; ``without`` switches them off for a while."""

    module: nn.Module
    parameters: Mapping[str, nn.Parameter]
    without: Callable[[], AbstractContextManager[Any]]

    @property
    def n_parameters(self) -> int:
        """How many numbers are trained."""
        return sum(parameter.numel() for parameter in self.parameters.values())


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """The tensors of the best step, and how the training went."""

    tensors: dict[str, Tensor]
    summary: TrainingSummary


def train(
    trainee: Trainee,
    blocks: TrainingBlocks,
    recipe: TrainingRecipe,
    *,
    device: str,
    checkpoint: Path,
    tell: Tell | None = None,
) -> Trained:
    """Train by the recipe; go on where ``checkpoint``, a folder of this training's own, says that it was stopped. The
    folder is the caller's to remove, once the tensors are safe.

    Raises RecoveryError when the loss stops being a number before anything was learnt; later than that the training ends
    and its best step is kept.
    """
    return _Loop(trainee, blocks, recipe, device, checkpoint, tell or (lambda _: None)).run()


@dataclass(slots=True)
class _Loop:
    trainee: Trainee
    blocks: TrainingBlocks
    recipe: TrainingRecipe
    device: str
    checkpoint: Path
    tell: Tell
    _micro_blocks: int = 0
    _losses: list[float] = field(default_factory=list)

    def run(self) -> Trained:
        started_s = time.perf_counter()
        self._micro_blocks = self.recipe.batch_blocks
        parameters = self.trainee.parameters
        optimizer = torch.optim.AdamW(parameters.values(), lr=self.recipe.learning_rate, weight_decay=0.0)
        found = read_checkpoint(self.checkpoint, parameters, optimizer)
        if found is None:
            with self.trainee.without():
                before = self._perplexity()
            first = self._perplexity()
            self._check_start(before, first)
            best = self._copy()
            so_far = Progressed(0, 0, before, first, first, 0, 0.0)
        else:
            so_far, best = found
            log.info("training goes on after step %d", so_far.step)
        spent_s = so_far.wall_s
        stopped = "all steps were done"
        for step in range(so_far.step + 1, self.recipe.steps + 1):
            if so_far.n_worse >= self.recipe.patience:
                stopped = f"{self.recipe.patience} validations without a better perplexity"
                break
            if not self._step(optimizer, step):
                stopped = f"the loss was not a finite number at step {step}"
                self._refuse_unlearnt(so_far, step)
                break
            so_far = replace(so_far, step=step)
            self.tell(Step(step, self.recipe.steps, float(np.mean(self._losses)), so_far.perplexity_best))
            if step % self.recipe.validate_every == 0 or step == self.recipe.steps:
                perplexity = self._perplexity()
                is_better = perplexity < so_far.perplexity_best  # not so for NaN either
                if is_better:
                    best = self._copy()
                    so_far = replace(so_far, best_step=step, perplexity_best=perplexity)
                so_far = replace(
                    so_far, n_worse=0 if is_better else so_far.n_worse + 1, wall_s=spent_s + time.perf_counter() - started_s
                )
                self._losses.clear()
                write_checkpoint(self.checkpoint, so_far, parameters, best, optimizer)
        if so_far.best_step == 0:
            log.warning("no step had a better validation perplexity than the first values (%.4g)", so_far.perplexity_first)
        return Trained(
            best,
            TrainingSummary(
                steps=so_far.step,
                best_step=so_far.best_step,
                perplexity_before=so_far.perplexity_before,
                perplexity_first=so_far.perplexity_first,
                perplexity_best=so_far.perplexity_best,
                stopped=stopped,
                n_parameters=self.trainee.n_parameters,
                wall_s=spent_s + time.perf_counter() - started_s,
            ),
        )

    # -------------------------------------------------------------------------------------------- one step

    def _step(self, optimizer: torch.optim.Optimizer, step: int) -> bool:
        """One step; False, with nothing changed, where loss or gradient are not finite."""
        batch = self.blocks.training[batch_of(len(self.blocks.training), step, self.recipe)]
        loss = self._halving(lambda: self._backward(batch, optimizer))
        norm = nn.utils.clip_grad_norm_(list(self.trainee.parameters.values()), self.recipe.clip_norm)
        if not (math.isfinite(loss) and bool(torch.isfinite(norm))):
            return False
        for group in optimizer.param_groups:
            group["lr"] = self.recipe.rate_at(step)
        optimizer.step()
        self._losses.append(loss)
        return True

    def _backward(self, batch: Blocks, optimizer: torch.optim.Optimizer) -> float:
        """The batch's mean loss in nats a token, its gradient in the parameters, a micro-batch at a time."""
        optimizer.zero_grad(set_to_none=True)
        loss_nats = 0.0
        for part in self._micro_batches(batch):
            loss = self._loss(part) * (len(part) / len(batch))
            loss.backward()  # type: ignore[no-untyped-call]
            loss_nats += float(loss.detach())
        return loss_nats

    def _perplexity(self) -> float:
        """The perplexity of the validation blocks; infinite where it is too large for a number, NaN where it is none."""

        def mean_nats() -> float:
            parts = self._micro_batches(self.blocks.validation)
            with torch.no_grad():
                return sum(float(self._loss(part)) * len(part) for part in parts) / len(self.blocks.validation)

        nats = self._halving(mean_nats)
        return math.exp(nats) if nats < 700 or math.isnan(nats) else math.inf

    def _loss(self, blocks: Blocks) -> Tensor:
        """Mean nats a token over all but each block's first token: the same tokens whatever stands before the block."""
        ids = torch.from_numpy(np.ascontiguousarray(blocks)).to(self.device)
        labels = ids.clone()
        labels[:, 0] = _IGNORED
        loss: Tensor = self.trainee.module(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels).loss
        return loss

    # -------------------------------------------------------------------------------------------- memory

    def _micro_batches(self, blocks: Blocks) -> Sequence[Blocks]:
        return [blocks[start : start + self._micro_blocks] for start in range(0, len(blocks), self._micro_blocks)]

    def _halving(self, run: Callable[[], float]) -> float:
        """What ``run`` gives; where memory runs out, again with micro-batches of half the size."""
        while True:
            try:
                return run()
            except RuntimeError as error:  # torch.OutOfMemoryError is one
                if not is_out_of_memory(error):
                    raise
                if self._micro_blocks == 1:
                    raise RecoveryError(
                        f"a single block of {self.recipe.block_tokens} tokens does not fit into the memory of {self.device}: "
                        "take smaller block_tokens in the recipe, or a machine with more memory."
                    ) from error
            self._micro_blocks = (self._micro_blocks + 1) // 2
            log.warning("a micro-batch is too large for the memory: %d blocks at once from now on", self._micro_blocks)
            make_room()

    # -------------------------------------------------------------------------------------------- what goes wrong

    def _copy(self) -> dict[str, Tensor]:
        return {name: parameter.detach().clone() for name, parameter in self.trainee.parameters.items()}

    def _check_start(self, before: float, first: float) -> None:
        if not (math.isfinite(before) and math.isfinite(first)):
            raise RecoveryError(
                f"the validation perplexity is {before} without the recovery and {first} with its first values: nothing can "
                "be learnt from that; the compression ruined the model, or its dtype is too narrow (use float32)."
            )

    def _refuse_unlearnt(self, so_far: Progressed, step: int) -> None:
        if so_far.best_step == 0:
            raise RecoveryError(
                f"the loss was not a finite number at step {step}, before any step was better than the first values: nothing "
                "was learnt; take a smaller learning_rate, or float32."
            )
