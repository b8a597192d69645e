"""Goldens of mm-vqa's documents: small random Donuts of transformers, their preprocessing and their JSON.

    donut.py OUT_DIR

`equal` and `projected` are folders of whole models (VisionEncoderDecoderModel of a DonutSwin and an MBart),
as `save_pretrained` writes them. In `equal` the encoder is as wide as the decoder, and no grid is a
multiple of the window; in `projected` the widths differ, queries, keys and values have no bias, and the
grid of the last stage is one window high. Beside the model's files they have

- expected.safetensors: pixel_values [4, 3, H, W], input_ids [4, L] (a prompt and random tokens), labels [4,
  L] (the token after each position, -100 after the last); states [4, S, D], what the decoder reads; logits,
  loss, and the gradient of the loss for every weight, named "grad.<weight>"; context_weights.<layer> [1,
  heads, L, S], the cross-attention of the second item.
- generation.json: as in caption.py. The prompt of each item is the token <s_cord>, which replaces the begin
  token.

Of the whole folder:

- pages.json: [{"page": photograph of data/goldens/images/photos, "size": [width, height] of the output,
  "align": whether the long axis is aligned}], and pages.safetensors: of each case in their order, the
  levels [3, H, W] (u8) of DonutImageProcessorPil's pixel values, under "0", "1", ...
- token2json.json: {"added": [...], "cases": [[sequence, JSON]]}: DonutProcessor's token2json of sequences,
  with these added tokens.
"""

import json
import random
import warnings
from pathlib import Path

import numpy
import tokenizers
import torch
import transformers
from PIL import Image
from safetensors.torch import save_file

from shared.generation import ITEMS, disturbed, ids_of, outputs_of, write_lines
from shared.models import gradients, save_expected, spread, write_json
from shared.script import begin

PINNED = {"torch": "2.13.0", "transformers": "5.23.0", "tokenizers": "0.23.3", "pillow": "13.0.0"}
TEXTS = [
    "2 coffee 4.50",
    "1 tea 3.00",
    "total 7.50 eur",
    "12 march 2026",
    "cake and bread",
    "invoice no. 81-7",
]
KEYS = ["menu", "nm", "cnt", "price", "total"]
TASK = "<s_cord>"
PAGES = ["chelsea", "rocket-flame", "cell"]


def tags():
    return [tag for key in KEYS for tag in (f"<s_{key}>", f"</s_{key}>")] + ["<sep/>", "<yes/>", "<no/>"]


def document_tokenizer():
    """Of Donut's form: pieces of words that begin with a mark for the space, and added tags."""
    inner = tokenizers.Tokenizer(tokenizers.models.Unigram())
    inner.normalizer = tokenizers.normalizers.NFKC()
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    inner.decoder = tokenizers.decoders.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = tokenizers.trainers.UnigramTrainer(
        vocab_size=70, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    inner.train_from_iterator(TEXTS, trainer)
    inner.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    roles = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, cls_token="<s>", sep_token="</s>", model_max_length=24, **roles
    )
    tokenizer.add_special_tokens({"additional_special_tokens": [TASK, *tags()]})
    return tokenizer


def models():
    """The configs of the encoders and the sizes of the decoders."""
    equal = dict(image_size=[36, 27], embed_dim=8, depths=[2, 2], num_heads=[2, 4], window_size=4)
    projected = dict(image_size=[30, 24], embed_dim=6, depths=[1, 2, 2], num_heads=[1, 2, 4], window_size=3)
    projected |= dict(qkv_bias=False, mlp_ratio=1.5, hidden_act="relu", layer_norm_eps=1e-3)
    decoder = dict(d_model=16, decoder_layers=2, decoder_attention_heads=2, decoder_ffn_dim=24)
    shallow = decoder | dict(d_model=18, decoder_layers=1, decoder_attention_heads=3)
    return {"equal": (equal, decoder | {"scale_embedding": True}), "projected": (projected, shallow)}


