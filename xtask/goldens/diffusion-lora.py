"""Goldens of mm-diffusion's LoRA files and single-file checkpoints, on tiny models with random weights.

    diffusion-lora.py OUT_DIR

- `sd1/`, `sdxl/`, `sd3/`: the weights of each part under diffusers' names, exact in f16.
- `NAME.safetensors`, `peft-folder/`: one LoRA per spelling, with alpha unlike the rank where one is stored.
- `expected.safetensors`: `CASE.PART.MODULE.weight`, some weights after diffusers' own loading and fusing.
- `expected.json`: of each case the files, their scales, and the sum of magnitudes of every changed weight.
- `ldm-sd1.safetensors`, `ldm-sd2.safetensors`, `ldm-sdxl.safetensors`: CompVis's form, which diffusers reads
  back here as the same weights; `ldm-sd2.json`: of each tensor of SD 2's parts the sum of the magnitudes.
- `textual-inversion.safetensors`, `textual-inversion.json`: two vectors and what diffusers makes of them.
"""

import json
import tempfile
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    SD3Transformer2DModel,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from diffusers.loaders.single_file_utils import create_diffusers_clip_model_from_ldm
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from shared.script import begin

PINNED = {"torch": "2.13.0", "transformers": "5.23.0", "peft": "0.21.2", "diffusers": "0.42.1"}

RANK = 3
KOHYA = {"unet": "lora_unet", "text_encoder": "lora_te", "text_encoder_2": "lora_te2"}

UNET = "down_blocks.{b}.attentions.0.transformer_blocks.0"
ATTENTION = ["attn1.to_q", "attn1.to_out.0", "attn2.to_k"]
TEXT = ["self_attn.q_proj", "self_attn.out_proj", "mlp.fc1"]


def unet(**kind):
    return UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        attention_head_dim=2, **kind,
    )


def text_encoder(width, act, with_projection=False):
    config = CLIPTextConfig(
        vocab_size=40, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=12, hidden_act=act, projection_dim=width,
        bos_token_id=38, eos_token_id=39, pad_token_id=39,
    )
    return (CLIPTextModelWithProjection if with_projection else CLIPTextModel)(config)


def vae():
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(4, 8), layers_per_block=1, norm_num_groups=2, latent_channels=4,
    )


def models():
    first = ("CrossAttnDownBlock2D", "DownBlock2D"), ("UpBlock2D", "CrossAttnUpBlock2D")
    last = ("DownBlock2D", "CrossAttnDownBlock2D"), ("CrossAttnUpBlock2D", "UpBlock2D")
    kind = lambda blocks, **more: dict(down_block_types=blocks[0], up_block_types=blocks[1], **more)
    xl = kind(
        last, cross_attention_dim=24, use_linear_projection=True, transformer_layers_per_block=(1, 2),
        addition_embed_type="text_time", addition_time_embed_dim=4, projection_class_embeddings_input_dim=40,
    )
    return {
        "sd1": {
            "unet": unet(**kind(first, cross_attention_dim=8)),
            "vae": vae(),
            "text_encoder": text_encoder(8, "quick_gelu"),
        },
        "sd2": {
            "unet": unet(**kind(first, cross_attention_dim=8, use_linear_projection=True)),
            "vae": vae(),
            "text_encoder": text_encoder(8, "gelu"),
        },
        "sdxl": {
            "unet": unet(**xl),
            "vae": vae(),
            "text_encoder": text_encoder(8, "quick_gelu"),
            "text_encoder_2": text_encoder(16, "gelu", with_projection=True),
        },
        "sd3": {
            "transformer": SD3Transformer2DModel(
                sample_size=4, patch_size=1, in_channels=4, num_layers=1, attention_head_dim=4,
                num_attention_heads=2, joint_attention_dim=8, caption_projection_dim=8,
                pooled_projection_dim=8, out_channels=4, pos_embed_max_size=4,
            )
        },
    }


def draw(model, generator):
    """Weights that f16 holds exactly, so that files are small and sums are those of f32."""
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.copy_((0.3 * torch.randn(value.shape, generator=generator)).half().float())


