"""BLIP-VQA base with random weights in transformers, for `cargo xtask bench vqa`.

    vqa.py --make DIR [--seed N] [--tiny]   saves a random model as a whole folder, with images and answers
    vqa.py greedy|beams|rank --folder DIR [--precision f32|bf16] [--iterations N] [--warmup N]

`greedy` and `beams` generate 4 tokens (an answer of VQA v2 has 2 to 5 with its end token) to a question about
each of 8 images, with 1 and 3 beams. `rank` takes the 128 of 3,128 answers with the most probable first
tokens and scores them one after the other with the decoder, for all questions at once; images and questions
are encoded once. The answers are of invented words: 60 % are of one token, and many begin alike. Prints one
line of JSON: the fields of every benchmark, whose `seconds` are of everything from pixels to answers, the
median encode_seconds of images and questions, and the ids of the answers, or their places in the list.

Made for torch 2.13, transformers 5.23.
"""

import argparse
import json
import random
import statistics
import time
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file

from caption import IMAGES, SEP, THREADS, encoder_gflop, random_blip, save
from memory import peak_mb

TOKENS, BEAMS, CANDIDATES, ANSWERS = 4, 3, 128, 3128
QUESTION = 10
CLS, FIRST_WORD, WORDS = 101, 104, 30000


def answer_list(seed):
    """Answers of one to four invented words, whose first words are few."""
    draw = random.Random(seed)
    answers = {}
    while len(answers) < ANSWERS:
        length = draw.choices([1, 2, 3, 4], [0.60, 0.27, 0.10, 0.03])[0]
        first = FIRST_WORD + int((WORDS if length == 1 else 2000) * draw.random() ** 2)
        words = [first] + [draw.randrange(FIRST_WORD, WORDS) for _ in range(length - 1)]
        answers[" ".join(f"word{word}" for word in words)] = None
    return list(answers)


def questions():
    """Of any words, the same as mm's, and of one length: `generate` shows padding to the decoder."""
    words = 1000 + 181 * torch.arange(IMAGES * QUESTION).view(IMAGES, QUESTION)
    words[:, 0], words[:, -1] = CLS, SEP
    return words


def block_gflop(text, places, states):
    """One of the text's stacks for `places` tokens over `states` states, whose keys are computed too."""
    width = text.hidden_size
    token = 2 * (6 * width * width + 2 * width * text.intermediate_size) + 4 * states * width
    return text.num_hidden_layers * (places * token + 4 * width * width * states) / 1e9


def head_gflop(text, places):
    return places * 2 * (text.hidden_size**2 + text.hidden_size * text.vocab_size) / 1e9


def encode_gflop(config):
    tokens = (config.vision_config.image_size // config.vision_config.patch_size) ** 2 + 1
    return IMAGES * (encoder_gflop(config) + block_gflop(config.text_config, QUESTION, tokens))


def encode(model, pixels, ids):
    states = model.vision_model(pixels).last_hidden_state
    return model.text_encoder(input_ids=ids, encoder_hidden_states=states).last_hidden_state


def generate(model, pixels, ids, beams):
    settings = {"num_beams": beams, "max_new_tokens": TOKENS, "min_new_tokens": TOKENS, "do_sample": False}
    found = model.generate(ids, pixels, **settings)
    return found[:, 1 : TOKENS + 1].tolist()


def rank(model, states, answers):
    """LAVIS's way, one candidate of each question after the other."""
    start = model.config.text_config.bos_token_id
    begin = torch.full((IMAGES, 1), start)
    logits = model.text_decoder(input_ids=begin, encoder_hidden_states=states).logits[:, 0].float()
    firsts = torch.tensor([answer[0] for answer in answers])
    chosen = logits.softmax(-1)[:, firsts].topk(CANDIDATES, dim=1).indices
    scores = torch.empty(IMAGES, CANDIDATES)
    for place in range(CANDIDATES):
        rows = [answers[answer] + [SEP] for answer in chosen[:, place].tolist()]
        width = max(map(len, rows))
        labels = torch.tensor([row + [-100] * (width - len(row)) for row in rows])
        ids = torch.cat([begin, labels[:, :-1].clamp_min(0)], 1)
        logits = model.text_decoder(input_ids=ids, encoder_hidden_states=states).logits
        losses = torch.nn.functional.cross_entropy(
            logits.float().transpose(1, 2), labels, ignore_index=-100, reduction="none"
        )
        scores[:, place] = -losses.sum(1)
    order = scores.argsort(dim=1, descending=True)
    return chosen.gather(1, order)[:, :5].tolist()


def measure(model, pixels, args):
    ids = questions()
    tokenizer = transformers.AutoTokenizer.from_pretrained(args.folder)
    texts = json.loads((args.folder / "answers.json").read_text(encoding="utf-8"))
    answers = tokenizer(texts, add_special_tokens=False)["input_ids"]
    whole, encoded = [], []
    with torch.inference_mode():
        for iteration in range(args.warmup + args.iterations):
            start = time.perf_counter()
            states = encode(model, pixels, ids)
            middle = time.perf_counter()
            if args.work == "rank":
                found = rank(model, states, answers)
                end = time.perf_counter()
            else:
                found = generate(model, pixels, ids, BEAMS if args.work == "beams" else 1)
                end = time.perf_counter() - (middle - start)  # `generate` encodes again
            if iteration >= args.warmup:
                encoded.append(middle - start)
                whole.append(end - start)
    text = model.config.text_config
    if args.work == "rank":
        places = IMAGES * CANDIDATES * (sum(map(len, answers)) / len(answers) + 1)
    else:
        places = IMAGES * TOKENS * (BEAMS if args.work == "beams" else 1)
    decoder = block_gflop(text, places, QUESTION) + head_gflop(text, places)
    return {
        "work": args.work,
        "seconds": whole,
        "gflop_per_iteration": encode_gflop(model.config) + decoder,
        "encode_seconds": statistics.median(encoded),
        "answers": found,
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("work", nargs="?", choices=["greedy", "beams", "rank"])
    parser.add_argument("--make", type=Path, metavar="DIR")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--folder", type=Path, metavar="DIR")
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--warmup", type=int, default=1)
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(THREADS)
    if args.make:
        save(random_blip(args.seed, args.tiny, transformers.BlipForQuestionAnswering), args.make)
        (args.make / "answers.json").write_text(json.dumps(answer_list(args.seed)), encoding="utf-8")
        return
    model = transformers.BlipForQuestionAnswering.from_pretrained(args.folder, dtype=torch.float32).eval()
    pixels = load_file(args.folder / "pixels.safetensors")["pixel_values"]
    if args.precision == "bf16":
        model, pixels = model.to(torch.bfloat16), pixels.to(torch.bfloat16)
    measured = measure(model, pixels, args)
    common = {"precision": args.precision, "items_per_iteration": IMAGES, "peak_mb": peak_mb()}
    print(json.dumps(measured | common))


if __name__ == "__main__":
    main()
