"""Goldens of mm-rlhf: rewards of small random models, computed with plain PyTorch and transformers.

    rlhf.py OUT_DIR

- clip/, image-reward/: folders of models. The weights of the second are one file with the tensor names of
  ImageReward's authors (blip.visual_encoder..., blip.text_encoder..., mlp.layers...).
- laion.safetensors, relu.safetensors: aesthetic MLPs of both forms for the CLIP's 24 features.
- prompts.json: a text for each of the four images.
- expected.safetensors: images [4, 32, 32, 3] u8, of the models' own size; for each of the kinds clip,
  pick_score, laion, relu and image_reward its scores [4] and "gradient.<kind>" [4, 3, 32, 32], that of the
  sum of the scores in pixels from 0 to 1. Of images of another size: large [2, 48, 40, 3] u8, resized in f32
  by PyTorch's antialiased bicubic filter, clamped, and cropped, with the scores large.clip [2] of the first
  two texts.
- jpeg.json: {photograph: bytes of it in Pillow's JPEG at quality 95}.
"""

import io
import json
from pathlib import Path

import torch
import torch.nn.functional as F
import transformers
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from shared.models import bert_tokenizer, save_expected, spread, write_clip_vocabulary
from shared.script import begin

PINNED = {
    "torch": "2.13.0",
    "transformers": "5.23.0",
    "open_clip_torch": "3.3.0",
    "tokenizers": "0.23.3",
    "pillow": "13.0.0",
}
MERGES = 200
SIDE = 32
FEATURES = 24
PROMPTS = ["a red circle", "two big dogs near the old house", "cat", "a red circle"]
PHOTOS = ["chelsea", "cell", "gravel", "coffee", "retina", "brick", "rocket", "hubble"]
MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)


def clip_tokenizer(folder):
    words = write_clip_vocabulary(folder, MERGES)
    return transformers.CLIPTokenizer.from_pretrained(folder, model_max_length=77), words


def clip(folder):
    tokenizer, words = clip_tokenizer(folder)
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = tower | {
        "vocab_size": words,
        "max_position_embeddings": 77,
        "bos_token_id": words - 2,
        "eos_token_id": words - 1,
        "pad_token_id": words - 1,
    }
    vision = tower | {"image_size": SIDE, "patch_size": 8}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=FEATURES)
    model = spread(transformers.CLIPModel(config), 1, 0.5)
    with torch.no_grad():
        model.logit_scale.fill_(2.0)
    model.save_pretrained(folder)
    transformers.CLIPImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
    ).save_pretrained(folder)
    return model, tokenizer


class Laion(nn.Module):
    """The aesthetic predictor of LAION, v2: no activations between the layers."""

    def __init__(self, widths):
        super().__init__()
        a, b, c, d = widths
        self.layers = nn.Sequential(
            nn.Linear(FEATURES, a), nn.Dropout(0.2), nn.Linear(a, b), nn.Dropout(0.2), nn.Linear(b, c)
        )
        self.layers.extend([nn.Dropout(0.1), nn.Linear(c, d), nn.Linear(d, 1)])

    def forward(self, x):
        return self.layers(x)[:, 0]


class Relu(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(FEATURES, width), nn.ReLU(), nn.Linear(width, 1))

    def forward(self, x):
        return self.layers(x)[:, 0]


