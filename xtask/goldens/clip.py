"""Goldens of mm-clip: small random models of transformers, open_clip and OpenAI, with their outputs.

    clip.py OUT_DIR

Each folder holds a model in its own format and `expected.safetensors`: inputs, embeddings, logits, the loss
and some of its gradients (with the folder's parameter names). A folder of one tower holds that tower's
output.
"""

import json
import tempfile

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from transformers import (
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    SiglipConfig,
    SiglipModel,
    SiglipTextConfig,
    SiglipTextModel,
    SiglipVisionConfig,
    SiglipVisionModel,
    ViTConfig,
    ViTModel,
)

from shared.script import begin

PINNED = {"torch": "2.13.0", "transformers": "5.23.0", "open_clip_torch": "3.3.0", "timm": "1.0.31"}
BATCH = 5
CONTEXT = 12
EOS = 98

TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
TEXT = TOWER | {
    "vocab_size": 99,
    "max_position_embeddings": CONTEXT,
    "eos_token_id": EOS,
    "bos_token_id": 97,
    "pad_token_id": EOS,
}
VISION = TOWER | {"image_size": 32, "patch_size": 8}


def captions():
    """Texts of several lengths, from begin to end token, padded with the end token."""
    ids = torch.full((BATCH, CONTEXT), EOS)
    for row in range(BATCH):
        length = 3 + 2 * row if row < BATCH - 1 else CONTEXT
        ids[row, 0] = 97
        ids[row, 1 : length - 1] = torch.randint(1, 97, (length - 2,))
    return ids


def stir(model, seed):
    """Changes every parameter and running statistic, so that a wrong use of it changes the outputs."""
    torch.manual_seed(seed)
    with torch.no_grad():
        statistics = [(name, buffer) for name, buffer in model.named_buffers() if "running_" in name]
        for name, tensor in [*model.named_parameters(), *statistics]:
            if tensor.dim() == 0:
                continue
            noise = 0.05 * torch.randn_like(tensor)
            tensor.add_(noise.abs() if name.endswith("running_var") else noise)
    return model.eval()


def save_expected(folder, expected):
    tensors = {name: tensor.detach().clone().contiguous() for name, tensor in expected.items()}
    save_file(tensors, folder / "expected.safetensors")


def pair(folder, model, size, run, save, watched, pad=EOS):
    """A model of both towers: `run` returns unit rows of images and texts, the logits and the loss."""
    folder.mkdir(parents=True)
    stir(model, sum(folder.name.encode()))
    pixel_values, input_ids = torch.randn(BATCH, 3, size, size), captions()
    if pad != EOS:
        for row in input_ids:
            end = int((row == EOS).nonzero()[0])
            row[end + 1 :] = pad
    image_embeds, text_embeds, logits, loss = run(model, pixel_values, input_ids)
    loss.backward()
    parameters = dict(model.named_parameters())
    expected = {
        "pixel_values": pixel_values,
        "input_ids": input_ids,
        "image_embeds": image_embeds,
        "text_embeds": text_embeds,
        "logits_per_image": logits,
        "loss": loss,
    }
    save(model, folder)
    save_expected(folder, expected | {f"gradient.{name}": parameters[name].grad for name in watched})


def run_transformers(model, pixel_values, input_ids):
    output = model(input_ids=input_ids, pixel_values=pixel_values, return_loss=True)
    return output.image_embeds, output.text_embeds, output.logits_per_image, output.loss


def run_open_clip(model, pixel_values, input_ids):
    image, text = (
        model.encode_image(pixel_values, normalize=True),
        model.encode_text(input_ids, normalize=True),
    )
    logits = model.logit_scale.exp() * image @ text.T
    if getattr(model, "logit_bias", None) is not None:
        logits = logits + model.logit_bias
        signs = 2 * torch.eye(len(logits)) - 1
        return image, text, logits, -F.logsigmoid(signs * logits).sum() / len(logits)
    labels = torch.arange(len(logits))
    return image, text, logits, (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


def save_transformers(model, folder, **options):
    model.save_pretrained(folder, **options)


def transformers_pairs(out):
    watched = [
        "text_model.encoder.layers.0.mlp.fc1.weight",
        "vision_model.embeddings.patch_embedding.weight",
        "vision_model.post_layernorm.weight",
        "logit_scale",
    ]
    clip = [
        *watched,
        "visual_projection.weight",
        "text_projection.weight",
        "vision_model.embeddings.class_embedding",
    ]
    wide = VISION | {"hidden_size": 48}
    # 47 pixels are three patches of 14 and a margin that no patch covers.
    odd = VISION | {"image_size": 47, "patch_size": 14, "hidden_act": "gelu"}
    for name, text, vision, pad in [
        ("clip", TEXT, wide, EOS),
        ("clip-gelu-14", TEXT | {"hidden_act": "gelu"}, odd, EOS),
        ("clip-legacy-eos", TEXT | {"eos_token_id": 2, "pad_token_id": 0}, VISION, 0),
    ]:
        model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24))
        pair(out / name, model, vision["image_size"], run_transformers, save_transformers, clip, pad)
    model = CLIPModel(CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=24))
    shards = lambda model, folder: save_transformers(model, folder, max_shard_size="60KB")
    pair(out / "clip-sharded", model, 32, run_transformers, shards, [])

    text = TOWER | {"vocab_size": 99, "max_position_embeddings": CONTEXT, "projection_size": 32}
    model = SiglipModel(SiglipConfig(text_config=text, vision_config=VISION))
    siglip = [*watched, "logit_bias", "vision_model.head.probe", "text_model.head.weight"]
    pair(out / "siglip", model, 32, run_transformers, save_transformers, siglip)


