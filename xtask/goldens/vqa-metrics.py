"""Goldens of VQA v2's accuracy: odd answers with the scores of the official program and of MMF's.

    VQA_CHECKOUT=... MMF_CHECKOUT=... python xtask/goldens/vqa-metrics.py data/goldens/vqa-metrics

- `questions.json.gz`, `annotations.json.gz`, `results.json.gz`: generated here, in the form of the challenge.
- `scores.json.gz`: for each question, in the order of the annotations, its id, the official score in percent
  and MMF's score from 0 to 1; the official accuracies with two decimals; and texts as both normalise them.

The environment names checkouts of github.com/GT-Vision-Lab/VQA (commit a013f00) and
github.com/facebookresearch/mmf, of which only `mmf/utils/m4c_evaluators.py` is read. `VQA_QUESTIONS` is the
number of questions, 2000 by default; no test has an answer of another number.
"""

import copy
import gzip
import json
import os
import random
import sys

from shared import vqa_official
from shared.script import begin

WORDS = (
    "yes no white red blue dog cat man woman tennis court skateboard frisbee pizza left right none zero "
    "one two three four five six seven eight nine ten eleven None TWO Ten a an the The A AN on in street "
    "U.S. St. Mr. nike's man's it's Yes NO yes. no! maybe"
).split()
CONTRACTIONS = (
    "aint dont Dont DONT isnt Im im Ive Id've I'dve cant couldn'tve couldnt've hed've hes howd lets let's "
    "she's somebody'd somebodyd've 'ow's'at ow's'at 'ows'at oclock o'clock yall yall'd've y'all'dve youre "
    "youd've twas whats notve maam shant"
).split()
ODD = [
    "", " ", "\n", "\t", ".", "..", "...", ",", "?", "!", "-", " - ", "a", "the", "an a the", "A", "0",
    "1.", "1.0", ".5", "$5.00", "1,000", "1,000,000", "10,000.50", "1, 000", "1 ,000", "3,5 - 4", "a,b",
    "a, b", "a ,b", "1,a", "a,1", "3.", "3.5.", "U.S.A.", "u.s", "www.a.com", "10:30", "10:30 a.m.",
    "5'10\"", "yes/no", "yes / no", "black-and-white", "black - and-white", "t-shirt", "(a)", "[b]", "{c}",
    "a_b", "a\\b", "a=b", "a+b", "1+1", "<end>", "@home", "`x`", "a;b", "what?", "what ?", "no!", "yes\n",
    "\tyes", "yes\tno", "yes\nno", "\u200byes", "\u00a0yes\u00a0", "yes\u3000no", "\u001cyes\u001f",
    "yes\u0085no", "caf\u00e9", "CAF\u00c9", "\u00c9t\u00e9", "\u0130stanbul", "\u039f\u0394\u039f\u03a3",
    "stra\u00dfe", "STRASSE", "\U0001f600", "\U0001f415 dog", "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "\u0661,\u0662", "\u0661.\u0662", "\uff11.\uff12", "2.\u00b2", "\u0967,\u096d a-b", "\u4e00\u4e8c",
    "\u4f60\u597d\u3002", "e\u0301.", "a" * 300, "a." * 20, "." * 31, "." * 32, "." * 33, "a." * 33,
    "1." * 40, "x.y " * 20, "none", "None.", "no one", "ten", "ten.", "one,two", "a one", "the two",
    "don't", "dont.", "aint!", "thats-what", "it's a dog's", "'s", "s's's", "yes,", "yes?", ",yes",
    "?yes,no",
]


def answer(rng):
    kind = rng.random()
    if kind < 0.3:
        return rng.choice(WORDS)
    if kind < 0.4:
        return rng.choice(CONTRACTIONS)
    if kind < 0.5:
        return rng.choice(ODD)
    if kind < 0.65:
        decimal = f"{rng.randint(0, 9)}.{rng.randint(0, 9)}"
        return rng.choice([str(rng.randint(0, 12)), decimal, f"{rng.randint(1, 9)},000"])
    words = [rng.choice(rng.choice([WORDS, WORDS, CONTRACTIONS, ODD])) for _ in range(rng.randint(2, 4))]
    return rng.choice([" ", " ", " ", "-", "/", ", ", ". ", ".", "  "]).join(words)


