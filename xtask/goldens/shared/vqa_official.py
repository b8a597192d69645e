"""The official evaluation of VQA v2, from a checkout of github.com/GT-Vision-Lab/VQA (commit a013f00).

The program is for Python 2. Its `print` statements and its mixture of tabs and spaces are translated; every
other line runs as it is.
"""

import contextlib
import io
import re
import types
import warnings
from pathlib import Path


def load_module(checkout, path):
    source = (Path(checkout) / path).read_text(encoding="utf-8").expandtabs(8)
    source = re.sub(r"^( *)print (.+)$", r"\1print(\2)", source, flags=re.MULTILINE)
    module = types.ModuleType(Path(path).stem)
    with warnings.catch_warnings():
        # "\d" outside a raw string.
        warnings.simplefilter("ignore")
        exec(compile(source, path, "exec"), module.__dict__)
    return module


def evaluate(checkout, annotations, questions, results, decimals):
    """The official evaluator after its run. It changes its answers: evaluate each set with a new one."""
    files = load_module(checkout, "PythonHelperTools/vqaTools/vqa.py")
    scores = load_module(checkout, "PythonEvaluationTools/vqaEvaluation/vqaEval.py")
    with contextlib.redirect_stdout(io.StringIO()):
        truth = files.VQA(str(annotations), str(questions))
        evaluation = scores.VQAEval(truth, truth.loadRes(str(results), str(questions)), n=decimals)
        evaluation.evaluate()
    return evaluation
