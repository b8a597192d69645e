"""Any number of JPEGs for benchmarks, made from a few photographs."""

import io
import random


def photographs(source, count, sizes):
    """The bytes of `count` JPEGs with sizes drawn from `sizes`: random crops, enlarged, with sensor noise.

    At quality 90 they are about as large as a camera's."""
    import numpy
    from PIL import Image

    pictures = [Image.open(path).convert("RGB") for path in sorted(source.glob("*.png"))]
    rng, noise = random.Random(0), numpy.random.default_rng(0)
    for index in range(count):
        picture, size = pictures[index % len(pictures)], rng.choice(sizes)
        share = rng.uniform(0.6, 1.0)
        width, height = picture.width * share, picture.height * share
        left, top = rng.uniform(0, picture.width - width), rng.uniform(0, picture.height - height)
        box = (left, top, left + width, top + height)
        pixels = numpy.asarray(picture.resize(size, Image.Resampling.BICUBIC, box=box), dtype=numpy.float32)
        pixels += noise.normal(0, 4, pixels.shape)
        file = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(numpy.uint8)).save(file, "JPEG", quality=90)
        yield file.getvalue()
