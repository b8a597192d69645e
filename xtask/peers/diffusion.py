"""Stable Diffusion 1.5's U-Net and autoencoder in diffusers, for `cargo xtask bench diffusion`.

    diffusion.py step|decode [--precision f32|bf16] [--iterations N] [--warmup N]

`step` is a guided step of the U-Net: two rows of 64 x 64 latents, each with the states of 77 text tokens.
`decode` decodes such latents to 512 x 512 pixels. Both sides draw their weights, so nothing is downloaded.
Prints one line of JSON: the fields of every benchmark, and the growth of the process's memory from the first
timed iteration to the last.

Made for torch 2.13, diffusers 0.42.
"""

import argparse
import json
import time

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

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
# Of matrix products, a multiply-add being two operations.
GFLOP = {"step": 1607, "decode": 2515}


def step():
    model = UNet2DConditionModel(**UNET).eval()
    latents, states = torch.randn(2, 4, LATENTS, LATENTS), torch.randn(2, TOKENS, 768)
    timestep = torch.tensor(500)
    return lambda: model(latents, timestep, encoder_hidden_states=states, return_dict=False)


def decode():
    model = AutoencoderKL(**VAE).eval()
    latents = torch.randn(1, 4, LATENTS, LATENTS)
    return lambda: model.decode(latents, return_dict=False)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("work", choices=["step", "decode"])
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--iterations", type=int, default=2)
    parser.add_argument("--warmup", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    # Drawn in their own type, the weights are never in memory twice.
    torch.set_default_dtype(torch.bfloat16 if args.precision == "bf16" else torch.float32)
    run = {"step": step, "decode": decode}[args.work]()
    seconds, resident = [], []
    with torch.inference_mode():
        for _ in range(args.warmup + args.iterations):
            start = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - start)
            resident.append(resident_mb())
    timed = slice(args.warmup, None)
    measured = {
        "work": args.work,
        "precision": args.precision,
        "items_per_iteration": 1,
        "seconds": seconds[timed],
        "gflop_per_iteration": GFLOP[args.work],
        "peak_mb": peak_mb(),
        "growth_mb": resident[-1] - resident[timed][0],
    }
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