def donut(folder, seed, tokenizer, encoder, decoder):
    encoder = transformers.DonutSwinConfig(patch_size=2, mlp_ratio=encoder.pop("mlp_ratio", 2.0), **encoder)
    decoder = transformers.MBartConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=24,
        is_decoder=True,
        add_cross_attention=True,
        **decoder,
    )
    config = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    model = spread(transformers.VisionEncoderDecoderModel(config=config), seed, 0.5)
    look(model, tokenizer.eos_token_id)
    start, pad, eos = tokenizer.bos_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id
    model.generation_config = transformers.GenerationConfig(
        decoder_start_token_id=start, pad_token_id=pad, eos_token_id=eos, max_length=20
    )
    height, width = encoder.image_size
    processor = transformers.DonutImageProcessorPil(size={"height": height, "width": width})
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    processor.save_pretrained(folder)

    generator = torch.Generator().manual_seed(seed)
    pixel_values = torch.randn(ITEMS, 3, height, width, generator=generator)
    prompt = tokenizer.convert_tokens_to_ids(TASK)
    ids = torch.randint(4, len(tokenizer), (ITEMS, 7), generator=generator)
    ids[:, 0] = prompt
    labels = torch.cat([ids[:, 1:], torch.full((ITEMS, 1), -100)], 1)
    output = model(pixel_values=pixel_values, decoder_input_ids=ids)
    loss = torch.nn.functional.cross_entropy(output.logits.flatten(0, 1), labels.flatten())
    loss.backward()
    states = output.encoder_last_hidden_state
    if hasattr(model, "enc_to_dec_proj"):
        states = model.enc_to_dec_proj(states)
    expected = {"pixel_values": pixel_values, "input_ids": ids, "labels": labels}
    expected |= {"states": states, "logits": output.logits, "loss": loss}
    expected |= {name: value for name, value in gradients(model).items() if "position_index" not in name}
    with torch.no_grad():
        model.set_attn_implementation({"decoder": "eager"})
        found = model(pixel_values=pixel_values[1:2], decoder_input_ids=ids[1:2], output_attentions=True)
        expected |= {f"context_weights.{layer}": row for layer, row in enumerate(found.cross_attentions)}
    save_expected(folder, expected)
    generation(folder, model, pixel_values, prompt, eos)


def look(model, eos):
    """Makes texts depend on their page and their length, and some of them end."""
    with torch.no_grad():
        tokens = model.decoder.model.decoder.embed_tokens.weight
        tokens *= 0.5
        tokens[eos] *= 1.6
        for name, parameter in model.named_parameters():
            if name.endswith(("encoder_attn.out_proj.weight", "encoder_attn.q_proj.weight")):
                parameter *= 2.5
            elif "embed_positions" in name:
                parameter *= 2


def generation(folder, model, pixel_values, prompt, eos):
    def generate(model, rows, prompts, **settings):
        pixels = pixel_values[rows].to(model.dtype)
        return model.generate(pixels, decoder_input_ids=torch.tensor(prompts), **settings)

    other = disturbed(model)
    plan = [{"num_beams": 1}, {"num_beams": 3, "num_return_sequences": 3}, {"num_beams": 2}]
    plan += [{"num_beams": 4, "length_penalty": -1.0, "early_stopping": True}]
    plan += [{"num_beams": beams, "no_repeat_ngram_size": 2} for beams in [1, 3]]
    plan += [{"num_beams": beams, "forced_eos_token_id": eos, "max_new_tokens": 4} for beams in [1, 2]]
    runs = []
    for settings in plan:
        settings = {"max_new_tokens": 12} | settings
        every = [
            [outputs_of(one, generate, [item], [[prompt]], settings, eos)[0] for item in range(ITEMS)]
            for one in [model, other]
        ]
        assert ids_of(every[0]) == ids_of(every[1]), f"{settings}: a near tie"
        runs.append({"settings": settings, "prompts": [[prompt]] * ITEMS, "outputs": every[0]})
    write_lines(folder / "generation.json", {"eos_token_id": eos, "items": ITEMS}, "runs", runs)
    found = [tuple(item[0]["ids"]) for item in runs[0]["outputs"]]
    assert len(set(found)) == ITEMS, f"the pages are read as {found}"
    early = sum(ids[-1] == eos for ids in found)
    print(f"{folder.name}: {early} of {ITEMS} end by the end token")


