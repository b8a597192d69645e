"""DDPO and DiffusionNFT of the demo's model in plain PyTorch, for `cargo xtask bench rlhf`.

    rlhf.py ddpo|nft [--precision f32|bf16] [--iterations N] [--warmup N]

The transformer and the text encoder of configs/rlhf/shapes-base.toml in diffusers and transformers,
with random weights, and the methods of configs/rlhf/shapes-ddpo.toml and shapes-nft.toml: a roll-
out of 128 images in ten steps, rated by their brightness, and one update on it. The tokens are in
memory: no prompt is drawn or tokenized. Prints one line of JSON with the seconds of each roll-out
and of each update. Made for torch 2.13, diffusers 0.42.
"""

import argparse
import copy
import json
import math
import time

import torch
from diffusers import SD3Transformer2DModel
from transformers import CLIPTextConfig, CLIPTextModel

from diffusion import TEXT, THREADS, TRANSFORMER
from memory import peak_mb

BATCH, GROUP, STEPS = 128, 8, 10
SHAPE = (BATCH, 3, 32, 32)
# Tokens of the set's prompts, such as "three red stars".
PROMPT = 5
SHIFT = 2.0
LR, EMA = 3e-4, 0.9
# Of DDPO: the noise of Flow-GRPO, and the range of ratios.
NOISE, CLIP = 0.7, 1e-3
# Of DiffusionNFT: levels of noise an image, and the weight of the distance from the initial model.
LEVELS, DISTANCE = 2, 1e-4
LARGEST_ADVANTAGE = 5.0


class Policy(torch.nn.Module):
    """A flow that predicts the image, and the encoder of its prompts."""

    def __init__(self, precision):
        super().__init__()
        self.is_bf16 = precision == "bf16"
        self.text = CLIPTextModel(CLIPTextConfig(**TEXT))
        self.transformer = SD3Transformer2DModel(**(TRANSFORMER | {"in_channels": 3}))

    def autocast(self):
        return torch.autocast("cpu", torch.bfloat16, enabled=self.is_bf16)

    def encode(self, tokens):
        with self.autocast():
            states = self.text(input_ids=tokens)
        return states.last_hidden_state, states.pooler_output

    def forward(self, sample, sigma, states):
        """The velocity [N, C, h, w] at the shares of noise [N]."""
        with self.autocast():
            clean = self.transformer(
                sample,
                encoder_hidden_states=states[0],
                pooled_projections=states[1],
                timestep=sigma * 1000,
                return_dict=False,
            )[0]
        return (sample - clean.float()) / sigma.view(-1, 1, 1, 1).clamp_min(0.05)


def levels():
    """The shares of noise between the steps."""
    shares = torch.linspace(1, 0, STEPS + 1, dtype=torch.float64)
    return (SHIFT * shares / (1 + (SHIFT - 1) * shares)).tolist()


def noisy_step(sample, velocity, now, after):
    """The mean and the deviation of Flow-GRPO's step."""
    diffusion = NOISE * math.sqrt(now / (1 - (after if now == 1 else now)))
    ds = after - now
    drift = velocity + diffusion**2 / (2 * now) * (sample + (1 - now) * velocity)
    return sample + drift * ds, diffusion * math.sqrt(-ds)


def log_prob(sample, mean, std):
    error = (sample - mean).square().mean(dim=(1, 2, 3))
    return -error / (2 * std**2) - math.log(std) - 0.5 * math.log(2 * math.pi)