def variant(rng, text):
    """The text written in another way, which the rules may take for the same."""
    changes = [
        text.upper(), text.title(), text + ".", text + "!", "the " + text, " " + text, text + "\n",
        text.replace(" ", "-"), text.replace(" ", "  "), text.replace("1", "one"), text.replace("'", ""),
        text + " ?", text,
    ]
    return rng.choice(changes)


def annotation(rng, number):
    """One question's annotation and prediction."""
    pool = [answer(rng) for _ in range(rng.randint(1, 4))]
    pool += [variant(rng, text) for text in pool]
    unanimous = rng.random() < 0.15
    count = 10 if rng.random() < 0.97 else rng.randint(1, 12)
    answers = [pool[0] if unanimous else rng.choice(pool) for _ in range(count)]
    kind = rng.random()
    entries = []
    for place, text in enumerate(answers):
        sure = rng.choice(["yes", "maybe", "no"])
        entry = {"answer": text, "answer_confidence": sure, "answer_id": place + 1}
        if kind < 0.1:
            del entry["answer_id"]
        if kind < 0.05:
            del entry["answer_confidence"]
        if 0.1 < kind < 0.13:
            entry["answer_id"] = rng.randint(1, 3)
        entries.append(entry)
    predicted = rng.choice(pool) if rng.random() < 0.8 else answer(rng)
    if rng.random() < 0.3:
        predicted = variant(rng, predicted)
    entry = {
        "question_id": 1000 + 7 * number,
        "image_id": number // 3,
        "question_type": rng.choice(["how many", "is the", "what color is the", "none of the above", "why"]),
        "answer_type": rng.choice(["yes/no", "number", "other"]),
        "answers": entries,
    }
    return entry, predicted


def normalized(evaluation, mmf, texts):
    rows = []
    for text in texts:
        cleaned = text.replace("\n", " ").replace("\t", " ").strip()
        official = evaluation.processDigitArticle(evaluation.processPunctuation(cleaned))
        rows.append([text, official, mmf.answer_processor(text)])
    return rows


def write(path, value):
    text = json.dumps(value, separators=(",", ":")).encode()
    path.write_bytes(gzip.compress(text, 9, mtime=0))
    return text


def main():
    out = begin({})
    missing = [name for name in ("VQA_CHECKOUT", "MMF_CHECKOUT") if name not in os.environ]
    if missing:
        sys.exit(f"error: set {' and '.join(missing)} to the checkouts that the head of this script names")
    rng = random.Random(23)
    pairs = [annotation(rng, number) for number in range(int(os.environ.get("VQA_QUESTIONS", "2000")))]
    annotations = [entry for entry, _ in pairs]
    results = [{"question_id": entry["question_id"], "answer": predicted} for entry, predicted in pairs]
    rng.shuffle(results)
    questions = [
        {key: entry[key] for key in ("question_id", "image_id")} | {"question": entry["question_type"] + "?"}
        for entry in annotations
    ]
    info = {key: "" for key in ("info", "task_type", "data_type", "data_subtype", "license")}
    files = {}
    for name, value in [
        ("annotations", {**info, "annotations": annotations}),
        ("questions", {**info, "questions": questions}),
        ("results", results),
    ]:
        files[name] = out / f".{name}.json"
        files[name].write_bytes(write(out / f"{name}.json.gz", value))

    evaluation = vqa_official.evaluate(os.environ["VQA_CHECKOUT"], **files, decimals=12)
    rounded = vqa_official.evaluate(os.environ["VQA_CHECKOUT"], **files, decimals=2)
    mmf = vqa_official.load_module(os.environ["MMF_CHECKOUT"], "mmf/utils/m4c_evaluators.py")
    mmf = mmf.TextVQAAccuracyEvaluator()
    predicted = {result["question_id"]: result["answer"] for result in results}
    rows = []
    for entry in annotations:
        number = entry["question_id"]
        texts = [given["answer"] for given in entry["answers"]]
        # MMF asserts that there are ten.
        of_mmf = None
        if len(texts) == 10:
            given = {"pred_answer": predicted[number], "gt_answers": texts}
            of_mmf = mmf.eval_pred_list([copy.deepcopy(given)])
        rows.append([number, evaluation.evalQA[number], of_mmf])
    texts = sorted({*ODD, *WORDS, *CONTRACTIONS, *(answer(rng) for _ in range(1000))})
    write(out / "scores.json.gz", {
        "questions": rows,
        "accuracy": rounded.accuracy,
        "normalized": normalized(evaluation, mmf, texts),
    })
    for path in files.values():
        path.unlink()


if __name__ == "__main__":
    main()
