"""What llm-compressor does to a model, as lists of its modifiers; with ``oneshot`` the only importer of llmcompressor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme, forward_quantize
from compressed_tensors.utils.match import match_name
from llmcompressor.modifiers import Modifier
from llmcompressor.modifiers.gptq import GPTQModifier
from llmcompressor.modifiers.pruning.sparsegpt import SparseGPTModifier
from llmcompressor.modifiers.pruning.wanda import WandaPruningModifier
from llmcompressor.modifiers.quantization import QuantizationModifier
from llmcompressor.modifiers.transform.awq import AWQModifier
from llmcompressor.modifiers.transform.awq.mappings import AWQ_MAPPING_REGISTRY, AWQMapping
from pydantic import PrivateAttr
from torch import Tensor

from harness.core.errors import CompressionError

_OPT_MAPPINGS = [
    AWQMapping("re:.*self_attn_layer_norm$", ["re:.*q_proj$", "re:.*k_proj$", "re:.*v_proj$"]),
    AWQMapping("re:.*v_proj$", ["re:.*self_attn.out_proj$"]),
    AWQMapping(r"re:.*layers\.\d+\.final_layer_norm$", ["re:.*fc1$"]),
    AWQMapping("re:.*fc1$", ["re:.*fc2$"]),  # ReLU hands a scale on
]


def gptq_modifiers(
    layers: Sequence[str], *, bits: int, group_size: int, symmetric: bool, act_order: bool, dampening: float
) -> list[Modifier]:
    """The library's GPTQ over layers by their module names. Dampening is a share of the mean diagonal."""
    groups = _groups(layers, bits=bits, group_size=group_size, symmetric=symmetric)
    return [GPTQModifier(config_groups=groups, dampening_frac=dampening, actorder="static" if act_order else None)]


def wanda_modifiers(layers: Sequence[str], *, sparsity: float, mask_structure: str) -> list[Modifier]:
    """The library's Wanda; ``mask_structure`` ``0:0`` is none, ``2:4`` two of every four."""
    return [WandaPruningModifier(sparsity=sparsity, mask_structure=mask_structure, targets=list(layers))]


def sparsegpt_modifiers(layers: Sequence[str], *, sparsity: float, mask_structure: str, dampening: float) -> list[Modifier]:
    """The library's SparseGPT; the mask as for Wanda, dampening as for GPTQ."""
    return [
        SparseGPTModifier(sparsity=sparsity, mask_structure=mask_structure, dampening_frac=dampening, targets=list(layers))
    ]


def awq_modifiers(
    layers: Sequence[str], architecture: str, *, bits: int, group_size: int, symmetric: bool, n_grid: int
) -> tuple[list[Modifier], AwqScales]:
    """The library's AWQ, then rounding; and where the scales that it chose are found afterwards.

    ``architecture`` is the model's class: where its scales go, must be known. Raises CompressionError where it is not.
    """
    known = {"OPTForCausalLM": _OPT_MAPPINGS, **AWQ_MAPPING_REGISTRY}
    if architecture not in known:
        raise CompressionError(
            f"awq: where the scales of a {architecture} go is not known: take method 'gptq' or 'rtn' for it, or a model of "
            f"one of {', '.join(sorted(known))}."
        )
    concerned = [mapping for mapping in known[architecture] if _any_match(layers, mapping.balance_layers)]
    scales = AwqScales(mappings=concerned, n_grid=n_grid)
    groups = _groups(layers, bits=bits, group_size=group_size, symmetric=symmetric)
    return [scales, _Rounding(config_groups=groups)], scales


class AwqScales(AWQModifier):
    """The library's AWQ, which also remembers the scales that it put on layers' inputs and took off what feeds them."""

    _found: list[tuple[list[str], str, Tensor]] = PrivateAttr(default_factory=list)

    def _compute_best_scale(self, mapping: Any, *args: Any, **kwargs: Any) -> Tensor:
        scales: Tensor = super()._compute_best_scale(mapping, *args, **kwargs)
        self._found.append((list(mapping.balance_names), mapping.smooth_name, scales.float().cpu()))
        return scales

    def without_scales(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights as if nothing else in the model had been changed: the scales back off the inputs of the layers that
        they were put on, and back on the outputs of linear layers that they were taken off. In float32."""
        made = {name: weight.float() for name, weight in weights.items()}
        for balanced, smooth, scales in self._found:
            for name in balanced:
                if name in made:
                    made[name] = made[name] / scales.to(made[name].device)
            if smooth in made:  # a linear layer; of a fused one the last rows
                rows = made[smooth][-scales.numel() :]
                made[smooth] = torch.cat([made[smooth][: -scales.numel()], rows * scales.to(rows.device)[:, None]])
        return made


class _Rounding(QuantizationModifier):
    """The library's rounding, which it leaves to each forward pass: here the weights are rounded themselves in the end."""

    def on_finalize(self, state: Any, **kwargs: Any) -> bool:
        for module in state.model.modules():
            scheme = getattr(module, "quantization_scheme", None)
            if scheme is not None:
                module.weight.data.copy_(forward_quantize(module, module.weight, "weight", scheme.weights))
        done: bool = super().on_finalize(state, **kwargs)
        return done


def _any_match(layers: Iterable[str], patterns: Sequence[str]) -> bool:
    return any(match_name(name, pattern) for name in layers for pattern in patterns)


def _groups(layers: Sequence[str], *, bits: int, group_size: int, symmetric: bool) -> dict[str, QuantizationScheme]:
    """The grid of ``rtn`` in the library's words."""
    weights = QuantizationArgs(
        num_bits=bits,
        type="int",
        symmetric=symmetric,
        strategy="group" if group_size else "channel",
        group_size=group_size or None,
        scale_dtype=torch.float16,
    )
    return {"group_0": QuantizationScheme(targets=list(layers), weights=weights)}
