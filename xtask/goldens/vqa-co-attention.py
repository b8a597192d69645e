"""Goldens of mm-vqa's co-attention models: small random models in plain PyTorch, with their outputs.

    vqa-co-attention.py OUT_DIR

Each folder, `guided`, `guided-tanh`, `parallel` and `mcan`, has

- config.json: {"tokens": {"width", "positions"}, "model": the CoAttentionConfig}. The image tower of the
  config is not used: the inputs are the tokens of one;
- model.safetensors: the weights under the names of mm_vqa, where the two layers of a gated tanh are one, a
  layer that reads image and question side by side is one for each, and the convolutions over words are linear
  layers;
- expected.safetensors. Inputs: image_tokens [2, 9, C], image_index [5], input_ids [5, L] (any ids at
  padding), lengths [5], targets [5, classes] from 0 to 1, the fourth row without any. Outputs: projected
  [2, 9, width], logits [5, classes], `attention.<k>` [5, heads, 9], the losses bce (mean x classes) and
  cross_entropy (targets of sum 1), and the gradients of bce for every weight of the file, `grad.<weight>`.
  Every question is computed alone, without padding.
"""

import json

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from shared.co_attention import Guided, Mcan, Model, Parallel, Questions
from shared.script import begin

PINNED = {"torch": "2.13.0"}

VOCAB, CLASSES, TOKENS_WIDTH, TOKENS = 20, 7, 12, 9
LENGTHS, IMAGES = [6, 3, 1, 4, 5], [0, 1, 1, 0, 1]
UNUSED_TOWER = {"kind": "resnet", "depth": 18, "width": 4, "image_size": 64}


def guided(score):
    questions = Questions(VOCAB, 10, 6, layers=2, bidirectional=True)
    lstm = {"vocab_size": VOCAB, "embedding_size": 10, "hidden_size": 6}
    lstm |= {"num_layers": 2, "bidirectional": True}
    sizes = {"score": score, "width": 16, "attention_width": 8, "glimpses": 2, "classifier_width": 14}
    fusion = Guided(questions, 16, 8, 2, 14, CLASSES, score)
    return Model(TOKENS_WIDTH, 16, TOKENS, questions, fusion), lstm, {"kind": "guided", **sizes}


def parallel():
    questions = Questions(VOCAB, 16, 16)
    lstm = {"vocab_size": VOCAB, "embedding_size": 16, "hidden_size": 16}
    sizes = {"width": 16, "attention_width": 12, "classifier_width": 20}
    fusion = Parallel(questions, 16, 12, 20, CLASSES)
    return Model(TOKENS_WIDTH, 16, TOKENS, questions, fusion), lstm, {"kind": "parallel", **sizes}


def mcan():
    questions = Questions(VOCAB, 10, 12)
    lstm = {"vocab_size": VOCAB, "embedding_size": 10, "hidden_size": 12}
    sizes = {"width": 16, "heads": 4, "mlp_width": 24, "layers": 2, "reduction_width": 12, "glimpses": 2}
    sizes |= {"output_width": 20}
    fusion = Mcan(questions, 16, 4, 24, 2, 12, 2, 20, CLASSES, 0.1)
    return Model(TOKENS_WIDTH, 16, None, questions, fusion), lstm, {"kind": "mcan", **sizes}


def our_names(tensors, width):
    """Weights, or their gradients, by the names of mm_vqa."""
    tensors, found = dict(tensors), {}
    for name in list(tensors):
        if name not in tensors:
            continue
        if name.startswith("fusion.attention."):
            value = tensors.pop(name)
            gate = tensors.pop(name.replace(".value.", ".gate."), None)
            both = value if gate is None else torch.cat([value, gate])
            end = name.rsplit(".", 1)[1]
            if end == "weight":
                found["fusion.attention_image.weight"] = both[:, :width]
                found["fusion.attention_question.weight"] = both[:, width:]
            else:
                found["fusion.attention_question.bias"] = both
        elif ".value." in name:
            gate = tensors.pop(name.replace(".value.", ".gate."))
            found[name.replace(".value.", ".")] = torch.cat([tensors.pop(name), gate])
        elif "gram.weight" in name:
            found[name] = tensors[name].permute(0, 2, 1).flatten(1)
        else:
            found[name] = tensors[name]
    return {name: tensor.detach().clone().contiguous() for name, tensor in found.items()}


def spread(model, seed):
    """Own weights, so that every one of them shapes the outputs."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() == 1:
                parameter.copy_((1.0 if "norm" in name and name.endswith("weight") else 0.0) + 0.2 * noise)
            elif "embedding" in name or "positions" in name:
                parameter.copy_(noise)
            else:
                parameter.copy_(1.3 * noise / parameter[0].numel() ** 0.5)
    return model.eval()


def write(folder, seed, model, lstm, fusion):
    folder.mkdir()
    spread(model, seed)
    generator = torch.Generator().manual_seed(100 + seed)
    image_tokens = torch.randn(2, TOKENS, TOKENS_WIDTH, generator=generator)
    input_ids = torch.randint(VOCAB, (len(LENGTHS), max(LENGTHS)), generator=generator)
    targets = torch.rand(len(LENGTHS), CLASSES, generator=generator)
    targets = torch.where(targets > 0.6, targets, 0.0)
    targets[3] = 0

    logits, maps = [], []
    for row, (image, length) in enumerate(zip(IMAGES, LENGTHS)):
        logits.append(model(image_tokens[image, None], input_ids[row, None, :length]))
        maps.append(model.fusion.maps())
    logits = torch.cat(logits)
    bce = F.binary_cross_entropy_with_logits(logits, targets) * CLASSES
    bce.backward()
    sums = targets.sum(1, keepdim=True)
    normalized = targets / sums.where(sums > 0, 1.0)
    positions = model.image_positions.weight if hasattr(model, "image_positions") else 0.0
    expected = {
        "image_tokens": image_tokens,
        "image_index": torch.tensor(IMAGES),
        "input_ids": input_ids,
        "lengths": torch.tensor(LENGTHS),
        "targets": targets,
        "projected": model.image_projection(image_tokens) + positions,
        "logits": logits,
        "bce": bce,
        "cross_entropy": F.cross_entropy(logits, normalized),
    }
    for layer, of_questions in enumerate(zip(*maps)):
        expected[f"attention.{layer}"] = torch.cat(of_questions)
    parameters = dict(model.named_parameters())
    width = model.image_projection.out_features
    gradients = our_names({name: parameter.grad for name, parameter in parameters.items()}, width)
    expected |= {f"grad.{name}": gradient for name, gradient in gradients.items()}
    save_file(our_names(parameters, width), folder / "model.safetensors")
    expected = {name: tensor.detach().clone().contiguous() for name, tensor in expected.items()}
    save_file(expected, folder / "expected.safetensors")

    question = {"kind": "lstm", **lstm}
    config = {"image": UNUSED_TOWER, "question": question, "fusion": fusion, "classes": CLASSES}
    tokens = {"width": TOKENS_WIDTH, "positions": TOKENS if hasattr(model, "image_positions") else None}
    text = json.dumps({"tokens": tokens, "model": config}, indent=2)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")


def main():
    out = begin(PINNED)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    write(out / "guided", 1, *guided("gated_tanh"))
    write(out / "guided-tanh", 2, *guided("tanh"))
    write(out / "parallel", 3, *parallel())
    write(out / "mcan", 4, *mcan())


if __name__ == "__main__":
    main()
