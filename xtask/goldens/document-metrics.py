"""Goldens of the metrics of documents: odd answers and JSON with the scores of the published programs.

    DONUT_CHECKOUT=... QWEN_VL_CHECKOUT=... PIX2STRUCT_CHECKOUT=... \\
        python xtask/goldens/document-metrics.py data/goldens/document-metrics

- `answers.json`: [prediction, [right answers], ANLS by the script of the Robust Reading Competition, ANLS by
  the package `anls`, relaxed correctness for the first answer].
- `documents.json`: first Donut's F1 over all documents and over each tenth of them, then each document:
  [predicted JSON, right JSON, Donut's accuracy (null where it divides by zero), tree edit distance].

The environment names checkouts of github.com/clovaai/donut (commit 4cfcf97), github.com/QwenLM/Qwen-VL
(commit aa00ed0) and github.com/google-research/pix2struct (commit 945f27e), of which one file each is read.
"""

import copy
import json
import os
import random
import sys
import tempfile
import types
from pathlib import Path

from anls import anls_score

from shared.script import begin
from shared.vqa_official import load_module

PINNED = {"anls": "0.0.2", "zss": "1.2.0", "nltk": "3.9.2"}

TEXTS = [
    "",
    " ",
    "a",
    "A",
    "ab",
    "ax",
    "cat",
    "the cat",
    "The  Cat ",
    "  the\tcat\n",
    "dog",
    "total",
    "totals",
    "Total: 12.50",
    "12.50",
    "12,50",
    "12.5",
    "$12.50",
    "12",
    "13",
    "0",
    "0.0",
    "-0",
    "5%",
    "5 %",
    "0.05",
    "50%%",
    "1,000",
    "1000",
    "1050",
    "1051",
    "950",
    "949.9",
    "1_000",
    "1e3",
    "inf",
    "nan",
    "-12",
    "-12.6",
    "yes",
    "Yes",
    "YES.",
    "No",
    "Straße",
    "STRASSE",
    "İzmir",
    "izmir",
    "ﬁn",
    "FIN",
    "東京都",
    "東京",
    "e\u0301",
    "é",
    "\u00a0x\u3000",
    "a\u1c80b",
    "x\u001cy",
    "x y",
    "January 5, 2024",
    "January 5 2024",
    "5 January 2024",
    "2024-01-05",
    "a long answer that is almost right",
    "a long answer that was almost right",
    "+7",
    "7.",
    ".7",
    " 7 ",
]
KEYS = [
    "total",
    "tax",
    "date",
    "menu",
    "items",
    "name",
    "price",
    "nm",
    "cnt",
    "sub_total",
    "été",
    "b",
    "aa",
]
LEAVES = [
    "12.50",
    "12.5",
    "cake",
    "Cake",
    " cake ",
    "tea",
    "a longer text",
    "",
    " ",
    "7",
    7,
    0,
    1.5,
    -2,
    1e22,
    2.5e-7,
    None,
    True,
    False,
    "東京",
    "x" * 30,
]


def variant(rng, text):
    """The text with a few edits, which keep it near."""
    letters = list(text)
    for _ in range(rng.randint(0, 4)):
        place = rng.randint(0, len(letters))
        letters[place : place + rng.randint(0, 1)] = rng.choice(["", "x", " ", "E"])
    return "".join(letters)


def pairs(rng):
    for _ in range(700):
        prediction = rng.choice(TEXTS)
        answers = [rng.choice(TEXTS) for _ in range(rng.randint(1, 3))]
        if rng.random() < 0.6:
            answers[rng.randrange(len(answers))] = variant(rng, prediction)
        yield prediction, answers


def value(rng, depth):
    kind = rng.random()
    if depth > 0 and kind < 0.3:
        return document(rng, depth - 1)
    if depth > 0 and kind < 0.5:
        return [document(rng, depth - 1) for _ in range(rng.randint(0, 3))]
    if kind < 0.6:
        return [rng.choice(LEAVES) for _ in range(rng.randint(0, 3))]
    if kind < 0.62:
        return [rng.choice(LEAVES), {"name": "mixed"}, ["nested"]]
    return rng.choice(LEAVES)


def document(rng, depth):
    return {key: value(rng, depth) for key in rng.sample(KEYS, rng.randint(0, 4))}


