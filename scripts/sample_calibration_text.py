"""Sample the calibration text that the project ships, once, from the embedded default model itself.

    python scripts/sample_calibration_text.py --model FOLDER     # its local safetensors folder; about 15 minutes on one core
    python scripts/sample_calibration_text.py --check            # only checks the shipped text against the probes

Every prompt is a form and a topic from the tables below, asked once. Documents are dropped that hold a word n-gram of the
knowledge probes or an address, repeat themselves, or are nearly a copy of an earlier one. The generator's seed is fixed,
but sampling runs through matrix products: another kind of CPU or version of torch may sample another text, which is why
the text is committed, with its SHA-256 in ``harness/compression/calibration.py``.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Iterable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from harness.compression.calibration import SHIPPED, load_text
from harness.core.digest import digest_file
from harness.core.probes import NGRAM_WORDS, ProbeIndex, words
from harness.core.serial import write_atomic

SEED = 20240917
BATCH = 48
MAX_NEW_TOKENS = 288
TEMPERATURE = 0.8
TOP_K = 256
TOP_P = 0.95

FEWEST_WORDS = 60
MOST_REPEATED_SHARE = 0.15
"""Of a document's four-word sequences, the share that may have been there before in it."""
MOST_COPIED_SHARE = 0.2
"""Of a document's five-word sequences, the share that may be in an earlier document."""

UNWANTED = re.compile(r"https?://|www\.|SmolLM|Hugging ?Face", re.IGNORECASE)
"""Addresses, which may be real ones, and the model on itself."""

FACTS = Path(__file__).resolve().parents[1] / "harness" / "knowledge" / "data" / "facts"

FORMS = (
    "Write a short story about {}.",
    "Write a letter to an old friend about {}.",
    "Write a magazine article about {}.",
    "Write a conversation between two neighbours about {}.",
    "Write a diary entry about {}.",
    "Give some practical advice about {}.",
    "Tell me about a childhood memory of {}.",
    "Write the opening of a talk about {}.",
    "What do people often get wrong about {}?",
    "Write an email to a colleague about {}.",
    "Argue for and against {}.",
    "Write a scene of a play about {}.",
)

TOPICS = (
    "keeping bees",
    "a kitchen tap that drips",
    "learning to swim as an adult",
    "baking bread",
    "moving into a small flat",
    "a lost umbrella",
    "walking in the rain",
    "fixing an old bicycle",
    "sharing a garden",
    "a school play",
    "writing clear reports",
    "working night shifts",
    "a broken promise",
    "planting tomatoes",
    "training a puppy",
    "getting enough sleep",
    "playing chess with a grandparent",
    "a long train journey",
    "cleaning out an attic",
    "learning the violin",
    "testing software",
    "saving a little money every month",
    "a football match on a muddy field",
    "repairing clothes",
    "a power cut",
    "volunteering at a library",
    "a job interview",
    "cooking for many guests",
    "being late",
    "drawing faces",
    "a surprise visit",
    "looking after an aquarium",
    "noise in an open office",
    "camping with children",
    "reading before bed",
    "a difficult exam",
)


