"""Folders: read by the family that their architecture belongs to, and by no other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from harness.core.errors import ModelError
from harness.models import MODELS
from harness.models.folders import family_of
from harness.models.tiny import TINY_OF_FAMILY, make_tiny


@pytest.mark.parametrize(
    ("model_type", "named", "family"),
    [
        ("opt", "OPTForCausalLM", "decoder"),
        ("llama", "LlamaForCausalLM", "decoder"),
        ("gpt2", "GPT2LMHeadModel", "decoder"),
        ("bert", "BertForMaskedLM", "encoder"),
        ("bert", "BertForPreTraining", "encoder"),
        ("bert", "BertLMHeadModel", "decoder"),
        ("roberta", "RobertaForMaskedLM", "encoder"),
        ("distilbert", "DistilBertForMaskedLM", "encoder"),
        ("albert", "AlbertForMaskedLM", "encoder"),
        ("xlm", "XLMWithLMHeadModel", "encoder"),
        ("t5", "T5ForConditionalGeneration", "seq2seq"),
        ("bart", "BartForConditionalGeneration", "seq2seq"),
    ],
)
def test_the_family_is_that_of_the_named_class(model_type: str, named: str, family: str) -> None:
    assert family_of(AutoConfig.for_model(model_type, architectures=[named])) == family


@pytest.mark.parametrize("architecture", [name for table in TINY_OF_FAMILY.values() for name in table])
def test_a_config_that_names_no_class_is_known_by_its_type(architecture: str) -> None:
    family = next(family for family, table in TINY_OF_FAMILY.items() if architecture in table)
    assert family_of(AutoConfig.for_model(architecture)) == family


@pytest.mark.parametrize(
    ("architecture", "asked", "right"),
    [
        ("bert", "decoder", "encoder"),
        ("roberta", "seq2seq", "encoder"),
        ("t5", "encoder", "seq2seq"),
        ("llama", "encoder", "decoder"),
    ],
)
def test_a_folder_of_another_family_is_refused_with_the_right_one(
    architecture: str, asked: str, right: str, tmp_path: Path
) -> None:
    """transformers itself would load BERT as a causal language model."""
    folder = make_tiny(tmp_path, architecture)
    with pytest.raises(ModelError, match=f'family {right!r} .*, expected one of family {asked!r}: write family = "{right}"'):
        MODELS.load(asked)().load(folder, device="cpu")


@pytest.mark.parametrize("family", ["decoder", "encoder", "seq2seq"])
def test_an_unknown_architecture_is_refused(family: str, tmp_path: Path) -> None:
    folder = make_tiny(tmp_path, next(iter(TINY_OF_FAMILY[family])))
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "nonesuch"}))
    with pytest.raises(ModelError, match="can't load"):
        MODELS.load(family)().load(folder, device="cpu")


@pytest.mark.parametrize(("architecture", "other"), [("llama", "roberta"), ("bert", "roberta")])
def test_a_tokenizer_with_tokens_that_the_model_lacks_is_refused(architecture: str, other: str, tmp_path: Path) -> None:
    """On a CPU it would end in an index error, on a GPU in an assertion that takes the whole process with it."""
    folder, donor = make_tiny(tmp_path / "model", architecture), make_tiny(tmp_path / "other", other)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(donor / name, folder / name)
    config = json.loads((folder / "config.json").read_text())
    family = family_of(AutoConfig.for_model(config["model_type"]))
    words = rf"the tokenizer in .* writes plain English with the token \d+, the model knows {config['vocab_size']} tokens"
    with pytest.raises(ModelError, match=words):
        MODELS.load(family)().load(folder, device="cpu", dtype="float32")
