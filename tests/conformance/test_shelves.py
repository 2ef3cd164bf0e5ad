"""Every entry of every shelf keeps its contract: it imports, is documented, repeats, and works on a tiny model."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from harness.compression import COMPRESSION, recipe_digest
from harness.compression.calibration import CalibrationText
from harness.compression.environment import cuda_devices
from harness.compression.scopes import layers_of_scope
from harness.core.digest import digest_json, digest_sequence
from harness.core.errors import ConfigError
from harness.core.records import CompressionRecord
from harness.core.shelf import Shelf
from harness.execution.matrix import read_matrix
from harness.knowledge import KNOWLEDGE
from harness.models import MODELS
from harness.models.digest import digest_weights
from harness.models.loaded import LoadedModel
from harness.models.tiny import TINY_OF_FAMILY, make_tiny, tiny_family
from harness.models.tiny_tokenizers import bert_tokenizer, t5_tokenizer, tiny_tokenizer
from harness.recovery import RECOVERY, is_trained
from harness.recovery import recipe_digest as recovery_digest
from harness.recovery.artifact import TrainedFor, new_record, write_artifact
from harness.report.sections import SECTIONS
from harness.scoring import GENERATORS, RANKERS, SCORERS, Blank, Candidates, Prompt, Reading, Request

MATRIX = Path(__file__).parents[2] / "suites" / "matrix.toml"

SHELVES: dict[str, Shelf] = {
    s.name: s for s in (MODELS, COMPRESSION, RECOVERY, KNOWLEDGE, SCORERS, GENERATORS, RANKERS, SECTIONS)
}
ENTRIES = [(shelf, name) for shelf, table in SHELVES.items() for name in table]

RECIPES: dict[str, dict[str, Any]] = {
    "none": {},
    "rtn": {"bits": 4, "group_size": 16},
    "gptq": {"bits": 4, "group_size": 16, "n_samples": 4, "sample_tokens": 32},
    "auto_gptq": {"bits": 4, "group_size": 16, "n_samples": 4, "sample_tokens": 32},
    "awq": {"bits": 4, "group_size": 16, "n_grid": 3, "n_samples": 4, "sample_tokens": 32},
    "sparsegpt": {"sparsity": 0.5, "n_samples": 4, "sample_tokens": 32},
    "wanda": {"sparsity": 0.5, "pattern": "2:4", "n_samples": 4, "sample_tokens": 32},
    "magnitude": {"sparsity": 0.3},
    "last_dense": {"sparsity": 0.3, "criterion": "random", "unit": "row"},
    "int8_dynamic": {},
    "noise": {"share": 0.1},
    "artifact": {},
    "steps": {"steps": [{"method": "magnitude", "sparsity": 0.2}, {"method": "int8_dynamic"}]},
}
"""The smallest recipe of each compression method for a tiny model; a new method needs a line here. An artifact's is the folder
of the model itself."""

NOT_FOR = {
    "gptq": {"seq2seq"},
    "wanda": {"seq2seq"},
    "sparsegpt": {"seq2seq"},
    "awq": {"encoder", "seq2seq"},
    "auto_gptq": {"encoder", "seq2seq"},
}
"""The families that a compression method refuses."""

REGISTRY = {
    "llama": ("llama", "LlamaForCausalLM"),
    "opt": ("opt", "OPTForCausalLM"),
    "vicuna": ("llama", "LlamaForCausalLM"),
    "wizardlm": ("llama", "LlamaForCausalLM"),
    "bert": ("bert", "BertForMaskedLM"),
    "roberta": ("roberta", "RobertaForMaskedLM"),
    "distilbert": ("distilbert", "DistilBertForMaskedLM"),
    "albert": ("albert", "AlbertForMaskedLM"),
    "flan-t5": ("t5", "T5ForConditionalGeneration"),
    "lamini-flan-t5": ("t5", "T5ForConditionalGeneration"),
}
"""Every model of the matrix's profile ``gpu`` with transformers' ``model_type`` and the class that loads it; a new one needs a
line here, and a new ``model_type`` a tiny model in ``models.tiny``."""

ARCHITECTURES = tuple(dict.fromkeys(architecture for architecture, _ in REGISTRY.values()))

ATTENTION = {
    "llama": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"],
    "opt": ["self_attn.k_proj", "self_attn.v_proj", "self_attn.q_proj", "self_attn.out_proj"],
    "bert": ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"],
    "roberta": ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"],
    "distilbert": ["attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin"],
    "albert": ["attention.query", "attention.key", "attention.value", "attention.dense"],
    "t5": [f"{kind}.{part}" for kind in ("SelfAttention", "EncDecAttention") for part in "qkvo"],
}
FEED_FORWARD = {
    "llama": ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"],
    "opt": ["fc1", "fc2"],
    "bert": ["intermediate.dense", "output.dense"],
    "roberta": ["intermediate.dense", "output.dense"],
    "distilbert": ["ffn.lin1", "ffn.lin2"],
    "albert": ["ffn", "ffn_output"],
    "t5": ["DenseReluDense.wi_0", "DenseReluDense.wi_1", "DenseReluDense.wo"],
}
"""The two parts of a block of each architecture, as its class in transformers calls them, read off by hand."""

ASKED: dict[Reading, tuple[Request, Request]] = {
    "continuation": (Request("the", " sea"), Request("", "a b")),
    "sentence": (Request("the", " sea", ".", "sentence"), Request("the", " a b", ".", "sentence")),
    "blank": (Request("the", " sea", ".", "blank"), Request("the", " a b", ".", "blank")),
    "rolling": (Request("", "the sea", "", "rolling"), Request("", "a b", "", "rolling")),
}

HERE = Path(__file__).parent
TASKS: dict[str, dict[str, Any]] = {
    "bear": {"folder": HERE / "bear"},
    "lama": {"file": HERE / "lama.jsonl"},
    "lm_eval": {"task": "facts_choice", "metric": "acc"},
}
"""What a task of each suite must be told; a new suite that needs nothing has no line here."""

TRAINING = {"steps": 2, "batch_blocks": 2, "block_tokens": 16, "validation_blocks": 2, "validate_every": 1}
"""The smallest training of each recovery method that is trained."""

WORDS = [
    "the",
    "sea",
    "was",
    "calm",
    "and",
    "all",
    "of",
    "us",
    "went",
    "out",
    "to",
    "look",
    "at",
    "what",
    "the",
    "night",
    "had",
    "left",
    "upon",
    "the",
    "sand",
]
TEXT = CalibrationText("made up", tuple(" ".join(WORDS[(i * k) % len(WORDS)] for i in range(200)) for k in range(1, 9)))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: make_tiny(tmp_path_factory.mktemp(name), name) for name in ARCHITECTURES}


def load(folders: dict[str, Path], architecture: str) -> LoadedModel:
    loaded: LoadedModel = MODELS.load(tiny_family(architecture))().load(folders[architecture], device="cpu", dtype="float32")
    return loaded


@pytest.mark.parametrize(("shelf", "name"), ENTRIES)
def test_an_entry_imports_and_says_what_it_is(shelf: str, name: str) -> None:
    entry = SHELVES[shelf].load(name)
    assert inspect.getdoc(entry)
    module = inspect.getmodule(entry)
    assert module is not None
    assert inspect.getdoc(module)


@pytest.mark.parametrize("family", MODELS)
def test_every_family_has_an_architecture_in_the_registry_and_a_scorer(family: str) -> None:
    assert {tiny_family(name) for name in ARCHITECTURES} == set(MODELS) == set(TINY_OF_FAMILY) == set(SCORERS)
    assert MODELS.load(family)().name == family


def test_every_model_of_the_registry_is_tried_as_a_tiny_model_of_its_own_class(folders: dict[str, Path]) -> None:
    declared = {plan.cell.model: plan.model.family for plan in read_matrix(MATRIX, "gpu").cells.values()}
    assert declared == {name: tiny_family(architecture) for name, (architecture, _) in REGISTRY.items()}
    built = {architecture: type(load(folders, architecture).module).__name__ for architecture in ARCHITECTURES}
    assert {name: built[architecture] for name, (architecture, _) in REGISTRY.items()} == {
        name: loaded_by for name, (_, loaded_by) in REGISTRY.items()
    }


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_family_knows_its_linear_layers_and_its_weights_digest(architecture: str, folders: dict[str, Path]) -> None:
    loaded = load(folders, architecture)
    layers = MODELS.load(loaded.family)().linear_layers(loaded)
    in_order = [name for name, _ in loaded.module.named_modules() if name in layers]
    assert list(layers) == in_order
    assert all(type(layer) is nn.Linear for layer in layers.values())
    assert loaded.module.get_output_embeddings() not in layers.values()
    assert digest_weights(loaded.module) == loaded.weights_digest
    assert 0 <= loaded.document_start_id < loaded.module.get_input_embeddings().num_embeddings
    assert MODELS.load(loaded.family)().load_tokenizer(loaded.folder).get_vocab() == loaded.tokenizer.get_vocab()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_scopes_partition_a_models_linear_layers(architecture: str, folders: dict[str, Path]) -> None:
    loaded = load(folders, architecture)
    layers = MODELS.load(loaded.family)().linear_layers(loaded)
    attention, feed_forward = (layers_of_scope(layers, scope) for scope in ("attention", "feed_forward"))
    assert layers_of_scope(layers, "all") == layers == {name: {**attention, **feed_forward}[name] for name in layers}
    assert not set(attention) & set(feed_forward)
    assert {_within(name) for name in attention} == set(ATTENTION[architecture])
    assert {_within(name) for name in feed_forward} == set(FEED_FORWARD[architecture])
    n_blocks = 4 if architecture == "t5" else 1 if architecture == "albert" else 2  # ALBERT's share one
    n_attention = 24 if architecture == "t5" else 4 * n_blocks  # T5's decoder blocks have two
    assert (len(attention), len(feed_forward)) == (n_attention, n_blocks * len(FEED_FORWARD[architecture]))


def _within(name: str) -> str:
    """What a module is called within its block."""
    return re.split(r"(?:layers|layer|block|albert_layers)\.\d+\.", name)[-1]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", COMPRESSION)
def test_a_compression_method_keeps_its_contract(name: str, architecture: str, folders: dict[str, Path]) -> None:
    recipe = {"folder": str(folders[architecture])} if name == "artifact" else RECIPES[name]

    def once() -> tuple[str, CompressionRecord]:
        loaded = load(folders, architecture)
        keys = list(loaded.module.state_dict())
        method = COMPRESSION.load(name)(**recipe)
        made = method.compress(loaded, MODELS.load(loaded.family)().linear_layers(loaded), TEXT if method.needs_text else None)
        assert list(loaded.module.state_dict()) == keys
        assert made.recipe_digest == recipe_digest(method, TEXT if method.needs_text else None)
        assert all(parameter.isfinite().all() for parameter in loaded.module.parameters())
        return digest_weights(loaded.module), made

    if tiny_family(architecture) in NOT_FOR.get(name, ()):
        with pytest.raises(ConfigError, match=f"{name}.* family {tiny_family(architecture)!r}.* take "):
            once()
        return
    if name == "auto_gptq" and not cuda_devices():
        with pytest.raises(ConfigError, match="on a CUDA device, and this machine has none"):
            once()
        return
    (first, made), (second, _) = once(), once()
    assert first == second
    assert made.method == name == COMPRESSION.load(name).name
    assert made.stability == COMPRESSION.load(name)(**recipe).stability
    assert made.size_bytes > 0
    assert made.n_weights_compressed <= made.n_weights_total


@pytest.mark.parametrize("name", RECOVERY)
def test_a_recovery_method_gives_back_something_to_score(name: str, folders: dict[str, Path], tmp_path: Path) -> None:
    entry = RECOVERY.load(name)
    method = entry(**({"training": TRAINING} if is_trained(entry()) else {}))
    assert method.name == name
    assert method.recipe()["method"] == name
    assert digest_json(method.recipe()) == recovery_digest(method)
    artifact = None
    if is_trained(method):
        assert method.training_recipe().items() <= method.recipe().items()
        made = method.train(load(folders, "llama"), TEXT, checkpoints=tmp_path / "checkpoints", tell=None)
        trained_for = TrainedFor("d", "c", "t", "r", method.training_recipe(), TEXT.digest)
        artifact = write_artifact(tmp_path, new_record("a_b_c", trained_for, "w", made.trainings, {}), made.tensors)
    recovered = method.recover(load(folders, "llama"), artifact)
    assert isinstance(recovered, LoadedModel)
    if recovered.soft_roots is not None:
        assert set(recovered.soft_roots.choose([(1, 2), (3,)])) <= set(range(len(recovered.soft_roots.roots)))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_scorer_scores_every_request_in_order(architecture: str, folders: dict[str, Path]) -> None:
    loaded = load(folders, architecture)
    scorer = SCORERS.load(loaded.family)(loaded)
    groups = [[request for reading in scorer.identities for request in ASKED[reading]], [], [ASKED["sentence"][1]]]
    scores = scorer.score(groups)
    assert [len(row) for row in scores] == [2 * len(scorer.identities), 0, 1]
    assert all(score.loglik_nats < 0 and score.n_tokens > 0 for row in scores for score in row)
    assert scorer.score(groups) == scores
    assert scores[2][0].loglik_nats == pytest.approx(scores[0][groups[0].index(groups[2][0])].loglik_nats, abs=1e-4)
    assert all("/" in identity for identity in scorer.identities.values())
    for reading in set(ASKED) - set(scorer.identities):
        if loaded.family != "decoder":
            with pytest.raises(ConfigError, match="can't score the reading"):
                scorer.score([ASKED[reading]])


@pytest.mark.parametrize("family", GENERATORS)
def test_a_generator_writes_a_text_for_every_prompt_in_order(family: str, folders: dict[str, Path]) -> None:
    architecture = next(iter(TINY_OF_FAMILY[family]))
    generator = GENERATORS.load(family)(load(folders, architecture))
    texts = generator.generate([[Prompt("the sea", (), 3), Prompt("a", (".",), 3)], []])
    assert [len(row) for row in texts] == [2, 0]
    assert all(1 <= made.n_tokens <= 3 for made in texts[0])
    assert "/" in generator.identity


@pytest.mark.parametrize("family", RANKERS)
def test_a_ranker_ranks_every_blank_in_order(family: str, folders: dict[str, Path]) -> None:
    ranker = RANKERS.load(family)(load(folders, next(iter(TINY_OF_FAMILY[family]))))
    candidates = Candidates(np.array([5, 6, 7]))
    groups = [[Blank(word, " the", " .", candidates) for word in ("The", "sea")], []]
    made = ranker.rank(groups)
    assert [len(row) for row in made] == [2, 0]
    assert all(0 <= one.n_ahead <= 3 and len(one.best) == 3 for one in made[0])
    assert ranker.rank(groups) == made
    assert "/" in ranker.identity


@pytest.mark.parametrize("make_tokenizer", [tiny_tokenizer, bert_tokenizer, t5_tokenizer])
@pytest.mark.parametrize("name", KNOWLEDGE)
def test_a_task_builds_the_same_items_twice_and_asks_once_an_option(name: str, make_tokenizer: Any) -> None:
    tokenizer = make_tokenizer()
    fields = {"limit": 12, **TASKS.get(name, {})}
    task = KNOWLEDGE.load(name)(**fields)
    info, items = task.build(tokenizer)
    again, same = KNOWLEDGE.load(name)(**fields).build(tokenizer)
    assert (info, items) == (again, same)
    assert info.name == name
    assert info.items_digest == digest_sequence(item.digest for item in items)
    assert 1 <= info.n_items == len(items) <= 12  # a small vocabulary writes few answers as one token
    assert 0 <= info.chance <= 1
    for item in items:
        assert len(task.requests(item)) == len(item.options)
    assert any(True for _ in task.probe_sentences())
