"""What transformers' `generate` returns for small captioners, written as generation.json."""

import copy
import json

import torch

# Rounding may differ by this part of every weight without changing a chosen token.
ROUNDING = 1e-5
ITEMS = 4


def beam_grid():
    """Every length penalty with every stopping rule, returning all beams; beams 1 is greedy search."""
    grid = [
        {"num_beams": beams, "num_return_sequences": beams, "length_penalty": penalty, "early_stopping": stop}
        for beams in [2, 3, 4, 5]
        for penalty in [0.0, 1.0, 2.0, -1.0]
        for stop in [True, False, "never"]
    ]
    return [{"num_beams": 1}] + grid


def rules(eos, words, starts=True):
    """Each processor alone and some together, greedy and with beams. `words` are ids the model likes."""
    every = [
        {"repetition_penalty": 1.3},
        {"no_repeat_ngram_size": 2},
        {"no_repeat_ngram_size": 3},
        {"no_repeat_ngram_size": 1},
        {"min_new_tokens": 7},
        {"forced_eos_token_id": eos},
        {"suppress_tokens": words},
        {"begin_suppress_tokens": words},
        {"begin_suppress_tokens": [eos], "repetition_penalty": 1.3, "no_repeat_ngram_size": 2},
        {"min_new_tokens": 5, "no_repeat_ngram_size": 2, "suppress_tokens": words[:1]},
        {"max_new_tokens": 1},
        {"max_new_tokens": 2},
        {"max_new_tokens": 5, "min_new_tokens": 5},
    ]
    if starts:
        every.append({"forced_bos_token_id": words[-1]})
        both = {"forced_bos_token_id": words[-1], "forced_eos_token_id": eos}
        every.append(both | {"repetition_penalty": 1.3})
    return [rule | {"num_beams": beams} for rule in every for beams in [1, 3]]


def disturbed(model):
    """The model in f64 with every weight changed by ROUNDING, so that near ties give other tokens."""
    generator = torch.Generator().manual_seed(1)
    model = copy.deepcopy(model).double()
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.mul_(1 + ROUNDING * noise)
    return model


def cut(ids, eos):
    """The ids up to the first end token, which is kept."""
    return ids[: ids.index(eos) + 1] if eos in ids else ids


def outputs_of(model, generate, rows, prompts, settings, eos):
    """The sequences of each item: ids after the prompt, score (beams) or log-probabilities (greedy)."""
    with torch.no_grad():
        found = generate(
            model,
            rows,
            prompts,
            do_sample=False,
            return_dict_in_generate=True,
            output_scores=True,
            output_logits=True,
            **settings,
        )
    # With `inputs_embeds` the sequences have no prompt.
    new = found.sequences[:, found.sequences.shape[1] - generated(found) :].tolist()
    new = [cut(ids, eos) for ids in new]
    count = settings.get("num_return_sequences", 1)
    if settings["num_beams"] == 1:
        logs = torch.stack(found.logits).log_softmax(-1)  # [steps, items, vocabulary]
        of = lambda item, ids: [logs[step, item, token].item() for step, token in enumerate(ids)]
        return [[{"ids": ids, "log_probs": of(item, ids)}] for item, ids in enumerate(new)]
    beams = [{"ids": ids, "score": score} for ids, score in zip(new, found.sequences_scores.tolist())]
    assert all(beam["score"] > -1e6 for beam in beams), "a beam is empty"
    return [beams[start : start + count] for start in range(0, len(beams), count)]


def generated(found):
    """The number of generated tokens of the longest sequence."""
    if getattr(found, "beam_indices", None) is not None:
        return int((found.beam_indices >= 0).sum(1).max())
    return len(found.logits)


def numbers(outputs):
    flat = [beam for item in outputs for beam in item]
    return torch.tensor([x for beam in flat for x in beam.get("log_probs", [beam.get("score")])])


def ids_of(outputs):
    return [[beam["ids"] for beam in item] for item in outputs]


def run(model, other, generate, settings, prompts, eos):
    """One row of generation.json. Every batch must give what the items give alone."""
    alone = [
        outputs_of(model, generate, [item], prompts[item : item + 1], settings, eos)[0]
        for item in range(ITEMS)
    ]
    same_length = len({len(prompt) for prompt in prompts}) == 1
    for size in [2, 3, 4] if same_length else []:
        batch = outputs_of(model, generate, list(range(size)), prompts[:size], settings, eos)
        what = f"{settings}, batch of {size}"
        assert ids_of(batch) == ids_of(alone[:size]), f"{what}: {ids_of(batch)} instead of {ids_of(alone)}"
        assert torch.allclose(numbers(batch), numbers(alone[:size]), atol=1e-4), what
    again = [
        outputs_of(other, generate, [item], prompts[item : item + 1], settings, eos)[0]
        for item in range(ITEMS)
    ]
    assert ids_of(again) == ids_of(alone), f"{settings}: a near tie, {ids_of(alone)} or {ids_of(again)}"
    return {"settings": settings, "prompts": prompts, "outputs": alone}


def rounded(value):
    """Floats with seven digits, which is what f32 holds."""
    if isinstance(value, float):
        return float(f"{value:.7g}")
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    return [rounded(inner) for inner in value] if isinstance(value, list) else value


def write_lines(file, head, name, rows):
    """JSON with one row a line: `head`'s keys, then the list `name`."""
    dump = lambda value: json.dumps(rounded(value), ensure_ascii=False, separators=(",", ":"))
    keys = "".join(f"{dump(key)}:{dump(value)},\n" for key, value in head.items())
    file.write_text("{" + keys + dump(name) + ":[\n" + ",\n".join(map(dump, rows)) + "\n]}\n", "utf-8")


def write_generation(folder, model, generate, eos, plan, limit=10):
    """Writes generation.json for a plan of (settings, prompts of the four items)."""
    other = disturbed(model)
    runs = [
        run(model, other, generate, {"max_new_tokens": limit} | settings, prompts, eos)
        for settings, prompts in plan
    ]
    write_lines(folder / "generation.json", {"eos_token_id": eos, "items": ITEMS}, "runs", runs)
    found = [beam["ids"] for run in runs for item in run["outputs"] for beam in item]
    early = sum(ids[-1] == eos for ids in found) / len(found)
    firsts = [tuple(item[0]["ids"]) for item in runs[0]["outputs"]]
    assert len(set(firsts)) == ITEMS, f"{folder.name}: the images have the same captions {firsts}"
    assert 0.2 < early < 0.95, f"{folder.name}: {early:.0%} of the sequences end by the end token"
