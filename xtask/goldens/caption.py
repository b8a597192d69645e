"""Goldens of mm-caption: small random captioners of transformers, with their outputs.

    caption.py OUT_DIR

Folders of whole models, as `save_pretrained` writes them: `blip` and `blip-large` (BERT's WordPiece tokenizer,
with and without [DEC] and [ENC]), and `gpt2` (a byte-level BPE). Beside the model's files each has

- expected.safetensors: a batch of four items. Inputs: pixel_values [4, 3, 32, 32], input_ids, attention_mask
  and labels [4, L] (-100 on the prompt and on padding; the model shifts them). Outputs: last_hidden_state of
  the image encoder, logits, loss, and the gradient of the loss for every weight of the file, named
  "grad.<weight>". `blip` has loss_smoothed, with a label smoothing of 0.1. `gpt2` has embeddings `prefix`
  [4, P, D] before the tokens instead of images; its attention_mask, labels, logits and loss are of P + L
  places, `prefix_gradient` is the gradient for the prefix, and `token_logits` are of the tokens alone.
- generation.json: `generate` for the four items: {"eos_token_id", "items", "runs": [{"settings", "prompts",
  "outputs"}]}. `settings` are the arguments of `generate`, `prompts` the ids of each item that the decoder
  begins with (for `gpt2`, an empty prompt means the prefix), `outputs[item]` its sequences, best first:
  {"ids", "score"} with beams, {"ids", "log_probs"} without, of the raw logits. The ids come after the prompt,
  up to the first end token, which is kept. Every item gives the same alone and in batches of 2, 3 and 4; this
  script checks it for prompts of one length, and that rounding changes no token.
- texts.json: texts with their ids, and ids with their decoded texts.
"""

import copy
import json
import tempfile
from collections import Counter

import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import pre_tokenizers

from shared.generation import ITEMS, beam_grid, outputs_of, rules, write_generation
from shared.script import begin

PINNED = {"torch": "2.13.0", "transformers": "5.23.0", "tokenizers": "0.23.3"}

