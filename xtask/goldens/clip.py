"""Goldens for mm-clip: small random CLIP and SigLIP models as transformers saves them, with what they compute.

    clip.py OUT_DIR

Made with torch 2.13, transformers 5.23.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPModel, SiglipConfig, SiglipModel

BATCH = 5
CONTEXT = 12
EOS = 98

TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}


def clip():
    text = TOWER | {"vocab_size": 99, "max_position_embeddings": CONTEXT, "eos_token_id": EOS, "bos_token_id": 97, "pad_token_id": EOS}
    vision = TOWER | {"hidden_size": 48, "image_size": 32, "patch_size": 8}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24))


def siglip():
    text = TOWER | {"vocab_size": 99, "max_position_embeddings": CONTEXT, "projection_size": 32}
    vision = TOWER | {"image_size": 32, "patch_size": 8}
    return SiglipModel(SiglipConfig(text_config=text, vision_config=vision))


def captions():
    """Texts of several lengths, from begin to end token, padded with the end token."""
    ids = torch.full((BATCH, CONTEXT), EOS)
    for row in range(BATCH):
        length = 3 + 2 * row if row < BATCH - 1 else CONTEXT
        ids[row, 0] = 97
        ids[row, 1 : length - 1] = torch.randint(1, 97, (length - 2,))
    return ids


def save(model, folder, watched):
    torch.manual_seed(11)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 0:
                parameter.add_(0.05 * torch.randn_like(parameter))
    pixel_values = torch.randn(BATCH, 3, 32, 32)
    input_ids = captions()
    output = model.eval()(input_ids=input_ids, pixel_values=pixel_values, return_loss=True)
    output.loss.backward()
    expected = {
        "pixel_values": pixel_values,
        "input_ids": input_ids,
        "image_embeds": output.image_embeds,
        "text_embeds": output.text_embeds,
        "logits_per_image": output.logits_per_image,
        "loss": output.loss,
    }
    parameters = dict(model.named_parameters())
    expected |= {f"gradient.{name}": parameters[name].grad for name in watched}
    folder.mkdir(parents=True)
    model.save_pretrained(folder)
    save_file({name: tensor.detach().contiguous() for name, tensor in expected.items()}, folder / "expected.safetensors")


def main():
    out = Path(sys.argv[1])
    common = [
        "text_model.encoder.layers.0.mlp.fc1.weight",
        "vision_model.embeddings.patch_embedding.weight",
        "vision_model.post_layernorm.weight",
        "logit_scale",
    ]
    torch.manual_seed(5)
    save(clip(), out / "clip", [*common, "visual_projection.weight", "text_projection.weight", "vision_model.embeddings.class_embedding"])
    torch.manual_seed(6)
    save(siglip(), out / "siglip", [*common, "logit_bias", "vision_model.head.probe", "text_model.head.weight"])


if __name__ == "__main__":
    main()
