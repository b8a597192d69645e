"""Goldens of mm-image: photographs, and Pillow's results on them.

    python xtask/goldens/images.py data/goldens/images

Needs pillow==12.3.0, scikit-image==0.26.0 and scikit-learn==1.9.1. The last two wheels contain the
photographs (see the README that this script writes). Everything else is computed without randomness, so that
a second run writes the same bytes.
"""

import shutil
from pathlib import Path

import numpy as np
import skimage
import sklearn
from PIL import Image, ImageCms, ImageEnhance, ImageOps

from shared.script import begin

PINNED = {"pillow": "12.3.0", "scikit-image": "0.26.0", "scikit-learn": "1.9.1"}

SKIMAGE = Path(skimage.__file__).parent / "data"
SKLEARN = Path(sklearn.__file__).parent / "datasets" / "images"

# name: (file, crop box or None, stored size of the photograph, short side of the golden)
PHOTOS = {
    "astronaut": (SKIMAGE / "astronaut.png", None, (200, 200), 64),
    "astronaut-face": (SKIMAGE / "astronaut.png", (160, 20, 320, 160), (160, 140), 224),
    "brick": (SKIMAGE / "brick.png", None, (150, 150), 96),
    "camera": (SKIMAGE / "camera.png", None, (256, 256), 64),
    "cell": (SKIMAGE / "cell.png", None, (220, 264), 96),
    "chelsea": (SKIMAGE / "chelsea.png", None, (226, 150), 64),
    "chelsea-eye": (SKIMAGE / "chelsea.png", (140, 60, 290, 160), (150, 100), 99),
    "china": (SKLEARN / "china.jpg", None, (240, 160), 112),
    "china-roof": (SKLEARN / "china.jpg", (200, 100, 420, 300), (110, 100), 64),
    "coffee": (SKIMAGE / "coffee.png", None, (225, 150), 96),
    "coffee-spoon": (SKIMAGE / "coffee.png", (360, 60, 600, 300), (180, 180), 64),
    "coins": (SKIMAGE / "coins.png", None, (192, 151), 64),
    "flower": (SKLEARN / "flower.jpg", None, (240, 160), 64),
    "flower-heart": (SKLEARN / "flower.jpg", (240, 120, 440, 300), (133, 120), 97),
    "grass": (SKIMAGE / "grass.png", None, (120, 120), 33),
    "gravel": (SKIMAGE / "gravel.png", (0, 100, 512, 260), (160, 50), 48),
    "hubble": (SKIMAGE / "hubble_deep_field.jpg", None, (125, 109), 64),
    "retina": (SKIMAGE / "retina.jpg", None, (150, 150), 64),
    "rocket": (SKIMAGE / "rocket.jpg", None, (213, 142), 32),
    "rocket-flame": (SKIMAGE / "rocket.jpg", (250, 200, 400, 427), (100, 151), 100),
}


def photo(name):
    file, box, size, _ = PHOTOS[name]
    image = Image.open(file).convert("RGB")
    return (image.crop(box) if box else image).resize(size, Image.LANCZOS)


def middle(image, size):
    """torchvision's CenterCrop of an image that is large enough."""
    left, top = int(round((image.width - size) / 2.0)), int(round((image.height - size) / 2.0))
    return image.crop((left, top, left + size, top + size))


def resize_short_side(image, size):
    """torchvision's Resize(size, BICUBIC)."""
    width, height = image.size
    short, long = min(width, height), max(width, height)
    long = int(size * long / short)
    return image.resize((size, long) if width <= height else (long, size), Image.BICUBIC)


def save_png(image, path):
    image.save(path, optimize=True)


def photos(out):
    for folder in ("photos", "resized"):
        (out / folder).mkdir()
    for name, (_, _, _, size) in PHOTOS.items():
        image = photo(name)
        save_png(image, out / "photos" / f"{name}.png")
        save_png(middle(resize_short_side(image, size), size), out / "resized" / f"{name}-{size}.png")


def over(image, background):
    rgba = image.convert("RGBA")
    ground = Image.new("RGBA", rgba.size, (*background, 255))
    return Image.alpha_composite(ground, rgba).convert("RGB")


