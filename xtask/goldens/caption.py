"""Goldens of mm-caption: small random captioners of transformers, with their outputs.

    caption.py OUT_DIR

Folders of whole models, as `save_pretrained` writes them:

- `blip`, `blip-large`: BlipForConditionalGeneration with BERT's WordPiece tokenizer, the first with [DEC] and
  [ENC] in it, the second, of other widths in the image encoder, without, as published folders are;
- `vit-gpt2`, `vit-gpt2-projected`: VisionEncoderDecoderModel of equal and of different widths
  (enc_to_dec_proj), with GPT-2's byte-level tokenizer, and one id for begin, end and padding;
- `gpt2`: GPT2LMHeadModel, with a prefix of embeddings or a prompt of ids;
- `clip-prefix-mlp`, `clip-prefix-transformer`: ClipCap (rmokady/CLIP_prefix_caption at 1ad805a), its names of
  weights and our own config.json; its `generate` is GPT-2's after the mapped prefix. The first has all that
  published files have (the tied gpt.lm_head.weight, and GPT-2's attn.bias and attn.masked_bias of then), the
  second only parameters.

Beside the model's files each has

- expected.safetensors: a batch of four items. Inputs: pixel_values [4, 3, 32, 32], input_ids, attention_mask
  and labels [4, L] (-100 on the prompt and on padding; the model shifts them). Outputs: last_hidden_state of
  the image encoder, logits, loss, and the gradient of the loss for every weight of the file, named
  "grad.<weight>"; `blip-large` and `vit-gpt2-projected` have those of the cross-attention and what leads to
  it alone. `blip` has loss_smoothed, with a label smoothing of 0.1. `vit-gpt2*` have
  decoder_input_ids, decoder_attention_mask and labels that are already in the places of the logits; the
  encoder's pooler is in the file and unused, so it has no gradient. `gpt2` has embeddings `prefix` [4, P, D]
  before the tokens instead of images; its attention_mask, labels, logits and loss are of P + L places,
  `prefix_gradient` is the gradient for the prefix, and `token_logits` are of the tokens alone, without a
  mask. `clip-prefix-*` have clip_embeddings [4, C], the `prefix` made from them, the same others, and the
  gradients of the mapper.
- generation.json: `generate` for the four items: {"eos_token_id", "items", "runs": [{"settings", "prompts",
  "outputs"}]}. `settings` are the arguments of `generate`, `prompts` the ids of each item that the decoder
  begins with (an empty prompt: the prefix), `outputs[item]` its sequences, best first: {"ids", "score"} with
  beams, {"ids", "log_probs"} without, of the raw logits. The ids come after the prompt, up to the first end
  token, which is kept. Every item gives the same alone and in batches of 2, 3 and 4; this script checks it
  for prompts of one length, and that rounding changes no token.
- texts.json: texts with their ids, and ids with their decoded texts.
- photos.safetensors (`blip`, `vit-gpt2`): pixel_values of photographs of data/goldens/images/photos.

sampling.safetensors has `logits` [N, V] and `input_ids` [N, T] and, for each row k of sampling.json, the list
of {"settings", "prompt_length", "num_beams", "eos_token_id"}, `scores.<k>` [N, V]: the logits after the
processors that `generate` makes from the settings. Excluded tokens are -inf.
"""

import json
import warnings
from collections import Counter
from pathlib import Path

import torch
import torch.nn.functional as F
import transformers
from PIL import Image
from safetensors.torch import save_file
from tokenizers import pre_tokenizers

from shared.generation import ITEMS, beam_grid, outputs_of, rules, write_generation
from shared.models import WORDS, bert_tokenizer, gradients, save_expected, spread, write_json
from shared.script import begin

PINNED = {"torch": "2.13.0", "transformers": "5.23.0", "tokenizers": "0.23.3", "pillow": "13.0.0"}
PHOTOS = ["chelsea", "coffee-spoon"]

CAPTIONS = [
    "a picture of two red circles and a blue star",
    "a picture of one green square above a yellow ring",
    "three small circles left of a big red star",
    "a blue triangle",
]
ODD = ["", "A Picture, of 2 red circles!", "stars and a zebra", "it's left-most (big) ring.", "two  rings\n"]
# The gradients that the variants of a model have.
BETWEEN = ["crossattention", "enc_to_dec_proj", "class_embedding", "cls_token"]


