"""BLIP-base with random weights in transformers, for `cargo xtask bench caption`.

    caption.py --make DIR [--seed N] [--tiny]      saves a random BLIP-base as a whole folder, with images
    caption.py [--folder DIR] [--precision f32|bf16] [--iterations N] [--warmup N] [--tiny]
    caption.py --train [--folder DIR] [...]

Captions 8 images with 3 beams and 20 new tokens, or trains on 8 images with captions of 20 tokens (forward,
backward and a fused AdamW step). DIR may be a folder that mm wrote; its pixels.safetensors, if it is there,
holds the pixel_values. `--make` writes a tokenizer of invented words, with BERT's ids of special tokens.
`--tiny` makes a small model, to try the script. Prints one line of JSON: the fields of every benchmark, whose
`seconds` are those of a whole `generate` or of a step, and for captions the medians encode_seconds (the image
encoder alone), decode_seconds (the rest), tokens_per_second (of decode_seconds) and the ids that were made.

Made for torch 2.13, transformers 5.23.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file

from memory import peak_mb

IMAGES, BEAMS, TOKENS, THREADS = 8, 3, 20, 2
CLS, SEP = 101, 102


def blip_config(tiny):
    """BLIP-base as its published folders have it: 12 heads in the text decoder, not the class's 8."""
    text = {"num_attention_heads": 12}
    if not tiny:
        return transformers.BlipConfig(text_config=text)
    sizes = {"hidden_size": 96, "intermediate_size": 192, "num_hidden_layers": 2, "num_attention_heads": 12}
    return transformers.BlipConfig(text_config=sizes, vision_config=sizes | {"image_size": 64})


def random_blip(seed, tiny, kind=transformers.BlipForConditionalGeneration):
    """Own weights: with the peer's, the image encoder is almost zero and every caption the same."""
    torch.manual_seed(seed)
    with torch.device("meta"):
        model = kind(blip_config(tiny))
    model.to_empty(device="cpu")
    model.tie_weights()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.035)
            else:
                parameter.fill_(1.0 if name.endswith("weight") else 0.0)
    for module in model.modules():
        if hasattr(module, "position_ids"):
            module.position_ids = torch.arange(model.config.text_config.max_position_embeddings)[None]
    return model


def random_pixels(config):
    size = config.vision_config.image_size
    return torch.randn(IMAGES, 3, size, size, generator=torch.Generator().manual_seed(1))