def pages(out):
    photos = Path(__file__).parents[2] / "data/goldens/images/photos"
    cases, tensors = [], {}
    for size in [(36, 48), (48, 36)]:
        for page in PAGES:
            for align in [False, True]:
                width, height = size
                processor = transformers.DonutImageProcessorPil(
                    size={"height": height, "width": width}, do_align_long_axis=align
                )
                image = Image.open(photos / f"{page}.png").convert("RGB")
                values = numpy.asarray(processor([image])["pixel_values"][0])
                levels = numpy.rint((values / 2 + 0.5) * 255).astype(numpy.uint8)
                tensors[str(len(cases))] = torch.from_numpy(levels.copy())
                cases.append({"page": page, "size": size, "align": align})
    write_json(out / "pages.json", cases)
    save_file(tensors, out / "pages.safetensors")


def sequences():
    """Sequences by hand, and random ones of tags and text."""
    every = [
        "<s_total>7.50</s_total>",
        "<s_menu><s_nm>coffee</s_nm><s_cnt>2</s_cnt><sep/><s_nm>tea</s_nm></s_menu><s_total>7.50</s_total>",
        "<s_menu><s_nm> coffee </s_nm></s_menu>",
        "<s_nm>a<sep/>b<sep/> c </s_nm>",
        "<s_nm></s_nm>",
        "<s_nm><sep/></s_nm>",
        "<s_nm>coffee<s_cnt>2</s_cnt>",
        "<s_menu><s_nm>coffee",
        "<s_menu><s_nm>coffee</s_menu>",
        "<S_NM>Coffee</s_nm>",
        "<s_nm>coffee</S_Nm> more",
        "plain text",
        "",
        "<s_",
        "<s_a",
        "</s_nm>7<s_nm>8",
        "</s_nm>7<s_nm>8</s_nm>",
        "<s_nm>1</s_nm><s_nm>2</s_nm>",
        "<s_nm>1</s_nm><sep/><s_nm>2</s_nm>",
        "<s_nm>1</s_nm> <sep/> <s_nm>2</s_nm><sep/>",
        "<s_total><yes/></s_total><s_cnt><maybe/></s_cnt><s_nm><sep/><no/></s_nm>",
        "<s_a.*>1</s_a.*><s_(>2</s_(>",
        "<s_>x</s_>",
        "<s_a><s_b></s_b></s_a>",
        "<s_a><s_b>1</s_b>rest</s_a>tail",
        "<s_a>x</s_a></s_b><s_b>y</s_b>",
        "<s_a>1<s_a>2</s_a>3</s_a>",
        "\u2003<s_a>\u2003x\x1c</s_a>",
        "<\u017f_k>1</\u017f_k>",
        "<s_\u0130>1</s_i>",
        "<s_stra\u00dfe>1</s_STRASSE><s_\u212a>2</s_k>",
        "<s_a>line\nbreak</s_a>",
        "1 < 2 <s_a> 3 > 2 </s_a>",
    ]
    draw = random.Random(7)
    parts = [f"<s_{key}>" for key in "abc"] + [f"</s_{key}>" for key in "abc"] * 2
    parts += ["<sep/>", "<sep/>", "1", " x ", "<yes/>", "<S_a>", "</S_B>", "<", ">", " "]
    while len(every) < 200:
        every.append("".join(draw.choice(parts) for _ in range(draw.randrange(1, 16))))
    return every


def token2json(out, tokenizer):
    processor = transformers.DonutProcessor(transformers.DonutImageProcessorPil(), tokenizer)
    added = sorted(tokenizer.get_added_vocab())
    cases = [[sequence, processor.token2json(sequence)] for sequence in sequences()]
    lines = ",\n".join(json.dumps(case, ensure_ascii=False, separators=(",", ":")) for case in cases)
    text = f'{{"added":{json.dumps(added)},\n"cases":[\n{lines}\n]}}\n'
    (out / "token2json.json").write_text(text, encoding="utf-8")


def main():
    out = begin(PINNED)
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    tokenizer = document_tokenizer()
    # Seeds with which the pages are read in different ways.
    for (name, (encoder, decoder)), seed in zip(models().items(), [2, 10]):
        donut(out / name, seed, tokenizer, encoder, decoder)
    pages(out)
    token2json(out, tokenizer)


if __name__ == "__main__":
    main()
