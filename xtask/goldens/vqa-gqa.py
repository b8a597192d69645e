"""Goldens of GQA's metrics: generated questions with the scores of the published evaluation.

    OPENVQA_CHECKOUT=... python xtask/goldens/vqa-gqa.py data/goldens/vqa-gqa

- `questions.json`, `choices.json`, `results.json`: generated here, in GQA's layout.
- `scores.json`: the metrics as the evaluation averages them, in percent (`distribution` as it is).

The environment names a checkout of github.com/MILVLG/openvqa, of which only
`openvqa/datasets/gqa/eval/gqa_eval.py` is read: GQA's own `eval.py` as a class, with the same arithmetic.
"""

import json
import os
import random
import sys

from shared.script import begin
from shared.vqa_official import load_module

PINNED = {"tqdm": "4.70.1"}

ANSWERS = ["yes", "no", "red", "blue", "left", "dog", "color", "shape"]


def question(rng, number):
    structural = rng.choice(["verify", "query", "choose", "logical", "compare"])
    steps = [
        {"operation": rng.choice(["select", "query", "exist", "choose name", "relate"]), "dependencies": [],
         "argument": rng.choice(["cat (1)", "name", "color", "?"])}
        for _ in range(rng.randint(1, 4))
    ]
    return {
        "question": " ".join(["word"] * rng.randint(2, 6)) + "?",
        "answer": rng.choice(ANSWERS),
        "isBalanced": rng.random() < 0.7,
        "types": {
            "structural": structural,
            "semantic": rng.choice(["obj", "attr", "cat", "rel", "global"]),
            "detailed": rng.choice(["existThat", "twoCommon", "categoryThis"]),
        },
        "groups": {"global": rng.choice([None, "color", "animal"]), "local": "x"},
        "entailed": [f"{rng.randint(0, 119):05}" for _ in range(rng.randint(0, 3))] + [f"{number:05}"],
        "semantic": steps,
    }


def main():
    out = begin(PINNED)
    if "OPENVQA_CHECKOUT" not in os.environ:
        sys.exit("error: set OPENVQA_CHECKOUT to the checkout that the head of this script names")
    rng = random.Random(19)
    questions = {f"{number:05}": question(rng, number) for number in range(120)}
    some = lambda: rng.sample(ANSWERS, 4)  # noqa: E731
    choices = {number: {"valid": some(), "plausible": some()} for number in questions}
    results = [
        {"questionId": number, "prediction": entry["answer"] if rng.random() < 0.6 else rng.choice(ANSWERS)}
        for number, entry in questions.items()
    ]
    files = {"questions": questions, "choices": choices, "results": results}
    for name, value in files.items():
        (out / f"{name}.json").write_text(json.dumps(value, indent=0) + "\n")
    module = load_module(os.environ["OPENVQA_CHECKOUT"], "openvqa/datasets/gqa/eval/gqa_eval.py")
    paths = [str(out / f"{name}.json") for name in ("results", "questions", "choices")]
    scores = module.GQAEval(None, *paths, EVAL_CONSISTENCY=True).scores
    scores = {name: dict(value) if isinstance(value, dict) else value for name, value in scores.items()}
    (out / "scores.json").write_text(json.dumps(scores, indent=0) + "\n")


if __name__ == "__main__":
    main()
