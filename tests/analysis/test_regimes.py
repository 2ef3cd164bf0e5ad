"""What is drawn as a regime is transformers' own attention maps and hidden states, compared token by token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.analysis.observe import Observer, cut_texts
from harness.analysis.regimes import Compared, compare, keep_dense
from harness.analysis.similarity import even_share
from harness.compression.calibration import CalibrationText
from harness.core.errors import AnalysisError, ConfigError
from harness.core.verdicts import Estimate, NotEstimable
from harness.models.loaded import LoadedModel
from harness.models.roots import SoftRoot, SoftRoots
from harness.recovery.idp import Idp
from harness.recovery.soft import as_root, behind, continued_roots, keys_values_of, seeded, vocabulary_rows
from tests.analysis.conftest import Loader

N_TEXTS, N_TOKENS, N_ROOT = 3, 12, 5


def nothing(done: int, of: int) -> None: ...


def spoil(model: LoadedModel) -> LoadedModel:
    """The model with its weights rounded, coarsely."""
    with torch.no_grad():
        for parameter in model.module.parameters():
            if parameter.ndim == 2:
                parameter.copy_((parameter * 4).round() / 4)
    return model


def beside_dense(dense: LoadedModel, model: LoadedModel, text: CalibrationText, folder: Path) -> Compared:
    texts = cut_texts(text, dense, n_texts=N_TEXTS, n_tokens=N_TOKENS)
    keep_dense(dense, texts, folder, nothing)
    return compare(model, texts, folder, nothing)


def plainly(model: LoadedModel, fed: tuple[int, ...], root: SoftRoot | None = None) -> Any:
    """transformers alone: a root's embeddings are fed with the text's, as one input."""
    kind: Any = type(model.module)
    module = kind.from_pretrained(model.folder, attn_implementation="eager")
    module.load_state_dict(model.module.state_dict())
    ids = torch.tensor([fed])
    asked: dict[str, Any] = {"output_attentions": True, "output_hidden_states": True}
    with torch.no_grad():
        if model.family == "seq2seq":
            start = torch.tensor([[module.config.decoder_start_token_id]])
            return module(input_ids=ids, decoder_input_ids=torch.cat([start, ids[:, :-1]], dim=1), **asked)
        if root is None or root.embeddings is None:
            return module(input_ids=ids, **asked)
        return module(inputs_embeds=torch.cat([root.embeddings[None], module.get_input_embeddings()(ids)], dim=1), **asked)


def cosine(a: torch.Tensor, b: torch.Tensor) -> np.ndarray:
    one, other = a.double().numpy(), b.double().numpy()
    return (one * other).sum(-1) / np.linalg.norm(one, axis=-1) / np.linalg.norm(other, axis=-1)


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "opt", "gemma2", "gpt_neox", "mistral"])
def test_behind_a_prompt_the_maps_are_those_of_prompt_and_text_fed_as_one(
    architecture: str, load: Loader, text: CalibrationText, tmp_path: Path
) -> None:
    changes = {"sliding_window": 64} if architecture in ("gemma2", "mistral") else {}
    dense, model = load(architecture, **changes), spoil(load(architecture, **changes))
    model = behind("prompt", model, as_root(model, vocabulary_rows(model, N_ROOT, seeded(1))))
    made = beside_dense(dense, model, text, tmp_path)
    (stack,) = made.stacks
    attention, outputs, shares = [], [], []
    for fed in cut_texts(text, dense, n_texts=N_TEXTS, n_tokens=N_TOKENS):
        theirs = plainly(dense, fed)
        assert model.soft_roots is not None
        ours = plainly(model, fed, model.soft_roots.roots[0])
        maps = [(o[0, :, N_ROOT:], t[0]) for o, t in zip(ours.attentions, theirs.attentions, strict=True)]
        attention.append([cosine(o[:, 1:, N_ROOT:], t[:, 1:]) for o, t in maps])
        shares.append([o[..., :N_ROOT].sum(-1).numpy() for o, _ in maps])
        states = zip(ours.hidden_states[1:], theirs.hidden_states[1:], strict=True)
        outputs.append([cosine(o[0, N_ROOT:], t[0]) for o, t in states])
    exact = 2e-4 if architecture == "gemma2" else 1e-5  # its embeddings are scaled up: rounding grows with them
    for found, expected in ((stack.attention_heads, attention), (stack.to_root_heads, shares)):
        assert np.array(found) == pytest.approx(np.mean(expected, axis=(0, 3)), abs=exact)
    assert values(stack.attention) == pytest.approx(np.mean(attention, axis=(0, 2, 3)), abs=exact)
    assert values(stack.outputs) == pytest.approx(np.mean(outputs, axis=(0, 2)), abs=exact)
    assert values(stack.to_root) == pytest.approx(np.mean(shares, axis=(0, 2, 3)), abs=exact)
    assert made.roots == ((N_ROOT, N_TEXTS),)
    assert made.even_share == pytest.approx(even_share(N_ROOT, N_TOKENS))
    assert model.module.config._attn_implementation == "sdpa"  # put back


@pytest.mark.parametrize("architecture", ["bert", "albert", "distilbert", "t5", "bart", "falcon", "bloom"])
def test_every_family_is_compared_stack_by_stack(
    architecture: str, load: Loader, text: CalibrationText, tmp_path: Path
) -> None:
    dense, model = load(architecture), spoil(load(architecture))
    before = model.module.config._attn_implementation
    made = beside_dense(dense, model, text, tmp_path)
    assert model.module.config._attn_implementation == before
    names = {"seq2seq": ("encoder", "decoder", "cross")}.get(model.family, (model.family,))
    assert tuple(stack.name for stack in made.stacks) == names
    prefix = {"encoder": "encoder_", "decoder": "decoder_", "cross": "cross_"} if model.family == "seq2seq" else {}
    texts = cut_texts(text, dense, n_texts=N_TEXTS, n_tokens=N_TOKENS)
    seen = [(plainly(model, fed), plainly(dense, fed)) for fed in texts]
    for stack in made.stacks:
        first = 1 if stack.name == "decoder" else 0
        field = f"{prefix.get(stack.name, '')}attentions"
        maps = [[cosine(o[0][:, first:], t[0][:, first:]) for o, t in zip(*two(*pair, field), strict=True)] for pair in seen]
        assert np.array(stack.attention_heads) == pytest.approx(np.mean(maps, axis=(0, 3)), abs=1e-5)
        if stack.name != "cross":
            field = f"{prefix.get(stack.name, '')}hidden_states"
            outs = [[cosine(o[0], t[0]) for o, t in zip(*two(*pair, field), strict=True)][1:] for pair in seen]
            assert values(stack.outputs) == pytest.approx(np.mean(outs, axis=(0, 2)), abs=1e-5)
        assert stack.to_root == ()
    assert (made.roots, made.even_share) == ((), None)


def two(ours: Any, theirs: Any, name: str) -> tuple[Any, Any]:
    return getattr(ours, name), getattr(theirs, name)


def values(layers: Any) -> list[float]:
    assert all(isinstance(one, Estimate) and one.low <= one.value <= one.high for one in layers)
    return [one.value for one in layers]


def test_the_dense_model_is_like_itself(load: Loader, text: CalibrationText, tmp_path: Path) -> None:
    (stack,) = beside_dense(load(), load(), text, tmp_path).stacks
    assert values(stack.attention) == pytest.approx([1, 1])
    assert values(stack.outputs) == pytest.approx([1, 1])


def test_keys_and_values_of_a_prompt_give_what_the_prompt_gives(load: Loader, text: CalibrationText, tmp_path: Path) -> None:
    rows = vocabulary_rows(load(), N_ROOT, seeded(2))
    as_prompt, as_prefix = load(), load()
    behind("prompt", as_prompt, as_root(as_prompt, rows))
    behind("prefix", as_prefix, SoftRoot(keys_values=keys_values_of(as_prefix, rows)))
    made = [beside_dense(load(), model, text, tmp_path).stacks[0] for model in (as_prompt, as_prefix)]
    assert values(made[0].to_root) == pytest.approx(values(made[1].to_root), abs=1e-6)
    assert values(made[0].outputs) == pytest.approx(values(made[1].outputs), abs=1e-6)


def test_every_text_is_read_behind_the_prompt_that_idp_chooses(load: Loader, text: CalibrationText, tmp_path: Path) -> None:
    model = load()
    roots = tuple(as_root(model, vocabulary_rows(model, n, seeded(n))) for n in (3, 7))
    model.soft_roots = Idp(lengths=[3, 7])._soft_roots(model, roots)
    texts = cut_texts(text, model, n_texts=N_TEXTS, n_tokens=N_TOKENS)
    chosen = model.soft_roots.choose(texts)
    made = beside_dense(load(), model, text, tmp_path)
    assert made.roots == tuple((n, chosen.count(number)) for number, n in enumerate((3, 7)))
    observe = Observer(model, N_TOKENS)
    for fed, number in zip(texts, chosen, strict=True):
        forced = load()
        forced.soft_roots = SoftRoots.of_one(roots[number])
        assert torch.equal(observe(fed).stacks["decoder"].maps[1], Observer(forced, N_TOKENS)(fed).stacks["decoder"].maps[1])


def test_what_is_no_number_is_undefined_and_not_averaged(load: Loader, text: CalibrationText, tmp_path: Path) -> None:
    broken = load()
    with torch.no_grad():
        broken.module.get_submodule("model.layers.1.mlp.down_proj").weight.fill_(torch.nan)
    (stack,) = beside_dense(load(), broken, text, tmp_path).stacks
    assert isinstance(stack.outputs[0], Estimate)
    assert isinstance(stack.outputs[1], NotEstimable)
    assert all(isinstance(one, Estimate) for one in stack.attention)  # the last block's own attention comes before it


@pytest.mark.parametrize(
    ("architecture", "n_tokens", "error", "says"),
    [
        ("mamba", N_TOKENS, AnalysisError, "gives no attention maps of MambaForCausalLM"),
        ("llama", 500, ConfigError, "has 0 documents of 500 tokens or more, and 3 were asked for"),
        (
            "mistral",
            N_TOKENS,
            ConfigError,
            "12 tokens behind 0 prompt positions don't fit into what the model sees at once, 8",
        ),
    ],
)
def test_what_cannot_be_looked_at_is_one_sentence(  # noqa: PLR0917 - fixtures and parameters
    architecture: str, n_tokens: int, error: type[Exception], says: str, load: Loader, text: CalibrationText, tmp_path: Path
) -> None:
    model = load(architecture)
    with pytest.raises(error, match=says):
        keep_dense(model, cut_texts(text, model, n_texts=N_TEXTS, n_tokens=n_tokens), tmp_path, nothing)


def test_a_model_of_another_shape_is_refused(load: Loader, text: CalibrationText, tmp_path: Path) -> None:
    with pytest.raises(AnalysisError, match="more layers than the dense model"):
        beside_dense(load(), load(num_hidden_layers=3), text, tmp_path)


def test_a_pass_that_goes_on_is_refused_and_not_looked_at_wrongly(load: Loader) -> None:
    model = load()
    root = continued_roots(model, [vocabulary_rows(model, n, seeded(n)) for n in (2, 3)], 0)[0]
    model.soft_roots = SoftRoots.of_one(root)
    with pytest.raises(AnalysisError, match="mode 'continue' has more prompts before some layers"):
        Observer(model, N_TOKENS)
