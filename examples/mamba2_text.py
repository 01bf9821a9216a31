"""Shared by the demo and 04_mamba2.py: a Mamba-2 of random weights, a text, and the swap."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from transformers import Mamba2Config, Mamba2ForCausalLM, logging
from transformers.models.mamba2 import modeling_mamba2

logging.set_verbosity_error()  # not a word on kernels that are not installed: the swap is the point
TEXT = Path(__file__).parent / "data" / "alice.txt"


def tokens(length: int | None = None) -> torch.Tensor:
    """The text's first bytes as token ids: [1, length], int64."""
    return torch.tensor([list(TEXT.read_bytes()[:length])])


def model(hidden: int = 128, heads: int = 8, state: int = 32, groups: int = 2, layers: int = 2,
          chunk: int = 64) -> Mamba2ForCausalLM:  # fmt: skip
    """A byte-level Mamba-2 in float32 with random weights, the same ones each time."""
    torch.manual_seed(0)
    config = Mamba2Config(
        vocab_size=256, hidden_size=hidden, num_heads=heads, head_dim=2 * hidden // heads,
        state_size=state, n_groups=groups, num_hidden_layers=layers, chunk_size=chunk,
        bos_token_id=0, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    return Mamba2ForCausalLM(config).eval()


@contextmanager
def replaced(scan: Callable[..., Any], update: Callable[..., Any] | None = None) -> Iterator[None]:
    """Mamba-2 with its scan, and its update for one token, replaced."""
    functions = {"mamba2_chunk_scan": scan}
    if update is not None:
        functions["mamba2_selective_state_update"] = update
    with patch.multiple(modeling_mamba2, **functions):
        yield


def layer_inputs(net: Mamba2ForCausalLM, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """What the last layer's scan is given when `net` reads `ids`, by ssd.toml's input names."""
    seen: dict[str, torch.Tensor] = {}
    original = modeling_mamba2.mamba2_chunk_scan

    def spy(x: Any, dt: Any, A: Any, B: Any, C: Any, **options: Any) -> Any:
        seen.update(x=x, dt=dt, A=A, B=B, C=C, D=options["D"], dt_bias=options["dt_bias"])
        return original(x, dt, A, B, C, **options)

    with torch.no_grad(), replaced(spy):
        net(ids)
    return {name: tensor.detach() for name, tensor in seen.items()}
