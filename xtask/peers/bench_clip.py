"""ViT-B/32 with random weights in a Python peer, for `cargo xtask bench clip`.

    bench_clip.py {open_clip,transformers} WORK [--precision f32|bf16] [--iterations N] [--warmup N]
                  [--captions FILE]

Each peer runs with its usual settings: open_clip with its loss and plain AdamW, transformers with return_loss
and fused AdamW (its Trainer's default). Both use open_clip's tokens, so that the work is the same. Batch k,
counting warm-up, has rows 16k to 16k+15 of the captions. Prints one line of JSON, as
crates/mm-clip/examples/bench_clip.rs does; the work `tokens` prints token ids instead, one caption per line.

Made for torch 2.13, open_clip_torch 3.3, transformers 5.23.
"""

import argparse
import json
import time

import open_clip
import torch

from memory import peak_mb

BATCH = 16
CONTEXT = 77
THREADS = 2
IMAGE_TOKENS, IMAGE_WIDTH, PATCH_VALUES = 50, 768, 3 * 32 * 32
TEXT_WIDTH, LAYERS, EMBED = 512, 12, 512


def tower_gflop(tokens, width):
    """Multiply-adds of a transformer tower for one sample, two operations each."""
    matrices = 2 * 12 * width * width * tokens
    attention = 2 * 2 * tokens * tokens * width
    return (matrices + attention) * LAYERS / 1e9


def image_gflop():
    patches = 2 * (IMAGE_TOKENS - 1) * PATCH_VALUES * IMAGE_WIDTH / 1e9
    return tower_gflop(IMAGE_TOKENS, IMAGE_WIDTH) + patches + 2 * IMAGE_WIDTH * EMBED / 1e9


def text_gflop(tokens):
    return tower_gflop(tokens, TEXT_WIDTH) + 2 * TEXT_WIDTH * EMBED / 1e9


class OpenClip:
    def __init__(self, precision, training):
        # bf16 training is autocast over f32 weights; bf16 inference has bf16 weights.
        weights = "bf16" if precision == "bf16" and not training else "fp32"
        self.model = open_clip.create_model("ViT-B-32", precision=weights)
        self.loss = open_clip.ClipLoss()
        if training:
            plain = [p for p in self.model.parameters() if p.ndim < 2]
            decayed = [p for p in self.model.parameters() if p.ndim >= 2]
            groups = [{"params": plain, "weight_decay": 0.0}, {"params": decayed, "weight_decay": 0.2}]
            self.optimizer = torch.optim.AdamW(groups, lr=5e-4, betas=(0.9, 0.98), eps=1e-6)

    def images(self, pixels):
        return self.model.encode_image(pixels, normalize=True)

    def texts(self, tokens, mask):
        return self.model.encode_text(tokens, normalize=True)

    def training_loss(self, pixels, tokens, mask):
        images, texts, scale = self.model(pixels, tokens)[:3]
        return self.loss(images, texts, scale)


class Transformers:
    def __init__(self, precision, training):
        from transformers import CLIPConfig, CLIPModel

        self.model = CLIPModel(CLIPConfig())
        if precision == "bf16" and not training:
            self.model = self.model.to(torch.bfloat16)
        if training:
            self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=5e-4, weight_decay=0.2, fused=True)

    def images(self, pixels):
        return self.model.get_image_features(pixel_values=pixels)

    def texts(self, tokens, mask):
        return self.model.get_text_features(input_ids=tokens, attention_mask=mask)

    def training_loss(self, pixels, tokens, mask):
        output = self.model(input_ids=tokens, pixel_values=pixels, attention_mask=mask, return_loss=True)
        return output.loss


def full_tokens():
    """Captions that fill the context, so that no program can stop early."""
    tokens = torch.randint(1, 49000, (BATCH, CONTEXT))
    tokens[:, 0], tokens[:, -1] = 49406, 49407
    return tokens


def caption_batches(path, count, dynamic):
    captions = [line.rstrip("\n") for line in open(path, encoding="utf-8")]
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    for k in range(count):
        rows = [captions[(k * BATCH + i) % len(captions)] for i in range(BATCH)]
        tokens = tokenizer(rows)
        lengths = tokens.argmax(dim=-1) + 1  # EOS has the highest id
        length = int(lengths.max()) if dynamic else CONTEXT
        mask = (torch.arange(length) < lengths[:, None]).long()
        yield tokens[:, :length].contiguous(), mask


def print_tokens(path):
    """The token ids of each caption, so that mm computes on the same tokens."""
    captions = [line.rstrip("\n") for line in open(path, encoding="utf-8")]
    for row in open_clip.get_tokenizer("ViT-B-32")(captions):
        print(*row[: int(row.argmax()) + 1].tolist())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("peer", choices=["open_clip", "transformers"])
    works = ["tokens", "images", "texts77", "texts", "texts_dynamic", "train", "train_dynamic"]
    parser.add_argument("work", choices=works)
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--iterations", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--captions")
    args = parser.parse_args()
    if args.peer == "open_clip" and args.work.endswith("dynamic"):
        parser.error("open_clip's text tower takes 77 tokens and no other length")

    if args.work == "tokens":
        print_tokens(args.captions)
        return
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    training = args.work.startswith("train")
    peer = (OpenClip if args.peer == "open_clip" else Transformers)(args.precision, training)
    peer.model.train(training)
    count = args.warmup + args.iterations
    pixels = torch.randn(BATCH, 3, 224, 224)
    if args.precision == "bf16" and not training:
        pixels = pixels.to(torch.bfloat16)
    if args.work == "texts77":
        batches = [(full_tokens(), None) for _ in range(count)]
    elif args.work != "images":
        batches = list(caption_batches(args.captions, count, args.work.endswith("dynamic")))
    else:
        batches = [(None, None)] * count

    def step(tokens, mask):
        if not training:
            return peer.images(pixels) if tokens is None else peer.texts(tokens, mask)
        peer.optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=args.precision == "bf16"):
            loss = peer.training_loss(pixels, tokens, mask)
        loss.backward()
        peer.optimizer.step()
        with torch.no_grad():
            peer.model.logit_scale.clamp_(0, 4.6052)
        return loss.item()

    seconds, gflop = [], 0.0
    with torch.inference_mode(mode=not training):
        for k, (tokens, mask) in enumerate(batches):
            start = time.perf_counter()
            step(tokens, mask)
            if k >= args.warmup:
                seconds.append(time.perf_counter() - start)
                images = image_gflop() if tokens is None or training else 0.0
                texts = text_gflop(tokens.shape[1]) if tokens is not None else 0.0
                gflop += (3 if training else 1) * BATCH * (images + texts)
    print(json.dumps({
        "work": args.work,
        "precision": args.precision,
        "items_per_iteration": BATCH,
        "seconds": seconds,
        "peak_mb": peak_mb(),
        "gflop_per_iteration": gflop / args.iterations,
    }))


if __name__ == "__main__":
    main()
