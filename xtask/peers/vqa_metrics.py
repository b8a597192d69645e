"""VQA v2's official program on the files of the example `bench_vqa_metrics` of mm-vqa.

    vqa_metrics.py CHECKOUT FOLDER [SCORES]

Prints the number of questions, the seconds with reading, and the accuracy as JSON. CHECKOUT is one of
github.com/GT-Vision-Lab/VQA (commit a013f00). SCORES becomes the list of scores from 0 to 1.
"""

import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "goldens"))

from shared import vqa_official  # noqa: E402

checkout, folder = sys.argv[1:3]
files = {name: Path(folder) / f"{name}.json" for name in ("annotations", "questions", "results")}
start = time.perf_counter()
evaluation = vqa_official.evaluate(checkout, **files, decimals=12)
seconds = time.perf_counter() - start
if len(sys.argv) > 3:
    scores = [evaluation.evalQA[number] / 100 for number in evaluation.vqa.getQuesIds()]
    Path(sys.argv[3]).write_text(json.dumps(scores))
accuracy = round(evaluation.accuracy["overall"], 2)
print(json.dumps({"questions": len(evaluation.evalQA), "seconds": seconds, "accuracy": accuracy}))
