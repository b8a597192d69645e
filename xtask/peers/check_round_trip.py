"""Opens the folders that `mm convert` wrote with the peers, for `cargo xtask goldens --check`.

    check_round_trip.py make GOLDENS OUT       saves small models with tokenizer and image processor into OUT
    check_round_trip.py check GOLDENS PLAN     compares the models of the plan

PLAN is a JSON list of {"source", "written", "form", "dtype", "resolution", "rows", "adapter", "image"}.
`check` prints the peers' versions and then a line of JSON for each request: the class that opened it and the
largest difference, or the error. A source with `expected.safetensors` is a golden, and its inputs and outputs
are the reference. Otherwise the reference is the source itself, opened by its own peer, with captions and
photographs that each side reads with its own tokenizer and image processor. Where `rows` is true, `written`
is the output of `mm embed` for OUT/captions.txt or the photographs. Of a captioner or a model that answers
questions, a golden of data/goldens/caption or data/goldens/vqa, the logits are compared, and the ids of its
texts, the pixels of its photographs and what it generates. Of a pipeline of diffusers, a folder or a file,
the latents of given noise are compared with those of the source; where `adapter` is a LoRA that `mm train`
wrote beside the model `written`, the source gets it by `load_lora_weights`. `image` is what `mm generate`
makes of PROMPT and SEED.

Made for torch 2.13, transformers 5.23, diffusers 0.42, open_clip_torch 3.3, sentence-transformers 6.2.
"""

import importlib.metadata
import json
import sys
import warnings
from pathlib import Path

import diffusers
import numpy
import open_clip
import torch
import transformers
from open_clip.model import CLIP, build_model_from_openai_state_dict
from open_clip.transform import image_transform
from PIL import Image
from safetensors.torch import load_file, save_file

ENCODED = 64  # captions for the models; the tokenizers get all of them
DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
# The allowed difference of a logit, about ten times a cosine, for weights rounded to a type.
LIMITS = {"f32": 1e-4, "f16": 2e-2, "bf16": 2e-1}
# Between the peers; one 8-bit level, divided by a deviation of about 1/4, is more than 1/100.
PIXEL_LIMIT = 1e-5
# mm's resizing may differ from Pillow's by one level in single pixels; the effect on a unit row.
ROWS_LIMITS = {"texts": 1e-4, "images": 2e-3}
# The inputs of a golden that a class takes; other classes take the first two, as far as they are there.
INPUTS = {
    "BertModel": ["input_ids", "attention_mask"],
    "BlipForConditionalGeneration": ["pixel_values", "input_ids", "attention_mask"],
    "BlipForQuestionAnswering": [
        "pixel_values", "input_ids", "attention_mask", "decoder_input_ids", "decoder_attention_mask"
    ],
    "GPT2LMHeadModel": ["input_ids"],
    "ViltForQuestionAnswering": ["pixel_values", "pixel_mask", "input_ids", "attention_mask"],
    "VisionEncoderDecoderModel": ["pixel_values", "decoder_input_ids", "decoder_attention_mask"],
}
# What the pipelines of diffusers make, and `mm generate` beside them (xtask/src/goldens/check.rs).
PROMPT, SEED, STEPS, GUIDANCE, SIDE = "a red star", 7, 4, 5.0, 32
# The photographs of data/goldens/vqa/vilt.
VILT_PHOTOS = ["chelsea", "cell", "gravel", "rocket-flame"]


class Failed(Exception):
    """The peer refuses the folder."""


class Opened:
    """A model in its peer: its class, its tokenizer and image processor, and its outputs."""

    def __init__(self, name, run, tokenize=None, pixels=None, clean=None, generate=None):
        self.name, self.run, self.tokenize, self.pixels = name, run, tokenize, pixels
        self.clean, self.generate = clean or (lambda text: text), generate


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def clean(text):
    """The cleaning of open_clip's tokenizers."""
    return open_clip.tokenizer.whitespace_clean(open_clip.tokenizer.basic_clean(text))


def has_tokenizer(folder):
    return any(
        (folder / name).exists() for name in ["tokenizer.json", "vocab.json", "vocab.txt", "spiece.model"]
    )