def write_texts(folder, tokenizer, sequences):
    """Texts with their ids, and ids with their texts."""
    encoded = [{"text": text, "ids": tokenizer(text)["input_ids"]} for text in CAPTIONS + ODD]
    different = [list(ids) for ids in dict.fromkeys(map(tuple, [row["ids"] for row in encoded] + sequences))]
    decoded = [{"ids": ids, "text": tokenizer.decode(ids, skip_special_tokens=True)} for ids in different]
    write_json(folder / "texts.json", {"encode": encoded, "decode": decoded})


def write_photos(folder, processor):
    photos = Path(__file__).parents[2] / "data/goldens/images/photos"
    images = [Image.open(photos / f"{name}.png").convert("RGB") for name in PHOTOS]
    pixels = processor(images, return_tensors="pt")["pixel_values"]
    save_file({name: row.clone() for name, row in zip(PHOTOS, pixels)}, folder / "photos.safetensors")


def captions_of(folder):
    """The greedy captions and the best of beams, as ids."""
    runs = json.loads((folder / "generation.json").read_text(encoding="utf-8"))["runs"]
    return [run["outputs"][item][0]["ids"] for run in runs[:6] for item in range(ITEMS)]


def batch_of(rows, prompts, pad):
    """Token ids padded on the right, their mask, and labels of the ids after each prompt."""
    width = max(map(len, rows))
    fill = lambda values, value: values + [value] * (width - len(values))
    return {
        "input_ids": torch.tensor([fill(row, pad) for row in rows]),
        "attention_mask": torch.tensor([fill([1] * len(row), 0) for row in rows]),
        "labels": torch.tensor([fill([-100] * n + row[n:], -100) for row, n in zip(rows, prompts)]),
    }


def blip_generate(pixel_values):
    def generate(model, rows, prompts, **settings):
        # The peer puts its own begin token in the first place and drops the last token.
        sep = model.config.text_config.sep_token_id
        ids = torch.tensor([prompt + [sep] for prompt in prompts])
        pixels = pixel_values[rows].to(model.dtype)
        return model.generate(pixels, input_ids=ids, attention_mask=torch.ones_like(ids), **settings)

    return generate


def liked(model, generate, prompts, eos):
    """The three ids that the model generates most, for rules that forbid or force tokens."""
    settings = {"num_beams": 1, "max_new_tokens": 10, "min_new_tokens": 10}
    outputs = outputs_of(model, generate, list(range(ITEMS)), prompts, settings, eos)
    counts = Counter(token for item in outputs for token in item[0]["ids"])
    return [token for token, _ in counts.most_common(3)]


