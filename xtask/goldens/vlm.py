"""Goldens of mm-vqa's vision-language models: small random models of transformers, with their outputs.

    vlm.py OUT_DIR

Folders of whole models, as `save_pretrained` writes them, processors and chat templates included:

- `smolvlm`: SmolVLMForConditionalGeneration, a head of its own, tiles of 24 pixels (6 x 6 patches, 9 tokens);
- `idefics3`: the config.json of Idefics3ForConditionalGeneration with the weights of `smolvlm`, which gives
  the same outputs;
- `llava`: LlavaForConditionalGeneration of CLIP's tower, the layer before the last without the class token,
  and Llama with a begin token before each text; layouts.json has the names of its tensors in the other
  layouts in circulation, {"hub" | "joined": {name: name in the file}}, both of which transformers opens;
- `llava-interleave`: the same class of SigLIP's tower without its head, the last layer, and a tied Qwen2.

Beside the model's files each has

- items.safetensors: the pixels of the tiles or images of prompts.json's first four, by their number, before
  the normalization: [T, 3, 24, 24], u8. The last has none.
- expected.safetensors: a batch of the first two with an answer each, padded on the right. input_ids,
  attention_mask and labels [2, L] (-100 but for the answer; the model shifts them); image_features
  [T, tokens, D], logits, loss, and the gradient of the loss for every weight that has one, named
  "grad.<weight>". `smolvlm` has `split_logits` of the last 8 places of the last split prompt, of the tiles
  "rocket-flame.split" and "gravel.split".
- linears.json: the names of the model's linear layers in memory, which PEFT's files have.
- generation.json: `generate` for four items, as in caption.py; `prompts` are the ids of prompts.json's first
  four, with their images.
- prompts.json: [{"messages", "images", "splits", "text", "ids"}]: chats, the photographs of
  data/goldens/images/photos that they are about, whether these are split, the text that the template makes,
  and its ids with all placeholders.
- pixels.safetensors: photographs as the image processor resizes them, u8, [T, 3, 24, 24]: of `smolvlm` as
  "<photo>" and, split, "<photo>.split"; of `llava` "<photo>.padded" by padded.json, with the border that
  makes an image square.
"""

import copy
import json
import shutil
import tempfile
import warnings
from pathlib import Path

import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from shared.generation import ITEMS, write_generation
from shared.models import save_expected, spread, write_json
from shared.script import begin

PINNED = {"torch": "2.13.0", "transformers": "5.23.0", "tokenizers": "0.23.3", "pillow": "13.0.0"}
PHOTOS = Path(__file__).parents[2] / "data/goldens/images/photos"
SIDE = 24
TEXT = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
VISION = {
    "hidden_size": 12,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": SIDE,
}
LETTERS = "abcdefghijklmnopqrstuvwxyzABCEGHILNQRSTUW0123456789 \n.,:?!'-<>|_/"
MERGES = ["Ġ a", "t h", "th e", "Ġ the", "i n", "o r", "Ċ Ċ", "i s", "Ġ is", "r e", "e d", "Ġ r", "u e"]

IMAGE = {"type": "image"}
CHATS = [
    (["chelsea"], [("user", [IMAGE, "What is this?"])]),
    (["rocket-flame", "gravel"], [("user", ["A", IMAGE, " or ", IMAGE, "?\n\nSay one."])]),
    (
        ["cell"],
        [("system", ["Be short."]), ("user", [IMAGE, "red?"]), ("assistant", ["no"]), ("user", ["blue?"])],
    ),
    ([], [("user", ["there is no image here"])]),
]
SMOLVLM_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{ line['text'] }}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
LLAVA_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] | upper }}: "
    "{% for line in message['content'] %}{% if line['type'] == 'image' %}{{ '<image>\n' }}"
    "{% else %}{{ line['text'] }}{% endif %}{% endfor %}{{ ' ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