def image_reward(folder):
    """BLIP's image-grounded text encoder and an MLP of its first state."""
    tokenizer, begin_id = bert_tokenizer(folder, added=True)
    hidden, wide = FEATURES, 32
    sizes = {"intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = sizes | {
        "vocab_size": begin_id + 2,
        "hidden_size": hidden,
        "encoder_hidden_size": wide,
        "max_position_embeddings": 64,
        "bos_token_id": begin_id,
        "sep_token_id": tokenizer.sep_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = sizes | {"hidden_size": wide, "image_size": SIDE, "patch_size": 8}
    config = transformers.BlipConfig(text_config=text, vision_config=vision)
    blip = spread(transformers.BlipForImageTextRetrieval(config), 2, 0.5)
    mlp = spread(Laion([20, 16, 8, 4]), 3, 0.5)
    config.save_pretrained(folder)
    transformers.BlipImageProcessorPil(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    state = {f"mlp.{name}": value for name, value in mlp.state_dict().items()}
    for name, value in blip.state_dict().items():
        if name.startswith(("vision_model.", "text_encoder.")) and "pooler" not in name:
            state[authors_name(name)] = value
    state["blip.text_encoder.embeddings.position_ids"] = torch.arange(64)[None]
    save_file({name: value.contiguous() for name, value in state.items()}, folder / "model.safetensors")

    def score(pixels, prompts):
        rows = tokenizer(prompts, padding="max_length", truncation=True, max_length=35, return_tensors="pt")
        image = blip.vision_model(pixel_values=(pixels - MEAN) / STD).last_hidden_state
        text = blip.text_encoder(
            input_ids=rows.input_ids,
            attention_mask=rows.attention_mask,
            encoder_hidden_states=image,
            encoder_attention_mask=torch.ones(image.shape[:2], dtype=torch.long),
        )
        return (mlp(text.last_hidden_state[:, 0]) - 0.16717) / 1.03334

    return score


def authors_name(name):
    """The name that ImageReward's file has for a tensor of transformers."""
    if name.startswith("text_encoder."):
        return f"blip.{name}"
    for ours, theirs in [
        ("vision_model.embeddings.class_embedding", "cls_token"),
        ("vision_model.embeddings.position_embedding", "pos_embed"),
        ("vision_model.embeddings.patch_embedding", "patch_embed.proj"),
        ("vision_model.post_layernorm", "norm"),
        ("vision_model.encoder.layers", "blocks"),
        ("layer_norm", "norm"),
        ("self_attn.qkv", "attn.qkv"),
        ("self_attn.projection", "attn.proj"),
    ]:
        name = name.replace(ours, theirs)
    return f"blip.visual_encoder.{name}"


def measured(score, pixels, prompts):
    """The scores, and the gradient of their sum."""
    pixels = pixels.clone().requires_grad_()
    scores = score(pixels, prompts)
    scores.sum().backward()
    return scores, pixels.grad


def photo_bytes(name):
    folder = Path(__file__).parents[2] / "data/goldens/images/photos"
    buffer = io.BytesIO()
    Image.open(folder / f"{name}.png").convert("RGB").save(buffer, format="JPEG", quality=95)
    return len(buffer.getvalue())


def main():
    out = begin(PINNED)
    model, tokenizer = clip(out / "clip")
    heads = {"laion": spread(Laion([16, 12, 8, 4]), 4, 0.5), "relu": spread(Relu(10), 5, 0.5)}
    for name, head in heads.items():
        save_file(head.state_dict(), out / f"{name}.safetensors")

    def embeds(pixels, prompts):
        rows = tokenizer(prompts, padding=True, return_tensors="pt")
        found = model(pixel_values=(pixels - MEAN) / STD, **rows)
        return found.image_embeds, found.text_embeds

    def cosine(pixels, prompts):
        image, text = embeds(pixels, prompts)
        return (image * text).sum(-1)

    kinds = {
        "clip": cosine,
        "pick_score": lambda pixels, prompts: model.logit_scale.exp() * cosine(pixels, prompts),
        "laion": lambda pixels, prompts: heads["laion"](embeds(pixels, prompts)[0]),
        "relu": lambda pixels, prompts: heads["relu"](embeds(pixels, prompts)[0]),
        "image_reward": image_reward(out / "image-reward"),
    }
    torch.manual_seed(6)
    images = torch.randint(0, 256, (len(PROMPTS), SIDE, SIDE, 3), dtype=torch.uint8)
    floats = lambda images: images.permute(0, 3, 1, 2).float() / 255
    expected = {"images": images}
    for name, score in kinds.items():
        expected[name], expected[f"gradient.{name}"] = measured(score, floats(images), PROMPTS)

    large = torch.randint(0, 256, (2, 48, 40, 3), dtype=torch.uint8)
    resized = F.interpolate(floats(large), size=(38, SIDE), mode="bicubic", antialias=True).clamp(0, 1)
    expected |= {"large": large, "large.clip": cosine(resized[:, :, 3:-3], PROMPTS[:2])}
    save_expected(out, expected)
    (out / "prompts.json").write_text(json.dumps(PROMPTS) + "\n")
    (out / "jpeg.json").write_text(json.dumps({name: photo_bytes(name) for name in PHOTOS}, indent=2) + "\n")


if __name__ == "__main__":
    main()
