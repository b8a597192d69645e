"""Goldens of the Parquet reader: small data sets written by Hugging Face `datasets` and pyarrow.

    python xtask/goldens/readers.py data/goldens/readers

`captioned/` is written by `Dataset.to_parquet`, with an image, a list of captions and a ClassLabel, in shards
named as on the hub; the first of train has two row groups. `questions.parquet` has plain binary images and no
metadata of `datasets`. The files of `odd/` have the defects of hand-written scripts: null images, captions
and labels, captions that are not UTF-8, paths instead of bytes. Everything is computed without randomness, so
that a second run writes the same bytes.
"""

import io

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import ClassLabel, Dataset, Features, Image, List, Value
from PIL import Image as Picture

from shared.script import begin

PINNED = {"datasets": "5.2.0", "pyarrow": "26.0.1", "pillow": "12.3.0"}

COLOURS = {"red": (220, 20, 30), "green": (20, 200, 60), "blue": (30, 60, 220)}


def png(number):
    """24 x 24 pixels of one colour, with a lighter corner that encodes the number."""
    picture = Picture.new("RGB", (24, 24), list(COLOURS.values())[number % 3])
    picture.paste((250, 250, 240), (0, 0, 2 + number, 3))
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def colour(number):
    return list(COLOURS)[number % 3]


def row(number):
    return {
        "image": {"bytes": png(number), "path": f"{number:06}.png"},
        "caption": [f"a {colour(number)} square", f"square number {number}"][: 1 + number % 2],
        "label": number % 3,
    }


def captioned(folder):
    features = Features(
        {"image": Image(), "caption": List(Value("string")), "label": ClassLabel(names=list(COLOURS))}
    )
    for split, shards in {"train": [range(0, 5), range(5, 8)], "validation": [range(8, 10)]}.items():
        for shard, numbers in enumerate(shards):
            name = f"{split}-{shard:05}-of-{len(shards):05}.parquet"
            Dataset.from_list([row(number) for number in numbers], features=features).to_parquet(
                folder / name, batch_size=3
            )


def questions(path):
    numbers = range(4)
    table = pa.table({
        "picture": pa.array([png(number) for number in numbers], pa.binary()),
        "title": [f"{colour(number)}" for number in numbers],
        "description": ["", None, "a square", "another"],
        "kind": [colour(number) for number in numbers],
    })
    pq.write_table(table, path, compression="zstd")


def odd(folder):
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = [
        {"bytes": png(0), "path": None},
        {"bytes": None, "path": "beside.png"},
        {"bytes": None, "path": None},
        None,
        {"bytes": png(1), "path": "x"},
        {"bytes": png(2), "path": "y"},
        {"bytes": png(3), "path": "z"},
    ]
    captions = [b"whole", b"beside", b"no image", b"no image either", None, b"\xff\xfe", b"whole again"]
    table = pa.table({
        "image": pa.array(images, image),
        "caption": pa.array(captions, pa.binary()).view(pa.string()),
        "number": list(range(len(images))),
        "label": [1.5] * len(images),
    })
    for codec in ["none", "gzip"]:
        pq.write_table(table, folder / f"{codec}.parquet", compression=codec, use_dictionary=codec == "none")


def main():
    out = begin(PINNED)
    for folder in ["captioned", "odd"]:
        (out / folder).mkdir()
    captioned(out / "captioned")
    questions(out / "questions.parquet")
    odd(out / "odd")


if __name__ == "__main__":
    main()
