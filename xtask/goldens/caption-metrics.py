"""Goldens of caption metrics: tokens and scores of pycocoevalcap, which runs Java for the tokens.

    python xtask/goldens/caption-metrics.py data/goldens/caption-metrics

- `tokens.json`: captions, one a line of one file, each with its tokens.
- `corpus.json`: images with a hypothesis and references, and for each its scores; and those of the whole set.

Needs `java` on the PATH. All captions are made here.
"""

import json
import os
import random

from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

from shared.script import begin

PINNED = {"pycocoevalcap": "1.2", "numpy": "2.4.6"}

ODD_CAPTIONS = [
    "", " ", ".", "!", "...", "a", "A", "I", "A.", "?!", "!!!", "- -- --- ---- -----", "''", "``", "\"",
    "'",
    # Contractions and apostrophes.
    "can't won't don't didn't cannot CAN'T n't", "it's he'll they've I'm we'd you're", "dogs' dog's dogs's",
    "gonna gotta wanna gimme lemme", "'tis 'twas 'Tis", "o'clock O'Malley d'oeuvre l'eau Rock'n'Roll",
    "rock 'n' roll", "y'all ma'am c'mon ev'ry nat'l li'l e'er", "the '90s and '80s of '99 and 1980's",
    "'em 'til 'till 'cause", "Dunkin' somethin' ol' doin'", "Cap'n c'est cont'd", "it’s don’t ‘x’ “y”",
    "men's and women's restrooms'", "'quoted' 'a b' 'tree", "a 'b 'c d'",
    # Abbreviations and acronyms.
    "St. Louis vs. Chicago", "Mr. and Mrs. Smith", "Dr. No. 5", "see fig. 3 and no. 7", "No. No.", "5 a.m.",
    "at 5 p.m. sharp", "U.S. flag", "the U.S.", "The U.S. The flag", "vitamin C.", "A letter B.",
    "plan B. It is",
    "Ave. and Blvd. at Main St.", "Jan. Feb. March", "Ltd. Inc. Co.", "Mass. and mass. ill. Ill.",
    "Ph.D. and Ed.D.",
    "etc.", "cats, dogs, etc. and more", "e.g. this, i.e. that", "approx. 5 ft. tall", "J.R.R. Tolkien",
    "pty. ltd.", "Mass.o'clock", "Inc.5", "EU-U.S. talks", "a-b.c.d. x-U.S.-y",
    # Numbers.
    "5 5.5 .5 5. 1,000 1,000.50 5:30 12:45pm 5:30pm", "1/2 3/4 3 1/2 10-1/2 1/100", "11/12/2013 2-3-13",
    "-5 +5 5% #1",
    "$5 $5.00 US$5 £5 €5 ¥5 5¢", "555-1234 (212) 555-1234 1-800-555-1234", "½ ¼ ¾ ⅓ 2½",
    "1st 2nd 3rd 10k 3D",
    "2x4 4-way 3-year-old 10-foot-tall", "1990-2000 6-8:30", "x² CO₂ 10³", "+1 555 123 4567", "12345/2",
    # Compounds and slashes.
    "black-and-white red-brick t-shirt", "and/or w/ w/o his/her a/b/c/d", "well - made",
    "pre- and post-war",
    "-foo foo- foo-bar. foo-bar, foo., bar", "mother-in-law's self-made",
    "AT&T S&P-500 B&W black&white A+B",
    # Brackets, quotes and signs.
    "(a) [b] {c} <d> < e > <f g>", "a \"big\" dog", "\"What?\" he said.", "a (small) dog (big)", "{} [] ()",
    ":) :-) ;) :( =) :D <3 ^_^", "a & b # c @ d * e ** f", "~ ^ | \\ / + = == %", "http://a.b/c?d=e&f.",
    "www.example.com example.org a1.com x@y.com @name #tag #a.b", "file.jpg img_1.jpg 99.jpg 9.c 9.MP3",
    "<br/> <b>bold</b> &amp; &lt;b&gt; &quot;q&quot; &nbsp; &eacute; &#39;",
    "end.Start yes!no what?ever a.b",
    "one... two.... three..... . . . four", "c++ c# f#", "a_b __ c", "\\* \\*\\*", "-LRB- -RRB- -lrb-",
    "a;b a:b a,b a!b a?b", "dog.", "dog .", "dog . ", "  dog  ", "dog\tcat", "dog\ncat",
    # Outside ASCII.
    "café naïve crème brûlée São Paulo", "你好 世界。", "日本語、猫", "кошка на крыше", "cat 😀 dog", "♥ ★ → ∞ ≤",
    "a–b a — b",
    "soft\u00adhyphen zero\u200bwidth no\u00a0break", "１２３ ＡＢＣ ！", "ﬁsh Ⅷ ① ٣", "e\u0301 n\u0303",
    "ſ K İ ı",
    "cats‚ „dogs‟ «x» ‹y› ´z´", "₹5 ₪5 ₤5 ฿5", "™ © ® ° ± × ÷ ¶ § • †",
]
NOUNS = (
    "man woman boy girl dog cat horse bus train kitchen table pizza street sign clock tower beach surfboard "
    "skateboard teddy bear fire hydrant traffic light cell phone t-shirt 3-year-old giraffe zebra elephant"
).split()
VERBS = "sits stands runs is holding are eating rides looks walking sitting parked flying".split()
OTHERS = (
    "a a a the the his its two three 2 some red white black-and-white large small old next to on in front of "
    "with near and and/or under over by at 5:30 o'clock man's isn't can't 1/2 3 1/2 U.S. St. \"Stop\" (blue)"
).split()
ENDS = [".", ".", ".", "", "", "!", " .", "...", "?", ",", ";", ".\n"]


