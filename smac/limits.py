"""What people ask for that is no structured masked attention: why not, and what to write instead.

Non-goals: finding it by anything but its name; approximating it.
"""

from __future__ import annotations

import re

_SOFTMAX = (
    "softmax attention is no structured masked attention: it takes exp of q·k and divides each "
    "row by its sum, so that Y is not linear in K ⊗ V and no mask L gives it; use a feature map in "
    'Q and K, as "elu(k) + 1", with Y / Z in [output], or a softmax kernel (FlashAttention)'
)
_DELTA = (
    "the delta rule is no structured masked attention: its transition I - beta k k' is a matrix in "
    "N that depends on K, so that L would be operator-valued; use a decay of each channel "
    '("TN,SN,SP,TSN->TP" with semiseparable(log_decay = …), as GLA), or a delta-rule kernel'
)
_NORM = (
    "it divides by a sum over other positions or channels, which no mask L[t,s] and no pointwise "
    "expression does; Y / Z in [output] is the one normaliser there is (Z: the contraction with "
    "V = 1); other norms go before or after the op"
)
_MAXIMUM = (
    "running maxima over positions are not linear in K ⊗ V; log decays are summed safely without "
    "one, and maximum(x, y) is pointwise"
)
_RANDOM = "nothing inside the contraction is random; drop out before or after the op"
_CHOICE = (
    "it picks positions by values of other positions, which no mask L[t,s] of its own parameters "
    "does; pass the picked pattern as dense(M), ids for document(ids), or a 0/1 input in a formula"
)
_REASONS: tuple[tuple[str, str], ...] = (
    (r"(log_?)?soft(max|min)|logsumexp|sdpa|(scaled_)?(dot_product_)?attention|flash(_attention)?",
     _SOFTMAX),
    (r"(gated_?)?delta(_?(rule|net|product))?|householder|rwkv_?7|ttt|titans", _DELTA),
    (r"((layer|rms|group|batch|row|l[12])_?)?norm(alize|alise)?d?|mean|var|std", _NORM),
    (r"(running_?|cum_?)max(imum)?|cummin", _MAXIMUM),
    (r"dropout|bernoulli|rand(om|n)?", _RANDOM),
    (r"arg(max|min)|top_?k|sort|route|gather|nonzero", _CHOICE),
)  # fmt: skip


def refusal(name: str) -> str | None:
    """Why a function of this name is no part of the language, and what to use; None: unknown."""
    for pattern, why in _REASONS:
        if re.fullmatch(pattern, name, re.IGNORECASE):
            return why
    return None
