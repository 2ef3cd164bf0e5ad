"""Train the two tiny models that the project ships, a BERT and a T5 that have learnt the project's own facts and nothing else.

    python scripts/train_tiny_models.py                    # both, into suites/models; about ten minutes on one core
    python scripts/train_tiny_models.py --only tiny-t5 --into /tmp/models

They exist so that every family of models is really run in seconds, in CI too: loaded, compressed, scored and gated. To train
on the probes is what is meant here, so their scores say nothing about language models; that compression costs them something
does say that the harness sees it. BERT is trained on exactly what it is scored by, each token of a right sentence with its
word masked from there on, and the answer alone at its blank; T5 on the answer at a sentinel.

All draws come from one generator with a fixed seed, but training runs through matrix products: another kind of processor or
version of torch gives another model that is about as good, which is why the models are committed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForMaskedLM, T5Config, T5ForConditionalGeneration

from harness.compression.calibration import shipped_text
from harness.compression.none import NoCompression
from harness.compression.rtn import Rtn
from harness.knowledge import KNOWLEDGE
from harness.knowledge.factbook import load_facts, prompt
from harness.models import MODELS
from harness.models.digest import digest_tokenizer, digest_weights_folder
from harness.models.loaded import LoadedModel
from harness.models.quiet import quiet_transformers
from harness.models.tiny import untie_head
from harness.models.tiny_tokenizers import bert_tokenizer, t5_tokenizer
from harness.scoring import SCORERS, Request
from harness.scoring.encoder import mask_answer, mask_words
from harness.scoring.gap import read_sentences
from harness.scoring.pairs import encode_pairs

INTO = Path(__file__).resolve().parents[1] / "suites" / "models"
SEED = 20251122

N_PIECES = 1000
"""Merges of the tokenizers: most answers are one token, some subjects are several."""
FACTS_WEIGHT = 10
"""How often each fact stands beside the calibration text that the tokenizers are made from."""
WINDOW = 64

TASKS = ("facts", "facts_blank")
LEAST_ACCURACY = 0.6
BLOCK_ITEMS = 128

Step = Callable[[], Tensor]
"""Draws a batch; gives its loss in nats a token."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """A model and its training. ``steps`` makes the steps from a model, the right sentences and a generator."""

    name: str
    family: str
    tokenizer: Callable[..., Any]
    build: Callable[[Any], nn.Module]
    steps: Callable[[LoadedModel, Sequence[Request], torch.Generator], Step]
    n_steps: int
    n_warmup: int = 100
    peak_rate: float = 3e-3


def main() -> None:
    """Train, save, load again as the harness does, measure, and write what was made."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=[recipe.name for recipe in RECIPES], help="train one of them")
    parser.add_argument("--into", type=Path, default=INTO, help="where their folders are written")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    for recipe in RECIPES:
        if chosen.only in (None, recipe.name):
            make(recipe, chosen.into / recipe.name)


def make(recipe: Recipe, folder: Path) -> None:
    """Train one model into a folder."""
    sentences = right_sentences()
    texts = [request.context + request.continuation + request.after for request in sentences]
    tokenizer = recipe.tokenizer([*texts * FACTS_WEIGHT, *shipped_text().documents], n_pieces=N_PIECES)
    tokenizer.model_max_length = WINDOW
    generator = torch.Generator().manual_seed(SEED)
    with torch.random.fork_rng(devices=[]):  # transformers draws first weights from the global generator
        module = recipe.build(tokenizer)
    draw(module, generator)
    model = LoadedModel(module, tokenizer, recipe.family, folder, "", "", "cpu", "float32", tokenizer.eos_token_id)
    train(recipe, module, recipe.steps(model, sentences, generator))
    with quiet_transformers():
        module.half().save_pretrained(folder)  # type: ignore[operator]
    tokenizer.save_pretrained(folder)
    measured = {bits: measure(recipe.family, folder, bits) for bits in (None, 8, 4, 3)}
    (folder / "README.md").write_text(readme(recipe, folder, measured), encoding="utf-8")
    worst = min(accuracy for accuracy, _ in measured[None].values())
    if worst < LEAST_ACCURACY:
        raise SystemExit(f"{recipe.name} learnt only {worst:.1%} of a task, expected {LEAST_ACCURACY:.0%}: train it longer.")


