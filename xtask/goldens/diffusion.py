"""Goldens of mm-diffusion: small random pipelines of diffusers, with what they make of given seeds.

    diffusion.py OUT_DIR

Every folder is a whole pipeline, as `save_pretrained` writes it: `sd1` (PNDM with Stable Diffusion 1.5's
settings), `sd2` (v-prediction, linear projections, heads by block), `sdxl`, `sd3` (without T5), `inpaint`
(nine channels), `pix2pix`, `lcm` (guidance as an embedding). Beside its files a folder has

- cases.json: {case: {"prompts", "negative", "seeds", "steps", "guidance", ...}}, the arguments of each run;
- expected.safetensors, for each case "<case>.latents", the latents after the last step [N, C, h, w],
  "<case>.image" [N, 3, H, W] in 0 to 1, and where the case is the first "<case>.prompt_embeds" and
  "<case>.negative_embeds" (and "<case>.pooled", "<case>.negative_pooled") of the prompts. "unet.*" (or
  "transformer.*") are inputs and the output of one call of the model; in sd1 also its loss (the mean square
  of the output minus "unet.target") and the gradients "unet.grad.<weight>"; "vae.*" are an image, its
  latents' "mean" and "logvar", the "decoded" mean, and that in tiles ("tiled").

`inversions` has textual inversions for sd1 and sdxl, with their cases and latents as above, and `safety` a
safety checker with the image processor of its pipeline: expected.safetensors has "images" [N, H, W, 3],
"concept_scores" and "special_scores" [N, 17] and [N, 3], rounded as diffusers does, and "is_flagged" [N].

Every image has a generator of its own: image i of a case is drawn from seeds[i]. The images to edit are
image.png and mask.png of the folder `images`.
"""

import json

import diffusers
import numpy
import torch
import transformers
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker, cosine_distance
from PIL import Image, ImageDraw
from safetensors.torch import save_file

from shared.models import save_expected, spread, write_clip_vocabulary, write_json
from shared.script import begin

PINNED = {"torch": "2.13.0", "transformers": "5.23.0", "diffusers": "0.42.1", "pillow": "13.0.0"}
MERGES = 60
PROMPTS = ["a red circle above a blue square", "two green stars"]
LONG = "a photo of " + "many small birds and trees near a very old house , " * 10
SD15_SCHEDULER = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "clip_sample": False,
}


def tokenizer(folder, pad=None):
    """CLIP's vocabulary, truncated."""
    write_clip_vocabulary(folder, MERGES)
    extra = {} if pad is None else {"pad_token": pad}
    found = transformers.CLIPTokenizer.from_pretrained(folder, model_max_length=77, **extra)
    for name in ["vocab.json", "merges.txt"]:
        (folder / name).unlink()
    folder.rmdir()
    return found


def text_encoder(seed, vocabulary, width, projection=None, eos=None, act="quick_gelu"):
    config = transformers.CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=77,
        hidden_act=act,
        projection_dim=projection or width,
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1 if eos is None else eos,
        pad_token_id=vocabulary - 1,
    )
    made = transformers.CLIPTextModelWithProjection if projection else transformers.CLIPTextModel
    return spread(made(config), seed, 0.5)


def unet(seed, **changes):
    sizes = {
        "sample_size": 8,
        "block_out_channels": (8, 16),
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "layers_per_block": 1,
        "attention_head_dim": 2,
        "cross_attention_dim": 16,
        "norm_num_groups": 4,
    }
    return spread(diffusers.UNet2DConditionModel(**(sizes | changes)), seed, 0.5)


def vae(seed, **changes):
    sizes = {
        "block_out_channels": (8, 8),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "layers_per_block": 1,
        "latent_channels": 4,
        "norm_num_groups": 4,
        "sample_size": 16,
    }
    return spread(diffusers.AutoencoderKL(**(sizes | changes)), seed, 0.5)


