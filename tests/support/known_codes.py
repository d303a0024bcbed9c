"""Codes of a grid of factors that are the same on every machine, and codes whose scores are known."""

import numpy as np

SIZES = (3, 4, 5, 6)


def fixed():
    """Codes (360, 5) and factors (360, 4): one dimension of two factors, a bent one, a product, two with noise."""
    factors = np.stack(np.unravel_index(np.arange(360), SIZES), 1)
    u, n = factors / (np.array(SIZES) - 1), np.arange(360)
    dimensions = [
        u[:, 0] + 0.2 * u[:, 1],
        np.tanh(3 * u[:, 1] - 1) + 0.1 * np.sin(n),
        u[:, 2] * u[:, 3],
        u[:, 3] + 0.3 * np.cos(7 * n),
        np.sin(n * n),
    ]
    return np.stack(dimensions, 1), factors


def drawn(kind, count=3000, factors=4, seed=0):
    """Codes of a kind with random factors of 6 values each.

    `factors` are the factors themselves, `rotated` the same turned in space, `noise` has nothing of them, `split` has
    the first factor in two dimensions, `merged` the first two factors in one, `constant` the factors and a constant.
    """
    random = np.random.default_rng(seed)
    y = random.integers(6, size=(count, factors))
    z = (y - 2.5) / 1.7 + 0.02 * random.normal(size=y.shape)
    turn, _ = np.linalg.qr(random.normal(size=(factors, factors)))
    codes = {
        "factors": z,
        "rotated": z @ turn,
        "noise": random.normal(size=z.shape),
        "split": np.concatenate([z, z[:, :1] + 0.02 * random.normal(size=(count, 1))], 1),
        "merged": np.concatenate([(y[:, :1] * 6 + y[:, 1:2]) / 10, z[:, 2:]], 1),
        "constant": np.concatenate([z, np.full((count, 1), 0.3)], 1),
    }[kind]
    return codes, y
