"""Goldens of mm-vision: small random towers, with the peers' outputs.

    python xtask/goldens/vision.py data/goldens/vision

Each folder holds model.safetensors, config.json (the peer's own where it has one) and expected.safetensors:
pixel_values, direction, output and gradients of sum(output * direction), named "grad.<weight>". `processor`
holds images, configs and pixels.
"""

import json

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from shared.script import begin

PINNED = {
    "torch": "2.13.0",
    "torchvision": "0.28.0",
    "transformers": "5.23.0",
    "open_clip_torch": "3.3.0",
    "pillow": "13.0.0",
}


def randomise(model):
    """Changes every parameter and running statistic, so that a wrong use of it changes the outputs."""
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if not tensor.is_floating_point():
            continue
        noise = torch.randn_like(tensor)
        if name.endswith("running_var"):
            tensor.data = 1 + 0.3 * noise.abs()
        elif tensor.dim() <= 1 and name.endswith("weight"):
            tensor.data = 1 + 0.2 * noise  # a norm's scale
        elif tensor.dim() == 4 and "embedding" not in name:
            tensor.data = noise * (2 / tensor[0].numel()) ** 0.5
        elif tensor.dim() >= 2:
            tensor.data = noise * tensor.shape[-1] ** -0.5
        else:
            tensor.data = 0.2 * noise


def expect(folder, model, config, pixel_values, run, weights):
    """Saves a model, its output and gradients; with batch norms also those in training mode."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.detach().clone().contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    expected = {"pixel_values": pixel_values}
    has_norms = any(name.endswith("running_mean") for name in state)
    for mode in ["", "train."] if has_norms else [""]:
        model.train(mode == "train.")
        model.zero_grad()
        output = run(model, pixel_values)
        if "direction" not in expected:
            expected["direction"] = torch.randn_like(output)
        (output * expected["direction"]).sum().backward()
        expected[f"{mode}output"] = output.detach()
        for name in weights:
            expected[f"{mode}grad.{name}"] = model.get_parameter(name).grad.clone()
    if has_norms:
        name = [name for name in state if name.endswith("running_var")][-1]
        expected[f"after.{name}"] = model.get_buffer(name).clone()
    save_file(expected, folder / "expected.safetensors")


def transformers_towers(out):
    from transformers import CLIPVisionConfig, CLIPVisionModel, SiglipVisionConfig, SiglipVisionModel

    sizes = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
    layer = "encoder.layers.1."
    weights = [
        "embeddings.patch_embedding.weight",
        "embeddings.position_embedding.weight",
        layer + "self_attn.q_proj.weight",
        layer + "self_attn.v_proj.weight",
        layer + "mlp.fc2.weight",
    ]
    clip = weights + ["embeddings.class_embedding", "pre_layrnorm.weight"]
    siglip = weights + [
        "head.probe",
        "head.attention.in_proj_weight",
        "head.attention.in_proj_bias",
        "head.mlp.fc1.weight",
    ]
    cases = [
        ("clip-vit", CLIPVisionModel, CLIPVisionConfig(**sizes, image_size=32, patch_size=8), clip),
        (
            "clip-vit-14",
            CLIPVisionModel,
            # 47 pixels are three patches of 14 and a margin that no patch covers.
            CLIPVisionConfig(**sizes, image_size=47, patch_size=14, hidden_act="gelu"),
            clip,
        ),
        ("siglip-vit", SiglipVisionModel, SiglipVisionConfig(**sizes, image_size=32, patch_size=8), siglip),
    ]
    for name, model, config, weights in cases:
        model = model(config).eval()
        randomise(model)
        pixel_values = torch.randn(2, 3, config.image_size, config.image_size)
        expect(out / name, model, config.to_dict(), pixel_values, lambda m, x: m(x).pooler_output, weights)


def torchvision_towers(out):
    from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

    class NarrowResNet(ResNet):
        """torchvision's ResNet with fewer channels than its fixed 64."""

        def __init__(self, block, layers, width):
            self.width = width
            super().__init__(block, layers)
            self.conv1 = torch.nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
            self.bn1 = torch.nn.BatchNorm2d(width)
            self.fc = torch.nn.Identity()

        def _make_layer(self, block, planes, *args, **kwargs):
            if planes == 64:
                self.inplanes = self.width
            return super()._make_layer(block, planes * self.width // 64, *args, **kwargs)

    # Bottleneck's inner width is planes * base_width / 64, and so is narrower too.
    cases = [(18, BasicBlock, [2, 2, 2, 2], 4), (50, Bottleneck, [3, 4, 6, 3], 4)]
    for depth, block, layers, width in cases:
        model = NarrowResNet(block, layers, width)
        randomise(model)
        config = {"depth": depth, "width": width, "image_size": 64}
        weights = [
            "conv1.weight",
            "layer1.0.bn1.weight",
            "layer2.0.downsample.0.weight",
            "layer3.1.conv2.weight",
        ]
        expect(out / f"resnet{depth}", model, config, torch.randn(2, 3, 64, 64), lambda m, x: m(x), weights)


def open_clip_tower(out):
    from open_clip.modified_resnet import ModifiedResNet

    config = {"layers": [1, 2, 1, 1], "width": 4, "heads": 4, "output_dim": 16, "image_size": 64}
    model = ModifiedResNet(**config)
    randomise(model)
    pool = "attnpool."
    weights = [
        "conv1.weight",
        "layer1.0.bn3.weight",
        "layer2.0.downsample.0.weight",
        pool + "positional_embedding",
    ]
    weights += [pool + "q_proj.bias", pool + "v_proj.bias", pool + "c_proj.weight"]
    expect(out / "modified-resnet", model, config, torch.randn(2, 3, 64, 64), lambda m, x: m(x), weights)


def processors(out):
    from transformers import CLIPImageProcessorPil, SiglipImageProcessorPil

    folder = out / "processor"
    folder.mkdir(parents=True, exist_ok=True)
    # Smooth, as photographs are: where values clip, the order of the two passes of a resize matters.
    x, y = np.meshgrid(np.arange(83), np.arange(60))
    texture = [255 * (x + y) / 141, 255 * x * x / 6724, 128 + 100 * np.sin(x / 5) * np.cos(y / 7)]
    wide = Image.fromarray(np.stack(texture, -1).astype(np.uint8))
    images = {
        "wide": wide,
        "tall": wide.transpose(Image.Transpose.ROTATE_90).resize((30, 43), Image.Resampling.BICUBIC),
    }
    for name, image in images.items():
        image.save(folder / f"{name}.png")
    cases = {
        "clip": CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        "clip-pad": CLIPImageProcessorPil(size={"shortest_edge": 24}, crop_size={"height": 32, "width": 30}),
        "siglip": SiglipImageProcessorPil(size={"height": 32, "width": 48}),
        "unscaled": SiglipImageProcessorPil(size={"height": 32, "width": 32}, do_rescale=False),
    }
    expected = {}
    for name, processor in cases.items():
        (folder / f"{name}.json").write_text(processor.to_json_string())
        expected[name] = (
            processor(list(images.values()), return_tensors="pt")["pixel_values"].float().contiguous()
        )
    save_file(expected, folder / "expected.safetensors")


def main():
    out = begin(PINNED)
    torch.manual_seed(11)
    torch.use_deterministic_algorithms(True)
    transformers_towers(out)
    torchvision_towers(out)
    open_clip_tower(out)
    processors(out)


if __name__ == "__main__":
    main()