def run_blip_vqa(model):
    """The logits of answers, zero at padding. Each item is run alone: the decoder of a batch reads the
    padding of its questions."""

    def run(inputs):
        images = model.vision_model(pixel_values=inputs["pixel_values"]).last_hidden_state
        rows = []
        for item, image in enumerate(images):
            question = inputs["input_ids"][item, : inputs["attention_mask"][item].sum()]
            answer = inputs["decoder_input_ids"][item, : inputs["decoder_attention_mask"][item].sum()]
            states = model.text_encoder(input_ids=question[None], encoder_hidden_states=image[None])[0]
            rows.append(model.text_decoder(input_ids=answer[None], encoder_hidden_states=states).logits[0])
        return {"logits": torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)}

    return run


def open_transformers(folder, dtype):
    names = read_json(folder / "config.json")["architectures"]
    kind = getattr(transformers, names[0])
    options = {}
    if names[0] in ["ViTModel", "BertModel"]:
        weights = load_file(folder / "model.safetensors")
        options["add_pooling_layer"] = any("pooler.dense" in name for name in weights)
    model, report = kind.from_pretrained(folder, output_loading_info=True, **options)
    for what, found in report.items():
        if found:
            raise Failed(f"{what}: {sorted(map(str, found))[:3]}")
    if model.dtype != DTYPES[dtype]:
        raise Failed(f"from_pretrained makes it {model.dtype}, written as {dtype}")
    model = model.float().eval()

    def run(inputs):
        output = model(**inputs)
        if "logits" in output:
            return {"token_logits" if names[0] == "GPT2LMHeadModel" else "logits": output.logits}
        if "logits_per_image" in output:
            return {name: output[name] for name in ["image_embeds", "text_embeds", "logits_per_image"]}
        for name in ["image_embeds", "text_embeds", "pooler_output"]:
            if output.get(name) is not None:
                return {"output": output[name]}
        return {"output": output.last_hidden_state[:, 0]}

    if names[0] == "BlipForQuestionAnswering":
        run = run_blip_vqa(model)
    tokenize = pixels = None
    if has_tokenizer(folder):
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        length = tokenizer.model_max_length

        def tokenize(texts):
            return dict(
                tokenizer(
                    texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
                )
            )

    if any((folder / name).exists() for name in ["preprocessor_config.json", "processor_config.json"]):
        # open_clip resizes with Pillow too, so that both peers can be compared.
        processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")

        def pixels(images):
            return processor(images, return_tensors="pt")["pixel_values"]

    if tokenize and pixels:
        transformers.AutoProcessor.from_pretrained(folder)
    return Opened(names[0], run, tokenize, pixels, generate=getattr(model, "generate", None))


def run_open_clip(model):
    def run(inputs):
        image = model.encode_image(inputs["pixel_values"], normalize=True)
        text = model.encode_text(inputs["input_ids"], normalize=True)
        logits = model.logit_scale.exp() * image @ text.T
        if getattr(model, "logit_bias", None) is not None:
            logits = logits + model.logit_bias
        return {"image_embeds": image, "text_embeds": text, "logits_per_image": logits}

    return run


def read_open_clip(name, model, tokenizer, preprocess):
    """An open_clip model with its tokenizer and image transform."""
    tokenize = lambda texts: {"input_ids": tokenizer(texts)}
    pixels = lambda images: torch.stack([preprocess(image) for image in images])
    return Opened(name, run_open_clip(model.eval()), tokenize, pixels, clean)


def open_open_clip(folder, resolution=None):
    name, options = f"local-dir:{folder}", {}
    text = read_json(folder / "open_clip_config.json")["model_cfg"]["text_cfg"]
    if text.get("hf_model_name"):  # the config of the golden's BERT is in the folder, not on the hub
        options["text_cfg"] = text | {"hf_model_name": str(folder), "hf_model_pretrained": False}
    model, _, preprocess = open_clip.create_model_and_transforms(
        name, force_image_size=resolution, **options
    )
    return read_open_clip("open_clip", model, open_clip.get_tokenizer(name), preprocess)


def open_openai(folder):
    state = load_file(folder / "model.safetensors")
    model = build_model_from_openai_state_dict(dict(state), cast_dtype=torch.float32).float()
    # The reader rounds to f16, the type of OpenAI's files; a file in f32 is read again to keep its values.
    numbers = ["input_resolution", "context_length", "vocab_size"]
    model.load_state_dict({name: tensor for name, tensor in state.items() if name not in numbers})
    tokenizer = open_clip.SimpleTokenizer(context_length=model.context_length)
    preprocess = image_transform(model.visual.image_size, is_train=False)
    return read_open_clip("open_clip, as OpenAI's", model, tokenizer, preprocess)


