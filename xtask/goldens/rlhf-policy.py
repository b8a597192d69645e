"""Goldens of reinforcement learning for diffusion models: steps of policies, their losses, and advantages.

    rlhf-policy.py OUT_DIR

All of it is computed in f64 from the equations of the papers; the steps of DDIM are those of diffusers.

- inputs.safetensors: sample, prediction, old, reference (predictions of the trained, the sampling and the
  reference policy) and noise [4, 2, 3, 3]; advantages [4]. For DiffusionNFT: nft.noisy, nft.clean,
  nft.velocity, nft.old [4, 2, 3, 3], nft.sigma and nft.optimality [4]. For Diffusion-DPO: the squared errors
  dpo.winner, dpo.loser, dpo.reference_winner and dpo.reference_loser [6].
- steps.json: for each case the transition as [rl.noise] has it, its levels, its deviation std, and the clip
  of its policy loss.
- expected.safetensors, for case N of the steps:
  - N/mean and N/next [4, 2, 3, 3], the mean and the image drawn with the noise, both of the sampling policy;
  - N/log_prob [4], of that image under the trained policy, and N/loss, the clipped loss of PPO, with
    N/gradient by the prediction;
  - N/kl [4] of the trained from the reference policy, and N/kl_gradient of its mean by the prediction.
  For a beta of DiffusionNFT: nft.BETA [4] and nft.BETA.gradient of the mean by the velocity. For
  Diffusion-DPO: dpo.loss and dpo.accuracy [6], dpo.winner_gradient and dpo.loser_gradient of the mean.
- advantages.json: groups and DDPO's prompts with their advantages, and what DiffusionNFT and reward-weighted
  regression make of numbers.
"""

import json
import math
from collections import deque

import numpy
import torch
from diffusers import DDIMScheduler
from safetensors.torch import save_file

from shared.script import begin

PINNED = {"diffusers": "0.42.1", "torch": "2.13.0"}

SHAPE = (4, 2, 3, 3)
SD15 = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
DPO_BETA = 5000.0
NFT_BETAS = [1.0, 0.1]
# From pure noise, between, and the last step that is trained.
FLOW_LEVELS = [(1.0, 0.9), (0.65, 0.5), (0.2, 0.08)]


def per_image(x):
    return x.mean(dim=(1, 2, 3))


