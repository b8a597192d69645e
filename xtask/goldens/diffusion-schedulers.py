"""Goldens of the diffusion schedulers: timesteps, noise levels, steps and whole runs of diffusers' classes.

    python xtask/goldens/diffusion-schedulers.py data/goldens/diffusion-schedulers

- `cases.json`: for each case its name, the scheduler's word in mm, the config that the class reads, the
  options of the run (`eta`, `mu`, `original_inference_steps`, `strength`), and the number of noise draws in
  `forced` and in `run`.
- `inputs.safetensors`: what all cases share: `start` (noise), `clean` (an image), `added` (noise for the
  clean image), `outputs` (model outputs, one per call), `noises` (handed out in place of the generator's).
- `cases.safetensors`, per case:
  - `NAME/levels`: for each number of steps in LEVELS that the class takes, that number, init_noise_sigma,
    the number of timesteps and of sigmas, the timesteps, the sigmas; one list after the other.
  - `NAME/forced`: the samples of FORCED_STEPS steps whose model outputs are `outputs`.
  - `NAME/run`: the samples half-way and at the end of RUN_STEPS steps with `model`, from `start`.
  - `NAME/image`: `clean` noised for the third step and for the start of an image-to-image run of half the
    steps, and the end of that run.
- `training.safetensors`: `alphas_cumprod` of a few configs; noisy samples and velocities at `timesteps`, in
  f32 and in bf16.
"""

import importlib
import json
import math

import diffusers
import torch
from safetensors.torch import save_file

from shared.script import begin

PINNED = {"diffusers": "0.42.1", "torch": "2.13.0", "numpy": "2.4.6", "scipy": "1.17.1"}

SHAPE = (2, 4, 2, 2)
LEVELS = (1, 4, 7, 15, 20)
FORCED_STEPS = 6
RUN_STEPS = 20

CLASSES = {
    "ddpm": "DDPMScheduler",
    "ddim": "DDIMScheduler",
    "pndm": "PNDMScheduler",
    "lms": "LMSDiscreteScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler_a": "EulerAncestralDiscreteScheduler",
    "heun": "HeunDiscreteScheduler",
    "dpmpp_2m": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
    "lcm": "LCMScheduler",
    "flow_match_euler": "FlowMatchEulerDiscreteScheduler",
}
NOISE_CLASSES = [word for word in CLASSES if word != "flow_match_euler"]

# scheduler/scheduler_config.json of Stable Diffusion 1.5.
SD15 = {
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.6.0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
}