def open_sentence_transformers(folder):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu")
    tokenize = lambda texts: dict(model.tokenizer(texts, padding=True, truncation=True, return_tensors="pt"))
    run = lambda inputs: {"output": model(dict(inputs))["sentence_embedding"]}
    return Opened("SentenceTransformer", run, tokenize)


def open_folder(folder, form, dtype="f32"):
    if (folder / "modules.json").exists():
        return open_sentence_transformers(folder)
    if form == "hf":
        return open_transformers(folder, dtype)
    return open_open_clip(folder) if form == "open_clip" else open_openai(folder)


def form_of(folder):
    """The format of a folder that a peer saved."""
    if (folder / "open_clip_config.json").exists():
        return "open_clip"
    return "hf" if (folder / "config.json").exists() else "openai"


def largest(a, b):
    if a.shape != b.shape:
        raise Failed(f"shape {list(a.shape)} instead of {list(b.shape)}")
    return (a.double() - b.double()).abs().max().item()


def differs_among_peers(text):
    """open_clip parses special tokens and lower-cases a final sigma, transformers does neither."""
    return "<|" in text or "ΟΔΟΣ" in text


def crops_alike(photo, pixels):
    """Whether the peers crop the same: they drop the odd pixel of a margin on different sides."""
    size = pixels([photo]).shape[-1]
    return (int(size * max(photo.size) / min(photo.size)) - size) % 2 == 0


def texts_of(ids, end):
    """The tokens of each row up to its end token; after it is padding, in which the peers differ."""
    return [row[: row.index(end) + 1] for row in ids.tolist()]


def compare_words(ours, theirs, captions):
    """Checks that the captions, cleaned by each side, have the same ids, and returns them."""
    cleaned = dict.fromkeys(ours.clean(theirs.clean(text)) for text in captions)
    texts = [text for text in cleaned if ours.clean(text) == text == theirs.clean(text)]
    if ours.name == theirs.name:
        ours, theirs = ours.tokenize(texts), theirs.tokenize(texts)
        if ours.keys() != theirs.keys():
            raise Failed(f"the tokenizer gives {sorted(ours)} instead of {sorted(theirs)}")
        wrong = [name for name in theirs if not torch.equal(ours[name], theirs[name])]
        if wrong:
            raise Failed(f"the tokenizer gives other {wrong}")
        return texts
    texts = [text for text in texts if not differs_among_peers(text)]
    ours, theirs = ours.tokenize(texts)["input_ids"], theirs.tokenize(texts)["input_ids"]
    end = theirs[0].max().item()
    pairs = zip(texts, texts_of(ours, end), texts_of(theirs, end))
    wrong = [text for text, a, b in pairs if a != b]
    if wrong:
        raise Failed(f"{len(wrong)} of {len(texts)} captions have other ids, such as {wrong[0]!r}")
    return texts


def refuse_pixels(found):
    if found["pixels"] > PIXEL_LIMIT:
        raise Failed(f"pixels differ by {found['pixels']:.1e}")


def compare_captions(source, folder, opened, photos):
    """Compares what a captioner's folder gives besides logits: ids, pixels and generated captions."""
    found, expected = {}, load_file(source / "expected.safetensors")
    if (source / "texts.json").exists():
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        texts = read_json(source / "texts.json")
        wrong = [row for row in texts["encode"] if tokenizer(row["text"])["input_ids"] != row["ids"]]
        decode = lambda row: tokenizer.decode(row["ids"], skip_special_tokens=True)
        wrong += [row for row in texts["decode"] if decode(row) != row["text"]]
        if wrong:
            raise Failed(f"{len(wrong)} texts have other ids, such as {wrong[0]}")
        found["texts"] = len(texts["encode"])
    if opened.name == "BlipForQuestionAnswering":
        compare_answers(source, expected, opened)
        return found
    if (source / "photos.safetensors").exists():
        golden = load_file(source / "photos.safetensors")
        pixels = opened.pixels([Image.open(photos / f"{name}.png").convert("RGB") for name in golden])
        found |= {"photos": len(golden), "pixels": largest(pixels, torch.stack(list(golden.values())))}
        refuse_pixels(found)
    # Without ids of begin, end and padding: the folder has to know them.
    runs = read_json(source / "generation.json")["runs"] if "pixel_values" in expected else []
    for run in [run for run in runs if len(set(map(len, run["prompts"]))) == 1][:4]:
        if len(run["prompts"][0]) == 1:
            ids = opened.generate(expected["pixel_values"], do_sample=False, **run["settings"]).tolist()
            golden = [beam["ids"] for item in run["outputs"] for beam in item]
            if any(row[1 : len(beam) + 1] != beam for row, beam in zip(ids, golden)):
                raise Failed(f"generate with {run['settings']} gives {ids}")
    return found