def blip(folder, seed, ending, whole=True):
    """The base model, or the large one: another width of the image encoder, fewer goldens."""
    vision_width, layers, heads = (32, 2, 4) if whole else (40, 1, 2)
    tokenizer, begin_id = bert_tokenizer(folder, added=whole)
    sep, pad = tokenizer.sep_token_id, tokenizer.pad_token_id
    text = {
        "vocab_size": begin_id + 2,
        "hidden_size": 32,
        "encoder_hidden_size": vision_width,
        "intermediate_size": 64,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "max_position_embeddings": 24,
        "bos_token_id": begin_id,
        "sep_token_id": sep,
        "pad_token_id": pad,
    }
    vision = {
        "hidden_size": vision_width,
        "intermediate_size": 2 * vision_width,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "image_size": 32,
        "patch_size": 8,
    }
    config = transformers.BlipConfig(text_config=text, vision_config=vision)
    model = spread(transformers.BlipForConditionalGeneration(config), seed, 0.35)
    with torch.no_grad():
        model.text_decoder.cls.predictions.bias[sep] += ending
    processor = transformers.BlipImageProcessorPil(size={"height": 32, "width": 32})
    processor.save_pretrained(folder)
    if whole:
        write_photos(folder, processor)
    model.save_pretrained(folder)

    torch.manual_seed(seed)
    pixel_values = torch.randn(ITEMS, 3, 32, 32)
    words = [tokenizer(caption, add_special_tokens=False)["input_ids"] for caption in CAPTIONS]
    inputs = batch_of([[begin_id, *row, sep] for row in words], [4, 4, 1, 1], pad)
    output = model(pixel_values, **inputs)
    output.loss.backward()
    expected = {"pixel_values": pixel_values} | inputs
    expected |= {name: output[name] for name in ["last_hidden_state", "logits", "loss"]}
    expected |= gradients(model) if whole else gradients(model, BETWEEN)
    if whole:
        model.text_decoder.label_smoothing = 0.1
        expected["loss_smoothed"] = model(pixel_values, **inputs).loss
        model.text_decoder.label_smoothing = 0.0
    save_expected(folder, expected)

    prompt = lambda text: [begin_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]
    none, of = [[begin_id]] * ITEMS, [prompt("a picture of")] * ITEMS
    apart = [prompt(text) for text in ["a picture of", "two red star", "a blue triangle", "there is no"]]
    lengths = [prompt(text) for text in ["", "a picture of", "two red circles and", "a"]]
    generate = blip_generate(pixel_values)
    likes = liked(model, generate, none, sep)
    plan = [(settings, none) for settings in beam_grid()]
    plan += [({"num_beams": beams}, prompts) for prompts in [of, apart, lengths] for beams in range(1, 6)]
    plan += [(rule, none) for rule in rules(sep, likes)]
    plan += [(rule, of) for rule in rules(sep, likes, starts=False)]
    if not whole:
        plan = [({"num_beams": beams}, prompts) for prompts in [none, of, lengths] for beams in [1, 3]]
    write_generation(folder, model, generate, sep, plan)
    write_texts(folder, tokenizer, captions_of(folder))


def byte_pairs(texts, count):
    """Merges of the most frequent pairs, and of the first in order among equals."""
    splitter = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words = Counter(word for text in texts for word, _ in splitter.pre_tokenize_str(text))
    words = {tuple(word): number for word, number in words.items()}
    merges = []
    for _ in range(count):
        pairs = Counter()
        for word, number in words.items():
            for pair in zip(word, word[1:]):
                pairs[pair] += number
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        joined = {}
        for word, number in words.items():
            letters, place = [], 0
            while place < len(word):
                size = 2 if word[place : place + 2] == best else 1
                letters.append("".join(word[place : place + size]))
                place += size
            joined[tuple(letters)] = number
        words = joined
    return merges


