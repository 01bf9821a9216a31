"""Functions of torch that wrappers call (prefix sums, folds of partial results), as printed.

Non-goals: nothing that runs on a tile.
"""

from __future__ import annotations

from smac.plan.tokens import SCRATCH

#: By name, in the order that they are printed.
HOST_HELPERS = {
    "far": '''def far(*strides):
    """Whether offsets inside a tile, of 512 rows or columns at most, may pass 32 bits."""
    return max(strides, default=0) >= 2**22''',
    "tall": '''def tall(columns, whole, dtype):
    """Rows of a program that goes over tiles of `columns`. Two tiles of 64 read what the columns
    have half as often, where 16-bit operands [rows, whole] leave room for it on chip."""
    return 128 if dtype.itemsize == 2 and columns == 64 and whole <= 128 else columns''',
    "crowd": '''def crowd(programs, dtype):
    """The most registers that a thread of programs of four warps may have: so many that three of
    them share an SM, where all SMs have as many (of 16-bit types); None for no limit."""
    return 168 if dtype.itemsize == 2 and programs >= 1024 else None''',
    "side_by_side": '''def side_by_side(x, dim):
    """x with what is along `dim` side by side in memory, where that is long enough to matter."""
    if x.stride(dim) == 1 or x.shape[dim] < 1024:
        return x
    return x.movedim(dim, -1).contiguous().movedim(-1, dim)''',
    "at_once": f'''def at_once(programs, each):
    """How many programs run at once: as many as fit, with `each` elements of scratch each."""
    return max(1, min(programs, 2**{SCRATCH.bit_length() - 1} // each))''',
    "heads_each": '''def heads_each(counts, programs):
    """Heads that a program takes in turn: a divisor of each of `counts`, as many as leave 528
    programs, four to an SM of the largest GPUs."""
    fit = [d for d in range(1, min(counts) + 1)
           if programs // d >= 528 and not any(c % d for c in counts)]
    return max(fit, default=1)''',
    "shares": '''def shares(shape, dim, parts, dtype, acc, device):
    """Parts [parts, …] of a gradient of `shape`, to be summed along `dim`. Where there are as many
    as it has entries, they are the gradient itself."""
    if parts == shape[dim]:
        return torch.empty(shape, dtype=dtype, device=device).movedim(dim, 0)
    return torch.empty((parts, *shape[:dim], *shape[dim + 1 :]), dtype=acc, device=device)''',
    "of_shares": '''def of_shares(x, dim, n):
    """The gradient with n entries along `dim` whose parts are x."""
    return (x if x.shape[0] == n else x.unflatten(0, (n, -1)).sum(1)).movedim(0, dim)''',
    "flip": '''def flip(x, dim):
    """Each token from T - 1 - t."""
    return x.flip(dim)''',
    "flip_grad": '''def flip_grad(d, dim):
    """What `flip` has read goes back."""
    return d.flip(dim)''',
    "ahead": '''def ahead(x, dim):
    """Each token from the one ahead, the last from itself."""
    n = x.shape[dim]
    one = min(n, 1)
    return torch.cat([x.narrow(dim, one, n - one), x.narrow(dim, n - one, one)], dim)''',
    "ahead_grad": '''def ahead_grad(d, dim):
    """What `ahead` has read goes back: one step on, and the last to itself."""
    n = d.shape[dim]
    one = min(n, 1)
    back = torch.zeros_like(d)
    back.narrow(dim, one, n - one).add_(d.narrow(dim, 0, n - one))
    back.narrow(dim, n - one, one).add_(d.narrow(dim, n - one, one))
    return back''',
    "behind": '''def behind(x, dim):
    """Each token from the one behind, the first from itself."""
    n = x.shape[dim]
    one = min(n, 1)
    return torch.cat([x.narrow(dim, 0, one), x.narrow(dim, 0, n - one)], dim)''',
    "behind_grad": '''def behind_grad(d, dim):
    """What `behind` has read goes back: one step back, and the first to itself."""
    n = d.shape[dim]
    one = min(n, 1)
    back = torch.zeros_like(d)
    back.narrow(dim, 0, n - one).add_(d.narrow(dim, one, n - one))
    back.narrow(dim, 0, one).add_(d.narrow(dim, 0, one))
    return back''',
    "scan_ids": '''def scan_ids(ids, dim, last, runs):
    """1 where ids differ from the ones before (`last` before the first), or their running count."""
    before = ids.narrow(dim, 0, 1) - 1 if last is None else last.unsqueeze(dim)
    if last is not None:
        before = before.expand(ids.narrow(dim, 0, min(1, ids.shape[dim])).shape)
    shifted = torch.cat([before.to(ids.dtype), ids.narrow(dim, 0, max(ids.shape[dim] - 1, 0))], dim)
    starts = (ids != shifted.narrow(dim, 0, ids.shape[dim])).to(torch.int32)
    return starts.cumsum(dim, dtype=torch.int32) if runs else starts''',
    "scan_sequences": '''def scan_sequences(ids, dim, last, runs, cu_seqlens):
    """As `scan_ids` for packed sequences, the first token of each behind its entry of `last`."""
    length = ids.shape[dim]
    ends, t = cu_seqlens.long(), torch.arange(length, device=ids.device)
    own = torch.searchsorted(ends[1:], t, right=True).clamp(max=ends.shape[0] - 2)
    starts = torch.ones_like(ids, dtype=torch.bool)
    starts.narrow(dim, 1, max(length - 1, 0)).copy_(ids.diff(dim=dim) != 0)
    new = torch.ones_like(starts)
    if last is not None:
        before = last.index_select(0, own).movedim(0, last.dim() - ids.dim() + dim)
        new = ids != before.reshape(ids.shape)
    first = (ends[own] == t).reshape([-1 if i == dim else 1 for i in range(ids.dim())])
    starts = torch.where(first, new, starts).to(torch.int32)
    return starts.cumsum(dim, dtype=torch.int32) if runs else starts''',
    "last_of_sequences": '''def last_of_sequences(ids, dim, last, cu_seqlens):
    """The id of the last token of each packed sequence; of an empty one, the id before it."""
    ends = cu_seqlens.long()
    found = ids.index_select(dim, (ends[1:] - 1).clamp(min=0)).movedim(dim, 0)
    found = found.reshape(last.shape).to(torch.int32)
    filled = (ends[1:] > ends[:-1]).reshape([-1] + [1] * (last.dim() - 1))
    return torch.where(filled, found, last.to(torch.int32))''',
    "cut_sums": '''def cut_sums(high, low, high_shift, low_shift):
    """Σ W over high ≥ k > low for each k, from sums of W at high and at low, [T, …] in float64."""
    total = _shifted(high, high_shift) - _shifted(low, low_shift)
    return total.flip(0).cumsum(0).flip(0)


def _shifted(x, by):
    """x at positions moved by `by`; what goes beyond the last one stays there."""
    n = x.shape[0]
    if by == 0 or n == 0:
        return x
    out = torch.zeros_like(x)
    if by < 0:
        out[: max(n + by, 0)] = x[-by:]
        return out
    out[by:] = x[: max(n - by, 0)]
    out[n - 1] += x[max(n - by, 0) :].sum(0)
    return out''',
    "spectrum": '''def spectrum(taps, at, tokens, length, middle):
    """rfft of lags along dim `at`, lag 0 first; in the `middle` of 2·tokens - 1 it is moved there.
    A circle of lags is as long as there are tokens, others are padded to `length`."""
    taps = taps.narrow(at, 0, max(2 * tokens - 1, 0) if middle else tokens)
    if middle:
        padded = taps.new_zeros([length if i == at else n for i, n in enumerate(taps.shape)])
        padded.narrow(at, 0, taps.shape[at]).copy_(taps)
        taps = torch.roll(padded, 1 - tokens, at)
    return torch.fft.rfft(taps, length, at)''',
    "state_channels": '''def state_channels(length, at, *operands):
    """Slices of N: as many state channels at a time as make up to 2^26 numbers along dim `at`."""
    one = [(*x.shape[:at], 1, *x.shape[at + 1 :]) for x in operands]
    shape = torch.broadcast_shapes(*one)
    each = max(2**26 * shape[-2] // max(length * shape.numel(), 1), 1)
    return [slice(i, i + each) for i in range(0, shape[-2], each)]


def channels_at(x, n):
    """The state channels `n` of x [..., N, P]; all of what has none."""
    return x if x.shape[-2] == 1 else x[..., n, :]


def along(x, at, tokens):
    """x with `tokens` tokens, where it had one for all."""
    return x.expand([tokens if i == at else n for i, n in enumerate(x.shape)])''',
    "convolve": '''def convolve(q, k, v, h, length, at, tokens):
    """Σ_n q · (h ∗ k·v) along dim `at`, h a spectrum; operands [batch, T, heads, N, P]: less N."""
    total = 0.0
    for n in state_channels(length, at, q, k, v, h):
        u = torch.fft.rfft(along(channels_at(k, n) * v, at, tokens), length, at)
        u = torch.fft.irfft(u * channels_at(h, n), length, at).narrow(at, 0, tokens)
        total = total + (channels_at(q, n) * u).sum(-2)
    return total''',
    "correlate": '''def correlate(q, k, v, dy, h, length, at, tokens):
    """Gradients of `convolve` under dy: of q, k, v and the spectrum, each in its own shape."""
    dq, dk, dv, dh = (torch.zeros_like(x) for x in (q, k, v, h))
    for n in state_channels(length, at, q, k, v, h):
        qn, kn, hn = (channels_at(x, n) for x in (q, k, h))
        fk = torch.fft.rfft(along(kn * v, at, tokens), length, at)
        fq = torch.fft.rfft(along(qn * dy, at, tokens), length, at)
        u = torch.fft.irfft(fk * hn, length, at).narrow(at, 0, tokens)
        g = torch.fft.irfft(fq * hn.conj(), length, at).narrow(at, 0, tokens)
        for out, part in ((dq, dy * u), (dk, v * g), (dh, fq * fk.conj())):
            out = channels_at(out, n)
            wide = torch.broadcast_shapes(part.shape, out.shape)
            out += part.expand(wide).sum_to_size(out.shape)
        dv += (kn * g).sum_to_size(dv.shape)
    return dq, dk, dv, dh''',
    "lags_of": '''def lags_of(dh, length, at, tokens, lags, middle):
    """Gradients of `lags` lags from that of their spectrum; the inverse of `spectrum`'s layout."""
    x = torch.fft.irfft(dh, length, at)
    x = torch.roll(x, tokens - 1, at) if middle else x
    x = x.narrow(at, 0, max(2 * tokens - 1, 0) if middle else tokens)
    out = x.new_zeros([lags if i == at else n for i, n in enumerate(x.shape)])
    out.narrow(at, 0, x.shape[at]).copy_(x)
    return out''',
}