def compare_answers(source, expected, opened):
    """Compares the generated answers to questions, each of which is asked alone."""
    for run in read_json(source / "generation.json")["runs"]:
        for item, beams in enumerate(run["outputs"]):
            question = expected["input_ids"][item, : expected["attention_mask"][item].sum()]
            pixels = expected["pixel_values"][item : item + 1]
            ids = opened.generate(question[None], pixels, **run["settings"]).tolist()
            if any(row[1 : len(beam["ids"]) + 1] != beam["ids"] for row, beam in zip(ids, beams)):
                raise Failed(f"generate with {run['settings']} gives {ids}")


def compare_with_golden(source, folder, opened, dtype, photos):
    expected = load_file(source / "expected.safetensors")
    if "rows" in expected:
        expected["pixel_values"] = expected["rows"][..., None] * expected["columns"][..., None, :]
    names = INPUTS.get(opened.name, ["pixel_values", "input_ids"])
    outputs = opened.run({name: expected[name] for name in names if name in expected})
    found = {"difference": max(largest(output, expected[name]) for name, output in outputs.items())}
    if opened.name == "ViltForQuestionAnswering":
        images = [Image.open(photos / f"{name}.png").convert("RGB") for name in VILT_PHOTOS]
        found |= {"photos": len(images), "pixels": largest(opened.pixels(images), expected["pixel_values"])}
        refuse_pixels(found)
    elif opened.generate and dtype == "f32":
        found |= compare_captions(source, folder, opened, photos)
    return found


def compare_resized(source, opened, size):
    """Compares with open_clip's own resizing of the position embeddings."""
    resized, pixel_values = open_open_clip(source, size), torch.randn(3, 3, size, size)
    inputs = {
        "pixel_values": pixel_values,
        "input_ids": load_file(source / "expected.safetensors")["input_ids"],
    }
    ours, theirs = opened.run(inputs), resized.run(inputs)
    return {"difference": max(largest(ours[name], theirs[name]) for name in theirs)}


def compare_with_source(source, opened, captions, photos):
    original = open_folder(source, form_of(source))
    ours, theirs, found = {}, {}, {}
    for reader in ["tokenize", "pixels"]:
        if (getattr(opened, reader) is None) != (getattr(original, reader) is None):
            raise Failed(f"{reader}: one side has it, the other has not")
    if original.tokenize:
        texts = compare_words(opened, original, captions)
        ours |= opened.tokenize(texts[:ENCODED])
        theirs |= original.tokenize(texts[:ENCODED])
        found["texts"] = len(texts)
    if original.pixels:
        if opened.name != original.name:
            photos = [photo for photo in photos if crops_alike(photo, original.pixels)]
        ours["pixel_values"], theirs["pixel_values"] = opened.pixels(photos), original.pixels(photos)
        found["photos"] = len(photos)
        found["pixels"] = largest(ours["pixel_values"], theirs["pixel_values"])
        refuse_pixels(found)
    ours, theirs = opened.run(ours), original.run(theirs)
    return found | {"difference": max(largest(ours[name], theirs[name]) for name in theirs)}


def compare_rows(source, rows, texts, photos):
    """Compares the rows of `mm embed` with the peer's: of texts or images, depending on the file's name."""
    original, inputs = open_folder(source, form_of(source)), {}
    if original.tokenize:
        inputs |= original.tokenize(texts)
    if original.pixels:
        inputs["pixel_values"] = original.pixels(photos)
    outputs, side = original.run(inputs), rows.stem
    expected = outputs.get(f"{side[:-1]}_embeds", outputs.get("output"))
    difference = largest(load_file(rows)["embeddings"], torch.nn.functional.normalize(expected, dim=-1))
    return {"opened_by": f"mm embed --{side}", "difference": difference, "limit": ROWS_LIMITS[side]}


