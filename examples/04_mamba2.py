"""A Hugging Face Mamba-2 model that runs on ops compiled from specs/ssd.toml.

The model's scan over a sequence becomes `op(...)`, its update for one token `op.step(...)`. The
logits on a real text stay equal to 1e-4 and `generate()` writes the same tokens.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from mamba2_text import model, replaced, tokens

import smac

op = smac.compile("ssd")
calls: Counter[str] = Counter()


def scan(
    x: torch.Tensor, dt: torch.Tensor, A: torch.Tensor, B: torch.Tensor, C: torch.Tensor,
    *, D: torch.Tensor, dt_bias: torch.Tensor, initial_states: torch.Tensor | None = None,
    return_final_states: bool = False, **rest: Any,
) -> Any:  # fmt: skip
    """The sequence. The model keeps its state as [B, H, P, N]; SMAC's is [B, H, N, P]."""
    assert rest["dt_softplus"]
    assert rest["dt_limit"] == (0.0, float("inf"))
    assert rest["z"] is None
    calls["scan"] += 1
    y, state = op(
        x=x, dt=dt, A=A, B=B, C=C, D=D, dt_bias=dt_bias, return_state=True,
        initial_state=None if initial_states is None else initial_states.mT,
    )  # fmt: skip
    return (y, state.S.mT) if return_final_states else y


def update(
    state: torch.Tensor, x: torch.Tensor, dt: torch.Tensor, A: torch.Tensor, B: torch.Tensor,
    C: torch.Tensor, D: torch.Tensor, *, dt_bias: torch.Tensor, **rest: Any,
) -> torch.Tensor:  # fmt: skip
    """One token. The model spreads per-head values over P and N; SMAC takes one for each head."""
    assert rest["dt_softplus"]
    assert rest["z"] is None
    calls["step"] += 1
    y, new = op.step(
        state.mT, x=x, dt=dt[..., 0], A=A[:, 0, 0], B=B, C=C, D=D[:, 0], dt_bias=dt_bias[:, 0],
    )  # fmt: skip
    state.copy_(new.S.mT)
    return y


def main() -> None:
    net, ids = model(), tokens()
    prompt, options = ids[:, :100], {"max_new_tokens": 40, "do_sample": False, "eos_token_id": None}
    with torch.no_grad():
        expected = net(ids).logits
        expected_text = net.generate(prompt, **options)
        with replaced(scan, update):
            logits = net(ids).logits
            text = net.generate(prompt, **options)
    error = (logits - expected).abs().max().item()
    print(f"{ids.shape[1]} bytes of text, logits up to {expected.abs().max():.2f}")
    print(f"largest difference of a logit: {error:.1e}")
    print(f"{text.shape[1] - prompt.shape[1]} tokens generated, equal: {text.equal(expected_text)}")
    print(f"calls of SMAC: {calls['scan']} scans, {calls['step']} steps")
    layers, new = net.config.num_hidden_layers, options["max_new_tokens"]
    assert error < 1e-4
    assert text.equal(expected_text)
    # Two scans a layer (logits, prompt); the first new token comes out of the prompt's.
    assert calls == {"scan": 2 * layers, "step": layers * (new - 1)}


if __name__ == "__main__":
    main()
