"""Goldens of the objectives of diffusion training: losses and gradients.

    python xtask/goldens/diffusion-objectives.py data/goldens/diffusion-objectives

- `inputs.safetensors`: `clean`, `noise` and the model's `output` `[4, 4, 3, 3]`; `channels` `[4, 4, 1, 1]`,
  the noise that is the same for a channel; `sigmas` of a flow and `timesteps` of a diffusion process, `[4]`;
  `mask` `[4, 1, 3, 3]` from 0 to 1.
- `cases.json`: the objective of each case, as `[objective]` of a run has it, and what belongs to the
  scheduler: `prediction_type`.
- `expected.safetensors`, for case N:
  - `N/loss`: the loss of each image, `[4]`.
  - `N/gradient`: the gradient of their mean by the model's output.
  - `offset`: the noise of `noise_offset = 0.1`.

A flow is written out here from its definition; a diffusion process takes `add_noise`, `get_velocity` and
`compute_snr` of diffusers, and its losses as `train_text_to_image.py` has them.
"""

import json

import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr
from safetensors.torch import save_file

from shared.script import begin

PINNED = {"diffusers": "0.42.1", "torch": "2.13.0"}

SHAPE = (4, 4, 3, 3)
# The least share of noise, or of the image, that a division is by.
LEAST = 0.05
SD15 = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def flow(case, inputs, output):
    """The squared errors of a flow, elementwise."""
    sigma = inputs["sigmas"].view(-1, 1, 1, 1)
    clean, noise = inputs["clean"], inputs["noise"]
    noisy = (1 - sigma) * clean + sigma * noise
    if case["loss"] == case["prediction"]:
        target = {"velocity": noise - clean, "sample": clean, "noise": noise}[case["loss"]]
        return (output - target) ** 2
    velocity = {
        "velocity": lambda: output,
        "sample": lambda: (noisy - output) / sigma.clamp(min=LEAST),
        "noise": lambda: (output - noisy) / (1 - sigma).clamp(min=LEAST),
    }[case["prediction"]]()
    found, target = {
        "velocity": lambda: (velocity, noise - clean),
        "sample": lambda: (noisy - sigma * velocity, clean),
        "noise": lambda: (noisy + (1 - sigma) * velocity, noise),
    }[case["loss"]]()
    return (found - target) ** 2


def ddpm(case, inputs, output):
    """The errors of a diffusion process, elementwise and weighted."""
    prediction = case["prediction_type"]
    zero_snr = case.get("rescale_betas_zero_snr", False)
    scheduler = DDPMScheduler(**SD15, prediction_type=prediction, rescale_betas_zero_snr=zero_snr)
    clean, noise, timesteps = inputs["clean"], inputs["noise"], inputs["timesteps"]
    target = {
        "epsilon": lambda: noise,
        "v_prediction": lambda: scheduler.get_velocity(clean, noise, timesteps),
        "sample": lambda: clean,
    }[prediction]()
    errors = (output - target.double()) ** 2
    if "huber" in case:
        delta = case["huber"]
        errors = 2 * delta * (torch.sqrt(errors + delta**2) - delta)
    if "min_snr_gamma" in case:
        snr = compute_snr(scheduler, timesteps).double()
        weight = snr.clamp(max=case["min_snr_gamma"])
        if prediction == "epsilon":
            # 0 / 0 at the last step of a schedule that ends in noise alone: the limit.
            weight = torch.where(snr == 0, 1.0, weight / snr)
        elif prediction == "v_prediction":
            weight = weight / (snr + 1)
        errors = errors * weight.view(-1, 1, 1, 1)
    return errors


def cases():
    for prediction in ("velocity", "sample", "noise"):
        for loss in ("velocity", "sample", "noise"):
            yield {"kind": "flow", "prediction": prediction, "loss": loss}
    yield {"kind": "flow", "prediction": "sample", "loss": "velocity", "is_masked": True}
    for prediction in ("epsilon", "v_prediction", "sample"):
        case = {"kind": "ddpm", "prediction_type": prediction}
        yield case
        yield {**case, "min_snr_gamma": 5.0}
        yield {**case, "huber": 0.1}
        yield {**case, "min_snr_gamma": 5.0, "huber": 0.1, "rescale_betas_zero_snr": True}
    yield {"kind": "ddpm", "prediction_type": "epsilon", "min_snr_gamma": 5.0, "is_masked": True}


def main():
    out = begin(PINNED)
    generator = torch.Generator().manual_seed(5)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    inputs = {
        "clean": draw(*SHAPE) * 0.6,
        "noise": draw(*SHAPE),
        "output": draw(*SHAPE),
        "channels": draw(SHAPE[0], SHAPE[1], 1, 1),
        # Beyond both ends of where a division is bounded, and between.
        "sigmas": torch.tensor([0.02, 0.4, 0.7, 0.98]),
        "timesteps": torch.tensor([3, 300, 750, 999]),
        "mask": torch.rand(SHAPE[0], 1, *SHAPE[2:], generator=generator),
    }
    listed, expected = [], {}
    exact = {name: x.double() if x.is_floating_point() else x for name, x in inputs.items()}
    for number, case in enumerate(cases()):
        output = exact["output"].clone().requires_grad_()
        errors = {"flow": flow, "ddpm": ddpm}[case["kind"]](case, exact, output)
        if case.get("is_masked"):
            errors = errors * exact["mask"]
        losses = errors.mean(dim=(1, 2, 3))
        losses.mean().backward()
        expected[f"{number}/loss"] = losses.detach().float()
        expected[f"{number}/gradient"] = output.grad.float()
        listed.append(case)
    expected["offset"] = inputs["noise"] + 0.1 * inputs["channels"]
    assert all(tensor.isfinite().all() for tensor in expected.values())
    lines = ",\n".join(json.dumps(case) for case in listed)
    (out / "cases.json").write_text(f"[\n{lines}\n]\n")
    save_file(inputs, out / "inputs.safetensors")
    save_file(expected, out / "expected.safetensors")


if __name__ == "__main__":
    main()
