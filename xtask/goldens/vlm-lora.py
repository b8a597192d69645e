"""Goldens of mm-vqa's adapters: PEFT's adapters on the small SmolVLM and LLaVA of data/goldens/vlm.

    vlm-lora.py OUT_DIR

Folders `smolvlm` and `llava`, each with

- adapter/: PEFT's own folder, with random A and B, on layers of the decoder, the connector and the tower;
- expected.safetensors: for the batch of the base model's goldens the logits [2, L, vocab], the loss, and the
  gradients of A and B, named "gradient.<layer>.lora_A.weight".
"""

from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

from shared.script import begin

PINNED = {"torch": "2.13.0", "transformers": "5.23.0", "peft": "0.21.2"}
BASES = Path(__file__).parents[2] / "data/goldens/vlm"
TARGETS = {
    "smolvlm": ["q_proj", "v_proj", "down_proj", "modality_projection.proj"],
    "llava": ["q_proj", "v_proj", "gate_proj", "linear_1"],
}
# Mean and deviation of the image processors.
CLIP = ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])
NORMALIZE = {"smolvlm": ([0.5] * 3, [0.5] * 3), "llava": CLIP}


def pixel_values(name):
    """The images of the first two items, as the model takes them."""
    levels = load_file(BASES / name / "items.safetensors")
    mean, std = (torch.tensor(numbers).view(3, 1, 1) for numbers in NORMALIZE[name])
    sets = [(levels[item].float() / 255 - mean) / std for item in "01"]
    if name == "llava":
        return torch.cat(sets)
    most = max(map(len, sets))
    # Images of zeros are no images.
    return torch.stack([torch.cat([s, torch.zeros(most - len(s), *s.shape[1:])]) for s in sets])


def write(out, name):
    base = BASES / name
    batch = load_file(base / "expected.safetensors")
    inputs = {key: batch[key] for key in ["input_ids", "attention_mask", "labels"]}
    config = LoraConfig(r=3, lora_alpha=6, target_modules=TARGETS[name])
    plain = AutoModelForImageTextToText.from_pretrained(base, dtype=torch.float32).eval()
    with torch.no_grad():
        loss = plain(**inputs, pixel_values=pixel_values(name)).loss
    assert torch.allclose(loss, batch["loss"], atol=1e-4), (name, loss, batch["loss"])
    model = get_peft_model(plain, config).eval()
    adapters = {key: value for key, value in model.named_parameters() if "lora_" in key}
    torch.manual_seed(7)
    with torch.no_grad():
        for value in adapters.values():
            value.copy_(0.2 * torch.randn_like(value))
    output = model(**inputs, pixel_values=pixel_values(name))
    output.loss.backward()
    short = lambda key: key.removeprefix("base_model.model.").replace(".default", "")
    # Of layers behind the one that is read there is none.
    with_gradient = {key: value.grad for key, value in adapters.items() if value.grad is not None}
    expected = {f"gradient.{short(key)}": value for key, value in with_gradient.items()}
    expected |= {"logits": output.logits, "loss": output.loss}
    folder = out / name
    model.save_pretrained(folder / "adapter")
    (folder / "adapter/README.md").unlink(missing_ok=True)
    # Without the path of this machine.
    settings = folder / "adapter/adapter_config.json"
    settings.write_text(settings.read_text().replace(str(base), name))
    expected = {key: value.detach().clone().contiguous() for key, value in expected.items()}
    save_file(expected, folder / "expected.safetensors")


def main():
    out = begin(PINNED)
    for name in TARGETS:
        (out / name).mkdir(exist_ok=True)
        write(out, name)


if __name__ == "__main__":
    main()