INTERLEAVE_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% for line in message['content'] %}{% if line['type'] == 'image' %}{{ '<image>\n' }}"
    "{% else %}{{ line['text'] }}{% endif %}{% endfor %}{{ '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def tokenizer_of(special, begins=None, **roles):
    """Byte-level pairs of the letters that occur, and special tokens."""
    byte = dict(zip(" \n", "ĠĊ"))
    vocabulary = [byte.get(letter, letter) for letter in LETTERS] + [m.replace(" ", "") for m in MERGES]
    vocabulary = {token: index for index, token in enumerate(vocabulary)}
    pairs = [tuple(merge.split()) for merge in MERGES]
    tokenizer = Tokenizer(models.BPE(vocabulary, pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    if begins:
        pairs = [(begins, tokenizer.token_to_id(begins))]
        template = processors.TemplateProcessing(single=f"{begins} $A", special_tokens=pairs)
        tokenizer.post_processor = template
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=8192, **roles)


def messages_of(turns):
    text = lambda part: part if isinstance(part, dict) else {"type": "text", "text": part}
    return [{"role": role, "content": [text(part) for part in parts]} for role, parts in turns]


def photo(name):
    return Image.open(PHOTOS / f"{name}.png").convert("RGB")


def levels_of(pixels, processor):
    """The 8-bit pixels [T, 3, H, W] that normalized ones are of."""
    mean, std = (
        torch.tensor(numbers).view(3, 1, 1) for numbers in [processor.image_mean, processor.image_std]
    )
    return ((pixels.reshape(-1, 3, SIDE, SIDE) * std + mean) * 255).round().to(torch.uint8)


def normalized(levels, processor):
    mean, std = (
        torch.tensor(numbers).view(3, 1, 1) for numbers in [processor.image_mean, processor.image_std]
    )
    return (levels.float() / 255 - mean) / std


def encode(processor, chat, **others):
    """A row of prompts.json, and the levels of its images."""
    images, turns = chat
    messages = messages_of(turns)
    text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    found = processor(text=[text], images=[photo(name) for name in images] or None, **others)
    ids = torch.as_tensor(found["input_ids"])[0].tolist()
    levels = None
    if images:
        levels = levels_of(torch.as_tensor(found["pixel_values"]), processor.image_processor)
    splits = others.get("do_image_splitting", False)
    return {"messages": messages, "images": images, "splits": splits, "text": text, "ids": ids}, levels


class Items:
    """The four items of a folder: ids and images."""

    def __init__(self, folder, processor, nested, more=(), **others):
        rows = [encode(processor, chat, **others) for chat in CHATS]
        rows += [encode(processor, chat, **settings) for chat, settings in more]
        self.ids = [row["ids"] for row, _ in rows]
        self.levels = [levels for _, levels in rows]
        self.processor, self.nested = processor.image_processor, nested
        write_json(folder / "prompts.json", [row for row, _ in rows])

    def pixels(self, items, dtype=torch.float32):
        """`pixel_values` of `items` as the model takes them; none without images."""
        sets = [
            normalized(self.levels[item], self.processor) for item in items if self.levels[item] is not None
        ]
        if not sets:
            return {}
        if not self.nested:
            return {"pixel_values": torch.cat(sets).to(dtype)}
        assert len(sets) == len(items)
        most = max(map(len, sets))
        # Images of zeros are no images.
        fill = lambda images: torch.cat([images, torch.zeros(most - len(images), 3, SIDE, SIDE)])
        return {"pixel_values": torch.stack([fill(images) for images in sets]).to(dtype)}

    def generate(self, model, rows, prompts, **settings):
        ids = torch.tensor(prompts)
        pixels = self.pixels(rows, model.dtype)
        return model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **pixels, **settings)