CAPTIONS = [
    "a picture of two red circles and a blue star",
    "a picture of one green square above a yellow ring",
    "three small circles left of a big red star",
    "a blue triangle",
]
ODD = ["", "A Picture, of 2 red circles!", "stars and a zebra", "it's left-most (big) ring.", "two  rings\n"]
WORDS = (
    "a an and the of on in to with is picture photo drawing one two three four five many red green blue yellow "
    "black white small big old young circle square star triangle ring cross heart left right above below "
    "behind near cat dog bird house tree it there no other side"
).split()
PIECES = ["##s", "##es", "##er", "##most", "##ly", ".", ",", "!", "-", "'", "(", ")", "s", *"0123456789"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def write_json(path, value):
    path.write_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


def spread(model, seed, words):
    """Own weights: every one of them shapes the outputs, and the logits are far apart.

    BLIP's image encoder would begin at almost zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() == 1:
                one = 1.0 if name.endswith("weight") else 0.0
                parameter.copy_(one + 0.2 * noise)
            elif "embedding" in name or ".wte." in name or ".wpe." in name or parameter.dim() == 3:
                parameter.copy_((words if "word" in name or ".wte." in name else 0.5) * noise)
            else:
                inputs = parameter[0].numel() if parameter.dim() == 4 else min(parameter.shape)
                parameter.copy_(1.3 * noise / inputs**0.5)
    return model.eval()


def gradients(model):
    """The gradients under the names of the saved file: saved as if they were the weights."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        for (name, parameter), (_, source) in zip(other.named_parameters(), model.named_parameters()):
            assert source.grad is not None, name
            parameter.copy_(source.grad)
    with tempfile.TemporaryDirectory() as folder:
        other.save_pretrained(folder)
        return {f"grad.{name}": value for name, value in load_file(f"{folder}/model.safetensors").items()}


def save_expected(folder, expected):
    tensors = {name: tensor.detach().clone().contiguous() for name, tensor in expected.items()}
    save_file(tensors, folder / "expected.safetensors")


def write_texts(folder, tokenizer, sequences):
    """Texts with their ids, and ids with their texts."""
    encoded = [{"text": text, "ids": tokenizer(text)["input_ids"]} for text in CAPTIONS + ODD]
    different = [list(ids) for ids in dict.fromkeys(map(tuple, [row["ids"] for row in encoded] + sequences))]
    decoded = [{"ids": ids, "text": tokenizer.decode(ids, skip_special_tokens=True)} for ids in different]
    write_json(folder / "texts.json", {"encode": encoded, "decode": decoded})


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


def bert_tokenizer(folder, added):
    """A tokenizer of BERT's form. BLIP's own code adds two tokens at the end of the vocabulary."""
    tokens = SPECIAL + WORDS + PIECES
    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    tokenizer = transformers.BertTokenizer(vocab=str(folder / "vocab.txt"), model_max_length=512)
    if added:
        tokenizer.add_special_tokens({"bos_token": "[DEC]"})
        tokenizer.add_special_tokens({"additional_special_tokens": ["[ENC]"]})
    tokenizer.save_pretrained(folder)
    return tokenizer, len(tokens)


def blip_generate(pixel_values):
    def generate(model, rows, prompts, **settings):
        # BLIP puts its own begin token in the first place and drops the last token.
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


def blip(folder, vision_width, heads, added, seed, ending, whole):
    tokenizer, begin_id = bert_tokenizer(folder, added)
    sep, pad = tokenizer.sep_token_id, tokenizer.pad_token_id
    text = {
        "vocab_size": begin_id + 2,
        "hidden_size": 32,
        "encoder_hidden_size": vision_width,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": heads,
        "max_position_embeddings": 24,
        "bos_token_id": begin_id,
        "sep_token_id": sep,
        "pad_token_id": pad,
    }
    vision = {
        "hidden_size": vision_width,
        "intermediate_size": 2 * vision_width,
        "num_hidden_layers": 2,
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
    model.save_pretrained(folder)

    torch.manual_seed(seed)
    pixel_values = torch.randn(ITEMS, 3, 32, 32)
    words = [tokenizer(caption, add_special_tokens=False)["input_ids"] for caption in CAPTIONS]
    inputs = batch_of([[begin_id, *row, sep] for row in words], [4, 4, 1, 1], pad)
    output = model(pixel_values, **inputs)
    output.loss.backward()
    expected = {"pixel_values": pixel_values} | inputs
    expected |= {name: output[name] for name in ["last_hidden_state", "logits", "loss"]} | gradients(model)
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


def gpt2(folder, seed):
    tokenizer = gpt2_tokenizer(folder)
    eos = tokenizer.eos_token_id
    model = spread(transformers.GPT2LMHeadModel(gpt2_config(tokenizer)), seed, 0.4)
    end_sometimes(model, eos, 4.0)
    model.save_pretrained(folder)

    torch.manual_seed(seed)
    prefix = torch.randn(ITEMS, 3, 32, requires_grad=True)
    words = [tokenizer(" " + caption)["input_ids"][:14] + [eos] for caption in CAPTIONS]
    inputs = batch_of(words, [0] * ITEMS, eos)
    expected = {"prefix": prefix, "input_ids": inputs["input_ids"]} | prefixed(model, prefix, inputs)
    expected["loss"].backward()
    expected |= {"prefix_gradient": prefix.grad} | gradients(model)
    expected["token_logits"] = model(inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
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


def main():
    out = begin(PINNED)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    blip(out / "blip", 32, 4, True, 3, 3.5, whole=True)
    blip(out / "blip-large", 48, 2, False, 4, 3.0, whole=False)
    gpt2(out / "gpt2", 5)


if __name__ == "__main__":
    main()