def open_pipeline(path, source):
    """A pipeline of diffusers, from a folder or from a file, whose configs are those of `source`."""
    kind = getattr(diffusers, read_json(source / "model_index.json")["_class_name"])
    if path.is_file():
        pipe = kind.from_single_file(str(path), config=str(source), local_files_only=True)
    else:
        pipe = diffusers.DiffusionPipeline.from_pretrained(path, torch_dtype="auto")
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(torch.float32)


def run_pipeline(pipe, kind):
    return pipe(
        PROMPT, num_inference_steps=STEPS, guidance_scale=GUIDANCE, height=SIDE, width=SIDE,
        generator=[torch.Generator().manual_seed(SEED)], output_type=kind,
    ).images  # fmt: skip


def compare_pipelines(request, source, written):
    """Compares the latents of `written` with those of the source, which gets the adapter where there is one;
    and the picture of the former with that of `mm generate`."""
    opened, original = open_pipeline(written, source), open_pipeline(source, source)
    if request["adapter"]:
        original.load_lora_weights(request["adapter"])
        if not original.get_list_adapters():
            raise Failed("load_lora_weights loads nothing")
    latents = [run_pipeline(pipe, "latent") for pipe in [opened, original]]
    name = type(opened).__name__
    if request["adapter"]:
        name = f"load_lora_weights, {name}"
        if largest(latents[0], run_pipeline(open_pipeline(source, source), "latent")) < 1e-2:
            raise Failed("the adapter changes nothing")
    # The types of the weights differ where the numbers were rounded.
    pipe = original if request["adapter"] else opened
    ours, theirs = Image.open(request["image"]), run_pipeline(pipe, "pil")[0]
    levels = abs(numpy.asarray(ours, dtype=int) - numpy.asarray(theirs, dtype=int)).max()
    if levels > 1:
        raise Failed(f"the picture of mm generate is {levels} levels apart")
    return {"opened_by": name, "difference": largest(*latents)}


def check(goldens, plan):
    torch.manual_seed(5)
    captions = read_json(goldens / "text/captions.json")
    photos = [Image.open(path).convert("RGB") for path in sorted((goldens / "images/photos").iterdir())]
    packages = ["torch", "transformers", "diffusers", "open_clip_torch", "sentence-transformers"]
    print(", ".join(f"{package} {importlib.metadata.version(package)}" for package in packages), flush=True)
    for request in read_json(plan):
        source, written, dtype = Path(request["source"]), Path(request["written"]), request["dtype"]
        try:
            with torch.inference_mode():
                if request["image"]:
                    found = compare_pipelines(request, source, written)
                elif request["rows"]:
                    texts = (plan.parent / "folders/captions.txt").read_text(encoding="utf-8").splitlines()
                    found = compare_rows(source, written, texts, photos)
                else:
                    opened = open_folder(written, request["form"], dtype)
                    found = {"opened_by": opened.name}
                    if request["resolution"]:
                        found |= compare_resized(source, opened, int(request["resolution"]))
                    elif (source / "expected.safetensors").exists():
                        folder = goldens / "images/photos"
                        found |= compare_with_golden(source, written, opened, dtype, folder)
                    else:
                        found |= compare_with_source(source, opened, captions, photos)
            limit = found.pop("limit", LIMITS[dtype])
            if not found["difference"] <= limit:
                found["error"] = f"the outputs are {found['difference']:.1e} apart, more than {limit:.0e}"
        except Exception as error:  # any exception of a peer is the answer
            found = {"error": f"{type(error).__name__}: {error}".replace("\n", " ")}
        print(json.dumps(found), flush=True)


SIZES = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 1}


def write_clip_vocabulary(folder):
    """OpenAI's full vocabulary as transformers' files."""
    simple = open_clip.SimpleTokenizer()
    merges = sorted(simple.bpe_ranks, key=simple.bpe_ranks.get)
    vocabulary = {token: index for token, index in simple.encoder.items() if index < simple.sot_token_id}
    vocabulary |= {"<|startoftext|>": simple.sot_token_id, "<|endoftext|>": simple.eot_token_id}
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text(
        "\n".join(["#version: 0.2", *map(" ".join, merges)]) + "\n", encoding="utf-8"
    )


