"""Embedding a folder of JPEGs in transformers, for `cargo xtask bench embed`.

    bench_embed.py photos PHOTOS OUT COUNT     makes COUNT JPEGs of 640x480 from the photographs in PHOTOS
    bench_embed.py embed MODEL IMAGES          embeds them with two decoding workers; prints one line of JSON

Made for torch 2.13, transformers 5.23.
"""

import json
import sys
import time
from pathlib import Path

from photographs import photographs

BATCH = 16
THREADS = 2
WORKERS = 2


def photos(source, out, count):
    out.mkdir(parents=True, exist_ok=True)
    for index, jpeg in enumerate(photographs(source, count, [(640, 480)])):
        (out / f"{index:05}.jpg").write_bytes(jpeg)


def embed(model_dir, folder):
    import torch
    from PIL import Image
    from transformers import CLIPModel, CLIPProcessor

    torch.set_num_threads(THREADS)
    model = CLIPModel.from_pretrained(model_dir).eval()
    processor = CLIPProcessor.from_pretrained(model_dir).image_processor
    paths = sorted(folder.glob("*.jpg"))

    class Images(torch.utils.data.Dataset):
        def __len__(self):
            return len(paths)

        def __getitem__(self, index):
            image = Image.open(paths[index]).convert("RGB")
            return processor(images=image, return_tensors="pt").pixel_values[0]

    begun = time.perf_counter()
    loader = torch.utils.data.DataLoader(Images(), batch_size=BATCH, num_workers=WORKERS)
    rows = []
    with torch.inference_mode():
        for pixel_values in loader:
            rows.append(model.get_image_features(pixel_values=pixel_values).pooler_output)
    rows = torch.nn.functional.normalize(torch.cat(rows), dim=-1)
    print(json.dumps({"rows": len(rows), "seconds": time.perf_counter() - begun}))


def main():
    work, *arguments = sys.argv[1:]
    if work == "photos":
        photos(Path(arguments[0]), Path(arguments[1]), int(arguments[2]))
    else:
        embed(arguments[0], Path(arguments[1]))


if __name__ == "__main__":
    main()
