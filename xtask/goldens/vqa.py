"""Goldens of mm-vqa: small random models of transformers that answer questions, with their outputs.

    vqa.py OUT_DIR

`blip` (BlipForQuestionAnswering) and `vilt` (ViltForQuestionAnswering) are folders of whole models, as
`save_pretrained` writes them. Beside the model's files they have

- blip/expected.safetensors: four questions about four images. Inputs: pixel_values [4, 3, 32, 32], input_ids
  and attention_mask [4, L] of the questions, decoder_input_ids, decoder_attention_mask and labels [4, M] of
  the answers (-100 on the begin token and on padding; the model shifts them). Outputs: image_embeds,
  question_embeds, logits of the answers, loss, and the gradient of the loss for every weight, named
  "grad.<weight>"; logits_enc, with [ENC] in the place of the questions' [CLS]; question_weights.<layer>
  [1, heads, L, S] and answer_weights.<layer> [1, heads, M, L], the cross-attention of the third item. Every
  item is computed alone: in a batch the peer's decoder reads the padding of questions, in `forward` too,
  whose mask does not reach the cross-attention.
- blip/generation.json: as in caption.py, for each question alone. The prompt is the begin token.
- blip/rank.json: {"answers", "ids", "items": [{"log_likelihoods", "first", "candidates"}]}: the
  log-likelihood of each answer, end token included, as a sequence of its own in f64; the log-probability of
  its first token; and, for each number of candidates, the answers with the most probable first tokens (of
  equals the first in the list) from the most likely on.
- vilt/expected.safetensors: four images of several sizes with a question each. pixel_values, pixel_mask,
  input_ids, attention_mask, targets [4, answers], logits, loss and gradients as above; attention.<layer>
  [heads, L, L] of the first item alone, whose patches are put back into their natural order. The images are
  the photographs PHOTOS of data/goldens/images/photos.
- vilt/sizes.json: [[width, height, width after preprocessing, height after preprocessing]].
"""

import warnings
from pathlib import Path

import numpy
import torch
import transformers
from PIL import Image

from shared.generation import ITEMS, cut, disturbed, ids_of, outputs_of, write_lines
from shared.models import bert_tokenizer, gradients, save_expected, spread, write_json
from shared.script import begin

PINNED = {"torch": "2.13.0", "transformers": "5.23.0", "tokenizers": "0.23.3", "pillow": "13.0.0"}
QUESTIONS = [
    "is there a red circle?",
    "two big stars of blue",
    "is the small dog left of the big house?",
    "cat",
]
ANSWERS = ["red", "two red stars", "yes", "a big ring"]
PHOTOS = ["chelsea", "cell", "gravel", "rocket-flame"]


def padded(rows, value):
    width = max(map(len, rows))
    return torch.tensor([row + [value] * (width - len(row)) for row in rows])


def answer_list():
    """Answers of one to four words, many of which begin alike."""
    colors, things = ["red", "green", "blue", "yellow"], ["circle", "square", "star", "ring", "dog"]
    answers = colors + things + ["there", "no", "one", "two", "2", "10", "left", "left of", "left of it"]
    answers += [f"{color} {thing}" for color in colors for thing in things]
    answers += [f"two {color} {thing}s" for color in colors[:2] for thing in things]
    answers += [f"a big {color} {thing}" for color in colors[:2] for thing in things[:3]]
    return answers


