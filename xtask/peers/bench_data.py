"""open_clip's training transforms in a webdataset pipeline, for `cargo xtask bench data`.

    bench_data.py make PHOTOS OUT COUNT     COUNT JPEGs of about 500x375 with captions, in shards of 500
    bench_data.py load SHARDS WORKERS       one pass over the shards; prints samples, seconds, memory as JSON

Made for torch 2.13, open_clip_torch 3.3, webdataset 1.0.
"""

import json
import sys
import time
from pathlib import Path

from memory import peak_mb
from photographs import photographs

BATCH_SIZE = 64
SHARD = 500


def make(photos, out, count):
    import webdataset

    out.mkdir(parents=True, exist_ok=True)
    with webdataset.ShardWriter(str(out / "%06d.tar"), maxcount=SHARD, verbose=0) as writer:
        for number, jpeg in enumerate(
            photographs(photos, count, [(500, 375), (500, 375), (500, 333), (375, 500)])
        ):
            writer.write({"__key__": f"{number:09}", "jpg": jpeg, "txt": f"photograph number {number}"})


def load(shards, workers):
    import multiprocessing

    import open_clip
    import webdataset
    from torch.utils.data import DataLoader

    mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    transform = open_clip.image_transform((224, 224), is_train=True, mean=mean, std=std)
    dataset = webdataset.DataPipeline(
        webdataset.SimpleShardList(sorted(str(path) for path in shards.glob("*.tar"))),
        webdataset.split_by_worker,
        webdataset.tarfile_to_samples(),
        webdataset.shuffle(1000),
        webdataset.decode("pilrgb"),
        webdataset.rename(image="jpg", text="txt"),
        webdataset.map_dict(image=transform),
        webdataset.to_tuple("image", "text"),
        webdataset.batched(BATCH_SIZE, partial=False),
    )
    loader = DataLoader(dataset, batch_size=None, num_workers=workers, persistent_workers=True)
    samples, first, last, memory = 0, None, None, 0.0
    for images, _ in loader:
        last = time.perf_counter()
        if first is None:
            first = last
        else:
            samples += len(images)
        children = multiprocessing.active_children()
        memory = max(memory, peak_mb("self") + sum(peak_mb(str(child.pid)) for child in children))
    print(json.dumps({"samples": samples, "seconds": last - first, "peak_mb": memory}))


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
    else:
        load(Path(sys.argv[2]), int(sys.argv[3]))