def right_sentences() -> list[Request]:
    """Every fact with each of its right answers."""
    book = load_facts()
    made = []
    for fact in book.facts:
        before, _, after = prompt(book.relations[fact.relation], fact).rpartition(" [Y]")
        made += [Request(before, f" {answer}", after, "sentence") for answer in fact.answers]
    return made


def train(recipe: Recipe, module: nn.Module, step: Step) -> None:
    """AdamW; the rate rises for a while and then falls in a line to nothing."""
    module.train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=recipe.peak_rate)
    started_s, smooth_nats = time.perf_counter(), float("nan")
    for number in range(1, recipe.n_steps + 1):
        rate = min(number / recipe.n_warmup, 1 - (number - 1) / recipe.n_steps)
        optimizer.param_groups[0]["lr"] = recipe.peak_rate * rate
        loss = step()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        now_nats = float(loss.detach())
        smooth_nats = now_nats if number == 1 else 0.98 * smooth_nats + 0.02 * now_nats
        if number % 200 == 0 or number == recipe.n_steps:
            elapsed_s = time.perf_counter() - started_s
            print(f"{recipe.name}: step {number} of {recipe.n_steps}, {smooth_nats:.3f} nats, {elapsed_s:.0f} s", flush=True)
    module.eval().requires_grad_(False)


def draw(module: nn.Module, generator: torch.Generator) -> None:
    """First weights from our own generator: embeddings as narrow as BERT's or as wide as T5's, matrices by their inputs."""
    wide = isinstance(module, T5ForConditionalGeneration)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim > 1:
                is_table = "embed" in name or "shared" in name or "relative" in name
                std = (1.0 if wide else 0.05) if is_table else parameter.shape[1] ** -0.5
                parameter.normal_(0, std / (8 if name.endswith("Attention.q.weight") else 1), generator=generator)


# ------------------------------------------------------------------------------------------------ BERT


def build_bert(tokenizer: Any) -> nn.Module:
    """One block, 64 wide, one head."""
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=64,
        max_position_embeddings=WINDOW,
        type_vocab_size=1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=tokenizer.pad_token_id,
    )
    return BertForMaskedLM(config)


def bert_steps(model: LoadedModel, sentences: Sequence[Request], generator: torch.Generator) -> Step:
    """Rows of one length as the scorer feeds them; those that show the answer come twice as often as the others."""
    module, mask_id, n_rows = model.module, model.tokenizer.mask_token_id, 320
    alike: dict[int, list[tuple[np.ndarray, int, int, float]]] = {}
    for sentence in read_sentences(sentences, model, WINDOW, gaps=("sentence",)):
        for rows in (mask_words(sentence, mask_id), mask_answer(sentence, mask_id)):
            for row, position, token in zip(rows.read_rows, rows.positions, rows.tokens, strict=True):
                weight = 2.0 if position in sentence.gap else 1.0
                alike.setdefault(rows.ids.shape[1], []).append((rows.ids[row], position, token, weight))
    tables = [tuple(torch.tensor(np.array(column)) for column in zip(*rows, strict=True)) for _, rows in sorted(alike.items())]
    shares = torch.stack([weights.sum() for *_, weights in tables])

    def step() -> Tensor:
        ids, positions, tokens, weights = tables[int(torch.multinomial(shares, 1, generator=generator))]
        some = torch.multinomial(weights, n_rows, replacement=True, generator=generator)
        states = module.bert(input_ids=ids[some]).last_hidden_state[torch.arange(n_rows), positions[some]]
        return nn.functional.cross_entropy(module.cls(states), tokens[some])

    return step


# ------------------------------------------------------------------------------------------------ T5


def build_t5(tokenizer: Any) -> nn.Module:
    """One block a stack, 64 wide, two heads; feed-forward and head as Flan-T5 has them."""
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=64,
        d_kv=32,
        d_ff=128,
        num_layers=1,
        num_decoder_layers=1,
        num_heads=2,
        n_positions=WINDOW,
        relative_attention_num_buckets=32,
        relative_attention_max_distance=32,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        dropout_rate=0.0,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
    )
    module = T5ForConditionalGeneration(config)
    untie_head(module)
    return module


