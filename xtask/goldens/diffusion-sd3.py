"""Writes small SD3 transformers of diffusers and T5 encoders of transformers with what they compute.

    python xtask/goldens/diffusion-sd3.py OUT_DIR

Weights are random and none is zero, so that each of them shapes the outputs.

- plain/, dual/, pixels/: SD3Transformer2DModel folders. plain has SD3's form; dual has SD3.5 medium's, with
  norms of queries and keys and a second attention in two blocks, of which one is the last; pixels has patches
  of 8 x 8 pixels of an image that is not square.
- */expected.safetensors: hidden_states [3, C, H, W], encoder_hidden_states [3, L, joint], pooled_projections
  [3, P], timestep [3], output. alone [3, C, H, W] is the output of each item with the first `lengths` [3] of
  its text states and no more.
- dual/expected.safetensors also: target, loss (mean squared error), grad.<name> of every weight, and
  weights.<block> [1, heads, N, L], what the patches of the first item alone attend to in its text.
- t5-gated/, t5-relu/: T5EncoderModel folders of both forms. expected.safetensors: input_ids [3, L],
  attention_mask [3, L], output without the mask, masked with it.
"""

import diffusers
import torch
import transformers

from shared.models import save_expected, spread
from shared.script import begin

PINNED = {"torch": "2.13.0", "diffusers": "0.42.1", "transformers": "5.23.0"}
ITEMS = 3
LENGTHS = [5, 1, 3]
FORMS = {
    "plain": {"sample_size": 8, "patch_size": 2, "in_channels": 4, "out_channels": 4},
    "dual": {
        "sample_size": 8,
        "patch_size": 2,
        "in_channels": 4,
        "out_channels": 4,
        "num_layers": 3,
        "qk_norm": "rms_norm",
        "dual_attention_layers": (0, 2),
    },
    "pixels": {"sample_size": 32, "patch_size": 8, "in_channels": 3, "out_channels": 3},
}
SHARED = {
    "num_layers": 2,
    "attention_head_dim": 8,
    "num_attention_heads": 2,
    "caption_projection_dim": 16,
    "joint_attention_dim": 12,
    "pooled_projection_dim": 10,
    "pos_embed_max_size": 5,
}
SIZES = {"plain": (8, 8), "dual": (8, 6), "pixels": (16, 32)}


def inputs(form, config, seed):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator)
    return {
        "hidden_states": draw(ITEMS, config["in_channels"], *SIZES[form]),
        "encoder_hidden_states": draw(ITEMS, max(LENGTHS), config["joint_attention_dim"]),
        "pooled_projections": draw(ITEMS, config["pooled_projection_dim"]),
        "timestep": torch.tensor([3.0, 501.5, 999.0]),
    }


def alone(given, item, length):
    row = {name: tensor[item : item + 1] for name, tensor in given.items()}
    return row | {"encoder_hidden_states": row["encoder_hidden_states"][:, :length]}


def attention_weights(model, given):
    """The softmax of every joint attention, whose keys are the patches and the text."""
    _, _, height, width = given["hidden_states"].shape
    patches = height // model.config.patch_size * (width // model.config.patch_size)
    attend, seen = torch.nn.functional.scaled_dot_product_attention, []

    def record(query, key, value, **settings):
        weights = (query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5).softmax(-1)
        if key.shape[2] > patches:
            seen.append(weights[:, :, :patches, patches:])
        return attend(query, key, value, **settings)

    torch.nn.functional.scaled_dot_product_attention = record
    try:
        model(**given)
    finally:
        torch.nn.functional.scaled_dot_product_attention = attend
    return {f"weights.{block}": weights for block, weights in enumerate(seen)}


def sd3(out, form, seed):
    config = SHARED | FORMS[form]
    model = spread(diffusers.SD3Transformer2DModel(**config), seed, 0.5)
    with torch.no_grad():
        # Outputs of the size of a trained model's, so that an absolute bound on differences means something.
        for parameter in model.proj_out.parameters():
            parameter *= 0.15
    model.save_pretrained(out / form)
    given = inputs(form, config, seed)
    with torch.no_grad():
        expected = given | {"output": model(**given).sample, "lengths": torch.tensor(LENGTHS)}
        rows = [model(**alone(given, item, length)).sample for item, length in enumerate(LENGTHS)]
        expected["alone"] = torch.cat(rows)
        if form == "dual":
            expected |= attention_weights(model, alone(given, 0, LENGTHS[0]))
    if form == "dual":
        generator = torch.Generator().manual_seed(seed + 1)
        expected["target"] = torch.randn(expected["output"].shape, generator=generator)
        expected["loss"] = torch.nn.functional.mse_loss(model(**given).sample, expected["target"])
        expected["loss"].backward()
        expected |= {f"grad.{name}": parameter.grad for name, parameter in model.named_parameters()}
    save_expected(out / form, expected)


def t5(folder, feed_forward_proj, seed):
    config = transformers.T5Config(
        vocab_size=40,
        d_model=16,
        d_kv=8,
        d_ff=24,
        num_layers=2,
        num_heads=2,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=16,
        feed_forward_proj=feed_forward_proj,
    )
    model = spread(transformers.T5EncoderModel(config), seed, 0.5)
    model.save_pretrained(folder)
    length = 24
    generator = torch.Generator().manual_seed(seed)
    input_ids = torch.randint(config.vocab_size, (ITEMS, length), generator=generator)
    attention_mask = torch.ones_like(input_ids)
    attention_mask[1, 7:] = 0
    attention_mask[2, :4] = 0
    with torch.no_grad():
        expected = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "output": model(input_ids=input_ids).last_hidden_state,
            "masked": model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state,
        }
    save_expected(folder, expected)


def main():
    out = begin(PINNED)
    torch.set_num_threads(1)
    for seed, form in enumerate(FORMS):
        sd3(out, form, seed)
    t5(out / "t5-gated", "gated-gelu", 10)
    t5(out / "t5-relu", "relu", 11)


if __name__ == "__main__":
    main()
