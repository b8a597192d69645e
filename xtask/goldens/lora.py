"""Goldens of mm_core::lora: PEFT's adapters on the small CLIP of data/goldens/clip/clip.

    lora.py OUT_DIR

`adapter/` is PEFT's own folder, with random A and B; `expected.safetensors` holds the embeddings, the logits
and the loss for the inputs of the base model's goldens, the gradients of A and B, and the image embeddings
after merging.
"""

from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import CLIPModel

from shared.script import begin

PINNED = {"torch": "2.13.0", "transformers": "5.23.0", "peft": "0.21.2"}


def main():
    out = begin(PINNED)
    base = Path(__file__).parents[2] / "data/goldens/clip/clip"
    inputs = load_file(base / "expected.safetensors")
    inputs = {name: inputs[name] for name in ["pixel_values", "input_ids"]}
    config = LoraConfig(r=4, lora_alpha=6, target_modules=["q_proj", "v_proj", "fc1"])
    model = get_peft_model(CLIPModel.from_pretrained(base), config).eval()
    adapters = {name: value for name, value in model.named_parameters() if "lora_" in name}
    torch.manual_seed(7)
    with torch.no_grad():
        for value in adapters.values():
            value.copy_(0.2 * torch.randn_like(value))
    output = model(**inputs, return_loss=True)
    output.loss.backward()
    short = lambda name: name.removeprefix("base_model.model.").replace(".default", "")
    expected = {f"gradient.{short(name)}": value.grad for name, value in adapters.items()}
    expected |= {name: output[name] for name in ["image_embeds", "text_embeds", "logits_per_image", "loss"]}
    model.save_pretrained(out / "adapter")
    (out / "adapter/README.md").unlink(missing_ok=True)
    # Without the path of this machine.
    settings = out / "adapter/adapter_config.json"
    settings.write_text(settings.read_text().replace(str(base), "clip"))
    with torch.no_grad():
        expected["merged_image_embeds"] = model.merge_and_unload()(**inputs).image_embeds
    expected = {name: value.detach().clone().contiguous() for name, value in expected.items()}
    save_file(expected, out / "expected.safetensors")


if __name__ == "__main__":
    main()