def edited(rng, data):
    """The document with some of its parts changed, left out or repeated."""
    if isinstance(data, dict):
        kept = {key: edited(rng, item) for key, item in data.items() if rng.random() < 0.9}
        if rng.random() < 0.15:
            kept[rng.choice(KEYS)] = value(rng, 1)
        return kept
    if isinstance(data, list):
        items = [edited(rng, item) for item in data if rng.random() < 0.9]
        if items and rng.random() < 0.2:
            items.append(copy.deepcopy(rng.choice(items)))
        return items
    if isinstance(data, str) and rng.random() < 0.3:
        return variant(rng, data)
    return rng.choice(LEAVES) if rng.random() < 0.08 else data


def rrc_scores(program, rows):
    """The scores of the competition's script, which reads files."""
    questions = [
        {"questionId": place, "question": "", "answers": answers} for place, (_, answers) in enumerate(rows)
    ]
    truth = {"data": questions}
    given = [{"questionId": place, "answer": prediction} for place, (prediction, _) in enumerate(rows)]
    options = types.SimpleNamespace(answer_types=False, anls_threshold=0.5)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / "truth.json", Path(folder) / "given.json"]
        for file, data in zip(files, (truth, given)):
            file.write_text(json.dumps(data))
        samples = program.evaluate_method(*map(str, files), options)["per_sample_result"]
    return [samples[str(place)]["score"] for place in range(len(rows))]


def stub(**modules):
    """Modules that the programs import and that their metrics do not use, with the names they import."""
    for name, attribute in modules.items():
        module = types.ModuleType(name.replace("__", "."))
        setattr(module, attribute, None)
        sys.modules.setdefault(module.__name__, module)


def distance(evaluator, donut, predicted, right):
    trees = [evaluator.construct_tree_from_dict(evaluator.normalize_dict(it)) for it in (predicted, right)]
    return int(
        donut.zss.distance(
            *trees,
            get_children=donut.zss.Node.get_children,
            insert_cost=evaluator.insert_and_remove_cost,
            remove_cost=evaluator.insert_and_remove_cost,
            update_cost=evaluator.update_cost,
        )
    )


def write(path, rows):
    lines = ",\n".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in rows)
    path.write_text(f"[{lines}]\n", encoding="utf-8")


def main():
    out = begin(PINNED)
    names = ("DONUT_CHECKOUT", "QWEN_VL_CHECKOUT", "PIX2STRUCT_CHECKOUT")
    missing = [name for name in names if name not in os.environ]
    if missing:
        sys.exit(f"error: set {' and '.join(missing)} to the checkouts that the head of this script names")
    stub(datasets="load_dataset", editdistance="eval")
    stub(pycocoevalcap__tokenizer__ptbtokenizer="PTBTokenizer", pycocoevalcap__cider__cider="Cider")
    donut = load_module(os.environ["DONUT_CHECKOUT"], "donut/util.py")
    rrc = load_module(os.environ["QWEN_VL_CHECKOUT"], "eval_mm/infographicsvqa_eval.py")
    pix2struct = load_module(os.environ["PIX2STRUCT_CHECKOUT"], "pix2struct/metrics.py")

    rng = random.Random(27)
    rows = list(pairs(rng))
    write(
        out / "answers.json",
        [
            [
                prediction,
                answers,
                score,
                anls_score(prediction, answers),
                pix2struct.relaxed_correctness(answers[0], prediction),
            ]
            for (prediction, answers), score in zip(rows, rrc_scores(rrc, rows))
        ],
    )

    evaluator = donut.JSONParseEvaluator()
    documents = []
    for _ in range(300):
        right = document(rng, 2)
        predicted = document(rng, 2) if rng.random() < 0.1 else edited(rng, right)
        # Without a right field the program divides by zero.
        if evaluator.normalize_dict(right):
            documents.append((predicted, right))

    def f1(rows):
        return evaluator.cal_f1([it[0] for it in rows], [it[1] for it in rows])

    rows = []
    for predicted, right in documents:
        accuracy = evaluator.cal_acc(predicted, right) if distance(evaluator, donut, {}, right) else None
        rows.append([predicted, right, accuracy, distance(evaluator, donut, predicted, right)])
    tenths = [f1(documents[place::10]) for place in range(10)]
    write(out / "documents.json", [[f1(documents), *tenths], *rows])


if __name__ == "__main__":
    main()
