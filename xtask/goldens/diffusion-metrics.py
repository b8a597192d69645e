"""Goldens of the metrics of generated images: small sets of features and their metrics by the formulas.

    python xtask/goldens/diffusion-metrics.py data/goldens/diffusion-metrics

- `features.safetensors`: for each case `CASE/reference` and `CASE/generated`, f64 rows.
- `expected.json`: for each case FID by scipy's `sqrtm`, the full unbiased KID, KID of the listed subsets
  (`[reference's rows, generated's rows]`), precision, recall and CMMD, by sums over all pairs in numpy.
"""

import json

import numpy as np
from safetensors.numpy import save_file
from scipy import linalg
from shared.script import begin

SUBSETS = 5
SUBSET_SIZE = 20
NEIGHBOURS = 3
SIGMA = 10
SCALE = 1000


def cases(rng):
    """The reference and generated features of each case."""
    mix = rng.normal(size=(8, 8))
    shared = 3 * rng.normal(size=(30, 16))
    return {
        "correlated": (rng.normal(size=(60, 8)) @ mix, 0.3 + 0.8 * rng.normal(size=(50, 8))),
        # Fewer samples than dimensions: both covariances are singular.
        "wide": (rng.normal(size=(40, 64)), 0.5 + rng.normal(size=(48, 64))),
        "far": (rng.normal(size=(45, 12)), 5 + 0.1 * rng.normal(size=(25, 12))),
        # Reference images that occur five times, so that all radii are 0, and copies of them.
        "copies": (np.repeat(shared[:4], 5, axis=0), shared),
        # Means far from 0, as features after a ReLU have.
        "offset": (100 + rng.normal(size=(64, 10)), 100.2 + 1.5 * rng.normal(size=(64, 10))),
    }


def fid(x, y):
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = linalg.sqrtm(a @ b)
    difference = x.mean(axis=0) - y.mean(axis=0)
    return difference @ difference + np.trace(a) + np.trace(b) - 2 * np.trace(root).real


def kid(x, y):
    """The unbiased estimate of the squared MMD with the kernel (x . y / d + 1)^3."""
    kernel = lambda a, b: (a @ b / len(a) + 1) ** 3
    total = lambda a, b, skip: sum(
        kernel(p, q) for i, p in enumerate(a) for j, q in enumerate(b) if not (skip and i == j)
    )
    m, n = len(x), len(y)
    within = total(x, x, True) / (m * (m - 1)) + total(y, y, True) / (n * (n - 1))
    return within - 2 * total(x, y, False) / (m * n)


def distances(x, y):
    return np.array([[np.sqrt(((p - q) ** 2).sum()) for q in y] for p in x])


def radii(x):
    """The distance of each row to its third nearest other row."""
    others = distances(x, x)
    np.fill_diagonal(others, np.inf)
    return np.sort(others, axis=1)[:, NEIGHBOURS - 1]


def share_within(queries, x):
    """The share of queries within the radius of at least one row of x."""
    return (distances(queries, x) <= radii(x)).any(axis=1).mean()


def cmmd(x, y):
    x, y = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (x, y))
    mean = lambda a, b: np.exp(-(distances(a, b) ** 2) / (2 * SIGMA**2)).mean()
    return SCALE * (mean(x, x) + mean(y, y) - 2 * mean(x, y))


def main():
    out = begin({"numpy": "2.4.6", "scipy": "1.17.1"})
    rng = np.random.default_rng(29)
    tensors, expected = {}, {}
    for name, (reference, generated) in cases(rng).items():
        tensors[f"{name}/reference"] = np.ascontiguousarray(reference)
        tensors[f"{name}/generated"] = np.ascontiguousarray(generated)
        rows = [len(reference), len(generated)]
        subsets = [[rng.permutation(n)[:SUBSET_SIZE].tolist() for n in rows] for _ in range(SUBSETS)]
        kids = [kid(reference[a], generated[b]) for a, b in subsets]
        expected[name] = {
            "fid": float(fid(reference, generated)),
            "kid": float(kid(reference, generated)),
            "subsets": subsets,
            "kid_mean": float(np.mean(kids)),
            "kid_std": float(np.std(kids)),
            "precision": float(share_within(generated, reference)),
            "recall": float(share_within(reference, generated)),
            "cmmd": float(cmmd(reference, generated)),
        }
    save_file(tensors, out / "features.safetensors")
    (out / "expected.json").write_text(json.dumps(expected) + "\n")


if __name__ == "__main__":
    main()