def advantages(images):
    """Those of the brightness of each image among the images of its prompt."""
    pixels = ((images / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
    rewards = pixels.float().mean(dim=(1, 2, 3)).view(-1, GROUP)
    deviation = rewards.std(dim=1, correction=0, keepdim=True)
    found = (rewards - rewards.mean(dim=1, keepdim=True)) / (deviation + 1e-4)
    return found.view(-1).clamp(-LARGEST_ADVANTAGE, LARGEST_ADVANTAGE)


class Ddpo:
    """Steps with noise, and their probabilities."""

    def __init__(self, policy):
        self.policy = policy

    def sample(self, tokens):
        states = self.policy.encode(tokens)
        sample, path = torch.randn(SHAPE), []
        for now, after in zip(levels(), levels()[1:]):
            velocity = self.policy(sample, torch.full((BATCH,), now), states)
            if after == 0:
                sample = sample - velocity * now
                break
            mean, std = noisy_step(sample, velocity, now, after)
            drawn = mean + std * torch.randn(SHAPE)
            path.append((sample, drawn, now, after, log_prob(drawn, mean, std)))
            sample = drawn
        return path, advantages(sample)

    def backward(self, tokens, rollout):
        path, advantage = rollout
        for sample, drawn, now, after, old in path:
            velocity = self.policy(sample, torch.full((BATCH,), now), self.policy.encode(tokens))
            ratio = torch.exp(log_prob(drawn, *noisy_step(sample, velocity, now, after)) - old)
            clipped = ratio.clamp(1 - CLIP, 1 + CLIP)
            loss = torch.maximum(-advantage * ratio, -advantage * clipped).mean()
            (loss / len(path)).backward()

    def after_step(self):
        pass


class Nft:
    """Images of an older policy, noised anew."""

    def __init__(self, policy):
        self.policy, self.old, self.initial = policy, copy.deepcopy(policy), copy.deepcopy(policy)
        self.updates = 0

    def sample(self, tokens):
        states = self.old.encode(tokens)
        sample = torch.randn(SHAPE)
        for now, after in zip(levels(), levels()[1:]):
            sample = sample + self.old(sample, torch.full((BATCH,), now), states) * (after - now)
        return sample, advantages(sample)

    def backward(self, tokens, rollout):
        clean, advantage = rollout
        good = advantage / LARGEST_ADVANTAGE / 2 + 0.5
        for _ in range(LEVELS):
            sigma = torch.tensor(levels()[:-1])[torch.randint(0, STEPS, (BATCH,))].float()
            share = sigma.view(-1, 1, 1, 1)
            noisy = clean * (1 - share) + torch.randn(SHAPE) * share
            with torch.no_grad():
                old, initial = (p(noisy, sigma, p.encode(tokens)) for p in (self.old, self.initial))
            velocity = self.policy(noisy, sigma, self.policy.encode(tokens))
            losses = []
            for direction in (velocity, 2 * old - velocity):
                error = noisy - share * direction - clean
                scale = error.detach().abs().mean(dim=(1, 2, 3)).clamp_min(1e-5)
                losses.append(error.square().mean(dim=(1, 2, 3)) / scale)
            loss = LARGEST_ADVANTAGE * (good * losses[0] + (1 - good) * losses[1]).mean()
            loss = loss + DISTANCE * (velocity - initial).square().mean()
            (loss / LEVELS).backward()

    def after_step(self):
        self.updates += 1
        new = 1 - min(0.001 * self.updates, 0.5)
        torch._foreach_lerp_(list(self.old.parameters()), list(self.policy.parameters()), new)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("work", choices=["ddpo", "nft"])
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--iterations", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    policy = Policy(args.precision).train()
    # A new transformer of diffusers predicts the same for all noise.
    torch.nn.init.normal_(policy.transformer.proj_out.weight, std=0.02)
    parameters = list(policy.parameters())
    averages = [p.detach().clone() for p in parameters]
    optimizer = torch.optim.AdamW(parameters, lr=LR, weight_decay=0, fused=True)
    method = {"ddpo": Ddpo, "nft": Nft}[args.work](policy)
    sampling, training = [], []
    for _ in range(args.warmup + args.iterations):
        tokens = torch.randint(0, 698, (BATCH // GROUP, PROMPT)).repeat_interleave(GROUP, 0)
        tokens[:, -1] = TEXT["eos_token_id"]
        start = time.perf_counter()
        with torch.no_grad():
            rollout = method.sample(tokens)
        sampling.append(time.perf_counter() - start)
        start = time.perf_counter()
        method.backward(tokens, rollout)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            method.after_step()
            torch._foreach_lerp_(averages, parameters, 1 - EMA)
        training.append(time.perf_counter() - start)
    measured = {
        "work": args.work,
        "precision": args.precision,
        "images": BATCH,
        "sampling": sampling[args.warmup :],
        "training": training[args.warmup :],
        "peak_mb": peak_mb(),
    }
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
