"""pycocoevalcap on the files of `cargo xtask bench caption-metrics`.

    caption_metrics.py REFERENCES HYPOTHESES     prints images, seconds without reading, and scores as JSON

Made for pycocoevalcap 1.2 and numpy 2; needs `java` on the PATH.
"""

import json
import sys
import time
from pathlib import Path

from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer


def read(path):
    images = json.loads(Path(path).read_text(encoding="utf-8"))
    return {image: [{"caption": caption} for caption in captions] for image, captions in images.items()}


references, hypotheses = (read(path) for path in sys.argv[1:])
start = time.perf_counter()
references = PTBTokenizer().tokenize(references)
hypotheses = PTBTokenizer().tokenize(hypotheses)
bleu, _ = Bleu(4).compute_score(references, hypotheses, verbose=0)
rouge, _ = Rouge().compute_score(references, hypotheses)
cider, _ = Cider().compute_score(references, hypotheses)
seconds = time.perf_counter() - start
scores = [float(score) for score in (*bleu, rouge, cider)]
print(json.dumps({"images": len(references), "seconds": seconds, "scores": scores}))