def t5_steps(model: LoadedModel, sentences: Sequence[Request], generator: torch.Generator) -> Step:
    """The answer at the first sentinel, closed by the second."""
    n_rows = 128
    pairs = encode_pairs([sentences], model, WINDOW)[0]

    def step() -> Tensor:
        some = [pairs[index] for index in torch.randint(len(pairs), (n_rows,), generator=generator).tolist()]
        contexts = side_by_side([pair.context for pair in some], 0)
        mask = side_by_side([(1,) * len(pair.context) for pair in some], 0)
        targets = side_by_side([pair.target for pair in some], -100)
        loss: Tensor = model.module(input_ids=contexts, attention_mask=mask, labels=targets).loss
        return loss

    return step


def side_by_side(rows: Sequence[tuple[int, ...]], filler: int) -> Tensor:
    """Rows of several lengths, filled up on the right."""
    width = max(map(len, rows))
    return torch.tensor([[*row, *[filler] * (width - len(row))] for row in rows])


# ------------------------------------------------------------------------------------------------ what came of it


def measure(family: str, folder: Path, bits: int | None) -> dict[str, tuple[float, int]]:
    """P@1 and number of items of each task, as the harness loads, compresses and scores."""
    loader = MODELS.load(family)()
    model = loader.load(folder, device="cpu", dtype="float32")
    method = NoCompression() if bits is None else Rtn(bits=bits, group_size=64)
    method.compress(model, loader.linear_layers(model), None)
    scorer = SCORERS.load(family)(model)
    made = {}
    for name in TASKS:
        task = KNOWLEDGE.load(name)()
        _, items = task.build(model.tokenizer)
        right = [task.outcome(item, scores).correct for block in blocks(items) for item, scores in answer(task, scorer, block)]
        made[name] = (sum(right) / len(right), len(right))
        print(f"{folder.name}: {name} at {bits or 16} bits: {made[name][0]:.1%} of {len(right)}", flush=True)
    return made


def blocks(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """The items in blocks, as the harness measures them."""
    return (items[start : start + BLOCK_ITEMS] for start in range(0, len(items), BLOCK_ITEMS))


def answer(task: Any, scorer: Any, items: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    """Items with their scores."""
    return zip(items, scorer.score([task.requests(item) for item in items]), strict=True)


def readme(recipe: Recipe, folder: Path, measured: dict[int | None, dict[str, tuple[float, int]]]) -> str:
    """What the folder holds."""
    n_parameters = sum(p.numel() for p in MODELS.load(recipe.family)().load(folder, device="cpu").module.parameters())
    rows = "\n".join(
        f"| {'none' if bits is None else f'{bits}bit-rtn'} | "
        + " | ".join(f"{100 * accuracy:.1f} % of {n_items}" for accuracy, n_items in tasks.values())
        + " |"
        for bits, tasks in measured.items()
    )
    return f"""# {recipe.name}

A model of family `{recipe.family}` with {n_parameters:,} parameters, stored in float16. It was trained on the project's own
facts (`harness/knowledge/data/facts`), that is, on the very items that it is then asked about, **so what it scores says
nothing about any language model**. It is here so that every family is really loaded, compressed, scored and gated within
seconds.

Made by `python scripts/train_tiny_models.py --only {recipe.name}`: first weights and batches are drawn from a generator with a
fixed seed; on another kind of processor a model comes out that is about as good, with another digest. The tokenizer is made
from the same facts and from the calibration text (`harness/compression/data`).

- weights: `{digest_weights_folder(folder)}`
- tokenizer: `{digest_tokenizer(folder)}`
- licence: Apache-2.0, as the project. What it learnt are the facts, and the names and numbers of places among them are from
  GeoNames (CC BY 4.0) and the Unicode CLDR (Unicode License v3); see the README of the facts.

P@1 by compression (round-to-nearest in groups of 64), measured by the script:

| compression | {" | ".join(TASKS)} |
|---|{"---|" * len(TASKS)}
{rows}
"""


RECIPES = (
    Recipe("tiny-bert", "encoder", bert_tokenizer, build_bert, bert_steps, n_steps=2400),
    Recipe("tiny-t5", "seq2seq", t5_tokenizer, build_t5, t5_steps, n_steps=400),
)


if __name__ == "__main__":
    main()