def cases():
    """(name, word, config, options) of each case."""
    for word in NOISE_CLASSES:
        yield "defaults", word, {}, {}
        yield "sd15", word, SD15, {}
        for spacing in ("leading", "trailing", "linspace"):
            for prediction in ("epsilon", "v_prediction", "sample"):
                if prediction == "sample" and word in ("pndm", "euler_a"):
                    continue
                config = {**SD15, "timestep_spacing": spacing, "prediction_type": prediction}
                yield f"{spacing}-{prediction}", word, config, {}
        yield "cosine", word, {**SD15, "beta_schedule": "squaredcos_cap_v2"}, {}
        yield "linear", word, {**SD15, "beta_schedule": "linear"}, {}
        trained = [round(0.001 + 0.0004 * index, 4) for index in range(60)]
        yield "trained-betas", word, {**SD15, "trained_betas": trained, "num_train_timesteps": 60}, {}
    for word in ("lms", "euler", "heun", "dpmpp_2m", "unipc"):
        for spacing in ("leading", "linspace"):
            for prediction in ("epsilon", "v_prediction"):
                config = {**SD15, "timestep_spacing": spacing, "prediction_type": prediction}
                yield f"karras-{spacing}-{prediction}", word, {**config, "use_karras_sigmas": True}, {}
        bounded = {**SD15, "sigma_min": 0.05, "sigma_max": 12.0}
        yield "exponential", word, {**SD15, "use_exponential_sigmas": True}, {}
        yield "karras-bounded", word, {**bounded, "use_karras_sigmas": True}, {}
        yield "exponential-bounded", word, {**bounded, "use_exponential_sigmas": True}, {}
    for word in ("ddpm", "ddim", "euler", "euler_a", "dpmpp_2m", "unipc", "lcm"):
        config = {**SD15, "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
        yield "zero-snr", word, {**config, "timestep_spacing": "trailing"}, {}
    for word in ("ddpm", "ddim", "heun", "lcm"):
        yield "clip", word, {**SD15, "clip_sample": True}, {}
        yield "clip-range", word, {**SD15, "clip_sample": True, "clip_sample_range": 0.5}, {}
    for word in ("ddpm", "ddim", "dpmpp_2m", "unipc", "lcm"):
        config = {**SD15, "thresholding": True, "dynamic_thresholding_ratio": 0.9, "sample_max_value": 1.5}
        yield "thresholding", word, config, {}
    for word in ("euler", "dpmpp_2m", "unipc"):
        config = {**SD15, "final_sigmas_type": "sigma_min"}
        yield "sigma-min", word, config, {}
        yield "sigma-min-karras", word, {**config, "use_karras_sigmas": True}, {}

    for kind in ("fixed_small_log", "fixed_large"):
        yield kind, "ddpm", {**SD15, "variance_type": kind}, {}
    for schedule in ("sigmoid", "laplace"):
        yield schedule, "ddpm", {**SD15, "beta_schedule": schedule}, {}
    for eta in (0.5, 1.0):
        yield f"eta-{eta}", "ddim", SD15, {"eta": eta}
    yield "eta-clip", "ddim", {**SD15, "clip_sample": True}, {"eta": 1.0}
    yield "alpha-to-one", "ddim", {**SD15, "set_alpha_to_one": True}, {}
    yield "alpha-to-one", "pndm", {**SD15, "set_alpha_to_one": True}, {}
    for prediction in ("epsilon", "v_prediction"):
        config = {**SD15, "skip_prk_steps": False, "prediction_type": prediction}
        yield f"prk-{prediction}", "pndm", config, {}
    yield "log-linear", "euler", {**SD15, "interpolation_type": "log_linear"}, {}
    continuous = {**SD15, "timestep_type": "continuous", "prediction_type": "v_prediction"}
    karras = {"use_karras_sigmas": True, "sigma_min": 0.002, "sigma_max": 80.0}
    yield "continuous", "euler", {**continuous, **karras}, {}
    yield "exp-betas", "heun", {**SD15, "beta_schedule": "exp"}, {}

    for order in (1, 3):
        yield f"order-{order}", "dpmpp_2m", {**SD15, "solver_order": order}, {}
        yield f"order-{order}", "unipc", {**SD15, "solver_order": order}, {}
    for solver in ("midpoint", "heun"):
        yield f"{solver}-type", "dpmpp_2m", {**SD15, "solver_type": solver}, {}
        config = {**SD15, "algorithm_type": "sde-dpmsolver++", "solver_type": solver}
        yield f"sde-{solver}", "dpmpp_2m", config, {}
    yield "sde-1", "dpmpp_2m", {**SD15, "algorithm_type": "sde-dpmsolver++", "solver_order": 1}, {}
    sde_karras = {"algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True}
    yield "sde-karras", "dpmpp_2m", {**SD15, **sde_karras}, {}
    for flag in ("euler_at_final", "lower_order_final"):
        for value in (True, False):
            config = {**SD15, "final_sigmas_type": "sigma_min", flag: value, "solver_order": 3}
            yield f"{flag}-{value}", "dpmpp_2m", config, {}
    yield "lu", "dpmpp_2m", {**SD15, "use_lu_lambdas": True}, {}
    clipped = {**SD15, "beta_schedule": "squaredcos_cap_v2", "lambda_min_clipped": -5.1}
    for spacing in ("leading", "trailing", "linspace"):
        yield f"clipped-{spacing}", "dpmpp_2m", {**clipped, "timestep_spacing": spacing}, {}
    yield "cosine-karras", "dpmpp_2m", {**clipped, "use_karras_sigmas": True}, {}
    bh1 = {**SD15, "solver_type": "bh1", "final_sigmas_type": "sigma_min"}  # not finite at sigma 0
    yield "bh1", "unipc", bh1, {}
    yield "bh1-3", "unipc", {**bh1, "solver_order": 3}, {}
    yield "no-corrector", "unipc", {**SD15, "disable_corrector": [0, 2, 11]}, {}
    yield "full-order", "unipc", {**SD15, "lower_order_final": False, "final_sigmas_type": "sigma_min"}, {}
    flow = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
    for word in ("dpmpp_2m", "unipc"):
        yield "flow", word, flow, {}
        yield "flow-shift", word, {**flow, "flow_shift": 3.0}, {}
        yield "flow-dynamic", word, {**flow, "use_dynamic_shifting": True}, {"mu": 0.8}
    yield "flow-terminal", "unipc", {**flow, "flow_shift": 3.0, "shift_terminal": 0.1}, {}
    yield "flow-karras", "unipc", {**SD15, **flow, "use_karras_sigmas": True}, {}
    yield "flow-sde", "dpmpp_2m", {**flow, "flow_shift": 3.0, "algorithm_type": "sde-dpmsolver++"}, {}

    yield "original-steps", "lcm", SD15, {"original_inference_steps": 40}
    yield "strength", "lcm", SD15, {"strength": 0.6}
    yield "scaling", "lcm", {**SD15, "timestep_scaling": 0.05, "original_inference_steps": 25}, {}

    yield "defaults", "flow_match_euler", {}, {}
    yield "shift", "flow_match_euler", {"shift": 3.0}, {}
    dynamic = {"use_dynamic_shifting": True, "shift": 3.0}
    yield "dynamic", "flow_match_euler", dynamic, {"mu": 0.9}
    yield "dynamic-linear", "flow_match_euler", {**dynamic, "time_shift_type": "linear"}, {"mu": 1.3}
    yield "terminal", "flow_match_euler", {**dynamic, "shift_terminal": 0.1}, {"mu": 0.9}
    yield "karras", "flow_match_euler", {"shift": 3.0, "use_karras_sigmas": True}, {}
    yield "exponential", "flow_match_euler", {"use_exponential_sigmas": True, "sigma_min": 0.02}, {}
    yield "inverted", "flow_match_euler", {"shift": 2.0, "invert_sigmas": True}, {}
    yield "stochastic", "flow_match_euler", {"shift": 3.0, "stochastic_sampling": True}, {}


def model(sample, timestep):
    return torch.sin(0.7 * sample + 0.001 * float(timestep)) * 0.9


class Noises:
    """Hands out the stored noises in place of `randn_tensor` and counts them."""

    def __init__(self, noises):
        self.noises = noises
        self.drawn = 0

    def __call__(self, shape, generator=None, device=None, dtype=None, **_):
        self.drawn += 1
        return self.noises[self.drawn - 1].to(dtype)


class Case:
    def __init__(self, word, config, options, inputs):
        self.type = getattr(diffusers, CLASSES[word])
        self.config = config
        self.options = options
        self.inputs = inputs
        self.noises = Noises(inputs["noises"])
        module = importlib.import_module(self.type.__module__)
        if hasattr(module, "randn_tensor"):
            module.randn_tensor = self.noises

    def scheduler(self, steps):
        scheduler = self.type.from_config(self.config)
        names = ("mu", "original_inference_steps", "strength")
        scheduler.set_timesteps(steps, **{name: self.options[name] for name in names if name in self.options})
        self.noises.drawn = 0
        self.begin(scheduler, 0)
        return scheduler

    def begin(self, scheduler, first):
        # Otherwise a run whose first timestep is there twice, by rounding, would skip its first step.
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(first)

    def step(self, scheduler, output, timestep, sample):
        options = {"eta": self.options["eta"]} if "eta" in self.options else {}
        return scheduler.step(output, timestep, sample, **options).prev_sample

    def levels(self):
        values = []
        for steps in LEVELS:
            try:
                scheduler = self.scheduler(steps)
            except (ValueError, IndexError):
                continue
            timesteps = scheduler.timesteps.double().tolist()
            sigmas = [float(sigma) for sigma in getattr(scheduler, "sigmas", [])]
            if not timesteps or any(math.isnan(number) for number in timesteps + sigmas):
                continue
            values += [steps, float(getattr(scheduler, "init_noise_sigma", 1.0)), len(timesteps), len(sigmas)]
            values += timesteps + sigmas
        return torch.tensor(values, dtype=torch.float32)

    def forced(self):
        scheduler = self.scheduler(FORCED_STEPS)
        sample = self.inputs["start"] * float(getattr(scheduler, "init_noise_sigma", 1.0))
        samples = []
        for output, timestep in zip(self.inputs["outputs"], scheduler.timesteps):
            self.scale(scheduler, sample, timestep)
            sample = self.step(scheduler, output, timestep, sample)
            samples.append(sample)
        return torch.stack(samples), self.noises.drawn

    def scale(self, scheduler, sample, timestep):
        if hasattr(scheduler, "scale_model_input"):
            return scheduler.scale_model_input(sample, timestep)
        return sample

    def go(self, scheduler, sample, first):
        samples = []
        for timestep in scheduler.timesteps[first:]:
            output = model(self.scale(scheduler, sample, timestep), timestep)
            sample = self.step(scheduler, output, timestep, sample)
            samples.append(sample)
        return samples

    def run(self):
        scheduler = self.scheduler(RUN_STEPS)
        start = self.inputs["start"] * float(getattr(scheduler, "init_noise_sigma", 1.0))
        samples = self.go(scheduler, start, 0)
        return torch.stack([samples[len(samples) // 2], samples[-1]]), self.noises.drawn

    def image(self):
        noised = []
        for step in (3, RUN_STEPS // 2):
            scheduler = self.scheduler(RUN_STEPS)
            first = step * scheduler.order
            self.begin(scheduler, first)
            timestep = scheduler.timesteps[first : first + 1].repeat(SHAPE[0])
            if hasattr(scheduler, "scale_noise"):
                sample = scheduler.scale_noise(self.inputs["clean"], timestep, self.inputs["added"])
            else:
                sample = scheduler.add_noise(self.inputs["clean"], self.inputs["added"], timestep)
            noised.append(sample)
        return torch.stack([*noised, self.go(scheduler, sample, first)[-1]])


def training():
    generator = torch.Generator().manual_seed(3)
    draw = lambda: torch.randn(SHAPE, generator=generator)  # noqa: E731
    tensors = {"original": draw(), "noise": draw(), "timesteps": torch.tensor([7, 903])}
    configs = {
        "sd15": SD15,
        "zero-snr": {**SD15, "rescale_betas_zero_snr": True},
        "cosine": {**SD15, "beta_schedule": "squaredcos_cap_v2"},
    }
    for name, config in configs.items():
        scheduler = diffusers.DDPMScheduler.from_config(config)
        tensors[f"{name}/alphas_cumprod"] = scheduler.alphas_cumprod
        for kind in (torch.float32, torch.bfloat16):
            suffix = "" if kind == torch.float32 else "-bf16"
            arguments = tensors["original"].to(kind), tensors["noise"].to(kind), tensors["timesteps"]
            tensors[f"{name}/noisy{suffix}"] = scheduler.add_noise(*arguments).float()
            tensors[f"{name}/velocity{suffix}"] = scheduler.get_velocity(*arguments).float()
    return tensors


def main():
    out = begin(PINNED)
    diffusers.utils.logging.set_verbosity_error()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(1)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    inputs = {
        "start": draw(*SHAPE),
        "clean": draw(*SHAPE) * 0.6,
        "added": draw(*SHAPE),
        "outputs": draw(2 * FORCED_STEPS + 4, *SHAPE),
        "noises": draw(RUN_STEPS, *SHAPE),
    }
    listed, tensors = [], {}
    for name, word, config, options in cases():
        case = Case(word, config, options, inputs)
        name = f"{word}-{name}"
        tensors[f"{name}/levels"] = case.levels()
        tensors[f"{name}/forced"], forced_draws = case.forced()
        tensors[f"{name}/run"], run_draws = case.run()
        if not name.startswith("pndm-prk") and name != "pndm-defaults":
            # Runge-Kutta steps cannot start in the middle.
            tensors[f"{name}/image"] = case.image()
        draws = {"forced": forced_draws, "run": run_draws}
        listed.append({"name": name, "kind": word, "config": config, "options": options, "draws": draws})
    not_finite = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    assert not not_finite, not_finite
    lines = ",\n".join(json.dumps(case) for case in listed)
    (out / "cases.json").write_text(f"[\n{lines}\n]\n")
    save_file(inputs, out / "inputs.safetensors")
    save_file(tensors, out / "cases.safetensors")
    save_file(training(), out / "training.safetensors")


if __name__ == "__main__":
    main()