OPEN_CLIP_VISION = {
    "image_size": 32,
    "layers": 2,
    "width": 32,
    "head_width": 8,
    "patch_size": 8,
    "mlp_ratio": 2.0,
}
OPEN_CLIP_TEXT = {
    "context_length": CONTEXT,
    "vocab_size": 99,
    "width": 32,
    "heads": 4,
    "layers": 2,
    "mlp_ratio": 2.0,
}
RESNET = {"image_size": 64, "layers": [1, 2, 1, 1], "width": 4}
PREPROCESS = {
    "mean": [0.48, 0.46, 0.41],
    "std": [0.27, 0.26, 0.28],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}


def save_open_clip(config, size):
    def save(model, folder):
        state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
        save_file(state, folder / "open_clip_model.safetensors", metadata={"format": "pt"})
        config_file = {"model_cfg": config, "preprocess_cfg": {"size": size, "mode": "RGB", **PREPROCESS}}
        (folder / "open_clip_config.json").write_text(json.dumps(config_file, indent=2) + "\n")

    return save


def open_clip_pairs(out):
    from open_clip.model import CLIP, CustomTextCLIP

    vit = {"embed_dim": 24, "vision_cfg": OPEN_CLIP_VISION, "text_cfg": OPEN_CLIP_TEXT}
    resnet = {"embed_dim": 24, "vision_cfg": RESNET, "text_cfg": OPEN_CLIP_TEXT, "quick_gelu": True}
    custom = vit | {"init_logit_bias": -10, "custom_text": True}
    for name, config, size, kind, watched in [
        (
            "open-clip-vit",
            vit,
            32,
            CLIP,
            ["visual.proj", "text_projection", "visual.transformer.resblocks.0.attn.in_proj_weight"],
        ),
        (
            "open-clip-resnet",
            resnet,
            64,
            CLIP,
            ["visual.attnpool.c_proj.weight", "visual.layer1.0.conv1.weight", "ln_final.bias"],
        ),
        ("open-clip-siglip-loss", custom, 32, CustomTextCLIP, ["logit_bias", "logit_scale"]),
    ]:
        model = kind(**{key: value for key, value in config.items() if key != "custom_text"})
        pair(out / name, model, size, run_open_clip, save_open_clip(config, size), watched)


BERT = {
    "vocab_size": 99,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 1,
    "intermediate_size": 96,
    "max_position_embeddings": 20,
}


def hf_tower_pair(out):
    """BiomedCLIP in small: timm's smallest ViT and a BERT, with weights in f16. The images are outer products
    of `rows` and `columns`. Beside the embeddings are those of texts with another pooling or projection."""
    from open_clip.model import CustomTextCLIP

    text = {"hf_model_name": "org/bert", "hf_proj_type": "mlp", "context_length": CONTEXT}
    text["hf_pooler_type"] = "cls_last_hidden_state_pooler"
    vision = {"timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "linear", "image_size": 160}
    config = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text}

    def build(**changed):
        with tempfile.TemporaryDirectory() as bert:
            BertConfig(**BERT).save_pretrained(bert)
            local = text | {"hf_model_name": bert, "hf_model_pretrained": False} | changed
            return stir(CustomTextCLIP(**config | {"text_cfg": local}), 7)

    model = build()
    with torch.no_grad():  # the outputs are computed with the saved values
        for tensor in model.state_dict().values():
            tensor.copy_(tensor.half())
    rows, columns, input_ids = torch.randn(BATCH, 3, 160), torch.randn(BATCH, 3, 160), captions()
    for row in input_ids:
        row[int((row == EOS).nonzero()[0]) + 1 :] = 0
    pixel_values = rows[..., None] * columns[..., None, :]
    image_embeds, text_embeds, logits, loss = run_open_clip(model, pixel_values, input_ids)
    loss.backward()
    expected = {
        "rows": rows,
        "columns": columns,
        "input_ids": input_ids,
        "attention_mask": (input_ids != 0).long(),
        "image_pooled": model.visual.trunk(pixel_values),
        "image_embeds": image_embeds,
        "text_embeds": text_embeds,
        "logits_per_image": logits,
        "loss": loss,
    }
    parameters = dict(model.named_parameters())
    for name in [
        "logit_scale",
        "visual.head.proj.weight",
        "visual.trunk.cls_token",
        "visual.trunk.blocks.0.attn.qkv.bias",
        "text.proj.0.weight",
        "text.transformer.encoder.layer.0.attention.self.value.bias",
    ]:
        expected[f"gradient.{name}"] = parameters[name].grad
    for name, changed in [
        ("mean", {"hf_pooler_type": "mean_pooler"}),
        ("pooler", {"hf_pooler_type": "cls_pooler"}),
        ("linear", {"hf_proj_type": "linear"}),
    ]:
        other = build(**changed)
        keys = other.load_state_dict(model.state_dict(), strict=False)
        for key in keys.missing_keys:
            expected[f"{name}/{key}"] = other.state_dict()[key]
        expected[f"{name}/text_embeds"] = other.encode_text(input_ids, normalize=True)

    folder = out / "open-clip-biomed"
    folder.mkdir(parents=True)
    save_open_clip(config, 160)(model.half(), folder)
    save_expected(folder, expected)