def generators(seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def image_files(folder):
    """A picture and a mask, in sizes that must be resized to."""
    folder.mkdir()
    image = Image.new("RGB", (16, 16), (250, 240, 200))
    draw = ImageDraw.Draw(image)
    draw.ellipse([2, 2, 9, 9], fill=(220, 30, 40))
    draw.rectangle([8, 9, 14, 14], fill=(30, 60, 220))
    image.save(folder / "image.png")
    mask = Image.new("L", (16, 16), 0)
    ImageDraw.Draw(mask).rectangle([6, 6, 15, 15], fill=255)
    mask.save(folder / "mask.png")
    return image, mask


def run(expected, cases, pipe, name, *, prompts, seeds, steps, guidance, negative=None, **more):
    """One case: the latents and the images, and the arguments for the test."""
    files = {key: more.pop(key) for key in ["image", "mask_image"] if key in more}
    case = {"prompts": prompts, "negative": negative, "seeds": seeds, "steps": steps, "guidance": guidance}
    cases[name] = case | more | {"edits": bool(files)}
    arguments = dict(prompt=prompts, num_inference_steps=steps, guidance_scale=guidance, **more, **files)
    if negative is not None:
        arguments["negative_prompt"] = [negative] * len(prompts)
    with torch.no_grad():
        for kind in ["latent", "pt"]:
            made = pipe(**arguments, generator=generators(seeds), output_type=kind).images
            expected[f"{name}.{'latents' if kind == 'latent' else 'image'}"] = made


def model_call(expected, model, prefix, inputs, seed):
    with torch.no_grad():
        output = model(**inputs).sample
    added = inputs.pop("added_cond_kwargs", {})
    expected |= {f"{prefix}.{key}": value for key, value in (inputs | added).items()}
    expected[f"{prefix}.output"] = output
    return output


def vae_call(expected, model, image):
    pixels = torch.from_numpy(numpy.asarray(image)).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        latents = model.encode(pixels).latent_dist
        wide = torch.cat([latents.mean, latents.mean.flip(3)], 3)
        expected |= {
            "vae.pixels": pixels,
            "vae.mean": latents.mean,
            "vae.logvar": latents.logvar,
            "vae.decoded": model.decode(latents.mean).sample,
            "vae.wide": wide,
            "vae.tiled": model.tiled_decode(wide).sample,
        }


def swapped(scheduler, other):
    """The class `scheduler` with the settings that the folder of `other` has.

    The settings in memory remember which were defaults, and those of a file do not."""
    return scheduler.from_config(json.loads(other.to_json_string()))


def skipped(pipe, prompts):
    """The states of `clip_skip=1`, which diffusers 0.42.1 cannot compute with transformers 5."""
    ids = pipe.tokenizer(
        prompts, padding="max_length", max_length=77, truncation=True, return_tensors="pt"
    ).input_ids
    with torch.no_grad():
        states = pipe.text_encoder(ids, output_hidden_states=True).hidden_states[-2]
        return pipe.text_encoder.final_layer_norm(states)


def draws(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def finish(out, name, pipe, expected, cases):
    pipe.save_pretrained(out / name)
    save_expected(out / name, expected)
    write_json(out / name / "cases.json", cases)


def sd1(out, image, mask):
    words = tokenizer(out / "words")
    encoder = text_encoder(1, len(words), 16)
    parts = dict(
        vae=vae(2),
        text_encoder=encoder,
        tokenizer=words,
        unet=unet(3),
        scheduler=diffusers.PNDMScheduler.from_config(SD15_SCHEDULER | {"skip_prk_steps": True}),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe = diffusers.StableDiffusionPipeline(**parts)
    pipe.set_progress_bar_config(disable=True)
    expected, cases = {}, {}
    positive, negative = pipe.encode_prompt(PROMPTS, "cpu", 1, True, ["blurry"] * 2)
    expected |= {"text.prompt_embeds": positive, "text.negative_embeds": negative}
    expected["skip.prompt_embeds"] = skipped(pipe, PROMPTS)
    expected["long.prompt_embeds"] = pipe.encode_prompt([LONG], "cpu", 1, False)[0]
    cases["text"] = {"prompts": PROMPTS, "negative": "blurry", "long": LONG}
    two = dict(prompts=PROMPTS, seeds=[7, 11], steps=5, guidance=6.0, negative="blurry")
    run(expected, cases, pipe, "pndm", **two)
    run(expected, cases, pipe, "unguided", prompts=PROMPTS[:1], seeds=[3], steps=4, guidance=1.0)
    run(
        expected,
        cases,
        pipe,
        "sizes",
        prompts=PROMPTS[:1],
        seeds=[3],
        steps=3,
        guidance=4.0,
        height=40,
        width=24,
    )
    for key, scheduler in {
        "euler_a": diffusers.EulerAncestralDiscreteScheduler,
        "dpmpp_2m": diffusers.DPMSolverMultistepScheduler,
        "ddim": diffusers.DDIMScheduler,
        "heun": diffusers.HeunDiscreteScheduler,
    }.items():
        other = diffusers.StableDiffusionPipeline(
            **(parts | {"scheduler": swapped(scheduler, pipe.scheduler)})
        )
        other.set_progress_bar_config(disable=True)
        run(expected, cases, other, key, **two)
    for key, scheduler in {
        "img2img": pipe.scheduler,
        "img2img_euler": swapped(diffusers.EulerDiscreteScheduler, pipe.scheduler),
    }.items():
        edit = diffusers.StableDiffusionImg2ImgPipeline(**(parts | {"scheduler": scheduler}))
        edit.set_progress_bar_config(disable=True)
        run(expected, cases, edit, key, **(two | {"strength": 0.6}), image=image)
    edit = diffusers.StableDiffusionInpaintPipeline(
        **(parts | {"scheduler": swapped(diffusers.DDIMScheduler, pipe.scheduler)})
    )
    edit.set_progress_bar_config(disable=True)
    for key, strength in {"inpaint": 1.0, "inpaint_part": 0.7}.items():
        run(
            expected,
            cases,
            edit,
            key,
            **(two | {"strength": strength, "height": 16, "width": 16}),
            image=[image] * 2,
            mask_image=[mask] * 2,
        )

    sample, timestep, states = draws(1, 2, 4, 8, 6), torch.tensor([501.0, 1.0]), draws(2, 2, 5, 16)
    inputs = {"sample": sample, "timestep": timestep, "encoder_hidden_states": states}
    output = model_call(expected, pipe.unet, "unet", inputs, 4)
    expected["unet.target"] = draws(5, *output.shape)
    loss = (pipe.unet(sample, timestep, states).sample - expected["unet.target"]).square().mean()
    loss.backward()
    expected["unet.loss"] = loss
    grads = {f"unet.grad.{name}": value.grad for name, value in pipe.unet.named_parameters()}
    expected |= grads
    odd = {"sample": draws(6, 1, 4, 7, 5), "timestep": timestep[:1], "encoder_hidden_states": states[:1]}
    model_call(expected, pipe.unet, "odd", odd, 6)
    vae_call(expected, pipe.vae, image)
    finish(out, "sd1", pipe, expected, cases)


def sd2(out):
    words = tokenizer(out / "words", pad="!")
    pipe = diffusers.StableDiffusionPipeline(
        vae=vae(12),
        text_encoder=text_encoder(11, len(words), 16, act="gelu"),
        tokenizer=words,
        unet=unet(13, attention_head_dim=(2, 4), use_linear_projection=True),
        scheduler=diffusers.DDIMScheduler.from_config(SD15_SCHEDULER | {"prediction_type": "v_prediction"}),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    expected, cases = {}, {}
    two = dict(prompts=PROMPTS, seeds=[7, 11], steps=5, guidance=6.0)
    run(expected, cases, pipe, "ddim", **two, guidance_rescale=0.7)
    other = diffusers.StableDiffusionPipeline(
        **(pipe.components | {"scheduler": swapped(diffusers.EulerDiscreteScheduler, pipe.scheduler)}),
        requires_safety_checker=False,
    )
    other.set_progress_bar_config(disable=True)
    run(expected, cases, other, "euler", **two)
    finish(out, "sd2", pipe, expected, cases)


def sdxl(out):
    first, second = tokenizer(out / "words"), tokenizer(out / "words", pad="!")
    network = unet(
        23,
        cross_attention_dim=24,
        use_linear_projection=True,
        transformer_layers_per_block=(1, 2),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=4 * 6 + 8,
    )
    pipe = diffusers.StableDiffusionXLPipeline(
        vae=vae(22, scaling_factor=0.13025),
        text_encoder=text_encoder(21, len(first), 16),
        tokenizer=first,
        text_encoder_2=text_encoder(24, len(second), 8, projection=8, act="gelu"),
        tokenizer_2=second,
        unet=network,
        scheduler=diffusers.EulerDiscreteScheduler.from_config(
            SD15_SCHEDULER | {"timestep_spacing": "leading"}
        ),
        add_watermarker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    expected, cases = {}, {}
    positive, negative, pooled, negative_pooled = pipe.encode_prompt(
        PROMPTS, device="cpu", negative_prompt=["blurry"] * 2
    )
    expected |= {
        "text.prompt_embeds": positive,
        "text.negative_embeds": negative,
        "text.pooled": pooled,
        "text.negative_pooled": negative_pooled,
    }
    cases["text"] = {"prompts": PROMPTS, "negative": "blurry"}
    two = dict(prompts=PROMPTS, seeds=[7, 11], steps=4, guidance=6.0, height=16, width=24)
    run(expected, cases, pipe, "zeros", **two)
    run(expected, cases, pipe, "negative", **two, negative="blurry")
    inputs = {
        "sample": draws(1, 2, 4, 8, 6),
        "timestep": torch.tensor([501.0, 1.0]),
        "encoder_hidden_states": draws(2, 2, 5, 24),
        "added_cond_kwargs": {
            "text_embeds": draws(3, 2, 8),
            "time_ids": torch.tensor([[16.0, 24, 0, 0, 16, 24], [32, 8, 4, 2, 16, 16]]),
        },
    }
    model_call(expected, pipe.unet, "unet", inputs, 4)
    finish(out, "sdxl", pipe, expected, cases)


def sd3(out):
    first, second = tokenizer(out / "words"), tokenizer(out / "words", pad="!")
    network = diffusers.SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        caption_projection_dim=16,
        joint_attention_dim=32,
        pooled_projection_dim=24,
        out_channels=4,
        pos_embed_max_size=12,
    )
    pipe = diffusers.StableDiffusion3Pipeline(
        transformer=spread(network, 33, 0.5),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(
            32, scaling_factor=1.5305, shift_factor=0.0609, use_quant_conv=False, use_post_quant_conv=False
        ),
        text_encoder=text_encoder(31, len(first), 16, projection=16),
        tokenizer=first,
        text_encoder_2=text_encoder(34, len(second), 8, projection=8, act="gelu"),
        tokenizer_2=second,
        text_encoder_3=None,
        tokenizer_3=None,
    )
    pipe.set_progress_bar_config(disable=True)
    expected, cases = {}, {}
    positive, negative, pooled, negative_pooled = pipe.encode_prompt(
        PROMPTS, PROMPTS, PROMPTS, negative_prompt=["blurry"] * 2, device="cpu"
    )
    expected |= {
        "text.prompt_embeds": positive,
        "text.negative_embeds": negative,
        "text.pooled": pooled,
        "text.negative_pooled": negative_pooled,
    }
    cases["text"] = {"prompts": PROMPTS, "negative": "blurry"}
    run(
        expected,
        cases,
        pipe,
        "flow",
        prompts=PROMPTS,
        seeds=[7, 11],
        steps=4,
        guidance=5.0,
        height=16,
        width=16,
    )
    finish(out, "sd3", pipe, expected, cases)


def others(out, image, mask):
    words = tokenizer(out / "words")
    encoder, scheduler = text_encoder(41, len(words), 16), diffusers.DDIMScheduler.from_config(
        SD15_SCHEDULER
    )
    common = dict(
        tokenizer=words,
        text_encoder=encoder,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    two = dict(prompts=PROMPTS, seeds=[7, 11], steps=5)

    pipe = diffusers.StableDiffusionInpaintPipeline(
        vae=vae(42), unet=unet(43, in_channels=9), scheduler=scheduler, **common
    )
    pipe.set_progress_bar_config(disable=True)
    expected, cases = {}, {}
    for key, strength in {"full": 1.0, "part": 0.7}.items():
        run(
            expected,
            cases,
            pipe,
            key,
            **two,
            guidance=6.0,
            image=[image] * 2,
            mask_image=[mask] * 2,
            strength=strength,
            height=16,
            width=16,
        )
    finish(out, "inpaint", pipe, expected, cases)

    ancestral = swapped(diffusers.EulerAncestralDiscreteScheduler, scheduler)
    pipe = diffusers.StableDiffusionInstructPix2PixPipeline(
        vae=vae(52), unet=unet(53, in_channels=8), scheduler=ancestral, **common
    )
    pipe.set_progress_bar_config(disable=True)
    expected, cases = {}, {}
    run(expected, cases, pipe, "pix2pix", **two, guidance=6.0, image=[image] * 2, image_guidance_scale=1.5)
    finish(out, "pix2pix", pipe, expected, cases)

    pipe = diffusers.StableDiffusionPipeline(
        vae=vae(62),
        unet=unet(63, time_cond_proj_dim=16),
        scheduler=diffusers.LCMScheduler.from_config(SD15_SCHEDULER),
        **common,
    )
    pipe.set_progress_bar_config(disable=True)
    expected, cases = {}, {}
    run(expected, cases, pipe, "lcm", **(two | {"steps": 4}), guidance=8.0)
    finish(out, "lcm", pipe, expected, cases)


def inversions(out):
    """Runs of saved pipelines with new tokens of one and of two vectors."""
    folder = out / "inversions"
    folder.mkdir()
    one, two = 0.5 * draws(71, 16), 0.5 * draws(72, 2, 16)
    xl = {"clip_l": 0.5 * draws(73, 2, 16), "clip_g": 0.5 * draws(74, 2, 8)}
    save_file({"<ring>": one}, folder / "one.safetensors")
    save_file({"<two-rings>": two}, folder / "two.safetensors")
    save_file(xl, folder / "xl.safetensors")
    expected, cases = {}, {}
    prompts = ["a red <ring> and <two-rings>", "two <two-rings>,<ring>s"]
    run_of = dict(prompts=prompts, seeds=[7, 11], steps=4, guidance=6.0, negative="a <two-rings>")
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(out / "sd1")
    pipe.set_progress_bar_config(disable=True)
    for name in ["one", "two"]:
        pipe.load_textual_inversion(str(folder / f"{name}.safetensors"))
    run(expected, cases, pipe, "sd1", **run_of)
    pipe = diffusers.StableDiffusionXLPipeline.from_pretrained(out / "sdxl", add_watermarker=False)
    pipe.set_progress_bar_config(disable=True)
    for key, tokenizer, encoder in [
        ("clip_l", pipe.tokenizer, pipe.text_encoder),
        ("clip_g", pipe.tokenizer_2, pipe.text_encoder_2),
    ]:
        pipe.load_textual_inversion(xl[key], token="xl", tokenizer=tokenizer, text_encoder=encoder)
    run(
        expected,
        cases,
        pipe,
        "sdxl",
        **(run_of | {"prompts": ["a red xl", "xl stars"], "negative": "xl"}),
        height=16,
        width=24,
    )
    save_expected(folder, expected)
    write_json(folder / "cases.json", cases)


def safety(out):
    """A checker with thresholds between its own scores of random images: some are flagged, by a concept alone
    and by the adjustment for special care."""
    folder = out / "safety"
    sizes = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
    config = transformers.CLIPConfig(
        text_config=sizes | {"vocab_size": 8, "bos_token_id": 6, "eos_token_id": 7},
        vision_config=sizes | {"image_size": 16, "patch_size": 8},
        projection_dim=12,
    )
    checker = spread(StableDiffusionSafetyChecker(config), 81, 0.5)
    checker.concept_embeds.data = draws(82, 17, 12)
    checker.special_care_embeds.data = draws(83, 3, 12)
    processor = transformers.CLIPImageProcessorPil(
        size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}, resample=3
    )
    # Of the size that the checker reads: other programs resize to within one level.
    images = (draws(84, 8, 3, 4, 4).repeat_interleave(4, 2).repeat_interleave(4, 3) * 60 + 128).clamp(0, 255)
    images = images.permute(0, 2, 3, 1).to(torch.uint8).numpy()
    pixels = processor([Image.fromarray(image) for image in images], return_tensors="pt").pixel_values
    with torch.no_grad():
        embeds = checker.visual_projection(checker.vision_model(pixels)[1])
        tables = [checker.concept_embeds, checker.special_care_embeds]
        scores = [cosine_distance(embeds, table) for table in tables]
    checker.concept_embeds_weights.data = scores[0].amax(0) + 0.005
    checker.concept_embeds_weights.data[3] = scores[0][:, 3].median() + 0.1
    checker.special_care_embeds_weights.data = scores[1].amax(0) + 0.5
    checker.special_care_embeds_weights.data[1] = scores[1][:, 1].median() + 0.002
    found = {"concept_scores": [], "special_scores": []}
    _, flagged = checker(clip_input=pixels, images=[image / 255 for image in images])
    for row in range(len(images)):
        adjustment = 0.0
        for key, table, limits in [
            ("special_scores", scores[1], checker.special_care_embeds_weights),
            ("concept_scores", scores[0], checker.concept_embeds_weights),
        ]:
            values = []
            for cosine, limit in zip(table[row].numpy(), limits):
                values.append(round(cosine - limit.item() + adjustment, 3))
                if key == "special_scores" and values[-1] > 0:
                    adjustment = 0.01
            found[key].append(values)
    assert flagged == [any(score > 0 for score in row) for row in found["concept_scores"]]
    assert True in flagged and False in flagged, flagged
    checker.save_pretrained(folder / "safety_checker")
    processor.save_pretrained(folder / "feature_extractor")
    save_expected(
        folder,
        {name: torch.tensor(rows) for name, rows in found.items()}
        | {"images": torch.from_numpy(images), "is_flagged": torch.tensor(flagged).to(torch.uint8)},
    )


def main():
    out = begin(PINNED)
    image, mask = image_files(out / "images")
    sd1(out, image, mask)
    sd2(out)
    sdxl(out)
    sd3(out)
    others(out, image, mask)
    inversions(out)
    safety(out)


if __name__ == "__main__":
    main()