def formats(out):
    """Files of every format, and their RGB over the background (255, 128, 0)."""
    folder = out / "formats"
    folder.mkdir()
    base = photo("chelsea").crop((60, 20, 156, 84))
    width, height = base.size
    alpha = Image.fromarray(np.tile(np.linspace(0, 255, width).astype(np.uint8), (height, 1)))
    rgba = base.copy()
    rgba.putalpha(alpha)
    grey = base.convert("L")
    levels = np.asarray(grey).astype(np.uint16) * 257
    exif = Image.Exif()

    def write(name, image, **options):
        image.save(folder / name, **options)

    write("rgb.png", base)
    write("grey.png", grey)
    write("grey-1bit.png", grey.convert("1"))
    write("grey-16bit.png", Image.fromarray(levels))
    write("grey-alpha.png", Image.merge("LA", (grey, alpha)))
    write("palette.png", base.quantize(32, method=Image.MEDIANCUT, dither=Image.NONE))
    palette = base.quantize(31, method=Image.MEDIANCUT, dither=Image.NONE)
    write("palette-transparent.png", palette, transparency=3)
    write("rgba.png", rgba)
    for code in range(2, 9):
        exif[0x0112] = code
        write(f"exif-{code}.png", base.crop((0, 0, 48, 32)), exif=exif)
    exif[0x0112] = 6
    write("rgb.jpg", base, quality=90, subsampling=0)
    write("rgb-420.jpg", base, quality=90, subsampling=2)
    write("progressive.jpg", base, quality=90, progressive=True)
    write("grey.jpg", grey, quality=90)
    write("cmyk.jpg", base.convert("CMYK"), quality=90)
    write("exif-6.jpg", base, quality=90, subsampling=0, exif=exif)
    write("lossless.webp", base, lossless=True)
    write("lossless-rgba.webp", rgba, lossless=True, exact=True)
    write("lossy.webp", base, quality=90)
    write("exif-6.webp", base, lossless=True, exif=exif)
    write("animated.gif", palette, save_all=True, append_images=[grey.convert("P")])
    write("transparent.gif", palette, transparency=3)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    # Pillow keeps the profile and does not apply it.
    write("profile.jpg", base, quality=90, subsampling=0, icc_profile=profile)
    small, small_rgba, small_palette = (image.crop((0, 0, 48, 32)) for image in (base, rgba, palette))
    write("rgb.bmp", small)
    write("rgba.bmp", small_rgba)  # Pillow does not read the fourth byte
    write("palette.bmp", small_palette)
    write("grey-1bit.bmp", grey.convert("1"))
    write("rgb.tif", small)
    write("lzw.tif", small, compression="tiff_lzw")
    write("deflate-rgba.tif", small_rgba, compression="tiff_adobe_deflate")
    write("jpeg.tif", small, compression="jpeg", quality=90)
    write("group4.tif", grey.convert("1"), compression="group4")
    write("grey-16bit.tif", Image.fromarray(levels).crop((0, 0, 48, 32)))
    write("cmyk.tif", small.convert("CMYK"))
    write("exif-6.tif", small, exif=exif)
    write("rgb.ppm", small)
    write("grey.pgm", grey.crop((0, 0, 48, 32)))
    write("grey-1bit.pbm", grey.convert("1"))

    expected = out / "formats-rgb"
    expected.mkdir()
    for file in sorted(folder.iterdir()):
        image = ImageOps.exif_transpose(Image.open(file))
        if file.stem == "grey-16bit":
            image = grey.crop((0, 0, *image.size))  # Pillow's own conversion of 16-bit grey clips at 255
        elif image.mode in ("RGBA", "LA") or "transparency" in image.info:
            image = over(image, (255, 128, 0))
        save_png(image.convert("RGB"), expected / f"{file.name}.png")


