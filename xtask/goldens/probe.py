"""Goldens of mm-clip's linear probe: the weights of scikit-learn's LogisticRegression on small sets.

    probe.py OUT_DIR

Made with scikit-learn 1.9.1, which fits one weight vector for two classes and one per class for more.
"""

import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from sklearn.linear_model import LogisticRegression

SAMPLES = 120
WIDTH = 6
CS = [0.05, 20.0]


def blobs(classes, seed):
    """Overlapping clusters, so that a weak penalty has a finite minimum, with features of different scale."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(classes, WIDTH))
    labels = rng.permutation(np.arange(SAMPLES) % classes)
    features = centres[labels] + 1.2 * rng.normal(size=(SAMPLES, WIDTH)) + 0.5
    return (features * np.geomspace(0.5, 3, WIDTH)).astype(np.float32), labels.astype(np.int64)


def objective(model, features, labels):
    """0.5 * |W|^2 + C * sum of cross entropies, as scikit-learn defines it."""
    log_probabilities = model.predict_log_proba(features)
    return 0.5 * (model.coef_**2).sum() - model.C * log_probabilities[np.arange(len(labels)), labels].sum()


def save(path, features, labels):
    tensors = {"features": features, "classes": labels}
    wide = features.astype(np.float64)
    for index, c in enumerate(CS):
        fit = lambda solver: LogisticRegression(C=c, solver=solver, tol=1e-12, max_iter=10000).fit(
            wide, labels
        )
        model, newton = fit("lbfgs"), fit("newton-cholesky")
        assert np.abs(model.coef_ - newton.coef_).max() < 1e-5, "the peer's own solvers disagree"
        tensors |= {
            f"{index}.c": np.array([c]),
            f"{index}.coef": model.coef_,
            f"{index}.intercept": model.intercept_,
            f"{index}.objective": np.array([objective(model, wide, labels)]),
            f"{index}.predicted": model.predict(wide),
        }
    save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, path)


def main():
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    save(out / "four_classes.safetensors", *blobs(4, seed=3))
    save(out / "two_classes.safetensors", *blobs(2, seed=4))


if __name__ == "__main__":
    main()