def ddim(eta, steps, index):
    """A step of diffusers' scheduler: its levels, deviation, and a function from noise to the next image."""
    # The alpha behind the last step is that of timestep 0, where DDPO clamps.
    scheduler = DDIMScheduler(**SD15, clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    scheduler.final_alpha_cumprod = scheduler.final_alpha_cumprod.double()
    scheduler.set_timesteps(steps)
    now = scheduler.timesteps[index].item()
    before = now - 1000 // steps
    std = eta * scheduler._get_variance(now, before).item() ** 0.5
    levels = (scheduler.alphas_cumprod[now].item(), scheduler.alphas_cumprod[max(before, 0)].item())

    def step(sample, prediction, noise):
        return scheduler.step(prediction, now, sample, eta=eta, variance_noise=noise).prev_sample

    return levels, std, step


def flow_sde(diffusion, now, next_level):
    """dz = (v - g^2 / 2 score) ds + g dw, one Euler-Maruyama step against the direction of time."""

    def step(sample, velocity, noise):
        ds = next_level - now
        clean = sample - now * velocity
        score = -(sample - (1 - now) * clean) / now**2
        drift = velocity - diffusion**2 / 2 * score
        return sample + drift * ds + diffusion * math.sqrt(-ds) * noise

    return diffusion * math.sqrt(now - next_level), step


def cps(amount, now, next_level):
    """Keeps the share of the image and the variance of the noise."""
    std = next_level * math.sin(amount * math.pi / 2)

    def step(sample, velocity, noise):
        clean = sample - now * velocity
        predicted = sample + (1 - now) * velocity
        return (1 - next_level) * clean + math.sqrt(next_level**2 - std**2) * predicted + std * noise

    return std, step


def transitions():
    """Yields the config of a transition, its levels, deviation and step."""
    for eta, steps, index in [(1.0, 50, 0), (1.0, 50, 24), (1.0, 50, 49), (0.5, 10, 4)]:
        yield {"kind": "ddim", "eta": eta}, *ddim(eta, steps, index)
    for now, next_level in FLOW_LEVELS:
        levels = (now, next_level)
        diffusion = 0.7 * math.sqrt(now / (1 - (next_level if now == 1 else now)))
        yield {"kind": "flow_sde", "noise": 0.7}, levels, *flow_sde(diffusion, now, next_level)
        yield {"kind": "dance_grpo", "eta": 0.3}, levels, *flow_sde(0.3, now, next_level)
        yield {"kind": "cps", "noise": 0.8}, levels, *cps(0.8, now, next_level)


def log_prob(kind, image, mean, std):
    if kind == "cps":
        return -per_image((image - mean) ** 2)
    return per_image(torch.distributions.Normal(mean, std).log_prob(image))


def steps(inputs, expected):
    none = torch.zeros_like(inputs["noise"])
    for number, (transition, (now, next_level), std, step) in enumerate(transitions()):
        kind = transition["kind"]
        mean = lambda prediction: step(inputs["sample"], prediction, none)  # noqa: E731
        old = mean(inputs["old"])
        image = step(inputs["sample"], inputs["old"], inputs["noise"])
        prediction = inputs["prediction"].clone().requires_grad_()
        found = log_prob(kind, image, mean(prediction), std)
        ratio = torch.exp(found - log_prob(kind, image, old, std))
        # Half of the ratios are out of the range.
        off = (ratio - 1).abs().sort().values
        clip = float(f"{(off[1] + off[2]).item() / 2:.3g}")
        advantages = inputs["advantages"]
        loss = torch.maximum(-advantages * ratio, -advantages * ratio.clamp(1 - clip, 1 + clip)).mean()
        loss.backward()
        expected |= {f"{number}/mean": old, f"{number}/next": image, f"{number}/log_prob": found}
        expected |= {f"{number}/loss": loss, f"{number}/gradient": prediction.grad}

        prediction = inputs["prediction"].clone().requires_grad_()
        normal = lambda prediction: torch.distributions.Normal(mean(prediction), std)  # noqa: E731
        divergence = torch.distributions.kl_divergence(normal(prediction), normal(inputs["reference"]))
        divergence = per_image(divergence)
        divergence.mean().backward()
        expected |= {f"{number}/kl": divergence, f"{number}/kl_gradient": prediction.grad}
        yield {"transition": transition, "now": now, "next": next_level, "std": std, "clip": clip}


def nft(inputs, beta):
    """The loss of each image, and its gradient."""
    noisy, clean, old = (inputs[f"nft.{name}"] for name in ("noisy", "clean", "old"))
    sigma = inputs["nft.sigma"].view(-1, 1, 1, 1)
    velocity = inputs["nft.velocity"].clone().requires_grad_()

    def loss(velocity):
        error = (noisy - sigma * velocity) - clean
        return per_image(error**2) / per_image(error.abs()).clamp(min=1e-5).detach()

    positive = loss(beta * velocity + (1 - beta) * old)
    negative = loss((1 + beta) * old - beta * velocity)
    share = inputs["nft.optimality"]
    losses = share * positive / beta + (1 - share) * negative / beta
    losses.mean().backward()
    return losses, velocity.grad


def dpo(inputs):
    winner, loser = (inputs[f"dpo.{name}"].clone().requires_grad_() for name in ("winner", "loser"))
    reference = inputs["dpo.reference_winner"] - inputs["dpo.reference_loser"]
    inside = -DPO_BETA / 2 * ((winner - loser) - reference)
    losses = -torch.nn.functional.logsigmoid(inside)
    losses.mean().backward()
    return {
        "dpo.loss": losses,
        "dpo.accuracy": (inside > 0).double(),
        "dpo.winner_gradient": winner.grad,
        "dpo.loser_gradient": loser.grad,
    }


def grouped(rewards, groups, scale, epsilon, clip):
    rewards, groups = numpy.array(rewards), numpy.array(groups)
    values = numpy.empty_like(rewards)
    for group in set(groups.tolist()):
        own = rewards[groups == group]
        std = own.std() if scale == "group" else rewards.std()
        values[groups == group] = (own - own.mean()) / (std + epsilon)
    return values.clip(-clip, clip).tolist()


def by_prompt(batches, capacity, least, clip):
    """DDPO's advantages of each batch of (prompts, rewards)."""
    kept = {}
    for prompts, rewards in batches:
        rewards = numpy.array(rewards)
        for prompt, reward in zip(prompts, rewards):
            kept.setdefault(prompt, deque(maxlen=capacity)).append(reward)
        values = []
        for prompt, reward in zip(prompts, rewards):
            among = numpy.array(kept[prompt]) if len(kept[prompt]) >= least else rewards
            values.append((reward - among.mean()) / (among.std() + 1e-6))
        yield numpy.array(values).clip(-clip, clip).tolist()


def advantages(draw):
    rewards = draw(9).tolist()
    rewards[6:] = [0.3] * 3
    groups = [2, 0, 2, 0, 2, 0, 5, 5, 5]
    cases = []
    for scale, epsilon, clip in [("group", 1e-4, 5.0), ("batch", 1e-4, 5.0), ("group", 1e-8, 0.8)]:
        case = {"scale": scale, "epsilon": epsilon, "clip": clip}
        cases.append(case | {"values": grouped(rewards, groups, **case)})
    named = [(["cat", "dog"], 2), (["cat", "cat", "dog", "cow"], 4), (["dog", "cat", "cow"], 3)]
    batches = [(prompts, draw(count).tolist()) for prompts, count in named]
    found = by_prompt(batches, capacity=3, least=3, clip=1.2)
    prompts = [
        {"prompts": prompts, "rewards": rewards, "values": values}
        for (prompts, rewards), values in zip(batches, found)
    ]
    numbers = torch.tensor(rewards, dtype=torch.float64)
    return {
        "rewards": rewards,
        "groups": groups,
        "grouped": cases,
        "by_prompt": {"capacity": 3, "least": 3, "clip": 1.2, "batches": prompts},
        "optimality": ((6 * numbers / 5) / 2 + 0.5).clamp(0, 1).tolist(),
        "rwr": (torch.softmax(numbers / 0.2, 0) * len(rewards)).tolist(),
    }


def main():
    out = begin(PINNED)
    generator = torch.Generator().manual_seed(11)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    inputs = {"sample": draw(*SHAPE), "old": draw(*SHAPE), "noise": draw(*SHAPE)}
    inputs["prediction"] = inputs["old"] + 0.02 * draw(*SHAPE)
    inputs["reference"] = draw(*SHAPE)
    inputs["advantages"] = torch.tensor([1.5, -0.7, 0.4, -2.0])

    clean, sigma = draw(*SHAPE), torch.tensor([0.1, 0.5, 0.9, 0.5])
    share = sigma.view(-1, 1, 1, 1)
    velocity, old = draw(*SHAPE), draw(*SHAPE)
    # The last image has so small an error that its divisor is bounded.
    for tensor in (clean, velocity, old):
        tensor[3] *= 4e-6
    noisy = (1 - share) * clean + share * (clean + velocity + 0.3 * old)
    inputs |= {"nft.clean": clean, "nft.noisy": noisy, "nft.velocity": velocity, "nft.old": old}
    inputs |= {"nft.sigma": sigma, "nft.optimality": torch.tensor([0.9, 0.2, 0.5, 0.7])}
    for name in ("winner", "loser", "reference_winner", "reference_loser"):
        inputs[f"dpo.{name}"] = 0.01 + 5e-4 * draw(6)

    exact = {name: x.double() for name, x in inputs.items()}
    expected = dpo(exact)
    cases = list(steps(exact, expected))
    for beta in NFT_BETAS:
        expected[f"nft.{beta}"], expected[f"nft.{beta}.gradient"] = nft(exact, beta)
    expected = {name: x.detach().float().contiguous() for name, x in expected.items()}
    assert all(tensor.isfinite().all() for tensor in expected.values())
    lines = ",\n".join(json.dumps(case) for case in cases)
    (out / "steps.json").write_text(f"[\n{lines}\n]\n")
    (out / "advantages.json").write_text(json.dumps(advantages(draw), indent=2) + "\n")
    save_file(inputs, out / "inputs.safetensors")
    save_file(expected, out / "expected.safetensors")


if __name__ == "__main__":
    main()