def colours(out):
    """Pillow's enhancers, which torchvision's ColorJitter uses."""
    folder = out / "colours"
    folder.mkdir()
    base = photo("coffee").crop((60, 40, 124, 88))
    save_png(base, folder / "base.png")
    for name, enhancer in (("brightness", ImageEnhance.Brightness), ("contrast", ImageEnhance.Contrast),
                           ("saturation", ImageEnhance.Color)):
        for factor in (0.6, 1.4):
            save_png(enhancer(base).enhance(factor), folder / f"{name}-{factor}.png")
    for turn in (-0.25, 0.25):
        hue, saturation, value = base.convert("HSV").split()
        hue = Image.fromarray(np.asarray(hue) + np.uint8(int(turn * 255) % 256))
        save_png(Image.merge("HSV", (hue, saturation, value)).convert("RGB"), folder / f"hue-{turn}.png")


def reduced(out):
    """JPEGs decoded with and without Pillow's draft mode, both resized from the box of the draft."""
    folder = out / "reduced"
    folder.mkdir()
    image = Image.open(PHOTOS["coffee"][0]).convert("RGB").crop((200, 100, 403, 251))
    for name, options in {
        "444": {"subsampling": 0},
        "422": {"subsampling": 1},
        "420": {"subsampling": 2},
        "420-restart": {"subsampling": 2, "restart_marker_blocks": 3},
        "420-progressive": {"subsampling": 2, "progressive": True},
        "444-progressive-restart": {"subsampling": 0, "progressive": True, "restart_marker_rows": 1},
        "grey": {},
    }.items():
        file = folder / f"{name}.jpg"
        (image.convert("L") if name == "grey" else image).save(file, quality=92, **options)
        for divisor in (2, 4, 8):
            size = (image.width // (2 * divisor), image.height // (2 * divisor))
            draft = Image.open(file)
            draft.draft(None, (image.width // divisor, image.height // divisor))
            box = (0, 0, image.width / divisor, image.height / divisor)
            for kind, whole in (("draft", draft.resize(size, Image.BICUBIC, box)),
                                ("whole", Image.open(file).resize(size, Image.BICUBIC))):
                save_png(whole.convert("RGB"), folder / f"{name}-{divisor}-{kind}.png")


README = """# Photographs, and Pillow's results on them

Written by `xtask/goldens/images.py` with {versions}; read by
`crates/mm-image/tests/pillow.rs`.

- `photos/`: 20 photographs, scaled down. `resized/NAME-SIZE.png`: the short side resized to SIZE (bicubic),
  then the centre SIZE x SIZE.
- `formats/`: a picture in each file format. `formats-rgb/`: its RGB, with the EXIF orientation applied, over
  the background (255, 128, 0).
- `reduced/`: JPEGs, and the resized images with Pillow's draft mode at 1/2, 1/4 and 1/8, and without.
- `colours/`: Pillow's enhancers by a factor, and a shift of the hue.

The photographs come with two Python packages and are scaled down or cropped here:

| photograph | package | author, licence |
|---|---|---|
| astronaut, hubble | scikit-image | NASA, public domain |
| brick, grass, gravel | scikit-image | CC0Textures and linolafett, CC0 |
| camera | scikit-image | Lav Varshney, CC0 |
| cell | scikit-image | Paul Müller and others, CC0 |
| chelsea | scikit-image | Stefan van der Walt, CC0 |
| coffee | scikit-image | Rachel Michetti, CC0 |
| coins | scikit-image | Brooklyn Museum, no known restrictions |
| retina | scikit-image | Mikael Häggström, CC0 |
| rocket | scikit-image | SpaceX, public domain |
| china | scikit-learn | \
[danielbuechele](https://www.flickr.com/photos/danielbuechele/6061409035/), CC-BY 2.0 |
| flower | scikit-learn | [vultilion](https://www.flickr.com/photos/vultilion/6056698931/), CC-BY 2.0 |
"""


def main():
    out = begin(PINNED)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    photos(out)
    formats(out)
    reduced(out)
    colours(out)
    versions = ", ".join(f"{name} {wanted}" for name, wanted in PINNED.items())
    (out / "README.md").write_text(README.format(versions=versions))
    print(f"{sum(f.stat().st_size for f in out.rglob('*') if f.is_file()) / 1e6:.2f} MB in {out}")


if __name__ == "__main__":
    main()
