"""Answers to notebook 8: two absurd proposals, one error among K cells, a threshold that has not seen the answers."""

from fractions import Fraction

import numpy as np

from tinyseg.learn.comparing import Different, case, same
from tinyseg.metrics.isbi import isbi_scores


def exercise_1(answer):
    """Check a proposal that is nearly all right and one that is often wrong: the true masks, and the two."""
    truth, *proposals = (np.asarray(masks) for masks in answer)
    names = "the proposal that is right nearly everywhere", "the proposal that is often wrong"
    for name, masks in zip(names, proposals, strict=True):
        if masks.shape != truth.shape:
            raise Different(f"{name} has the shape {masks.shape}, and the true masks have {truth.shape}.")
        if not np.array_equal(masks, masks > 0):
            raise Different(f"{name} is no mask: it should be True inside of a cell and False on membrane.")
    right = [float(((masks > 0) == (truth > 0)).mean()) for masks in proposals]
    v = [isbi_scores(masks > 0, truth > 0).v_rand for masks in proposals]
    if not right[0] > 0.98:
        raise Different(f"{names[0]}: {100 * right[0]:.1f} % of its pixels are right, and should be more than 98 %.")
    if not v[0] < 0.3:
        raise Different(f"{names[0]}: V^Rand is {v[0]:.3f}, not below 0.3. Which few pixels cost most pairs?")
    if not right[1] < 0.85:
        raise Different(
            f"{names[1]}: {100 - 100 * right[1]:.1f} % of its pixels are wrong, and should be more than 15 %."
        )
    if not v[1] > 0.95:
        raise Different(f"{names[1]}: V^Rand is {v[1]:.3f}, not above 0.95. What may change and keep the cells apart?")


def exercise_2(answer):
    """Check V^Rand after a merge and after a split, a function of K, and from which K on each costs little."""
    both, *first = answer
    m = 6
    for K in (2, 3, 4, 7):
        cells = np.repeat(np.arange(K), m)
        joined, cut = np.where(cells == 1, 0, cells), np.where(np.arange(K * m) < m // 2, K, cells)
        with case(f"{K} cells"):
            found = [float(v) for v in both(K)]
            expected = [_pairs_together(proposal, cells) for proposal in (joined, cut)]
            if np.allclose(found, expected[::-1]):
                raise Different("both are right, but the merge comes first.")
            if np.allclose(found, 1 - np.array(expected)):
                raise Different("these are the losses, 1 - V^Rand: give V^Rand itself.")
            for name, v, right in zip(("a merge", "a split"), found, expected, strict=True):
                same(v, right, f"V^Rand after {name}")
    costs = {"merge": lambda K: Fraction(1, K + 1), "split": lambda K: Fraction(1, 4 * K - 1)}
    for (name, cost), K in zip(costs.items(), first, strict=True):
        if K is ...:
            raise Different(f"V^Rand is right, and the K from which on a {name} costs little is still to be given.")
        if int(K) != K or K < 2:
            raise Different(f"{K} is no number of cells among which a {name} can be.")
        if not cost(int(K)) < Fraction(1, 100):
            raise Different(f"among {K} cells a {name} costs {float(cost(int(K))):.6g}, not less than a hundredth.")
        if cost(int(K) - 1) < Fraction(1, 100):
            raise Different(f"among fewer than {K} cells a {name} costs less than a hundredth, too.")


def exercise_3(answer):
    """Check what a threshold loses that is chosen on one section: a function of the table of V^Rand."""
    rng = np.random.default_rng(8)
    for words, T, S in (("two thresholds, three sections", 2, 3), ("nine thresholds, four sections", 9, 4)):
        with case(words):
            for _ in range(3):
                table = rng.uniform(0, 1, (T, S))
                overall = max(range(T), key=lambda t, table=table: sum(table[t]))
                expected, counted = np.zeros((2, S))
                for k in range(S):
                    own = max(range(T), key=lambda t, table=table, k=k: table[t, k])
                    losses = [table[overall, s] - table[own, s] for s in range(S)]
                    expected[k] = sum(losses[s] for s in range(S) if s != k) / (S - 1)
                    counted[k] = sum(losses) / S
                found = np.asarray(answer(table.copy()), float)
                if found.shape == (S,) and np.allclose(found, counted) and not np.allclose(found, expected):
                    raise Different("the section that chooses is scored with the others, and should not be.")
                same(found, expected, "the loss")


def _pairs_together(proposal, truth):
    """Return V^Rand by counting ordered pairs of pixels, each with itself included."""
    in_truth, in_proposal = truth[:, None] == truth, proposal[:, None] == proposal
    both = (in_truth & in_proposal).sum()
    return float(both / (both + ((in_truth & ~in_proposal).sum() + (~in_truth & in_proposal).sum()) / 2))
