"""Goldens of METEOR: captions, and the scores of the Java program that pycocoevalcap runs.

    python xtask/goldens/caption-meteor.py data/goldens/caption-meteor

Needs `java` on the PATH and pycocoevalcap==1.2. The captions are written for this purpose or made of their
words, some with punctuation that the normalizer of METEOR splits. `meteor.json` has them with the scores by
modules: `exact stem`, `exact stem synonym`, and all four. It has the function words of METEOR's list that are
among the words of the captions.
"""

import importlib.util
import json
import random
import subprocess
import zipfile
from pathlib import Path

from shared.script import begin

PINNED = {"pycocoevalcap": "1.2"}

MODULES = ["exact stem", "exact stem synonym", "exact stem synonym paraphrase"]

# The first caption of each line is scored against the others.
CAPTIONS = [
    ["a man rides a horse on the beach", "a person riding a horse along the shore", "man on horse"],
    ["two dogs are running in the grass", "a pair of dogs run across a field", "two running dogs"],
    ["a woman is cutting vegetables", "the lady slices some vegetables with a knife"],
    ["a plane flying in the sky", "an airplane is flying through the blue sky", "a jet in the air"],
    ["a large red bus on a street", "a big red bus drives down the road", "the bus is red and large"],
    ["the cat sat on the mat", "on the mat sat the cat", "the mat sat on the cat"],
    ["a group of people standing around a table", "several people stand next to a table"],
    ["a kitchen with a stove and a refrigerator", "a stove and a fridge in the kitchen"],
    ["a child is eating a piece of cake", "the kid eats some cake", "a little girl eating dessert"],
    ["a bathroom with a toilet and a sink", "a picture of a restroom with a white sink"],
    ["geese swimming in a lake", "a goose swims on the water", "several birds are in the pond"],
    ["a sofa in front of a television", "a couch near the tv", "there is a couch in the room"],
    ["a dog", "a dog"],
    ["the dog", "a cat"],
    ["a a a a dog dog", "a dog and a dog", "dog a dog a dog a"],
    ["", "a dog"],
    ["a well-known man can't see the U.S. flag", "the man ca n't see the flag of the u.s. but is well known"],
    ["the 1970's look ... of a dog 's house , red", "a dog's house -- with the look of 1970's"],
    ["5,000 people at 5 a.m. in a city", "many people in the city at 5 am", "5000 people"],
    ["a man in a suit and tie holding a cell phone", "a man wearing a suit talks on his mobile phone"],
]


def captions():
    """The captions above, and longer ones of shuffled words, whose alignments have many equals."""
    rng = random.Random(7)
    words = [caption.split() for group in CAPTIONS[:15] for caption in group]
    made = []
    for _ in range(60):
        pool = sum(rng.sample(words, 3), [])
        made.append([
            " ".join(rng.choices(pool, k=rng.randint(1, 24))) for _ in range(rng.randint(2, 5))
        ])
    return CAPTIONS + made


def run(folder, modules, groups):
    """Scores of the corpus and of each group."""
    options = ["-", "-", "-stdio", "-l", "en", "-norm", "-m", modules]
    command = ["java", "-jar", "-Xmx2G", "meteor-1.5.jar", *options]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=folder, stdin=pipe, stdout=pipe, text=True) as java:
        def send(*parts):
            java.stdin.write(" ||| ".join(parts) + "\n")
            java.stdin.flush()

        stats = []
        for hypothesis, *references in groups:
            send("SCORE", *references, hypothesis)
            stats.append(java.stdout.readline().strip())
        send("EVAL", *stats)
        segments = [float(java.stdout.readline()) for _ in groups]
        corpus = float(java.stdout.readline())
        java.stdin.close()
    return {"corpus": corpus, "segments": segments}


def main():
    out = begin(PINNED)
    package = Path(importlib.util.find_spec("pycocoevalcap").submodule_search_locations[0])
    folder = package / "meteor"
    groups = captions()
    with zipfile.ZipFile(folder / "meteor-1.5.jar") as jar:
        listed = set(jar.read("function/english.words").decode().split())
    texts = " ".join(caption.lower() for group in groups for caption in group)
    used = set(texts.replace("'", " ' ").split()) | {"'s", "'t", "-", ",", "."}
    golden = {
        "function_words": sorted(listed & used),
        "hypotheses": [group[0] for group in groups],
        "references": [group[1:] for group in groups],
        "scores": {modules: run(folder, modules, groups) for modules in MODULES},
    }
    (out / "meteor.json").write_text(json.dumps(golden, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
