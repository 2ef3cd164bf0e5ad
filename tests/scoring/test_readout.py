"""Reading tokens off logits: log-probabilities, tops and leads, also where several logits are equal."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax

from harness.scoring.readout import read_logits


@given(data=st.data(), n_rows=st.integers(1, 4), vocabulary=st.integers(2, 5))
def test_every_read_token_is_as_read_by_hand(data: st.DataObject, n_rows: int, vocabulary: int) -> None:
    """Whole numbers from 0 to 2, so that most rows have several equal tops; places may be read twice."""
    drawn = data.draw(st.lists(st.integers(0, 2), min_size=n_rows * vocabulary, max_size=n_rows * vocabulary))
    logits = np.array(drawn, dtype=np.float32).reshape(n_rows, vocabulary)
    place = st.tuples(st.integers(0, n_rows - 1), st.integers(0, vocabulary - 1))
    rows, tokens = zip(*data.draw(st.lists(place, min_size=1, max_size=8)), strict=True)
    reading = read_logits(torch.from_numpy(logits.copy()), rows, tokens)
    for i, (row, token) in enumerate(zip(rows, tokens, strict=True)):
        others = np.delete(logits[row], token)
        assert reading.logprobs_nats[i] == pytest.approx(log_softmax(logits[row].astype(float))[token], abs=1e-6)
        assert reading.is_top[i] == (token == logits[row].argmax())
        assert reading.leads_nats[i] == logits[row, token] - others.max()
