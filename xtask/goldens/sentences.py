"""Goldens of sentence embeddings: small random BERTs saved by sentence-transformers, with its embeddings.

    python xtask/goldens/sentences.py data/goldens/sentences

`sentences.json` holds the sentences. Each other folder is a model with expected.safetensors: its `embeddings`
[N, D] as unit rows. Both models truncate sentences to fewer tokens than their towers accept. `mean` stores
the length as sentence-transformers 2 and all-MiniLM-L6-v2 do, `cls` as version 6 does. `cls` keeps case and
has no Normalize module.
"""

import json
import random
import tempfile
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules

from shared.script import begin

PINNED = {"torch": "2.13.0", "transformers": "5.23.0", "sentence-transformers": "6.2.0"}

POSITIONS = 24
WORDS = (
    "the a cat dog is are sleeping running red house on in street river and of two CAT Paris café naïve "
    "12 3.5"
).split()
ODD = [
    "", " ", ".", "!?", "A Cat", "ÀÉÎ ñ ß", "e\u0301te\u0301", "İstanbul", "你好 cat 世界", "ネコ", "😀 cat",
    "don't", "a-b_c/d", "x" * 120, "[CLS] cat [SEP]", "zero\u200bwidth", "line\nbreak\ttab",
    "\u00a0cat\u3000dog", "cat " * 40, "unknownword", "ﬁne １２３",
]


def sentences():
    rng = random.Random(5)
    return ODD + [
        " ".join(rng.choices(WORDS, k=length))
        for length in [1, 2, 3, 5, 8, 9, 10, 11, 12, 13, 20, 21, 22, 23, 24, 40]
    ]


def vocabulary(lowers):
    words = {word.lower() if lowers else word for word in WORDS} | {"the", "cat", "sleep"}
    letters = sorted(set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,!?'-_/[]é你好"))
    pieces = letters + sorted(words - set(letters)) + ["##" + letter for letter in letters] + ["##ing", "##s"]
    return ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *pieces]


def tower(folder, seed, lowers):
    """A BERT and its WordPiece tokenizer, saved by transformers."""
    tokens = vocabulary(lowers)
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    tokenizer = transformers.BertTokenizer.from_pretrained(
        folder, do_lower_case=lowers, model_max_length=POSITIONS
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = transformers.BertModel(
        transformers.BertConfig(vocab_size=len(tokens), max_position_embeddings=POSITIONS, **sizes)
    )
    for name, parameter in model.named_parameters():
        shift = 1.0 if name.endswith("LayerNorm.weight") else 0.0
        parameter.data = shift + torch.randn_like(parameter) * (0.3 if parameter.dim() == 2 else 0.2)
    model.save_pretrained(folder)


def save(out, pooling, seed, lowers, max_seq_length, parts=()):
    with tempfile.TemporaryDirectory() as folder:
        tower(Path(folder), seed, lowers)
        transformer = modules.Transformer(folder, max_seq_length=max_seq_length)
        pool = modules.Pooling(transformer.get_embedding_dimension(), pooling_mode=pooling)
        SentenceTransformer(modules=[transformer, pool, *parts], device="cpu").save(
            str(out), create_model_card=False
        )


def write_as_version_2(folder, max_seq_length):
    """The place of the length in version 2."""
    write_json(
        folder / "sentence_bert_config.json", {"max_seq_length": max_seq_length, "do_lower_case": False}
    )
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    write_json(folder / "tokenizer_config.json", {**config, "model_max_length": POSITIONS})


def expect(folder, texts):
    model = SentenceTransformer(str(folder), device="cpu")
    embeddings = model.encode(texts, batch_size=1, convert_to_tensor=True, normalize_embeddings=True)
    save_file({"embeddings": embeddings.contiguous()}, folder / "expected.safetensors")


def write_json(path, value):
    path.write_text(json.dumps(value, ensure_ascii=False) + "\n", encoding="utf-8")


def main():
    out = begin(PINNED)
    texts = sentences()
    write_json(out / "sentences.json", texts)
    save(out / "mean", "mean", seed=1, lowers=True, max_seq_length=12, parts=[modules.Normalize()])
    write_as_version_2(out / "mean", 12)
    save(out / "cls", "cls", seed=2, lowers=False, max_seq_length=16)
    for name in ["mean", "cls"]:
        expect(out / name, texts)


if __name__ == "__main__":
    main()
