"""Goldens of mm-text's decoders of Llama's form: small random models of transformers, with their outputs.

    llama.py OUT_DIR

Folders of whole models, as `save_pretrained` writes them, with a tokenizer of whole words:

- `llama`: LlamaForCausalLM with grouped queries, rotary positions in Llama 3's scaling, a tied output layer,
  and a tokenizer that puts <s> before a text;
- `llama-linear`: LlamaForCausalLM with linear scaling, head_dim other than the width over the heads, biases
  in attention, and an output layer of its own;
- `qwen2`: Qwen2ForCausalLM, tied, in shards, with a tokenizer that adds nothing.

Beside the model's files each has

- expected.safetensors: input_ids, attention_mask and labels [4, L], padded on the right (-100 on the prompt
  and on padding; the model shifts them); logits, loss, and the gradient of the loss for every weight of the
  file, named "grad.<weight>".
- generation.json: as in caption.py, for prompts of ids.
- texts.json: texts with their ids as prompts, and ids with their decoded texts.

rotary.json has the `rope_parameters` of larger models, and rotary.safetensors the cosines and sines `cos.<k>`
and `sin.<k>` [positions, head / 2] of their k-th at `positions`.
"""

import json
import warnings

import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from shared.generation import ITEMS, beam_grid, rules, write_generation
from shared.models import WORDS, gradients, save_expected, spread, write_json
from shared.script import begin

PINNED = {"torch": "2.13.0", "transformers": "5.23.0", "tokenizers": "0.23.3"}

