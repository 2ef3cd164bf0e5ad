"""How quantized weights lie in int32 words, and back: GPTQ's, AWQ's and compressed-tensors' packings as plain weights.

Every layer is handed over as the checkpoint has it and comes back as a plain (out, in) weight in the dtype of its scales:
codes are whole numbers, so each weight is rounded once, as in the owners' own code.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

_WORD_BITS = 32
_AWQ_BITS = 4
_AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
"""Which of eight neighbouring columns lies in each nibble of an AWQ word, lowest first."""


def unpack_words(words: Int[Tensor, "rows words"], bits: int, n_columns: int) -> Int[Tensor, "rows columns"]:
    """Unsigned codes out of rows of int32 words, lowest bits first, a code reaching over into the next word where it must.

    Where a row has more words than its codes fill and ``32 // bits`` codes to a word fill them (compressed-tensors before 0.15
    packed 3 bits so), no code reaches over.

    >>> unpack_words(torch.tensor([[0b011_010_001]]), 3, 3)
    tensor([[1, 2, 3]])
    """
    dense, loose = -(-n_columns * bits // _WORD_BITS), -(-n_columns // (_WORD_BITS // bits))
    if words.shape[1] not in (dense, loose):
        raise ValueError(f"{words.shape[1]} words a row can't hold {n_columns} codes of {bits} bits: expected {dense}")
    column = torch.arange(n_columns, device=words.device)
    if words.shape[1] == dense:
        first = column * bits
        word, shift = first // _WORD_BITS, first % _WORD_BITS
    else:
        word, shift = column // (_WORD_BITS // bits), column % (_WORD_BITS // bits) * bits
    unsigned = words.long() & 0xFFFFFFFF
    next_word = (word + 1).clamp(max=words.shape[1] - 1)
    both = unsigned[:, word] | (unsigned[:, next_word] << _WORD_BITS)
    codes: Tensor = (both >> shift) & (2**bits - 1)
    return codes


def unpack_gptq(
    qweight: Int[Tensor, "words out"],
    qzeros: Int[Tensor, "groups zero_words"],
    scales: Float[Tensor, "groups out"],
    group_of: Int[Tensor, " in"] | None,
    *,
    bits: int,
    zero_offset: int,
) -> Float[Tensor, "out in"]:
    """A layer as AutoGPTQ and GPTQModel pack it: codes down the columns, zero points along the rows of groups.

    ``group_of`` (``g_idx``) is the group of each input, None: neighbours share one. ``zero_offset`` is what is added to a
    stored zero point: 1 in version 1 of the format, 0 in version 2.
    """
    n_groups, n_out = scales.shape
    n_in = qweight.shape[0] * _WORD_BITS // bits if group_of is None else group_of.numel()
    codes = unpack_words(qweight.t(), bits, n_in)
    zeros = (unpack_words(qzeros, bits, n_out) + zero_offset) & (2**bits - 1)
    groups = _groups(n_in, n_groups) if group_of is None else group_of.long()
    return _weights(codes, zeros.t(), scales.t(), groups)


def pack_gptq(
    codes: Int[Tensor, "out in"], zeros: Int[Tensor, "out groups"], *, bits: int, zero_offset: int
) -> tuple[Int[Tensor, "words out"], Int[Tensor, "groups zero_words"]]:
    """``qweight`` and ``qzeros`` of a layer's unsigned codes and zero points: what ``unpack_gptq`` reads.

    Raises ValueError for a zero point below ``zero_offset``: what is stored would be negative, and readers differ in what they
    make of that.
    """
    if int(zeros.min()) < zero_offset:
        raise ValueError(f"a zero point is {int(zeros.min())}, the lowest that can be stored is {zero_offset}")
    return pack_words(codes, bits).t().contiguous(), pack_words(zeros.t() - zero_offset, bits)


def unpack_awq(
    qweight: Int[Tensor, "in words"], qzeros: Int[Tensor, "groups words"], scales: Float[Tensor, "groups out"]
) -> Float[Tensor, "out in"]:
    """A layer as AutoAWQ packs it for its GEMM kernel: 4 bits, codes and zero points along the outputs, interleaved."""
    n_groups, n_out = scales.shape
    codes, zeros = (_in_order(unpack_words(words, _AWQ_BITS, n_out)) for words in (qweight, qzeros))
    return _weights(codes.t(), zeros.t(), scales.t(), _groups(codes.shape[0], n_groups))


def unpack_compressed(
    packed: Int[Tensor, "out words"],
    scales: Float[Tensor, "out groups"],
    zeros: Int[Tensor, "zero_words groups"] | None,
    group_of: Int[Tensor, " in"] | None,
    *,
    bits: int,
    n_in: int,
) -> Float[Tensor, "out in"]:
    """A layer as compressed-tensors packs it (``pack-quantized``): signed codes stored from 0, zero points down the rows."""
    n_out, n_groups = scales.shape
    codes = unpack_words(packed, bits, n_in)
    if zeros is None:
        signed = torch.full((n_out, n_groups), 2 ** (bits - 1), device=codes.device)
    else:
        signed = unpack_words(zeros.t(), bits, n_out).t()
    groups = _groups(n_in, n_groups) if group_of is None else group_of.long()
    return _weights(codes, signed, scales, groups)


def _weights(
    codes: Int[Tensor, "out in"],
    zeros: Int[Tensor, "out groups"],
    scales: Float[Tensor, "out groups"],
    groups: Int[Tensor, " in"],
) -> Float[Tensor, "out in"]:
    return (codes - zeros[:, groups]).to(scales.dtype) * scales[:, groups]


def _groups(n_in: int, n_groups: int) -> Int[Tensor, " in"]:
    """The group of each input where neighbours share one; the last group may be shorter."""
    return torch.arange(n_in) // -(-n_in // n_groups)


def _in_order(columns: Int[Tensor, "rows columns"]) -> Int[Tensor, "rows columns"]:
    """AWQ's interleaved columns in their own order."""
    made = torch.empty_like(columns)
    for nibble, column in enumerate(_AWQ_ORDER):
        made[:, column::8] = columns[:, nibble::8]
    return made


def pack_words(codes: Int[Tensor, "rows columns"], bits: int) -> Int[Tensor, "rows words"]:
    """Unsigned codes in int32 words, row by row, densely: what ``unpack_words`` undoes.

    >>> unpack_words(pack_words(torch.tensor([[1, 7, 3]]), 3), 3, 3)
    tensor([[1, 7, 3]])
    """
    n_rows, n_columns = codes.shape
    first = torch.arange(n_columns, device=codes.device) * bits
    word, shift = first // _WORD_BITS, first % _WORD_BITS
    shifted = codes.long() << shift
    words = torch.zeros(n_rows, -(-n_columns * bits // _WORD_BITS) + 1, dtype=torch.int64, device=codes.device)
    words.index_add_(1, word, shifted & 0xFFFFFFFF)  # no two codes share a bit: adding is joining
    words.index_add_(1, word + 1, shifted >> _WORD_BITS)
    return (words[:, :-1] - ((words[:, :-1] >> (_WORD_BITS - 1)) << _WORD_BITS)).to(torch.int32)