def save(folder, model, *readers):
    model.eval().save_pretrained(folder)
    for reader in readers:
        reader.save_pretrained(folder)


def clip(tokenizer, **vision):
    tokens = {"vocab_size": len(tokenizer), "max_position_embeddings": tokenizer.model_max_length}
    ids = {f"{role}_token_id": getattr(tokenizer, f"{role}_token_id") for role in ["bos", "eos", "pad"]}
    text, vision = SIZES | tokens | ids, SIZES | {"image_size": 32, "patch_size": 8} | vision
    return transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=48)


def make_transformers(goldens, out):
    kept = {"mean": [0.4, 0.5, 0.6], "std": [0.3, 0.2, 0.25]}
    small = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    short = transformers.CLIPTokenizer.from_pretrained(goldens / "text/clip_tokenizer", model_max_length=20)
    processor = transformers.CLIPImageProcessorPil(
        **small, image_mean=kept["mean"], image_std=kept["std"], resample=2
    )
    save(out / "clip-words", transformers.CLIPModel(clip(short)), short, processor)
    config = clip(short).text_config
    config.projection_dim = 48
    save(out / "clip-text-words", transformers.CLIPTextModelWithProjection(config), short)
    config = clip(short).vision_config
    config.projection_dim = 48
    save(out / "clip-vision-pixels", transformers.CLIPVisionModelWithProjection(config), processor)

    write_clip_vocabulary(out / ".openai")
    whole = transformers.CLIPTokenizer.from_pretrained(out / ".openai", model_max_length=77)
    # As one processor, both would be saved under other names.
    processor = transformers.CLIPProcessor(transformers.CLIPImageProcessorPil(**small), whole)
    save(out / "clip-openai-words", transformers.CLIPModel(clip(whole)), processor)

    square = {"height": 32, "width": 32}
    for name, tokenizer in [
        ("siglip-words", "siglip_spiece"), ("siglip2-words", "siglip2_tokenizer")
    ]:
        # Google's own files name this one input.
        files = goldens / "text" / tokenizer
        tokenizer = transformers.AutoTokenizer.from_pretrained(files, model_input_names=["input_ids"])
        text = SIZES | {"vocab_size": len(tokenizer), "max_position_embeddings": 64, "projection_size": 64}
        config = transformers.SiglipConfig(
            text_config=text, vision_config=SIZES | {"image_size": 32, "patch_size": 8}
        )
        save(
            out / name,
            transformers.SiglipModel(config),
            tokenizer,
            transformers.SiglipImageProcessorPil(size=square),
        )

    vit = transformers.ViTConfig(**SIZES, image_size=32, patch_size=8)
    save(out / "vit-pixels", transformers.ViTModel(vit), transformers.ViTImageProcessorPil(size=square))
    for name in ["bert_tokenizer", "bert_vocab_txt"]:
        tokenizer = transformers.AutoTokenizer.from_pretrained(goldens / "text" / name)
        config = transformers.BertConfig(**SIZES, vocab_size=len(tokenizer), max_position_embeddings=80)
        save(out / name.replace("_", "-"), transformers.BertModel(config), tokenizer)


def make_sentence_transformers(out):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Normalize, Pooling, Transformer

    words = Transformer(str(out / "bert-tokenizer"), max_seq_length=24)
    modules = [words, Pooling(SIZES["hidden_size"], "mean"), Normalize()]
    SentenceTransformer(modules=modules).save(str(out / "sentence-bert"))


def make_open_clip(out):
    text = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2}
    vision = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8}
    resnet = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8}
    for name, vision, size in [("open-clip-words", vision, 32), ("open-clip-resnet-words", resnet, 64)]:
        config = {"embed_dim": 48, "vision_cfg": vision, "text_cfg": text, "quick_gelu": True}
        folder = out / name
        folder.mkdir()
        save_file(CLIP(**config).state_dict(), folder / "open_clip_model.safetensors")
        preprocess = {"size": size, "mode": "RGB", "interpolation": "bicubic", "resize_mode": "shortest"}
        (folder / "open_clip_config.json").write_text(
            json.dumps({"model_cfg": config, "preprocess_cfg": preprocess})
        )