TEXTS = [
    "a picture of two red circle and a blue star",
    "the small dog is left of the big house",
    "there is no yellow ring",
    "many black bird on a tree",
]
ROPES = [
    {"rope_type": "default", "rope_theta": 10000.0},
    {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
    {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
]
POSITIONS = [0, 1, 5, 64, 1000, 4095, 32767]
HEAD = 64


def word_tokenizer(folder, special, adds_begin):
    """A tokenizer of whole words whose `special` tokens are unknown, padding, begin and end."""
    unknown, pad, first, end = special
    vocab = {token: index for index, token in enumerate([*special, *WORDS])}
    inner = Tokenizer(models.WordLevel(vocab, unk_token=unknown))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if adds_begin:
        inner.post_processor = processors.TemplateProcessing(
            single=f"{first} $A", special_tokens=[(first, vocab[first])]
        )
    names = {"unk_token": unknown, "pad_token": pad, "bos_token": first, "eos_token": end}
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=1024, **names)
    folder.mkdir(parents=True)
    tokenizer.save_pretrained(folder)
    return tokenizer


def generate(model, rows, prompts, **settings):
    ids = torch.tensor(prompts)
    return model.generate(ids, attention_mask=torch.ones_like(ids), **settings)


def batch_of(rows, prompts, pad):
    """Token ids padded on the right, their mask, and labels of the ids after each prompt."""
    width = max(map(len, rows))
    fill = lambda values, value: values + [value] * (width - len(values))
    return {
        "input_ids": torch.tensor([fill(row, pad) for row in rows]),
        "attention_mask": torch.tensor([fill([1] * len(row), 0) for row in rows]),
        "labels": torch.tensor([fill([-100] * n + row[n:], -100) for row, n in zip(rows, prompts)]),
    }


def write_texts(folder, tokenizer):
    encoded = [{"text": text, "ids": tokenizer(text)["input_ids"]} for text in TEXTS + ["", "a  zebra\n"]]
    rows = json.loads((folder / "generation.json").read_text(encoding="utf-8"))["runs"][0]["outputs"]
    found = [row["ids"] for row in encoded] + [item[0]["ids"] for item in rows]
    decoded = [{"ids": ids, "text": tokenizer.decode(ids, skip_special_tokens=True)} for ids in found]
    write_json(folder / "texts.json", {"encode": encoded, "decode": decoded})


def text_model(folder, config_class, model_class, special, seed, ending, settings, whole=False, **saving):
    """Writes one folder. The row of the end token in the output layer is `ending` times as large as others:
    without biases it wins often only so."""
    tokenizer = word_tokenizer(folder, special, adds_begin=config_class is transformers.LlamaConfig)
    eos, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": eos, "pad_token_id": pad}
    sizes = {"vocab_size": len(tokenizer) + 3, "num_hidden_layers": 2, "max_position_embeddings": 40}
    config = config_class(**sizes, **ids, **settings)
    model = spread(model_class(config), seed, 0.4)
    with torch.no_grad():
        model.get_output_embeddings().weight[eos] *= ending
    model.save_pretrained(folder, **saving)

    rows = [tokenizer(text)["input_ids"] + [eos] for text in TEXTS]
    inputs = batch_of(rows, [1, 4, 2, 1], pad)
    output = model(**inputs)
    output.loss.backward()
    expected = inputs | {"logits": output.logits, "loss": output.loss} | gradients(model)
    save_expected(folder, expected)

    encode = lambda texts: [tokenizer(text)["input_ids"] for text in texts]
    apart = encode(["a picture of", "the small dog", "there is no", "many black bird"])
    lengths = encode(["a", "the small dog is left of the big", "there is no yellow", "many black"])
    likes = [tokenizer.convert_tokens_to_ids(word) for word in ["a", "red", "of"]]
    plan = [({"num_beams": beams}, prompts) for prompts in [apart, lengths] for beams in [1, 3]]
    if whole:
        plan = [(settings, apart) for settings in beam_grid()]
        plan += [({"num_beams": beams}, lengths) for beams in range(1, 6)]
        plan += [(rule, apart) for rule in rules(eos, likes, starts=False)]
    assert len(apart) == ITEMS
    write_generation(folder, model, generate, eos, plan)
    write_texts(folder, tokenizer)


def rotary(out):
    """The rotations of larger models at near and far positions."""
    tensors = {"positions": torch.tensor(POSITIONS)}
    for index, rope in enumerate(ROPES):
        config = transformers.LlamaConfig(
            hidden_size=HEAD,
            num_attention_heads=1,
            max_position_embeddings=65536,
            rope_parameters=dict(rope),
        )
        places = tensors["positions"].unsqueeze(0)
        for name, table in zip(["cos", "sin"], LlamaRotaryEmbedding(config)(torch.zeros(1), places)):
            tensors[f"{name}.{index}"] = table[0, :, : HEAD // 2].clone()
    save_file(tensors, out / "rotary.safetensors")
    write_json(out / "rotary.json", {"head_dim": HEAD, "rope_parameters": ROPES})


def main():
    out = begin(PINNED)
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    llama = (transformers.LlamaConfig, transformers.LlamaForCausalLM)
    qwen2 = (transformers.Qwen2Config, transformers.Qwen2ForCausalLM)
    sentence = ["<unk>", "<pad>", "<s>", "</s>"]
    chat = ["<|unk|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    scaled = {"rope_type": "llama3", "rope_theta": 100.0, "factor": 4.0}
    scaled |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
    linear = {"rope_type": "linear", "rope_theta": 1000.0, "factor": 2.0}
    grouped = {
        "hidden_size": 32,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 48,
    }
    own = {"hidden_size": 24, "num_attention_heads": 3, "num_key_value_heads": 1, "intermediate_size": 40}
    own |= {"head_dim": 12, "attention_bias": True}
    small = {"hidden_size": 24, "num_attention_heads": 6, "num_key_value_heads": 3, "intermediate_size": 40}
    # Seeds with which the texts differ and some end early.
    text_model(
        out / "llama",
        *llama,
        sentence,
        1,
        1.5,
        grouped | {"rope_parameters": scaled, "tie_word_embeddings": True},
        whole=True,
    )
    text_model(out / "llama-linear", *llama, sentence, 1, 1.5, own | {"rope_parameters": linear})
    rope = {"rope_type": "default", "rope_theta": 10000.0}
    settings = small | {"rope_parameters": rope, "tie_word_embeddings": True}
    text_model(out / "qwen2", *qwen2, chat, 2, 1.5, settings, max_shard_size="20KB")
    rotary(out)


if __name__ == "__main__":
    main()