def save_openai(model, folder):
    """The content of OpenAI's archives: weights in f16, and three numbers."""
    state = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}
    size = torch.tensor(model.visual.image_size).flatten()[0].clone()
    state |= {
        "input_resolution": size,
        "context_length": torch.tensor(CONTEXT),
        "vocab_size": torch.tensor(99),
    }
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def openai_pairs(out):
    from open_clip.model import CLIP

    text = {"context_length": CONTEXT, "vocab_size": 99, "width": 64, "heads": 1, "layers": 1}
    vit = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16}
    for name, vision, size in [("openai-vit", vit, 32), ("openai-resnet", RESNET, 64)]:
        model = stir(CLIP(embed_dim=24, vision_cfg=vision, text_cfg=text, quick_gelu=True), 3)
        with torch.no_grad():  # the outputs are computed with the saved values
            for tensor in model.state_dict().values():
                tensor.copy_(tensor.half())
        rounded_pair(out / name, model, size)


def rounded_pair(folder, model, size):
    folder.mkdir(parents=True)
    torch.manual_seed(sum(folder.name.encode()))
    pixel_values, input_ids = torch.randn(BATCH, 3, size, size), captions()
    with torch.no_grad():
        image, text, logits, loss = run_open_clip(model, pixel_values, input_ids)
    save_openai(model, folder)
    names = ["pixel_values", "input_ids", "image_embeds", "text_embeds", "logits_per_image", "loss"]
    save_expected(folder, dict(zip(names, [pixel_values, input_ids, image, text, logits, loss])))


def lone_towers(out):
    pixel_values, input_ids = torch.randn(BATCH, 3, 32, 32), captions()
    mask = torch.ones_like(input_ids)
    mask[0, 3:] = 0
    vision, text = lambda m: m(pixel_values), lambda m: m(input_ids)
    for name, model, run in [
        (
            "clip-vision",
            CLIPVisionModelWithProjection(CLIPVisionConfig(**VISION, projection_dim=24)),
            lambda m: vision(m).image_embeds,
        ),
        (
            "clip-text",
            CLIPTextModelWithProjection(CLIPTextConfig(**TEXT, projection_dim=24)),
            lambda m: text(m).text_embeds,
        ),
        ("siglip-vision", SiglipVisionModel(SiglipVisionConfig(**VISION)), lambda m: vision(m).pooler_output),
        ("siglip-text", SiglipTextModel(SiglipTextConfig(**TEXT)), lambda m: text(m).pooler_output),
        ("vit", ViTModel(ViTConfig(**VISION)), lambda m: vision(m).pooler_output),
        (
            "vit-without-pooler",
            ViTModel(ViTConfig(**VISION), add_pooling_layer=False),
            lambda m: vision(m).last_hidden_state[:, 0],
        ),
        (
            "bert",
            BertModel(BertConfig(**TOWER, vocab_size=99, max_position_embeddings=20)),
            lambda m: m(input_ids, mask).pooler_output,
        ),
    ]:
        folder = out / name
        folder.mkdir(parents=True)
        stir(model, sum(name.encode()))
        with torch.no_grad():
            output = run(model)
        model.save_pretrained(folder)
        is_text = "text" in name or name == "bert"
        inputs = (
            {"input_ids": input_ids, "attention_mask": mask} if is_text else {"pixel_values": pixel_values}
        )
        save_expected(folder, inputs | {"output": output})


def main():
    out = begin(PINNED)
    torch.manual_seed(5)
    transformers_pairs(out)
    open_clip_pairs(out)
    openai_pairs(out)
    lone_towers(out)
    hf_tower_pair(out)


if __name__ == "__main__":
    main()
