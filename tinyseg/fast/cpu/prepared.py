"""Weights in the form that a kernel needs, remembered during inference.

Each step of training packs its weights, since each step changes them. In inference (under `no_grad`) they stay the
same, and the result is remembered as long as the array of weights lives. It is used again if a fingerprint of the
weights shows that nobody has changed them in place. Weights for Winograd's method are made anew each time, in cache.
"""

import weakref

import numpy as np

from tinyseg.autograd import is_grad_enabled
from tinyseg.fast.cpu.kernels import is_noting
from tinyseg.fast.cpu.parallel import parallel

PARTS = 64  # in which weights are hashed, whatever the number of threads
_cache = {}  # id of the weights: {form: (weak reference to the weights, fingerprint, what was made)}


def prepared(w, form, make):
    """Return `make()`, which depends on the array `w` alone, or what it returned the last time for this `form`."""
    key = id(w)
    if is_grad_enabled():
        _cache.pop(key, None)  # w is about to be trained, and would change before this is used again
        return make()
    now = fingerprint(w)
    weights, before, value = _cache.get(key, {}).get(form, (None, None, None))
    if weights is None or weights() is not w or now != before:
        value = make()
        if is_noting():
            return value  # in which nothing has been computed
        of_w = weakref.ref(w, lambda _, cache=_cache: cache.pop(key, None))
        _cache.setdefault(key, {})[form] = of_w, now, value
    return value


def fingerprint(w):
    """Return a 64-bit number that depends on every bit and on its place, and the shape.

    Arrays of different bits have different numbers but for a chance of about 2⁻⁶⁴: the number is the sum of a hash of
    each word together with its place, so that words that change places are noticed too. Nobody may rely on it against
    weights that were made to deceive.
    """
    bits = np.ascontiguousarray(w).reshape(-1).view(np.uint32)
    parts = np.empty(PARTS, np.uint64)
    _fingerprints(PARTS, bits, parts)
    return int(parts.sum(dtype=np.uint64)), w.shape


@parallel
def _fingerprints(part, bits, parts):
    """Write the sum of the hashes of (place, word) in one of PARTS pieces; the hash is the end of MurmurHash3."""
    n = bits.size
    start = n * part // PARTS
    piece, h = bits[start : n * (part + 1) // PARTS], np.uint64(part)
    for i in range(piece.size):
        x = (np.uint64(piece[i]) | np.uint64(start + i) << np.uint64(32)) * np.uint64(0xFF51AFD7ED558CCD)
        x = (x ^ (x >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
        h += x ^ (x >> np.uint64(33))
    parts[part] = h