def make_pipelines(out):
    """Pipelines of diffusers with the settings of the published models, which a single file does not hold."""
    tokenizer = transformers.CLIPTokenizer.from_pretrained(out / ".openai", model_max_length=77)
    tokenizer_2 = transformers.CLIPTokenizer.from_pretrained(
        out / ".openai", model_max_length=77, pad_token="!"
    )
    text = SIZES | {"vocab_size": len(tokenizer), "hidden_act": "quick_gelu"}
    text |= {f"{role}_token_id": getattr(tokenizer, f"{role}_token_id") for role in ["bos", "eos", "pad"]}
    encoder = lambda **more: transformers.CLIPTextModel(transformers.CLIPTextConfig(**(text | more)))
    blocks = ["CrossAttnDownBlock2D", "DownBlock2D"], ["UpBlock2D", "CrossAttnUpBlock2D"]

    def unet(blocks, heads, width, **more):
        return diffusers.UNet2DConditionModel(
            sample_size=16, block_out_channels=(32, 64), layers_per_block=1, attention_head_dim=heads,
            down_block_types=blocks[0], up_block_types=blocks[1], cross_attention_dim=width, **more
        )  # fmt: skip

    def vae(**more):
        return diffusers.AutoencoderKL(
            block_out_channels=(32, 32), down_block_types=["DownEncoderBlock2D"] * 2,
            up_block_types=["UpDecoderBlock2D"] * 2, latent_channels=4, sample_size=32, **more
        )  # fmt: skip

    schedule = {
        "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1,
    }
    none = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    diffusers.StableDiffusionPipeline(
        unet=unet(blocks, 8, 64), vae=vae(), text_encoder=encoder(), tokenizer=tokenizer,
        scheduler=diffusers.PNDMScheduler(**schedule, skip_prk_steps=True), **none
    ).save_pretrained(out / "sd1")  # fmt: skip
    diffusers.StableDiffusionPipeline(
        unet=unet(blocks, (1, 1), 64, use_linear_projection=True), vae=vae(),
        text_encoder=encoder(hidden_act="gelu"), tokenizer=tokenizer_2,
        scheduler=diffusers.DDIMScheduler(
            **schedule, clip_sample=False, set_alpha_to_one=False, prediction_type="v_prediction"
        ), **none
    ).save_pretrained(out / "sd2")  # fmt: skip
    # diffusers knows the encoders of a file by their width.
    wide = {"hidden_act": "gelu", "hidden_size": 128, "num_attention_heads": 2, "projection_dim": 128}
    config = transformers.CLIPTextConfig(**(text | wide))
    diffusers.StableDiffusionXLPipeline(
        unet=unet(
            [blocks[0][::-1], blocks[1][::-1]], (1, 1), 192, use_linear_projection=True,
            transformer_layers_per_block=(1, 2), addition_embed_type="text_time",
            addition_time_embed_dim=256, projection_class_embeddings_input_dim=6 * 256 + 128,
        ),
        vae=vae(scaling_factor=0.13025), text_encoder=encoder(), tokenizer=tokenizer,
        text_encoder_2=transformers.CLIPTextModelWithProjection(config), tokenizer_2=tokenizer_2,
        scheduler=diffusers.EulerDiscreteScheduler(**schedule, timestep_spacing="leading"),
        add_watermarker=False,
    ).save_pretrained(out / "sdxl")  # fmt: skip


def write_captions(goldens, file):
    """Captions of one line that no tokenizer changes by cleaning."""
    texts = [text for text in read_json(goldens / "text/captions.json")[100:] if clean(text) == text]
    file.write_text("\n".join(texts[:ENCODED]) + "\n", encoding="utf-8")


def make(goldens, out):
    torch.manual_seed(3)
    out.mkdir(parents=True)
    write_captions(goldens, out / "captions.txt")
    make_transformers(goldens, out)
    make_sentence_transformers(out)
    make_open_clip(out)
    make_pipelines(out)


def main():
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    diffusers.logging.set_verbosity_error()
    diffusers.logging.disable_progress_bar()
    verb, goldens, path = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    {"make": make, "check": check}[verb](goldens, path)


if __name__ == "__main__":
    main()