def saved(model):
    """A part's tensors under the names of its file."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        [file] = Path(folder).glob("*.safetensors")
        tensors = load_file(file)
    # The files on the hub have this prefix; transformers 5 leaves it out.
    prefix = "text_model." if type(model) is CLIPTextModel else ""
    return {prefix + name.removeprefix(prefix): value for name, value in tensors.items()}


def pipeline(kind, parts):
    scheduler = DDIMScheduler()
    if kind == "sdxl":
        return StableDiffusionXLPipeline(
            **parts, tokenizer=None, tokenizer_2=None, scheduler=scheduler, add_watermarker=False
        )
    return StableDiffusionPipeline(
        **({"tokenizer": None} | parts), scheduler=scheduler, safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    )


def pairs(tensors, modules, generator, rank=RANK):
    """{module: (down, up)} for weights of linear and convolutional layers."""
    made = {}
    for module in modules:
        shape = tensors[module + ".weight"].shape
        ones = [1] * (len(shape) - 2)
        down = 0.3 * torch.randn([rank, *shape[1:]], generator=generator)
        up = 0.3 * torch.randn([shape[0], rank, *ones], generator=generator)
        made[module] = (down.half().float(), up.half().float())
    return made


def spelled(pairs, name_of, alpha=None):
    """The tensors of a LoRA, `name_of(module)` giving the names of down, up and alpha."""
    tensors = {}
    for module, (down, up) in pairs.items():
        names = name_of(module)
        tensors |= {names[0]: down, names[1]: up}
        if alpha is not None:
            tensors[names[2]] = torch.tensor(float(alpha))
    return tensors


def peft(part):
    return lambda module: [f"{part}.{module}.lora_A.weight", f"{part}.{module}.lora_B.weight"]


def diffusers(part):
    layer = "lora_linear_layer" if part.startswith("text") else "lora"
    return lambda module: [f"{part}.{module}.{layer}.down.weight", f"{part}.{module}.{layer}.up.weight"]


def processors(part):
    """The attention processors of 2023: `attn1.processor.to_out_lora`, `self_attn.to_q_lora`."""
    def name_of(module):
        parent, layer = module.rsplit(".", 1)
        if layer == "0":
            parent, layer = parent.rsplit(".", 1)
        if part == "unet":
            parent += ".processor"
        layer = layer.replace("_proj", "")
        stem = f"{part}.{parent}.{layer if layer.startswith('to_') else 'to_' + layer}_lora"
        return [stem + ".down.weight", stem + ".up.weight"]
    return name_of


def kohya(prefix, rename=lambda module: module):
    def name_of(module):
        stem = f"{prefix}_{rename(module).replace('.', '_')}"
        return [stem + ".lora_down.weight", stem + ".lora_up.weight", stem + ".alpha"]
    return name_of


def fused(kind, bases, files, out):
    """The weights of every part after diffusers loads and fuses `files`, each (name, scale)."""
    parts = models()[kind]
    for part, model in parts.items():
        model.load_state_dict(bases[kind][part].state_dict())
    pipe = pipeline(kind, parts)
    names = []
    for file, _ in files:
        names.append(file.replace("-", "_"))
        pipe.load_lora_weights(out, weight_name=file + ".safetensors", adapter_name=names[-1])
    pipe.set_adapters(names, [scale for _, scale in files])
    pipe.fuse_lora(components=[part for part in parts if part != "vae"], adapter_names=names)
    pipe.unload_lora_weights()
    return {part: saved(getattr(pipe, part)) for part in parts if part != "vae"}


class Expected:
    def __init__(self, tensors):
        self.base, self.tensors, self.cases = tensors, {}, {}

    def add(self, case, kind, files, after, some):
        """Stores of `after`, the weights of each part, the sums of the changed ones and `some` whole."""
        sums = {}
        for part, tensors in after.items():
            for name, value in tensors.items():
                if not torch.equal(value, self.base[kind][part][name]):
                    sums[f"{part}.{name}"] = value.double().abs().sum().item()
                    if any(name == module + ".weight" for module in some):
                        self.tensors[f"{case}.{part}.{name}"] = value.clone().contiguous()
        assert sums, case
        self.cases[case] = {"model": kind, "files": files, "sums": sums}


def write(file, tensors, metadata=None):
    tensors = {name: value.half().contiguous() for name, value in tensors.items()}
    save_file(tensors, file, metadata={"format": "pt"} | (metadata or {}))


def main():
    out = begin(PINNED)
    generator = torch.Generator().manual_seed(11)
    bases = models()
    for parts in bases.values():
        for model in parts.values():
            draw(model, generator)
    tensors = {kind: {part: saved(model) for part, model in parts.items()} for kind, parts in bases.items()}
    for kind in ["sd1", "sdxl", "sd3"]:
        (out / kind).mkdir(exist_ok=True)
        for part, values in tensors[kind].items():
            write(out / kind / f"{part}.safetensors", values)
    expected = Expected(tensors)
    loras(out, bases, tensors, expected, generator)
    save_file(expected.tensors, out / "expected.safetensors")
    (out / "expected.json").write_text(json.dumps(expected.cases, indent=1, sort_keys=True) + "\n")
    single_files(out, bases, tensors)
    textual_inversion(out, bases, generator)


def loras(out, bases, tensors, expected, generator):
    text_layer = "text_model.encoder.layers.1."
    text = [text_layer + layer for layer in TEXT]
    attention = [f"{UNET.format(b=0)}.{layer}" for layer in ATTENTION]
    linears = attention + [f"{UNET.format(b=0)}.ff.net.0.proj", "down_blocks.0.resnets.0.time_emb_proj"]
    convs = [
        "conv_in", "down_blocks.0.attentions.0.proj_in", "down_blocks.0.resnets.0.conv1",
        "down_blocks.1.resnets.0.conv_shortcut", "down_blocks.0.downsamplers.0.conv",
        "up_blocks.0.upsamplers.0.conv",
    ]
    sd1, some = tensors["sd1"], [attention[1], convs[1], convs[2], text[0]]
    of = lambda kind, part, modules, rank=RANK: pairs(tensors[kind][part], modules, generator, rank)

    def case(name, kind, values, metadata=None, kept=some, scale=0.7):
        write(out / f"{name}.safetensors", values, metadata)
        files = [(name, scale)]
        expected.add(name, kind, files, fused(kind, bases, files, out), kept)

    peft_values = spelled(of("sd1", "unet", linears + convs), peft("unet"))
    peft_values |= spelled(of("sd1", "text_encoder", text), peft("text_encoder"))
    case("peft", "sd1", peft_values)
    metadata = {}
    for part, modules in [("unet", linears + convs), ("text_encoder", text)]:
        # transformers' model has no `text_model`, which only its files have.
        modules = [module.removeprefix("text_model.") for module in modules]
        config = LoraConfig(r=RANK, lora_alpha=5, target_modules=modules, alpha_pattern={modules[0]: 2})
        config = {key: sorted(value) if isinstance(value, set) else value
                  for key, value in config.to_dict().items()}
        metadata |= {f"{part}.{key}": value for key, value in config.items()}
    header = {"lora_adapter_metadata": json.dumps(metadata, indent=2, sort_keys=True)}
    case("peft-with-metadata", "sd1", peft_values, header)
    values = spelled(of("sd1", "unet", linears + convs), diffusers("unet"))
    values |= spelled(of("sd1", "text_encoder", text), diffusers("text_encoder"))
    case("diffusers", "sd1", values)
    values = spelled(of("sd1", "unet", attention), processors("unet"))
    values |= spelled(of("sd1", "text_encoder", text[:2]), processors("text_encoder"))
    case("processors", "sd1", values)
    values = spelled(of("sd1", "unet", attention), diffusers("unet"))
    # diffusers passes over the first spelling, without a word, where the first name is in PEFT's.
    values |= spelled(of("sd1", "unet", convs[2:]), peft("unet"))
    case("mixed", "sd1", values)
    values = spelled(of("sd1", "unet", linears + convs), kohya("lora_unet"), alpha=2)
    values |= spelled(of("sd1", "text_encoder", text, rank=2), kohya("lora_te"), alpha=5)
    case("kohya", "sd1", values)
    files = [("kohya", 0.5), ("peft", -0.25)]
    expected.add("two-at-once", "sd1", files, fused("sd1", bases, files, out), some)

    xl = [module.replace("down_blocks.0", "down_blocks.1") for module in linears[:4]]
    xl += ["down_blocks.1.attentions.0.transformer_blocks.1.attn2.to_v", "down_blocks.1.attentions.0.proj_in"]
    kept = [xl[1], "up_blocks.0.upsamplers.0.conv", text[0]]
    values = spelled(of("sdxl", "unet", xl), kohya("lora_unet"), alpha=2)
    values |= spelled(of("sdxl", "text_encoder", text), kohya("lora_te1"), alpha=2)
    values |= spelled(of("sdxl", "text_encoder_2", text), kohya("lora_te2"), alpha=4)
    case("kohya-sdxl", "sdxl", values, kept=kept)
    sgm = {
        "down_blocks.1.attentions.0.": "input_blocks.3.1.",
        "mid_block.attentions.0.": "middle_block.1.",
        "up_blocks.0.attentions.0.": "output_blocks.0.1.",
    }
    rename = lambda name: next(new + name[len(old):] for old, new in sgm.items() if name.startswith(old))
    layers = [old + xl[0].split("attentions.0.")[1] for old in sgm] + xl[1:]
    values = spelled(of("sdxl", "unet", layers), kohya("lora_unet", rename), alpha=2)
    values |= spelled(of("sdxl", "text_encoder_2", text), kohya("lora_te2"), alpha=4)
    case("kohya-sgm", "sdxl", values, kept=kept)

    peft_folder(out, bases, expected, linears + convs, some)
    sd3(out, bases, tensors, expected, generator)


def peft_folder(out, bases, expected, modules, some):
    model = models()["sd1"]["unet"]
    model.load_state_dict(bases["sd1"]["unet"].state_dict())
    model = get_peft_model(model, LoraConfig(r=RANK, lora_alpha=5, target_modules=modules))
    generator = torch.Generator().manual_seed(12)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_" in name:
                value.copy_((0.3 * torch.randn(value.shape, generator=generator)).half().float())
    model.save_pretrained(out / "peft-folder")
    (out / "peft-folder/README.md").unlink(missing_ok=True)
    # PEFT keeps the targets as a set, whose order is another in every run.
    file = out / "peft-folder/adapter_config.json"
    config = json.loads(file.read_text())
    config["target_modules"].sort()
    file.write_text(json.dumps(config, indent=2) + "\n")
    after = saved(model.merge_and_unload())
    expected.add("peft-folder", "sd1", [("peft-folder", 1.0)], {"unet": after}, some)


def sd3(out, bases, tensors, expected, generator):
    block = "transformer_blocks.0."
    modules = [block + name for name in ["attn.to_q", "attn.to_out.0", "attn.add_k_proj", "norm1.linear"]]
    values = pairs(tensors["sd3"]["transformer"], modules, generator)
    write(out / "sd3.safetensors", spelled(values, peft("transformer")))
    model = models()["sd3"]["transformer"]
    model.load_state_dict(bases["sd3"]["transformer"].state_dict())
    model.load_lora_adapter(out / "sd3.safetensors", prefix="transformer")
    model.fuse_lora(lora_scale=0.7)
    model.unload_lora()
    expected.add("sd3", "sd3", [("sd3", 0.7)], {"transformer": saved(model)}, modules[:1])


def ldm_checkpoint(kind, parts):
    """CompVis's form of `parts`, whose models have two levels with one layer each."""
    attended = {"sd1": [0], "sd2": [0], "sdxl": [1]}[kind]
    unet = {
        "time_embedding.linear_1.": "time_embed.0.", "time_embedding.linear_2.": "time_embed.2.",
        "add_embedding.linear_1.": "label_emb.0.0.", "add_embedding.linear_2.": "label_emb.0.2.",
        "conv_in.": "input_blocks.0.0.", "conv_norm_out.": "out.0.", "conv_out.": "out.2.",
        "down_blocks.0.resnets.0.": "input_blocks.1.0.", "down_blocks.0.attentions.0.": "input_blocks.1.1.",
        "down_blocks.0.downsamplers.0.conv.": "input_blocks.2.0.op.",
        "down_blocks.1.resnets.0.": "input_blocks.3.0.", "down_blocks.1.attentions.0.": "input_blocks.3.1.",
        "mid_block.resnets.0.": "middle_block.0.", "mid_block.attentions.0.": "middle_block.1.",
        "mid_block.resnets.1.": "middle_block.2.",
        "up_blocks.0.upsamplers.0.": f"output_blocks.1.{2 if 1 in attended else 1}.",
    }
    for number in range(4):
        block, layer = divmod(number, 2)
        unet[f"up_blocks.{block}.resnets.{layer}."] = f"output_blocks.{number}.0."
        unet[f"up_blocks.{block}.attentions.{layer}."] = f"output_blocks.{number}.1."
    resnet = {
        "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1",
        "norm2": "out_layers.0", "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
    }
    vae = {
        "mid_block.resnets.0.": "mid.block_1.", "mid_block.attentions.0.": "mid.attn_1.",
        "mid_block.resnets.1.": "mid.block_2.", "conv_norm_out.": "norm_out.",
        "down_blocks.0.downsamplers.0.": "down.0.downsample.", "up_blocks.0.upsamplers.0.": "up.1.upsample.",
    }
    for block in range(2):
        vae[f"down_blocks.{block}.resnets."] = f"down.{block}.block."
        vae[f"up_blocks.{block}.resnets."] = f"up.{1 - block}.block."
    attention = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
    first_text, second_text = {
        "sd1": ("cond_stage_model.transformer.", None), "sd2": (None, "cond_stage_model.model."),
        "sdxl": ("conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."),
    }[kind]

    def renamed(name, prefixes):
        for old, new in prefixes.items():
            name = name.replace(old, new) if old in name else name
        return name

    result = {}
    for name, value in parts["unet"].items():
        name = next((new + name[len(old):] for old, new in unet.items() if name.startswith(old)), name)
        if ".1.transformer_blocks" not in name:
            name = renamed(name, resnet)
        result["model.diffusion_model." + name] = value
    for name, value in parts["vae"].items():
        name = renamed(name, vae).replace("conv_shortcut", "nin_shortcut")
        if ".attn_1." in name:
            name = renamed(name, attention)
            value = value[:, :, None, None] if value.dim() == 2 else value
        result["first_stage_model." + name] = value
    if first_text:
        result |= {first_text + name: value for name, value in parts["text_encoder"].items()}
    if second_text:
        encoder = parts["text_encoder_2" if first_text else "text_encoder"]
        result |= {second_text + name: value for name, value in open_clip(encoder).items()}
    return result