def blip_text(hidden, begin_id, tokenizer):
    return {
        "vocab_size": begin_id + 2,
        "hidden_size": hidden,
        "encoder_hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 24,
        "bos_token_id": begin_id,
        "sep_token_id": tokenizer.sep_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def blip(folder, seed, ending):
    hidden = 16
    tokenizer, begin_id = bert_tokenizer(folder, added=True)
    vision = {
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 32,
        "patch_size": 8,
    }
    config = transformers.BlipConfig(text_config=blip_text(hidden, begin_id, tokenizer), vision_config=vision)
    model = spread(transformers.BlipForQuestionAnswering(config), seed, 0.35)
    sep, pad = tokenizer.sep_token_id, tokenizer.pad_token_id
    with torch.no_grad():
        model.text_decoder.cls.predictions.bias[sep] += ending
    transformers.BlipImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    model.save_pretrained(folder)

    torch.manual_seed(seed)
    pixel_values = torch.randn(ITEMS, 3, 32, 32)
    questions = [tokenizer(question)["input_ids"] for question in QUESTIONS]
    words = [tokenizer(answer, add_special_tokens=False)["input_ids"] for answer in ANSWERS]
    answers = [[begin_id, *row, sep] for row in words]
    inputs = {
        "input_ids": padded(questions, pad),
        "attention_mask": padded([[1] * len(row) for row in questions], 0),
        "decoder_input_ids": padded(answers, pad),
        "decoder_attention_mask": padded([[1] * len(row) for row in answers], 0),
        "labels": padded([[-100, *row[1:]] for row in answers], -100),
    }
    expected = {"pixel_values": pixel_values} | inputs
    expected["loss"] = blip_loss(model, pixel_values, inputs)
    expected["loss"].backward()
    expected |= gradients(model)
    with torch.no_grad():
        expected["image_embeds"] = model.vision_model(pixel_values=pixel_values).last_hidden_state
        expected["question_embeds"], expected["logits"] = blip_batch(model, pixel_values, questions, answers)
        marked = [[begin_id + 1, *row[1:]] for row in questions]
        expected["logits_enc"] = blip_batch(model, pixel_values, marked, answers)[1]
        expected |= blip_weights(model, pixel_values[2:3], questions[2], answers[2])
    save_expected(folder, expected)
    blip_generation(folder, model, pixel_values, questions, begin_id, sep)
    blip_rank(folder, model, tokenizer, pixel_values, questions, begin_id, sep)


def blip_loss(model, pixel_values, inputs):
    """The mean over the labels of all items, each of which is computed alone, without padding."""
    total, count = 0.0, 0
    for item in range(ITEMS):
        length = inputs["attention_mask"][item].sum()
        places = inputs["decoder_attention_mask"][item].sum()
        row = {"input_ids": inputs["input_ids"][item : item + 1, :length]}
        row["decoder_input_ids"] = inputs["decoder_input_ids"][item : item + 1, :places]
        row["labels"] = inputs["labels"][item : item + 1, :places]
        labels = (row["labels"] != -100).sum()
        total = total + labels * model(pixel_values=pixel_values[item : item + 1], **row).loss
        count += labels
    return total / count


def blip_parts(model, pixel_values, question, answer):
    """The states of one question, and the logits of one answer."""
    images = model.vision_model(pixel_values=pixel_values).last_hidden_state
    ids = torch.tensor([question])
    states = model.text_encoder(input_ids=ids, encoder_hidden_states=images).last_hidden_state
    ids = torch.tensor([answer])
    return states[0], model.text_decoder(input_ids=ids, encoder_hidden_states=states).logits[0]


def blip_batch(model, pixel_values, questions, answers):
    """Those of all items, each computed alone, padded with zeros."""
    rows = [
        blip_parts(model, pixel_values[item : item + 1], questions[item], answers[item])
        for item in range(ITEMS)
    ]
    pad = torch.nn.utils.rnn.pad_sequence
    return [pad(list(tensors), batch_first=True) for tensors in zip(*rows)]


def blip_weights(model, pixel_values, question, answer):
    images = model.vision_model(pixel_values=pixel_values).last_hidden_state
    encoded = model.text_encoder(
        input_ids=torch.tensor([question]), encoder_hidden_states=images, output_attentions=True
    )
    decoded = model.text_decoder(
        input_ids=torch.tensor([answer]),
        encoder_hidden_states=encoded.last_hidden_state,
        output_attentions=True,
    )
    named = {"question_weights": encoded.cross_attentions, "answer_weights": decoded.cross_attentions}
    return {f"{name}.{layer}": row for name, rows in named.items() for layer, row in enumerate(rows)}


def blip_generation(folder, model, pixel_values, questions, begin_id, eos):
    def generate(model, rows, prompts, **settings):
        (row,) = rows
        pixels = pixel_values[rows].to(model.dtype)
        return model.generate(torch.tensor([questions[row]]), pixels, **settings)

    other = disturbed(model)
    plan = [{"num_beams": 1}, {"num_beams": 3}, {"num_beams": 3, "num_return_sequences": 3}]
    plan += [{"num_beams": 5, "length_penalty": -1.0}, {"num_beams": 2, "early_stopping": True}]
    plan += [{"num_beams": beams, "min_new_tokens": 4} for beams in [1, 3]]
    runs = []
    for settings in plan:
        settings = {"max_new_tokens": 8} | settings
        every = [
            [outputs_of(one, generate, [item], [[begin_id]], settings, eos)[0] for item in range(ITEMS)]
            for one in [model, other]
        ]
        assert ids_of(every[0]) == ids_of(every[1]), f"{settings}: a near tie"
        runs.append({"settings": settings, "prompts": [[begin_id]] * ITEMS, "outputs": every[0]})
    write_lines(folder / "generation.json", {"eos_token_id": eos, "items": ITEMS}, "runs", runs)
    found = [tuple(cut(item[0]["ids"], eos)) for item in runs[0]["outputs"]]
    assert len(set(found)) == ITEMS, f"the questions have the same answers {found}"


def blip_rank(folder, model, tokenizer, pixel_values, questions, begin_id, eos):
    """A straight loop over the answers, one sequence at a time."""
    answers = answer_list()
    ids = [tokenizer(answer, add_special_tokens=False)["input_ids"] for answer in answers]
    assert all(ids) and len(set(map(tuple, ids))) == len(ids)
    model = model.double()
    items = []
    for row, question in enumerate(questions):
        scores = []
        for answer in ids:
            with torch.no_grad():
                pixels = pixel_values[row : row + 1].double()
                logits = blip_parts(model, pixels, question, [begin_id, *answer])[1]
            logs = logits.log_softmax(-1)
            scores.append([logs[at, token].item() for at, token in enumerate([*answer, eos])])
        # Sequences of other lengths round in other ways, and equals are to be equal.
        first = [round(score[0], 9) for score in scores]
        sums = [sum(score) for score in scores]
        # Rounding in f32 must change no order.
        apart = numpy.diff(numpy.sort(sums)).min()
        assert apart > 2e-5, f"two answers of item {row} are {apart} apart"
        candidates = {}
        for count in [5, 16, len(ids)]:
            chosen = numpy.argsort(-numpy.array(first), kind="stable")[:count]
            candidates[str(count)] = sorted(chosen.tolist(), key=lambda answer: -sums[answer])
        items.append({"log_likelihoods": sums, "first": first, "candidates": candidates})
    write_lines(folder / "rank.json", {"answers": answers, "ids": ids}, "items", items)


def vilt(folder, seed):
    hidden = 16
    tokenizer, words = bert_tokenizer(folder, added=False)
    labels = ["yes", "no", "2", "red", "two red stars", "a cat", "left", "ring", "1", "blue", "none"]
    config = transformers.ViltConfig(
        vocab_size=words,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=12,
        image_size=32,
        patch_size=8,
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
    )
    model = spread(transformers.ViltForQuestionAnswering(config), seed, 0.35)
    processor = transformers.ViltImageProcessorPil(size={"shortest_edge": 32}, size_divisor=8)
    processor.save_pretrained(folder)
    model.save_pretrained(folder)

    photos = Path(__file__).parents[2] / "data/goldens/images/photos"
    images = [Image.open(photos / f"{name}.png").convert("RGB") for name in PHOTOS]
    pixels = processor(images, return_tensors="pt")
    questions = [tokenizer(question)["input_ids"] for question in QUESTIONS]
    inputs = {
        "pixel_values": pixels["pixel_values"],
        "pixel_mask": pixels["pixel_mask"],
        "input_ids": padded(questions, tokenizer.pad_token_id),
        "attention_mask": padded([[1] * len(row) for row in questions], 0),
    }
    torch.manual_seed(seed)
    targets = torch.rand(ITEMS, len(labels)) * (torch.rand(ITEMS, len(labels)) < 0.3)
    output = model(**inputs, labels=targets)
    output.loss.backward()
    expected = inputs | {"targets": targets, "logits": output.logits, "loss": output.loss}
    expected |= gradients(model) | vilt_attention(model, processor, images[0], questions[0])
    for item in range(ITEMS):
        alone = processor([images[item]], return_tensors="pt")
        with torch.no_grad():
            logits = model(**alone, input_ids=torch.tensor([questions[item]])).logits
        assert torch.allclose(logits, output.logits[item : item + 1], atol=1e-5), item
    save_expected(folder, expected)

    sizes = [image.size for image in images]
    sizes += [(640, 480), (1333, 800), (57, 90), (33, 32), (200, 59), (500, 375)]
    rows = []
    for width, height in sizes:
        pixels = processor([Image.new("RGB", (width, height))], return_tensors="pt")["pixel_values"]
        rows.append([width, height, pixels.shape[3], pixels.shape[2]])
    write_json(folder / "sizes.json", rows)


def vilt_attention(model, processor, image, question):
    """Self-attention of one item. The peer takes the patches in a random order, which is undone here."""
    pixels = processor([image], return_tensors="pt")
    order = []
    draw = torch.multinomial

    def recorded(*args, **kwargs):
        order.append(draw(*args, **kwargs))
        return order[-1]

    torch.multinomial = recorded
    try:
        with torch.no_grad():
            found = model(**pixels, input_ids=torch.tensor([question]), output_attentions=True)
    finally:
        torch.multinomial = draw
    (patches,) = order
    before = torch.arange(len(question) + 1)
    places = torch.cat([before, len(before) + patches.argsort()])
    rows = [row[0][:, places][:, :, places] for row in found.attentions]
    return {f"attention.{layer}": row for layer, row in enumerate(rows)}


def main():
    out = begin(PINNED)
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    # Seeds and a bias of the end token with which answers differ.
    blip(out / "blip", 4, 3.0)
    vilt(out / "vilt", 6)


if __name__ == "__main__":
    main()
