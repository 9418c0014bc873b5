"""Exact quotients of whole numbers, also where a product is wider than a word."""

import numpy as np

from shm.kernel import inner

_WORD_MAX = 2**62
_FLOAT_MAX = 1.5 * _WORD_MAX  # far enough from both 2**62 and 2**63, whatever was rounded


@inner
def ceil_div(a, b):
    """a / b, rounded up; b > 0."""
    return -((-a) // b)


@inner
def share(total, part, whole):
    """Return total x part / whole, rounded down, exactly: 0 <= total, 0 <= part <= whole < 2**62."""
    if part == whole:
        return total
    quotient, rest = total // whole, total % whole
    if rest == 0 or part <= _WORD_MAX // rest:
        return quotient * part + rest * part // whole
    out, remainder = 0, 0
    for bit in range(62, -1, -1):  # rest x part / whole, as a long division
        out, remainder = out * 2, remainder * 2
        if remainder >= whole:
            out, remainder = out + 1, remainder - whole
        if part >> bit & 1:
            remainder += rest
            if remainder >= whole:
                out, remainder = out + 1, remainder - whole
    return quotient * part + out


@inner
def exceeds(a, b, limit):
    """Whether a x b > limit: 0 <= a, b and limit <= 2**62. A division would take its time to say so."""
    return np.float64(a) * np.float64(b) > _FLOAT_MAX or a * b > limit


@inner
def clamp(value, least, most):
    return min(max(value, least), most)
