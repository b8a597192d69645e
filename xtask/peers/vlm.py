"""A model of SmolVLM-256M's sizes with random weights in transformers, for `cargo xtask bench vlm`.

    vlm.py --make DIR [--seed N] [--tiny]   saves a random model, with images, a prompt and answers
    vlm.py generate|train --folder DIR [--precision f32|bf16] [--gflop A,B] [--iterations N] [--warmup N]

`generate` gives 64 greedy tokens about one tile of 512 pixels, which is 64 tokens of the prompt; a streamer
shows when each one is there. `train` makes steps of AdamW (fused) on PEFT's adapters of rank 8 on all
layers named q_proj and v_proj, of a batch of 4 tiles with an answer of 64 tokens each. `--gflop` names the
matrix products of an iteration, of `generate` those until the first token and those after it. `--tiny` makes
a small model, to try the script. Prints one line of JSON: the fields of every benchmark, of `generate` once
as "first", until the first token, and once as "later", with the ids and some logits of the first token; of
`train` with the first loss.

Made for torch 2.13, transformers 5.23, peft 0.21.
"""

import argparse
import json
import time
from pathlib import Path

import torch
import transformers
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from memory import peak_mb

BATCH, TOKENS, THREADS = 4, 64, 2
LOGITS_STEP = 48
RANK, LEARNING_RATE = 8, 1e-4
# Tokens of the prompt before and after the image.
BEFORE, AFTER = 5, 16


def smolvlm_config(tiny):
    vision = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12}
    vision |= {"num_attention_heads": 12, "image_size": 512, "patch_size": 16}
    text = {"vocab_size": 49280, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30}
    text |= {"num_attention_heads": 9, "num_key_value_heads": 3, "max_position_embeddings": 8192}
    if tiny:
        vision |= {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "image_size": 128}
        text |= {"vocab_size": 512, "hidden_size": 72, "intermediate_size": 96, "num_hidden_layers": 2}
    text = transformers.LlamaConfig(**text, rms_norm_eps=1e-5, rope_theta=100000.0, pad_token_id=2)
    image_token_id = text.vocab_size - 90
    return transformers.SmolVLMConfig(
        vision_config=vision,
        text_config=text,
        scale_factor=4,
        image_token_id=image_token_id,
        tie_word_embeddings=False,
        pad_token_id=2,
    )


def make(folder, seed, tiny):
    """Own weights: with the peer's initial ones every answer is one token again and again."""
    torch.manual_seed(seed)
    config = smolvlm_config(tiny)
    model = transformers.SmolVLMForConditionalGeneration(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.035)
            else:
                parameter.fill_(1.0 if name.endswith("weight") else 0.0)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    vision = config.vision_config
    tokens = (vision.image_size // vision.patch_size // config.scale_factor) ** 2
    words = 100 + 181 * torch.arange(BEFORE + AFTER + BATCH * TOKENS)
    words = words % (config.text_config.vocab_size - 200)
    before, after, answers = words.split([BEFORE, AFTER, BATCH * TOKENS])
    prompt = torch.cat([before, torch.full([tokens], config.image_token_id), after])
    pixel_values = torch.randn(BATCH, 3, vision.image_size, vision.image_size)
    inputs = {
        "pixel_values": pixel_values,
        "prompt": prompt,
        "answers": answers.view(BATCH, TOKENS).clone(),
    }
    save_file(inputs, folder / "inputs.safetensors")


class Times:
    """A streamer that keeps when the prompt and each token came."""

    def __init__(self):
        self.seconds = []

    def put(self, _):
        self.seconds.append(time.perf_counter())

    def end(self):
        pass


def sample(items, seconds, gflop):
    return {
        "items_per_iteration": items,
        "seconds": seconds,
        "gflop_per_iteration": gflop,
        "peak_mb": peak_mb(),
    }


def generate(model, inputs, args):
    pixels = inputs["pixel_values"][:1, None].to(model.dtype)
    ids = inputs["prompt"][None]
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels}
    model.generation_config.eos_token_id = None
    first, later = [], []
    with torch.inference_mode():
        for iteration in range(args.warmup + args.iterations):
            times = Times()
            start = time.perf_counter()
            found = model.generate(**inputs, max_new_tokens=TOKENS, do_sample=False, streamer=times)
            end = time.perf_counter()
            if iteration >= args.warmup:
                first.append(times.seconds[1] - start)
                later.append(end - times.seconds[1])
        logits = model(**inputs).logits[0, -1].float()
    return {
        "first": sample(1, first, args.gflop[0]),
        "later": sample(TOKENS - 1, later, args.gflop[-1]),
        "ids": found[0, ids.shape[1] :].tolist(),
        "logits": logits[::LOGITS_STEP].tolist(),
    }


def train(model, inputs, args):
    """Seconds of each training step."""
    lora = LoraConfig(r=RANK, lora_alpha=RANK, lora_dropout=0.0, target_modules=["q_proj", "v_proj"])
    model = get_peft_model(model, lora).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, weight_decay=0.01, fused=True)
    prompts = inputs["prompt"].expand(BATCH, -1)
    ids = torch.cat([prompts, inputs["answers"]], 1)
    labels = torch.cat([torch.full_like(prompts, -100), inputs["answers"]], 1)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    batch["pixel_values"] = inputs["pixel_values"][:, None]
    seconds, losses = [], []
    for iteration in range(args.warmup + args.iterations):
        start = time.perf_counter()
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=args.precision == "bf16"):
            loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if iteration >= args.warmup:
            seconds.append(time.perf_counter() - start)
    return sample(ids.numel(), seconds, args.gflop[0]) | {"loss": losses[0]}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("work", nargs="?", choices=["generate", "train"])
    parser.add_argument("--make", type=Path, metavar="DIR")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--folder", type=Path, metavar="DIR")
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    parser.add_argument(
        "--gflop", type=lambda text: [float(part) for part in text.split(",")], default=[0.0]
    )
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--warmup", type=int, default=1)
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(THREADS)
    if args.make:
        make(args.make, args.seed, args.tiny)
        return
    model = transformers.SmolVLMForConditionalGeneration.from_pretrained(args.folder, dtype=torch.float32)
    model = model.eval()
    inputs = load_file(args.folder / "inputs.safetensors")
    if args.precision == "bf16" and args.work == "generate":
        model = model.to(torch.bfloat16)
    measured = (train if args.work == "train" else generate)(model, inputs, args)
    print(json.dumps({"work": args.work, "precision": args.precision} | measured))


if __name__ == "__main__":
    main()