def save(model, folder):
    """Writes the model, its tokenizer, its image processor and the images."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    special = {0: "[PAD]", 100: "[UNK]", CLS: "[CLS]", SEP: "[SEP]", 103: "[MASK]"}
    words = ["a", "picture", "of"] + [f"word{index}" for index in range(104, 30522 - 3)]
    invented = iter(words)
    unused = (f"[unused{index}]" for index in range(99))
    tokens = [special.get(index) or next(unused if index < 100 else invented) for index in range(30522)]
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    tokenizer = transformers.BertTokenizer(vocab=str(folder / "vocab.txt"), model_max_length=512)
    tokenizer.add_special_tokens({"bos_token": "[DEC]", "additional_special_tokens": ["[ENC]"]})
    tokenizer.save_pretrained(folder)
    size = model.config.vision_config.image_size
    transformers.BlipImageProcessorPil(size={"height": size, "width": size}).save_pretrained(folder)
    save_file({"pixel_values": random_pixels(model.config)}, folder / "pixels.safetensors")


def encoder_gflop(config):
    """Multiply-adds of the image encoder for one image, two operations each."""
    vision = config.vision_config
    width, layers = vision.hidden_size, vision.num_hidden_layers
    patches = (vision.image_size // vision.patch_size) ** 2
    tokens = patches + 1
    block = 2 * tokens * (4 * width * width + 2 * width * vision.intermediate_size)
    attention = 4 * tokens * tokens * width
    return (layers * (block + attention) + 2 * patches * 3 * vision.patch_size**2 * width) / 1e9


def decoder_gflop(config, places):
    """The work for `places` tokens of captions, and the keys and values of one image, in the decoder."""
    text, vision = config.text_config, config.vision_config
    width, layers, image = text.hidden_size, text.num_hidden_layers, vision.hidden_size
    tokens = (vision.image_size // vision.patch_size) ** 2 + 1
    block = 2 * (6 * width * width + 2 * width * text.intermediate_size) + 4 * tokens * width
    head = 2 * (width * width + width * text.vocab_size)
    keys = layers * 2 * 2 * width * image * tokens
    return places * (layers * block + head) / 1e9, keys / 1e9


def caption(model, pixels, args):
    """Seconds of each `generate`, and of the image encoder alone before it."""
    settings = {"num_beams": BEAMS, "max_new_tokens": TOKENS, "min_new_tokens": TOKENS, "do_sample": False}
    whole, encode = [], []
    with torch.inference_mode():
        for iteration in range(args.warmup + args.iterations):
            start = time.perf_counter()
            model.vision_model(pixels)
            middle = time.perf_counter()
            found = model.generate(pixels, **settings)
            if iteration >= args.warmup:
                encode.append(middle - start)
                whole.append(time.perf_counter() - middle)
    steps, keys = decoder_gflop(model.config, TOKENS * BEAMS)
    seconds = {"encode_seconds": statistics.median(encode)}
    seconds["decode_seconds"] = statistics.median(a - b for a, b in zip(whole, encode))
    return {
        "work": "caption",
        "seconds": whole,
        "gflop_per_iteration": IMAGES * (encoder_gflop(model.config) + steps + keys),
        **seconds,
        "tokens_per_second": IMAGES * TOKENS / seconds["decode_seconds"],
        # After the begin token.
        "ids": found[:, 1 : TOKENS + 1].tolist(),
    }


def train(model, pixels, args):
    """Seconds of each training step. Four ids are the prompt, which is not trained on."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.05, fused=True)
    ids = torch.randint(1000, 30000, (IMAGES, TOKENS), generator=torch.Generator().manual_seed(2))
    ids[:, 0], ids[:, -1] = model.config.text_config.bos_token_id, SEP
    labels = ids.clone()
    labels[:, :4] = -100
    seconds = []
    for iteration in range(args.warmup + args.iterations):
        start = time.perf_counter()
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=args.precision == "bf16"):
            mask = torch.ones_like(ids)
            loss = model(pixels, input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        optimizer.step()
        loss.item()
        if iteration >= args.warmup:
            seconds.append(time.perf_counter() - start)
    places, keys = decoder_gflop(model.config, TOKENS)
    return {
        "work": "train",
        "seconds": seconds,
        "gflop_per_iteration": 3 * IMAGES * (encoder_gflop(model.config) + places + keys),
        "pairs_per_second": IMAGES / statistics.median(seconds),
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--make", type=Path, metavar="DIR")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--folder", type=Path, metavar="DIR")
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--warmup", type=int, default=1)
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(THREADS)
    if args.make:
        save(random_blip(args.seed, args.tiny), args.make)
        return
    if args.folder:
        model = transformers.BlipForConditionalGeneration.from_pretrained(args.folder, dtype=torch.float32)
    else:
        model = random_blip(args.seed, args.tiny)
    images = args.folder / "pixels.safetensors" if args.folder else None
    pixels = load_file(images)["pixel_values"] if images and images.exists() else random_pixels(model.config)
    if args.precision == "bf16" and not args.train:
        model, pixels = model.to(torch.bfloat16), pixels.to(torch.bfloat16)
    measured = (train if args.train else caption)(model.eval(), pixels, args)
    common = {"precision": args.precision, "items_per_iteration": IMAGES, "peak_mb": peak_mb()}
    print(json.dumps(measured | common))


if __name__ == "__main__":
    main()
