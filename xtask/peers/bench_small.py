"""The demo's model in transformers, for `cargo xtask bench small`.

    bench_small.py transformers train [--precision f32|bf16] [--iterations N] [--warmup N] --captions LENGTHS

CLIPModel of the same sizes at batch 128 with return_loss, clipped gradients and fused AdamW, on pixels and
tokens in memory: nothing is read, decoded or augmented. Step k has texts of the k-th length in the file
LENGTHS, the longest caption of mm's batch. Prints one line of JSON, as crates/mm-clip/examples/bench_small.rs
does.

Made for torch 2.13, transformers 5.23.
"""

import argparse
import json
import time

import torch
from transformers import CLIPConfig, CLIPModel

from memory import peak_mb

BATCH, THREADS, VOCABULARY = 128, 2, 8192
WIDTH, IMAGE_TOKENS, PATCH_VALUES = 192, 17, 3 * 16 * 16
IMAGE_LAYERS, TEXT_LAYERS = 4, 2


def tower_gflop(tokens, layers):
    """Multiply-adds of a transformer tower for one sample, two operations each."""
    matrices = 2 * 12 * WIDTH * WIDTH * tokens
    attention = 2 * 2 * tokens * tokens * WIDTH
    return ((matrices + attention) * layers + 2 * WIDTH * WIDTH) / 1e9


def step_gflop(tokens):
    patches = 2 * (IMAGE_TOKENS - 1) * PATCH_VALUES * WIDTH / 1e9
    return 3 * BATCH * (tower_gflop(IMAGE_TOKENS, IMAGE_LAYERS) + patches + tower_gflop(tokens, TEXT_LAYERS))


def small_model():
    tower = {
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_attention_heads": 3,
        "projection_dim": WIDTH,
    }
    text = {"vocab_size": VOCABULARY, "max_position_embeddings": 32, "num_hidden_layers": TEXT_LAYERS,
            "bos_token_id": VOCABULARY - 2, "eos_token_id": VOCABULARY - 1, "pad_token_id": VOCABULARY - 1}
    vision = {"image_size": 64, "patch_size": 16, "num_hidden_layers": IMAGE_LAYERS}
    return CLIPModel(CLIPConfig(text_config=tower | text, vision_config=tower | vision, projection_dim=WIDTH))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("peer", choices=["transformers"])
    parser.add_argument("work", choices=["train"])
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--iterations", type=int, default=100)
    parser.add_argument("--warmup", type=int, default=20)
    parser.add_argument("--captions", required=True)
    args = parser.parse_args()
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    lengths = [int(line) for line in open(args.captions)][: args.warmup + args.iterations]
    model = small_model().train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-3, betas=(0.9, 0.98), weight_decay=0.1, fused=True
    )
    pixels = torch.randn(BATCH, 3, 64, 64)
    texts = torch.randint(0, VOCABULARY - 2, (BATCH, 32))

    def step(length):
        tokens = texts[:, :length].clone()
        tokens[:, -1] = VOCABULARY - 1
        mask = torch.ones_like(tokens)
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=args.precision == "bf16"):
            loss = model(input_ids=tokens, pixel_values=pixels, attention_mask=mask, return_loss=True).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    seconds, gflop = [], 0.0
    for k, length in enumerate(lengths):
        start = time.perf_counter()
        step(length)
        if k >= args.warmup:
            seconds.append(time.perf_counter() - start)
            gflop += step_gflop(length)
    print(json.dumps({
        "work": args.work,
        "precision": args.precision,
        "items_per_iteration": BATCH,
        "seconds": seconds,
        "peak_mb": peak_mb(),
        "gflop_per_iteration": gflop / len(seconds),
    }))


if __name__ == "__main__":
    main()
