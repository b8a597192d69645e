"""Small random models of transformers as goldens: their weights, gradients, tokenizer and files."""

import copy
import gzip
import json
import tempfile

import torch
import transformers
from safetensors.torch import load_file, save_file

WORDS = (
    "a an and the of on in to with is picture photo drawing one two three four five many red green blue "
    "yellow black white small big old young circle square star triangle ring cross heart left right above "
    "below behind near cat dog bird house tree it there no other side"
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
            if parameter.dim() == 0:
                continue
            if parameter.dim() == 1:
                one = 1.0 if name.endswith("weight") else 0.0
                parameter.copy_(one + 0.2 * noise)
            elif "embedding" in name or ".wte." in name or ".wpe." in name or parameter.dim() == 3:
                parameter.copy_((words if "word" in name or ".wte." in name else 0.5) * noise)
            else:
                inputs = parameter[0].numel() if parameter.dim() == 4 else min(parameter.shape)
                parameter.copy_(1.3 * noise / inputs**0.5)
    return model.eval()


def gradients(model, only=("",)):
    """The gradients under the names of the saved file, of those that contain a word of `only`.

    They are saved as if they were the weights."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter, source in zip(other.parameters(), model.parameters()):
            parameter.copy_(torch.nan if source.grad is None else source.grad)
    with tempfile.TemporaryDirectory() as folder:
        other.save_pretrained(folder)
        weights = load_file(f"{folder}/model.safetensors")
    unused = [name for name, value in weights.items() if value.isnan().any()]
    assert all("pooler" in name for name in unused), unused
    names = [name for name in weights if name not in unused and any(word in name for word in only)]
    return {f"grad.{name}": weights[name] for name in names}


def save_expected(folder, expected):
    tensors = {name: tensor.detach().clone().contiguous() for name, tensor in expected.items()}
    save_file(tensors, folder / "expected.safetensors")


def write_clip_vocabulary(folder, merges):
    """CLIP's vocabulary with its first `merges` merges, as vocab.json and merges.txt; returns its size."""
    import open_clip.tokenizer

    lines = gzip.open(open_clip.tokenizer.default_bpe()).read().decode("utf-8").split("\n")[1 : merges + 1]
    letters = list(open_clip.tokenizer.bytes_to_unicode().values())
    tokens = letters + [letter + "</w>" for letter in letters] + ["".join(line.split()) for line in lines]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "vocab.json", {token: index for index, token in enumerate(tokens)})
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *lines]) + "\n", encoding="utf-8")
    return len(tokens)


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