def end_sometimes(model, items, eos, ending):
    """Adds about `ending` to the logit of the end token after some tokens, little right after a prompt."""
    states = []
    handle = model.lm_head.register_forward_pre_hook(lambda _, inputs: states.append(inputs[0][0, -1]))
    settings = {"max_new_tokens": 8, "min_new_tokens": 8, "eos_token_id": eos, "pad_token_id": eos}
    with torch.no_grad():
        for item in range(ITEMS):
            items.generate(model, [item], [items.ids[item]], do_sample=False, **settings)
        handle.remove()
        states = torch.stack(states).view(ITEMS, 8, -1)
        first, later = states[:, :1].mean((0, 1)), states[:, 2:].mean((0, 1))
        later = later - first * (later @ first) / first.square().sum()
        model.lm_head.weight[eos] += ending * later / later.square().sum()


def gradients(model, unused):
    """The gradients under the names of the saved file, saved as if they were the weights."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter, source in zip(other.parameters(), model.parameters()):
            parameter.copy_(torch.nan if source.grad is None else source.grad)
    with tempfile.TemporaryDirectory() as folder:
        other.save_pretrained(folder)
        weights = load_file(f"{folder}/model.safetensors")
    without = [name for name, value in weights.items() if value.isnan().any()]
    assert all(any(part in name for part in unused) for name in without), without
    return {f"grad.{name}": weights[name] for name in weights if name not in without}


def batch_of(items, answers, eos, pad):
    """The first two items with an answer each, padded on the right."""
    rows = [items.ids[item] + answer + [eos] for item, answer in enumerate(answers)]
    width = max(map(len, rows))
    fill = lambda values, value: values + [value] * (width - len(values))
    hidden = [[-100] * len(items.ids[item]) + answer + [eos] for item, answer in enumerate(answers)]
    return {
        "input_ids": torch.tensor([fill(row, pad) for row in rows]),
        "attention_mask": torch.tensor([fill([1] * len(row), 0) for row in rows]),
        "labels": torch.tensor([fill(row, -100) for row in hidden]),
    }


def write_model(folder, model, items, tokenizer, template, unused=(), split=None):
    """The files of the model, and its outputs."""
    model.generation_config = transformers.GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    layers = [name for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)]
    write_json(folder / "linears.json", layers)
    answers = [tokenizer.encode(text, add_special_tokens=False) for text in ["a red cat", "blue"]]
    inputs = batch_of(items, answers, tokenizer.eos_token_id, tokenizer.pad_token_id)
    expected = dict(inputs)
    levels = {str(item): items.levels[item] for item in range(ITEMS) if items.levels[item] is not None}
    save_file(levels, folder / "items.safetensors")
    pixels = items.pixels([0, 1])
    output = model(**inputs, **pixels)
    output.loss.backward()
    expected |= {"logits": output.logits, "loss": output.loss} | gradients(model, unused)
    with torch.no_grad():
        features = model.get_image_features(**pixels).pooler_output
        features = torch.cat([part.reshape(-1, model.config.text_config.hidden_size) for part in features])
        expected["image_features"] = features.view(sum(map(len, items.levels[:2])), -1, features.shape[-1])
        if split is not None:
            ids = torch.tensor([items.ids[split]])
            expected["split_logits"] = model(input_ids=ids, **items.pixels([split])).logits[:, -8:]
    save_expected(folder, expected)
    prompts = items.ids[:ITEMS]
    settings = [
        {"num_beams": 1},
        {"num_beams": 1, "repetition_penalty": 1.3},
        {"num_beams": 1, "max_new_tokens": 3},
    ]
    settings += [
        {
            "num_beams": beams,
            "num_return_sequences": beams,
            "length_penalty": penalty,
            "early_stopping": stop,
        }
        for beams, penalty, stop in [(2, 1.0, False), (3, 0.0, True), (3, 2.0, "never"), (4, -1.0, False)]
    ]
    plan = [(row, prompts) for row in settings]
    write_generation(folder, model, items.generate, tokenizer.eos_token_id, plan, limit=8)


def smolvlm(out, seed, ending):
    folder = out / "smolvlm"
    places = [f"<row_{row}_col_{column}>" for row in range(1, 4) for column in range(1, 4)]
    special = ["<|im_start|>", "<|im_end|>", "<fake_token_around_image>", "<image>", "<end_of_utterance>"]
    special += ["<global-img>", *places]
    roles = {"bos_token": "<|im_start|>", "eos_token": "<end_of_utterance>", "pad_token": "<|im_end|>"}
    tokenizer = tokenizer_of(special, **roles)
    sizes = {"size": {"longest_edge": 60}, "max_image_size": {"longest_edge": SIDE}}
    images = transformers.SmolVLMImageProcessorPil(**sizes)
    # SmolVLM's own processor needs videos; its texts are the same.
    processor = transformers.Idefics3Processor(
        images, tokenizer, image_seq_len=9, chat_template=SMOLVLM_TEMPLATE
    )
    processor.save_pretrained(folder)
    more = [(CHATS[0], {"do_image_splitting": True}), (CHATS[1], {"do_image_splitting": True})]
    items = Items(folder, processor, True, more, do_image_splitting=False)
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    ids["pad_token_id"] = tokenizer.pad_token_id
    text = transformers.LlamaConfig(**TEXT, vocab_size=len(tokenizer), rope_theta=100000.0, **ids)
    image_token_id = tokenizer.convert_tokens_to_ids("<image>")
    vision = VISION | {"patch_size": 4}
    parts = {
        "vision_config": vision,
        "text_config": text,
        "scale_factor": 2,
        "image_token_id": image_token_id,
    }
    model = transformers.SmolVLMForConditionalGeneration(transformers.SmolVLMConfig(**parts))
    model = spread(model, seed, 0.35)
    end_sometimes(model, items, tokenizer.eos_token_id, ending)
    write_model(folder, model, items, tokenizer, SMOLVLM_TEMPLATE, split=5)
    names = ["chelsea", "rocket-flame", "gravel"]
    found = {}
    for name in names:
        for ending, splits in [("", False), (".split", True)]:
            pixels = images([photo(name)], do_image_splitting=splits, return_tensors="pt")["pixel_values"]
            found[name + ending] = levels_of(pixels, images)
    save_file(found, folder / "pixels.safetensors")

    other = transformers.Idefics3ForConditionalGeneration(transformers.Idefics3Config(**parts)).eval()
    other.load_state_dict(model.state_dict())
    inputs = {"input_ids": torch.tensor([items.ids[0]])} | items.pixels([0])
    with torch.no_grad():
        assert torch.equal(other(**inputs).logits, model(**inputs).logits)
    other.generation_config = model.generation_config
    with tempfile.TemporaryDirectory() as temporary:
        other.save_pretrained(temporary)
        (out / "idefics3").mkdir()
        shutil.copy(f"{temporary}/config.json", out / "idefics3/config.json")


def hub_name(name):
    """The layout of published files."""
    return name.replace("vision_tower.", "vision_tower.vision_model.")


def joined_name(name):
    """The layout of transformers 4.52."""
    if name == "language_model.lm_head.weight":
        return "lm_head.weight"
    return "model." + hub_name(name).replace("language_model.model.", "language_model.")


def write_layouts(folder, model, items):
    """layouts.json, of layouts that transformers opens to the same model."""
    weights = load_file(folder / "model.safetensors")
    layouts = {"hub": hub_name, "joined": joined_name}
    inputs = {"input_ids": torch.tensor([items.ids[0]])} | items.pixels([0])
    for rename in layouts.values():
        with tempfile.TemporaryDirectory() as temporary, torch.no_grad():
            shutil.copy(folder / "config.json", temporary)
            renamed = {rename(name): tensor for name, tensor in weights.items()}
            save_file(renamed, f"{temporary}/model.safetensors", metadata={"format": "pt"})
            opened = transformers.LlavaForConditionalGeneration.from_pretrained(temporary)
            assert torch.equal(opened(**inputs).logits, model(**inputs).logits), rename
    write_json(
        folder / "layouts.json",
        {layout: {name: rename(name) for name in weights} for layout, rename in layouts.items()},
    )


def llava(out, seed, ending):
    folder = out / "llava"
    special, roles = ["<s>", "</s>", "<pad>", "<image>"], {"bos_token": "<s>", "eos_token": "</s>"}
    tokenizer = tokenizer_of(special, begins="<s>", pad_token="<pad>", **roles)
    images = transformers.CLIPImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
    )
    others = {
        "patch_size": 8,
        "vision_feature_select_strategy": "default",
        "num_additional_image_tokens": 1,
    }
    processor = transformers.LlavaProcessor(images, tokenizer, chat_template=LLAVA_TEMPLATE, **others)
    processor.save_pretrained(folder)
    items = Items(folder, processor, False)
    text = transformers.LlamaConfig(**TEXT, vocab_size=len(tokenizer), rms_norm_eps=1e-5)
    vision = transformers.CLIPVisionConfig(**VISION, patch_size=8)
    image_token = tokenizer.convert_tokens_to_ids("<image>")
    config = transformers.LlavaConfig(vision_config=vision, text_config=text, image_token_index=image_token)
    model = spread(transformers.LlavaForConditionalGeneration(config), seed, 0.35)
    end_sometimes(model, items, tokenizer.eos_token_id, ending)
    unused = ["vision_tower.encoder.layers.1.", "vision_tower.post_layernorm."]
    write_model(folder, model, items, tokenizer, LLAVA_TEMPLATE, unused)
    write_layouts(folder, model, items)
    sizes = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
    padded = transformers.LlavaImageProcessorPil(do_pad=True, **sizes)
    with tempfile.TemporaryDirectory() as temporary:
        padded.save_pretrained(temporary)
        shutil.copy(f"{temporary}/preprocessor_config.json", folder / "padded.json")
    found = {}
    for name in ["chelsea", "rocket-flame"]:
        for ending, processor in [("", images), (".padded", padded)]:
            pixels = processor([photo(name)], return_tensors="pt")["pixel_values"]
            found[name + ending] = levels_of(pixels, processor)
    save_file(found, folder / "pixels.safetensors")


def llava_interleave(out, seed, ending):
    folder = out / "llava-interleave"
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>"]
    tokenizer = tokenizer_of(special, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    images = transformers.SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE})
    others = {"patch_size": 8, "vision_feature_select_strategy": "full", "num_additional_image_tokens": 0}
    processor = transformers.LlavaProcessor(images, tokenizer, chat_template=INTERLEAVE_TEMPLATE, **others)
    processor.save_pretrained(folder)
    items = Items(folder, processor, False)
    text = transformers.Qwen2Config(**TEXT, vocab_size=len(tokenizer), tie_word_embeddings=True)
    vision = transformers.SiglipVisionConfig(**VISION, patch_size=8, vision_use_head=False)
    image_token = tokenizer.convert_tokens_to_ids("<image>")
    selection = {"vision_feature_layer": -1, "vision_feature_select_strategy": "full"}
    parts = {"vision_config": vision, "text_config": text, "image_token_index": image_token}
    model = transformers.LlavaForConditionalGeneration(transformers.LlavaConfig(**parts, **selection))
    model = spread(model, seed, 0.35)
    end_sometimes(model, items, tokenizer.eos_token_id, ending)
    write_model(folder, model, items, tokenizer, INTERLEAVE_TEMPLATE, ["post_layernorm."])
    pixels = images([photo("chelsea")], return_tensors="pt")["pixel_values"]
    save_file({"chelsea": levels_of(pixels, images)}, folder / "pixels.safetensors")


def main():
    out = begin(PINNED)
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    smolvlm(out, seed=1, ending=3.0)
    llava(out, seed=1, ending=2.0)
    llava_interleave(out, seed=1, ending=2.0)


if __name__ == "__main__":
    main()