def main() -> int:
    """Sample or check, as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="local folder of the embedded default model (safetensors)")
    parser.add_argument("--out", type=Path, default=SHIPPED)
    parser.add_argument("--limit", type=int, default=None, help="only the first so many prompts (to try the script)")
    parser.add_argument("--check", action="store_true", help="only check the text at --out against the probes")
    options = parser.parse_args()
    index = probe_index(FACTS)
    if options.check:
        load_text(options.out).refuse_probes(index)
        say(f"{options.out}: none of the {len(index.grams):,} probe sequences; SHA-256 {digest_file(options.out)}")
        return 0
    if options.model is None:
        parser.error("--model is needed for sampling")
    prompts = [form.format(topic) for topic, form in product(TOPICS, FORMS)][: options.limit]
    documents = list(keep(sample(options.model, prompts), index))
    lines = (json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in documents)
    write_atomic(options.out, "".join(lines).encode())
    say(f"{len(documents)} documents, {options.out.stat().st_size:,} bytes, SHA-256 {digest_file(options.out)}")
    return 0


def probe_index(facts: Path) -> ProbeIndex:
    """The index of every right sentence of the fact probe, arguable answers included."""
    relations = json.loads((facts / "relations.json").read_text(encoding="utf-8"))["relations"]
    rows = [json.loads(line) for line in (facts / "facts.jsonl").read_text(encoding="utf-8").splitlines()]
    return ProbeIndex.of(
        relations[row["relation"]]["template"].replace("[X]", row["subject"]).replace("[Y]", answer)
        for row in rows
        for answer in (*row["answers"], *row["also"])
    )


def keep(texts: Iterable[str], index: ProbeIndex) -> Iterator[str]:
    """The documents worth keeping; says at the end how many were dropped and why."""
    dropped = {"too short": 0, "repeats itself": 0, "address or itself": 0, "probe text": 0, "copy": 0}
    seen: set[tuple[str, ...]] = set()
    for text in map(whole_sentences, texts):
        tokens = words(text)
        shingles = set(ngrams(tokens, NGRAM_WORDS))
        if len(tokens) < FEWEST_WORDS:
            dropped["too short"] += 1
        elif len(set(ngrams(tokens, 4))) < (1 - MOST_REPEATED_SHARE) * (len(tokens) - 3):
            dropped["repeats itself"] += 1
        elif UNWANTED.search(text):
            dropped["address or itself"] += 1
        elif index.overlaps(text):
            dropped["probe text"] += 1
        elif len(shingles & seen) > MOST_COPIED_SHARE * len(shingles):
            dropped["copy"] += 1
        else:
            seen |= shingles
            yield text
    say("dropped: " + ", ".join(f"{n} {why}" for why, n in dropped.items()))


def whole_sentences(text: str) -> str:
    """The text up to its last full stop, question or exclamation mark (sampling may have stopped in a sentence)."""
    end = max(text.rfind(mark) for mark in ".!?")
    return text[: end + 1].strip()


def ngrams(tokens: list[str], n: int) -> list[tuple[str, ...]]:
    """All runs of ``n`` words."""
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]


def sample(folder: Path, prompts: list[str]) -> Iterator[str]:
    """One sampled answer to each prompt, in order."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, attn_implementation="eager").eval()
    torch.set_num_threads(1)  # one source of other rounding less
    generator = torch.Generator().manual_seed(SEED)
    started_s = time.monotonic()
    for start in range(0, len(prompts), BATCH):
        chats = [[{"role": "user", "content": prompt}] for prompt in prompts[start : start + BATCH]]
        rows = [tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False) for chat in chats]
        ids = [tokenizer(row, add_special_tokens=False)["input_ids"] for row in rows]
        stops = torch.tensor(tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"]))
        for answer in sample_batch(model, ids, stops, generator):
            yield tokenizer.decode(answer, skip_special_tokens=True)
        say(f"{start + len(chats)} of {len(prompts)} prompts, {time.monotonic() - started_s:.0f} s")


@torch.inference_mode()
def sample_batch(model: Any, prompts: list[list[int]], stops: Tensor, generator: torch.Generator) -> list[list[int]]:
    """Sampled continuations of a batch of prompts (padded on the left), each up to its stop token."""
    width = max(map(len, prompts))
    ids = torch.tensor([[stops[0].item()] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    running = torch.ones(len(prompts), dtype=torch.bool)
    cache, answers = None, []
    for _ in range(MAX_NEW_TOKENS):
        out = model(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1
        )
        cache = out.past_key_values
        chosen = torch.where(running, draw(out.logits[:, -1], generator), stops[0])
        running &= ~torch.isin(chosen, stops)
        if not running.any():
            break
        answers.append(chosen)
        ids, positions = chosen[:, None], positions[:, -1:] + 1
        mask = torch.cat([mask, torch.ones_like(ids)], dim=-1)
    columns = torch.stack(answers, dim=1)
    return [[token for token in row if token not in stops.tolist()] for row in columns.tolist()]


def draw(logits: Tensor, generator: torch.Generator) -> Tensor:
    """One token a row, at ``TEMPERATURE``, from the fewest tokens (``TOP_K`` at most) with ``TOP_P`` of the probability."""
    probabilities, tokens = (logits.float() / TEMPERATURE).softmax(-1).topk(TOP_K, dim=-1)
    before = probabilities.cumsum(-1) - probabilities
    picked = torch.multinomial(probabilities.masked_fill(before > TOP_P, 0.0), 1, generator=generator)
    return tokens.gather(-1, picked)[:, 0]


def say(text: str) -> None:
    """A line for whoever watches."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
