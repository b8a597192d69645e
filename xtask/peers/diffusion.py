"""Stable Diffusion 1.5's U-Net and autoencoder in diffusers, for `cargo xtask bench diffusion`.

    diffusion.py step|decode|train [--precision f32|bf16] [--iterations N] [--warmup N]

`step` is a guided step of the U-Net: two rows of 64 x 64 latents, each with the states of 77 text tokens.
`decode` decodes such latents to 512 x 512 pixels. `train` is a step of the model and the text encoder of
configs/diffusion/shapes-pixel.toml, with its optimizers and averaged weights, on images and tokens in memory:
nothing is drawn or tokenized. Both sides draw their weights, so nothing is downloaded. Prints one line of
JSON: the fields of every benchmark, and the growth of the process's memory from the first timed iteration to
the last.

Made for torch 2.13, diffusers 0.42.
"""

import argparse
import json
import time

import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from memory import peak_mb, resident_mb

THREADS = 2
LATENTS, TOKENS = 64, 77
UNET = {"cross_attention_dim": 768, "sample_size": LATENTS}
VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "sample_size": 512,
}
# Of shapes-pixel.toml. Its longest prompts ("a red circle left of a blue square") have ten tokens.
TRANSFORMER = {
    "sample_size": 32,
    "patch_size": 8,
    "in_channels": 6,
    "out_channels": 3,
    "num_layers": 6,
    "attention_head_dim": 32,
    "num_attention_heads": 4,
    "joint_attention_dim": 128,
    "caption_projection_dim": 128,
    "pooled_projection_dim": 128,
    "pos_embed_max_size": 4,
    "qk_norm": "rms_norm",
}
TEXT = {
    "vocab_size": 700,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 24,
    "hidden_act": "gelu",
    "eos_token_id": 699,
}
BATCH, PROMPT = 64, 10
EMA = 0.995
# Of matrix products, a multiply-add being two operations.
GFLOP = {"step": 1607, "decode": 2515, "train": 0.0}
ITEMS = {"train": BATCH}


def step():
    model = UNet2DConditionModel(**UNET).eval()
    latents, states = torch.randn(2, 4, LATENTS, LATENTS), torch.randn(2, TOKENS, 768)
    timestep = torch.tensor(500)
    return lambda: model(latents, timestep, encoder_hidden_states=states, return_dict=False)


def decode():
    model = AutoencoderKL(**VAE).eval()
    latents = torch.randn(1, 4, LATENTS, LATENTS)
    return lambda: model.decode(latents, return_dict=False)


def is_hidden_matrix(name, parameter):
    in_blocks = "blocks." in name or "encoder.layers." in name
    return parameter.dim() == 2 and in_blocks and "norm" not in name


def train(precision):
    text = CLIPTextModel(CLIPTextConfig(**TEXT))
    transformer = SD3Transformer2DModel(**TRANSFORMER)
    model = torch.nn.ModuleDict({"text": text, "transformer": transformer}).train()
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    matrices = [p for name, p in named if is_hidden_matrix(name, p)]
    others = [p for name, p in named if not is_hidden_matrix(name, p)]
    parameters = matrices + others
    optimizers = [
        torch.optim.Muon(matrices, lr=9e-3, weight_decay=0, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=1e-3, weight_decay=0, fused=True),
    ]
    averages = [p.detach().clone() for p in parameters]
    clean, source = torch.randn(2, BATCH, 3, 32, 32)
    tokens = torch.randint(0, 698, (BATCH, PROMPT))
    tokens[:, -1] = 699

    def step():
        noise = torch.randn_like(clean)
        sigma = torch.sigmoid(0.3 + torch.randn(BATCH))
        share = sigma.view(-1, 1, 1, 1)
        noisy = clean * (1 - share) + noise * share
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            states = text(input_ids=tokens)
            output = transformer(
                torch.cat([noisy, source], 1),
                encoder_hidden_states=states.last_hidden_state,
                pooled_projections=states.pooler_output,
                timestep=sigma * 1000,
                return_dict=False,
            )[0]
        velocity = (noisy - output.float()) / share.clamp_min(0.05)
        loss = (velocity - (noise - clean)).square().mean()
        model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimizer in optimizers:
            optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(averages, parameters, 1 - EMA)
        return loss.item()

    return step


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("work", choices=["step", "decode", "train"])
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--iterations", type=int, default=2)
    parser.add_argument("--warmup", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    if args.work == "train":
        run = train(args.precision)
    else:
        # Drawn in their own type, the weights are never in memory twice.
        torch.set_default_dtype(torch.bfloat16 if args.precision == "bf16" else torch.float32)
        run = {"step": step, "decode": decode}[args.work]()
    seconds, resident = [], []
    with torch.inference_mode(args.work != "train"):
        for _ in range(args.warmup + args.iterations):
            start = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - start)
            resident.append(resident_mb())
    timed = slice(args.warmup, None)
    measured = {
        "work": args.work,
        "precision": args.precision,
        "items_per_iteration": ITEMS.get(args.work, 1),
        "seconds": seconds[timed],
        "gflop_per_iteration": GFLOP[args.work],
        "peak_mb": peak_mb(),
        "growth_mb": resident[-1] - resident[timed][0],
    }
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