def open_clip(encoder):
    names = {
        "text_model.encoder.layers.": "transformer.resblocks.", "layer_norm1": "ln_1", "layer_norm2": "ln_2",
        "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj", "self_attn": "attn",
        "text_model.embeddings.position_embedding.weight": "positional_embedding",
        "text_model.embeddings.": "", "text_model.final_layer_norm": "ln_final",
    }
    result = {"logit_scale": torch.tensor(2.0)}
    for original, value in encoder.items():
        name = original
        for old, new in names.items():
            name = name.replace(old, new)
        if "q_proj" in name:
            others = [original.replace("q_proj", part) for part in ["k_proj", "v_proj"]]
            value = torch.cat([value, *(encoder[other] for other in others)])
            name = name.replace("q_proj.", "in_proj_")
        elif "k_proj" in name or "v_proj" in name:
            continue
        elif name == "text_projection.weight":
            name, value = "text_projection", value.T
        result[name] = value
    return result


def single_files(out, bases, tensors):
    for kind in ["sd1", "sd2", "sdxl"]:
        file = out / f"ldm-{kind}.safetensors"
        write(file, ldm_checkpoint(kind, tensors[kind]))
        for part, model in bases[kind].items():
            with tempfile.TemporaryDirectory() as folder:
                model.save_pretrained(folder)
                if part.startswith("text"):
                    checkpoint = {name: value.float() for name, value in load_file(file).items()}
                    read = create_diffusers_clip_model_from_ldm(type(model), checkpoint, config=folder)
                else:
                    read = type(model).from_single_file(str(file), config=folder, torch_dtype=torch.float32)
            found = saved(read)
            assert found.keys() == tensors[kind][part].keys(), (kind, part)
            assert all(torch.equal(found[name], value) for name, value in tensors[kind][part].items()), part
    sums = {
        part: {name: value.double().abs().sum().item() for name, value in values.items()}
        for part, values in tensors["sd2"].items()
    }
    (out / "ldm-sd2.json").write_text(json.dumps(sums, sort_keys=True) + "\n")


def textual_inversion(out, bases, generator):
    file = out / "textual-inversion.safetensors"
    save_file({"<cat-toy>": torch.randn([2, 8], generator=generator)}, file)
    tokenizer = CLIPTokenizer.from_pretrained(Path(__file__).parents[2] / "data/goldens/text/clip_tokenizer")
    parts = dict(bases["sd1"])
    parts["text_encoder"].resize_token_embeddings(len(tokenizer))
    before = tokenizer.get_vocab().keys()
    pipe = pipeline("sd1", parts | {"tokenizer": tokenizer})
    pipe.load_textual_inversion(str(file))
    tokens = sorted(tokenizer.get_vocab().keys() - before)
    prompt = "a <cat-toy> on a mat"
    facts = {"tokens": tokens, "prompt": prompt, "expanded": pipe.maybe_convert_prompt(prompt, tokenizer)}
    (out / "textual-inversion.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