def gpt2_tokenizer(folder, pad=None):
    """A tokenizer of GPT-2's form: 256 bytes, some merges, and one special token at the end."""
    merges = byte_pairs([f"{text} {word}" for text in CAPTIONS for word in WORDS], 60)
    tokens = sorted(pre_tokenizers.ByteLevel.alphabet()) + ["".join(pair) for pair in merges]
    tokens.append("<|endoftext|>")
    folder.mkdir(parents=True)
    write_json(folder / "vocab.json", {token: index for index, token in enumerate(tokens)})
    lines = ["#version: 0.2", *map(" ".join, merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    files = {"vocab": str(folder / "vocab.json"), "merges": str(folder / "merges.txt")}
    tokenizer = transformers.GPT2Tokenizer(**files, pad_token=pad, model_max_length=1024)
    tokenizer.save_pretrained(folder)
    return tokenizer


def gpt2_config(tokenizer, **others):
    ids = {"bos_token_id": tokenizer.eos_token_id, "eos_token_id": tokenizer.eos_token_id}
    sizes = {"n_positions": 24, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 64}
    return transformers.GPT2Config(vocab_size=len(tokenizer), **ids, **(sizes | others))


def end_sometimes(gpt2, eos, ending):
    """Adds about `ending` to the logit of the end token: the head has no bias."""
    with torch.no_grad():
        row = gpt2.transformer.wte.weight[eos]
        gpt2.transformer.ln_f.bias += ending * row / row.square().sum()


def gpt2_generate(prefix):
    def generate(model, rows, prompts, **settings):
        settings["pad_token_id"] = model.config.eos_token_id
        if not prompts[0]:
            return model.generate(inputs_embeds=prefix[rows].to(model.dtype), **settings)
        ids = torch.tensor(prompts)
        return model.generate(ids, attention_mask=torch.ones_like(ids), **settings)

    return generate


def prefixed(gpt2, prefix, inputs):
    """The loss and the logits of tokens after a prefix of embeddings."""
    ones = torch.ones(prefix.shape[:2], dtype=torch.long)
    embeddings = torch.cat([prefix, gpt2.transformer.wte(inputs["input_ids"])], 1)
    mask = torch.cat([ones, inputs["attention_mask"]], 1)
    labels = torch.cat([-100 * ones, inputs["labels"]], 1)
    output = gpt2(inputs_embeds=embeddings, attention_mask=mask, labels=labels)
    return {"attention_mask": mask, "labels": labels, "logits": output.logits, "loss": output.loss}


def gpt2(folder, seed, ending):
    tokenizer = gpt2_tokenizer(folder)
    eos = tokenizer.eos_token_id
    model = spread(transformers.GPT2LMHeadModel(gpt2_config(tokenizer)), seed, 0.4)
    end_sometimes(model, eos, ending)
    model.save_pretrained(folder)

    torch.manual_seed(seed)
    prefix = torch.randn(ITEMS, 3, 32, requires_grad=True)
    words = [tokenizer(" " + caption)["input_ids"][:8] + [eos] for caption in CAPTIONS]
    inputs = batch_of(words, [0] * ITEMS, eos)
    expected = {"prefix": prefix, "input_ids": inputs["input_ids"]} | prefixed(model, prefix, inputs)
    expected["loss"].backward()
    expected |= {"prefix_gradient": prefix.grad} | gradients(model)
    expected["token_logits"] = model(inputs["input_ids"]).logits
    save_expected(folder, expected)

    generate, none = gpt2_generate(prefix.detach()), [[]] * ITEMS
    apart = [tokenizer(text)["input_ids"][:2] for text in ["a picture", "two red", "blue star", "there is"]]
    lengths = [tokenizer(text)["input_ids"][:6] for text in ["a", "a picture of", "two red circles", "is"]]
    likes = liked(model, generate, none, eos)
    plan = [(settings, none) for settings in beam_grid()]
    plan += [({"num_beams": beams}, prompts) for prompts in [apart, lengths] for beams in range(1, 6)]
    plan += [(rule, none) for rule in rules(eos, likes, starts=False)]
    plan += [(rule, apart) for rule in rules(eos, likes, starts=False)]
    write_generation(folder, model, generate, eos, plan)
    write_texts(folder, tokenizer, captions_of(folder))


def shared_end(tokenizer):
    """The ids of a model whose begin, end and padding are one token."""
    return {f"{role}_token_id": tokenizer.eos_token_id for role in ["decoder_start", "pad", "eos", "bos"]}


def vit_gpt2_generate(pixel_values):
    def generate(model, rows, prompts, **settings):
        pixels, ids = pixel_values[rows].to(model.dtype), torch.tensor(prompts)
        return model.generate(pixels, decoder_input_ids=ids, **settings)

    return generate


def vit_gpt2(folder, seed, ending, projected=False):
    tokenizer = gpt2_tokenizer(folder, pad="<|endoftext|>")
    eos = tokenizer.eos_token_id
    width, layers = (24, 1) if projected else (32, 2)
    vision = {"hidden_size": width, "intermediate_size": 48, "num_hidden_layers": layers}
    encoder = transformers.ViTConfig(**vision, num_attention_heads=4, image_size=32, patch_size=8)
    decoder = gpt2_config(tokenizer, add_cross_attention=True, is_decoder=True, n_layer=layers)
    join = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs
    config = join(encoder, decoder, **shared_end(tokenizer))
    model = spread(transformers.VisionEncoderDecoderModel(config), seed, 0.4)
    end_sometimes(model.decoder, eos, ending)
    model.generation_config = transformers.GenerationConfig(**shared_end(tokenizer))
    processor = transformers.ViTImageProcessorPil(size={"height": 32, "width": 32})
    processor.save_pretrained(folder)
    if not projected:
        write_photos(folder, processor)
    model.save_pretrained(folder)

    torch.manual_seed(seed)
    pixel_values = torch.randn(ITEMS, 3, 32, 32)
    words = [tokenizer(" " + caption)["input_ids"][:8] for caption in CAPTIONS]
    inputs = batch_of([[eos, *row, eos] for row in words], [1] * ITEMS, eos)
    inputs = {
        "decoder_input_ids": inputs["input_ids"][:, :-1],
        "decoder_attention_mask": inputs["attention_mask"][:, 1:],
        "labels": inputs["labels"][:, 1:],
    }
    output = model(pixel_values, **inputs)
    output.loss.backward()
    outputs = {"last_hidden_state": output.encoder_last_hidden_state}
    outputs |= {name: output[name] for name in ["logits", "loss"]}
    outputs |= gradients(model, BETWEEN) if projected else gradients(model)
    save_expected(folder, {"pixel_values": pixel_values} | inputs | outputs)

    generate, none = vit_gpt2_generate(pixel_values), [[eos]] * ITEMS
    texts = ["a picture", "two red", "blue star", "is it"]
    apart = [[eos, *tokenizer(text)["input_ids"][:2]] for text in texts]
    likes = liked(model, generate, none, eos)
    plan = [(settings, none) for settings in beam_grid()]
    plan += [({"num_beams": beams}, apart) for beams in range(1, 6)]
    plan += [(rule, none) for rule in rules(eos, likes)]
    if projected:
        plan = [({"num_beams": beams}, prompts) for prompts in [none, apart] for beams in [1, 3]]
    write_generation(folder, model, generate, eos, plan)
    write_texts(folder, tokenizer, captions_of(folder))


def linear(weights, name, inputs):
    return F.linear(inputs, weights[f"{name}.weight"], weights.get(f"{name}.bias"))


def mapped_by_mlp(weights, embeddings, places):
    """ClipCap's first mapper: two layers with tanh between, whose outputs are the rows of the prefix."""
    hidden = linear(weights, "clip_project.model.0", embeddings).tanh()
    return linear(weights, "clip_project.model.2", hidden).unflatten(1, (places, -1))


def mapped_by_transformer(weights, embeddings, places, clip_places, layers, heads=8):
    """ClipCap's other mapper: rows from the embedding and constant rows attend to each other, and the
    constant ones become the prefix. Heads are always 8; pre-norm, no bias in queries, keys and values."""
    name = "clip_project.transformer.layers"
    rows = linear(weights, "clip_project.linear", embeddings).unflatten(1, (clip_places, -1))
    constant = weights["clip_project.prefix_const"].expand(len(rows), -1, -1)
    rows = torch.cat([rows, constant], 1)  # [B, clip_places + places, D]
    norm = lambda name, rows: F.layer_norm(
        rows, rows.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"]
    )
    split = lambda rows: rows.unflatten(2, (heads, -1)).transpose(1, 2)  # [B, H, L, D / H]
    for layer in range(layers):
        inner = norm(f"{name}.{layer}.norm1", rows)
        queries = linear(weights, f"{name}.{layer}.attn.to_queries", inner)
        # All keys come first, then all values.
        keys, values = linear(weights, f"{name}.{layer}.attn.to_keys_values", inner).chunk(2, -1)
        mixed = F.scaled_dot_product_attention(split(queries), split(keys), split(values))
        rows = rows + linear(weights, f"{name}.{layer}.attn.project", mixed.transpose(1, 2).flatten(2))
        hidden = linear(weights, f"{name}.{layer}.mlp.fc1", norm(f"{name}.{layer}.norm2", rows)).relu()
        rows = rows + linear(weights, f"{name}.{layer}.mlp.fc2", hidden)
    return rows[:, clip_places:]


def mapper_shapes(mapping, clip, width, places, clip_places, layers):
    """The shapes of the mapper's weights."""
    if mapping == "mlp":
        inner = width * places // 2
        shapes = {"model.0": (inner, clip), "model.2": (width * places, inner)}
        shapes = [(name, shape, True) for name, shape in shapes.items()]
    else:
        shapes = [("linear", (clip_places * width, clip), True)]
        for layer in range(layers):
            name = f"transformer.layers.{layer}"
            shapes += [(f"{name}.norm1", (width,), True), (f"{name}.norm2", (width,), True)]
            shapes += [(f"{name}.attn.to_queries", (width, width), False)]
            shapes += [(f"{name}.attn.to_keys_values", (2 * width, width), False)]
            shapes += [(f"{name}.attn.project", (width, width), True)]
            shapes += [(f"{name}.mlp.fc1", (2 * width, width), True)]
            shapes += [(f"{name}.mlp.fc2", (width, 2 * width), True)]
    found = {f"{name}.weight": shape for name, shape, _ in shapes}
    found |= {f"{name}.bias": shape[:1] for name, shape, bias in shapes if bias}
    return found if mapping == "mlp" else found | {"prefix_const": (places, width)}


def mapper_weights(shapes):
    """Random weights: about as large as the layers of a trained mapper."""
    weights = {}
    for name, shape in shapes.items():
        noise = torch.randn(shape)
        if "norm" in name:
            value = 0.2 * noise + (1.0 if name.endswith("weight") else 0.0)
        else:
            value = noise / shape[1] ** 0.5 if len(shape) == 2 else 0.2 * noise
        weights[f"clip_project.{name}"] = value.requires_grad_()
    return weights


def old_buffers(config):
    """The buffers that GPT-2 had in its files when ClipCap was published."""
    size = config.n_positions
    mask = torch.ones(1, 1, size, size, dtype=torch.bool).tril()
    names = [f"gpt.transformer.h.{layer}.attn" for layer in range(config.n_layer)]
    found = {f"{name}.bias": mask.clone() for name in names}
    return found | {f"{name}.masked_bias": torch.tensor(-1e4) for name in names}


def clip_prefix(folder, mapping, seed, ending):
    clip, places, clip_places, layers = 24, 4, 3, 2
    tokenizer = gpt2_tokenizer(folder)
    eos = tokenizer.eos_token_id
    config = gpt2_config(tokenizer, n_layer=1)
    model = spread(transformers.GPT2LMHeadModel(config), seed, 0.4)
    end_sometimes(model, eos, ending)
    torch.manual_seed(seed)
    weights = mapper_weights(mapper_shapes(mapping, clip, config.n_embd, places, clip_places, layers))
    file = {name: value.detach() for name, value in weights.items()}
    file |= {f"gpt.{name}": value.detach().clone() for name, value in model.state_dict().items()}
    if mapping == "mlp":
        file |= old_buffers(config)
    else:
        del file["gpt.lm_head.weight"]
    save_file(file, folder / "model.safetensors", metadata={"format": "pt"})
    # ClipCap has no file of settings; the names are those of its training script's arguments.
    settings = {"prefix_length": places, "prefix_size": clip, "mapping_type": mapping}
    if mapping == "transformer":
        settings |= {"prefix_length_clip": clip_places, "num_layers": layers}
    settings |= {"architectures": ["ClipCaptionModel"], "normalize_prefix": False}
    settings["gpt"] = config.to_diff_dict()
    (folder / "config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")

    embeddings = torch.randn(ITEMS, clip)
    words = [tokenizer(caption)["input_ids"][:6] + [eos] for caption in CAPTIONS]
    inputs = batch_of(words, [0] * ITEMS, eos)
    if mapping == "mlp":
        prefix = mapped_by_mlp(weights, embeddings, places)
    else:
        prefix = mapped_by_transformer(weights, embeddings, places, clip_places, layers)
    expected = {"clip_embeddings": embeddings, "prefix": prefix, "input_ids": inputs["input_ids"]}
    expected |= prefixed(model, prefix, inputs)
    expected["loss"].backward()
    expected |= {f"grad.{name}": value.grad for name, value in weights.items()}
    save_expected(folder, expected)

    plan = [({"num_beams": beams}, [[]] * ITEMS) for beams in [1, 3, 5]]
    write_generation(folder, model, gpt2_generate(prefix.detach()), eos, plan)


SAMPLING = [
    {},
    {"temperature": 0.7},
    {"temperature": 1.6},
    {"top_k": 5},
    {"top_k": 1},
    {"top_k": 1000},
    {"top_p": 0.9},
    {"top_p": 0.3},
    {"top_p": 0.0001},
    {"min_p": 0.1},
    {"temperature": 0.7, "top_k": 10, "top_p": 0.8},
    {"temperature": 1.5, "top_k": 20, "top_p": 0.95, "min_p": 0.05},
    {"repetition_penalty": 1.3},
    {"repetition_penalty": 0.8},
    {"no_repeat_ngram_size": 1},
    {"no_repeat_ngram_size": 2},
    {"no_repeat_ngram_size": 3},
    {"min_new_tokens": 3},
    {"min_new_tokens": 9},
    {"min_length": 8},
    {"suppress_tokens": [3, 5, 39]},
    {"begin_suppress_tokens": [2, 4]},
    {"forced_eos_token_id": 39, "max_length": 8},
    {"repetition_penalty": 1.2, "no_repeat_ngram_size": 2, "min_new_tokens": 9, "suppress_tokens": [4]},
    {"repetition_penalty": 1.2, "no_repeat_ngram_size": 2, "temperature": 0.8, "top_k": 12, "top_p": 0.9},
    {"repetition_penalty": 1.2, "min_new_tokens": 9, "temperature": 0.8, "top_p": 0.5},
]


def sampling(out):
    """Processed logits: in every row ids repeat, and in the first the fifth largest value comes twice."""
    torch.manual_seed(6)
    length, vocabulary, eos = 7, 40, 39
    logits = 2.5 * torch.randn(5, vocabulary)
    logits[:, eos] += 2.0
    fifth, sixth = logits[0].argsort(descending=True)[4:6]
    logits[0, sixth] = logits[0, fifth]
    ids = torch.randint(0, 6, (5, length))
    # The last two ids have come before, and what followed them then is a likely token.
    ids[:, 1:3] = ids[:, -2:]
    ids[:, 3] = logits[:, :6].argmax(-1)
    config = transformers.GPT2Config(vocab_size=vocabulary, n_positions=16, n_embd=8, n_layer=1, n_head=1)
    model = transformers.GPT2LMHeadModel(config)
    tensors, rows = {"logits": logits, "input_ids": ids}, []
    for settings, prompt_length, beams in [
        *((settings, 2, 1) for settings in SAMPLING),
        # The prompt's end is where `begin_suppress_tokens` acts, and beams keep two tokens at least.
        *((settings, length, 1) for settings in [{"begin_suppress_tokens": [2, 4]}, {"min_new_tokens": 1}]),
        *((settings, 2, 3) for settings in [{"top_k": 1}, {"top_p": 0.0001}, {"top_p": 0.3, "min_p": 0.9}]),
    ]:
        # top_k is 50 by default, and more than the vocabulary here.
        plain = transformers.GenerationConfig(do_sample=True, num_beams=beams, eos_token_id=eos, **settings)
        model._prepare_special_tokens(plain, False, device="cpu")
        processors = model._get_logits_processor(plain, input_ids_seq_length=prompt_length, device="cpu")
        scores = processors(ids, logits.clone())
        # Which of equal values top_p drops first is up to the sorting.
        assert "top_p" not in settings or scores[0, fifth].isfinite() == scores[0, sixth].isfinite(), settings
        tensors[f"scores.{len(rows)}"] = scores
        row = {"settings": settings, "prompt_length": prompt_length, "num_beams": beams, "eos_token_id": eos}
        rows.append(row)
    save_file({name: value.contiguous() for name, value in tensors.items()}, out / "sampling.safetensors")
    (out / "sampling.json").write_text(
        "[\n" + ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows) + "\n]\n", encoding="utf-8"
    )


def main():
    out = begin(PINNED)
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    # Seeds and biases of the end token with which captions differ, and some end early.
    blip(out / "blip", 10, 4.0)
    gpt2(out / "gpt2", 19, 4.0)
    vit_gpt2(out / "vit-gpt2", 39, 5.0)
    blip(out / "blip-large", 14, 3.0, whole=False)
    vit_gpt2(out / "vit-gpt2-projected", 36, 6.0, projected=True)
    clip_prefix(out / "clip-prefix-mlp", "mlp", 3, 5.0)
    clip_prefix(out / "clip-prefix-transformer", "transformer", 21, 4.0)
    sampling(out)


if __name__ == "__main__":
    main()
