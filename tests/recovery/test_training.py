"""Training a recovery: the same numbers again, after a kill too; the best step is kept; what goes wrong is said."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from harness.compression.calibration import CalibrationText
from harness.core.errors import RecoveryError
from harness.models.digest import digest_weights
from harness.recovery import RECOVERY, is_trained
from harness.recovery.idp import Idp
from harness.recovery.loop import Step, Trainee, train
from harness.recovery.prompt import Prompt
from harness.recovery.soft import as_root, seeded, vocabulary_rows
from harness.recovery.training import TrainingBlocks, TrainingRecipe, batch_of, cut_blocks
from tests.recovery.conftest import SHORT, Loader, logprobs

TRAINED = [name for name in RECOVERY if is_trained(RECOVERY.load(name)())]


def small(name: str, **training: Any) -> Any:
    fields = {"lengths": (3, 4)} if name == "idp" else {"n_tokens": 4} if name != "lora" else {"rank": 2}
    return RECOVERY.load(name)(**fields, training=replace(SHORT, **training))


@pytest.mark.parametrize("name", TRAINED)
def test_the_same_seed_gives_the_same_tensors_and_moves_nothing_else(
    name: str, load: Loader, text: CalibrationText, tmp_path: Path
) -> None:
    state = torch.random.get_rng_state()
    made = []
    for number in range(2):
        model = load()
        made.append(small(name).train(model, text, checkpoints=tmp_path / str(number), tell=None))
        if name != "lora":  # which puts layers of its own beside the weights
            assert digest_weights(model.module) == model.weights_digest
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(made[0].tensors[key], made[1].tensors[key]) for key in made[0].tensors)
    other = small(name, seed=7).train(load(), text, checkpoints=tmp_path / "other", tell=None)
    assert any(not torch.equal(made[0].tensors[key], other.tensors[key]) for key in other.tensors)
    for summary in made[0].trainings:
        assert summary.perplexity_best <= summary.perplexity_first
        assert (summary.steps, summary.stopped) == (4, "all steps were done")


@pytest.mark.parametrize("name", TRAINED)
def test_a_killed_training_goes_on_and_ends_the_same(name: str, load: Loader, text: CalibrationText, tmp_path: Path) -> None:
    whole = small(name).train(load(), text, checkpoints=tmp_path / "whole", tell=None)
    n_told = 0

    def kill(step: Step) -> None:
        nonlocal n_told
        n_told += 1
        if n_told == (7 if name == "idp" else 3):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        small(name).train(load(), text, checkpoints=tmp_path / "killed", tell=kill)
    steps: list[int] = []
    again = small(name).train(load(), text, checkpoints=tmp_path / "killed", tell=lambda step: steps.append(step.number))
    assert steps == [3, 4]
    assert all(torch.equal(whole.tensors[key], again.tensors[key]) for key in whole.tensors)
    assert again.trainings[-1].perplexity_best == whole.trainings[-1].perplexity_best


def test_a_broken_checkpoint_is_said_and_training_begins_anew(
    load: Loader, text: CalibrationText, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = small("prompt").train(load(), text, checkpoints=tmp_path, tell=None)
    (file,) = (tmp_path / "prompt").glob("step-*.safetensors")
    file.write_bytes(file.read_bytes()[:-4])
    with caplog.at_level(logging.WARNING):
        again = small("prompt").train(load(), text, checkpoints=tmp_path, tell=None)
    assert "is broken, training begins anew" in caplog.text
    assert torch.equal(whole.tensors["prompt"], again.tensors["prompt"])


def test_idps_prompts_are_prompt_tunings(load: Loader, text: CalibrationText, tmp_path: Path) -> None:
    idp = Idp((3, 4), training=SHORT).train(load(), text, checkpoints=tmp_path / "i", tell=None)
    for number, length in enumerate((3, 4)):
        method = Prompt(length, training=replace(SHORT, seed=number))
        alone = method.train(load(), text, checkpoints=tmp_path / str(number), tell=None)
        assert torch.equal(idp.tensors[f"prompt.{number}"], alone.tensors["prompt"])


def test_validation_is_the_perplexity_that_transformers_gives(load: Loader, text: CalibrationText, tmp_path: Path) -> None:
    model = load()
    made = small("prompt", steps=1, learning_rate=1e-12).train(model, text, checkpoints=tmp_path, tell=None).trainings[0]
    model = load()
    validation = cut_blocks(text, model.tokenizer, SHORT, separator_id=model.document_start_id).validation
    root = as_root(model, vocabulary_rows(model, 4, seeded(0)))
    for behind, found in ((None, made.perplexity_before), (root, made.perplexity_first)):
        nats = [
            -float(logprobs(model, block, behind)[:-1].gather(1, torch.tensor(block)[1:, None]).mean()) for block in validation
        ]
        assert found == pytest.approx(math.exp(np.mean(nats)), rel=1e-4)


# ------------------------------------------------------------------------------------------------ the loop, on a tiny model


class Bigram(nn.Module):
    """Adds ``wanted`` to the logits of every next token; ``breaks_at``: the calls whose loss is no number."""

    def __init__(self, breaks_at: Callable[[int], bool] = lambda n: False, fits: int = 100) -> None:
        super().__init__()
        self.wanted = nn.Parameter(torch.zeros(8))
        self.n_calls, self.breaks_at, self.fits, self.sizes = 0, breaks_at, fits, []

    def forward(self, input_ids: Any, attention_mask: Any, labels: Any) -> Any:
        if len(input_ids) > self.fits:
            raise torch.OutOfMemoryError("out of memory")
        self.n_calls += self.training_call
        self.sizes.append(len(input_ids))
        loss = nn.functional.cross_entropy(self.wanted.expand(labels.numel(), -1), labels.flatten(), ignore_index=-100)
        broken = self.training_call and self.breaks_at(self.n_calls)
        return type("Out", (), {"loss": loss * math.nan if broken else loss})

    @property
    def training_call(self) -> bool:
        return torch.is_grad_enabled()


LOOP = TrainingRecipe(
    steps=20, batch_blocks=4, block_tokens=4, validation_blocks=4, validate_every=2, warmup_steps=0, learning_rate=0.1
)
SAME = TrainingBlocks(np.full((8, 4), 3), np.full((4, 4), 3))


def run(module: Bigram, blocks: TrainingBlocks, recipe: TrainingRecipe, folder: Path) -> Any:
    from contextlib import nullcontext

    return train(Trainee(module, {"w": module.wanted}, nullcontext), blocks, recipe, device="cpu", checkpoint=folder)


def test_the_best_step_is_kept_and_training_stops_when_it_gets_no_better(tmp_path: Path) -> None:
    apart = TrainingBlocks(np.full((8, 4), 3), np.array([[3, 3, 3, 5]] * 4))  # learns 3 too well for a text with 5 in it
    made = run(Bigram(), apart, replace(LOOP, steps=200, patience=3), tmp_path)
    assert 0 < made.summary.best_step < made.summary.steps < 200
    assert made.summary.stopped == "3 validations without a better perplexity"
    assert made.summary.steps - made.summary.best_step == 3 * 2
    nats = nn.functional.cross_entropy(made.tensors["w"].expand(3, -1), torch.tensor([3, 3, 5]))
    assert made.summary.perplexity_best == pytest.approx(math.exp(float(nats)), rel=1e-5)


def test_a_loss_that_is_no_number_ends_it_with_the_last_good_step(tmp_path: Path) -> None:
    made = run(Bigram(lambda n: n > 6), SAME, LOOP, tmp_path)
    assert made.summary.stopped == "the loss was not a finite number at step 7"
    assert (made.summary.steps, made.summary.best_step) == (6, 6)
    assert made.tensors["w"].isfinite().all()
    assert made.summary.perplexity_best < made.summary.perplexity_first


def test_where_nothing_was_learnt_before_it_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        RecoveryError, match=r"not a finite number at step 1, .* nothing was learnt; take a smaller learning_rate"
    ):
        run(Bigram(lambda n: True), SAME, LOOP, tmp_path)


def test_a_model_that_gives_no_number_is_refused_before_it_is_trained(tmp_path: Path) -> None:
    module = Bigram()
    module.wanted.data.fill_(math.nan)
    with pytest.raises(RecoveryError, match="the validation perplexity is nan without the recovery"):
        run(module, SAME, LOOP, tmp_path)


def test_out_of_memory_takes_smaller_parts_of_the_same_batch(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    mixed = np.random.default_rng(0).integers(0, 8, (8, 4))
    blocks = TrainingBlocks(mixed, mixed[:4])
    whole = run(Bigram(), blocks, LOOP, tmp_path / "whole")
    small = Bigram(fits=1)
    with caplog.at_level(logging.WARNING):
        parts = run(small, blocks, LOOP, tmp_path / "parts")
    assert "1 blocks at once from now on" in caplog.text
    assert set(small.sizes) == {1}
    assert torch.allclose(whole.tensors["w"], parts.tensors["w"], atol=1e-5)
    with pytest.raises(RecoveryError, match="a single block of 4 tokens does not fit into the memory of cpu: take smaller"):
        run(Bigram(fits=0), blocks, LOOP, tmp_path / "none")


def test_every_block_is_fed_before_one_is_fed_again() -> None:
    recipe = TrainingRecipe(batch_blocks=3)
    fed = [block for step in range(1, 11) for block in batch_of(5, step, recipe)]
    assert all(sorted(fed[start : start + 5]) == [0, 1, 2, 3, 4] for start in range(0, 30, 5))
    assert fed[:5] != fed[5:10]


def test_validation_is_of_other_documents_than_training(load: Loader, text: CalibrationText) -> None:
    model = load()
    blocks = cut_blocks(text, model.tokenizer, SHORT, separator_id=0)
    tokens = {tuple(model.tokenizer(d, add_special_tokens=False)["input_ids"][:10]): d for d in text.documents}
    begun = [
        {tokens.get(tuple(part.flatten().tolist()[place + 1 : place + 11])) for place in np.flatnonzero(part.flatten() == 0)}
        - {None}
        for part in (blocks.training, blocks.validation)
    ]
    assert begun[0]
    assert begun[1]
    assert not begun[0] & begun[1]


def test_too_little_text_is_refused(load: Loader) -> None:
    little = CalibrationText("little.txt", ("the sea was calm",) * 3)
    with pytest.raises(
        RecoveryError, match=r"training text little.txt is too little: .* in 3 documents, .* at least 32 for one"
    ):
        cut_blocks(little, load().tokenizer, SHORT, separator_id=0)


def test_blocks_that_do_not_fit_behind_the_prompt_are_refused(load: Loader, text: CalibrationText, tmp_path: Path) -> None:
    with pytest.raises(RecoveryError, match="don't fit into the model's window of 128"):
        Prompt(20).train(load(), text, checkpoints=tmp_path, tell=None)  # blocks of 128 tokens
