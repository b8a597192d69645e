"""MCAN-small in plain PyTorch, for `cargo xtask bench vqa`.

    mcan.py [--precision f32|bf16] [--regions N] [--iterations N] [--warmup N] [--gflop-per-iteration N]

Training steps of the model of xtask/goldens/shared/co_attention.py with fused AdamW, on features of image
regions in memory. Prints one line of JSON, as crates/mm-vqa/examples/bench_mcan.rs does; the matrix products
of an iteration are the same and passed on.

Made for torch 2.13.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from memory import peak_mb

sys.path.insert(0, str(Path(__file__).parents[1] / "goldens"))
from shared.co_attention import Mcan, Model, Questions  # noqa: E402

BATCH, TOKENS, WORDS, REGION_WIDTH, CLASSES, THREADS = 64, 14, 18_000, 2048, 3129, 2


def mcan_small():
    questions = Questions(WORDS, 300, 512)
    fusion = Mcan(questions, 512, 8, 2048, 6, 512, 1, 1024, CLASSES, 0.1)
    return Model(REGION_WIDTH, 512, None, questions, fusion)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--regions", type=int, default=100)
    parser.add_argument("--iterations", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--gflop-per-iteration", type=float, default=0.0)
    args = parser.parse_args()
    torch.set_num_threads(THREADS)
    torch.manual_seed(1)

    model = mcan_small().train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-4, betas=(0.9, 0.98), eps=1e-9, weight_decay=0.0, fused=True
    )
    regions = torch.randn(BATCH, args.regions, REGION_WIDTH)
    input_ids = torch.randint(WORDS, (BATCH, TOKENS))
    targets = (torch.rand(BATCH, CLASSES) > 0.999).float()

    seconds = []
    for iteration in range(args.warmup + args.iterations):
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=args.precision == "bf16"):
            logits = model(regions, input_ids)
            loss = F.binary_cross_entropy_with_logits(logits.float(), targets) * CLASSES
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        assert loss.isfinite()
        if iteration >= args.warmup:
            seconds.append(time.perf_counter() - start)
    print(json.dumps({
        "work": "train",
        "items_per_iteration": BATCH,
        "gflop_per_iteration": args.gflop_per_iteration,
        "peak_mb": peak_mb(),
        "precision": args.precision,
        "regions": args.regions,
        "seconds": seconds,
    }))


if __name__ == "__main__":
    main()