def sentence(rng):
    words = [rng.choice(rng.choice([NOUNS, VERBS, OTHERS, OTHERS])) for _ in range(rng.randint(1, 14))]
    words[0] = rng.choice([str.title, str.title, str.lower, str.upper])(words[0])
    return rng.choice([" ", " ", " ", ", ", "  "]).join(words) + rng.choice(ENDS)


def captions():
    """The odd captions, and sentences of real captions' words and marks."""
    rng = random.Random(3)
    return ODD_CAPTIONS + [sentence(rng) for _ in range(500 - len(ODD_CAPTIONS))]


def mixed(rng, scene):
    """The begin of one sentence and the end of another."""
    return " ".join(rng.choice(scene).split()[: rng.randint(1, 9)] + rng.choice(scene).split()[-4:])


def corpus():
    """Images whose captions are about one scene, some of them odd."""
    rng = random.Random(4)
    images = {}
    for number in range(120):
        scene = [sentence(rng) for _ in range(3)]
        references = [mixed(rng, scene) for _ in range(rng.choice([1, 2, 4, 5, 5, 5]))]
        hypothesis = rng.choice(references) if rng.random() < 0.25 else mixed(rng, scene)
        images[str(1000 + 7 * number)] = (hypothesis, references)
    for image_id, hypothesis, references in [
        ("empty hypothesis", "", ["a dog", "a cat"]),
        ("empty reference", "a dog", ["", "a dog on a mat"]),
        ("all empty", "", ["", ""]),
        ("only marks", "?!... !!", [".", "a dog"]),
        ("repeated", "dog dog dog dog dog", ["a dog sits", "the dog and the dog"]),
        ("long", "a dog " * 40, ["a dog sits on a mat"]),
        ("fraction", "3 1/2 men on 10 1/2 mats", ["3 1/2 men", "3 men on 10 mats"]),
        ("one word", "dog", ["dog"]),
    ]:
        images[image_id] = (hypothesis, references)
    return images


def tokenize(lists):
    return PTBTokenizer().tokenize(
        {key: [{"caption": caption} for caption in captions] for key, captions in lists.items()}
    )


def write(path, value):
    path.write_text(json.dumps(value, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")


def main():
    out = begin(PINNED)
    # Older versions of Java write in the locale's encoding.
    os.environ["JAVA_TOOL_OPTIONS"] = "-Dfile.encoding=UTF-8 -Dsun.stdout.encoding=UTF-8"
    lines = captions()
    tokens = tokenize({number: [caption] for number, caption in enumerate(lines)})
    write(out / "tokens.json", [[caption, tokens[number][0]] for number, caption in enumerate(lines)])

    images = corpus()
    references = tokenize({key: references for key, (_, references) in images.items()})
    hypotheses = tokenize({key: [hypothesis] for key, (hypothesis, _) in images.items()})
    bleu, bleu_of_images = Bleu(4).compute_score(references, hypotheses, verbose=0)
    rouge, rouge_of_images = Rouge().compute_score(references, hypotheses)
    cider, cider_of_images = Cider().compute_score(references, hypotheses)
    rows = []
    for number, (key, (hypothesis, captions_of_image)) in enumerate(images.items()):
        scores = [of_order[number] for of_order in bleu_of_images]
        scores += [float(rouge_of_images[number]), float(cider_of_images[number])]
        rows.append(
            {"image_id": key, "hypothesis": hypothesis, "references": captions_of_image, "scores": scores}
        )
    names = ["bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider_d"]
    scores = [*bleu, float(rouge), float(cider)]
    write(out / "corpus.json", {"names": names, "scores": scores, "images": rows})


if __name__ == "__main__":
    main()
