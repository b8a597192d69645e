//! Whole runs from given seeds.

use crate::{assert_equal, expected, golden, json, open};
use mm_diffusion::schedulers::SchedulerKind;
use mm_diffusion::{
    DiffusionPipeline, Edit, EditKind, GenerateOptions, ImageRequest, PipelineOptions, Settings,
};
use mm_image::RgbImage;
use serde_json::Value;

/// The largest difference of latents after a run, whose rounding grows from step to step, as a share of their
/// largest number, and of pixels from 0 to 1.
const LATENTS: f64 = 1e-3;
const PIXELS: f64 = 1e-3;

fn picture(name: &str) -> RgbImage {
    mm_image::decode(&std::fs::read(golden("images").join(name)).unwrap(), [0; 3]).unwrap()
}

pub fn requests(case: &Value) -> Vec<ImageRequest> {
    let prompts = case["prompts"].as_array().unwrap();
    let seeds = case["seeds"].as_array().unwrap();
    let request = |(prompt, seed): (&Value, &Value)| ImageRequest {
        prompt: prompt.as_str().unwrap().to_owned(),
        negative_prompt: case["negative"].as_str().map(str::to_owned),
        seed: seed.as_u64().unwrap(),
    };
    prompts.iter().zip(seeds).map(request).collect()
}

pub fn options(case: &Value) -> GenerateOptions {
    GenerateOptions {
        height: case["height"].as_i64(),
        width: case["width"].as_i64(),
        steps: case["steps"].as_u64().map(|steps| steps as usize),
        guidance_scale: case["guidance"].as_f64(),
        guidance_rescale: case["guidance_rescale"].as_f64().unwrap_or(0.0),
        image_guidance_scale: case["image_guidance_scale"].as_f64().unwrap_or(1.5),
        ..GenerateOptions::default()
    }
}

fn edit(name: &str, case: &Value) -> Option<Edit> {
    let image = case["edits"].as_bool()?.then(|| picture("image.png"))?;
    let strength = case["strength"].as_f64();
    let kind = match (name.starts_with("img2img"), strength) {
        (true, Some(strength)) => EditKind::ImageToImage { strength, exact_steps: false },
        (false, Some(strength)) => EditKind::Inpaint { mask: picture("mask.png"), strength },
        _ => EditKind::Instruct,
    };
    Some(Edit { image, kind })
}

/// Runs the case `name` of `folder` with `kind` in place of the folder's scheduler, and compares.
fn check(folder: &str, name: &str, kind: Option<SchedulerKind>) -> Settings {
    let options_of_pipeline = PipelineOptions { scheduler: kind, ..PipelineOptions::default() };
    let pipeline = open(folder, &options_of_pipeline);
    let (case, expected) = (&json(&format!("{folder}/cases.json"))[name], expected(folder));
    let (requests, options, edit) = (requests(case), options(case), edit(name, case));
    let what = format!("{folder}, {name}");
    let sample = pipeline.sample(&requests, edit.as_ref(), &options, &mut |_| Ok(())).unwrap();
    let latents = &expected[&format!("{name}.latents")];
    assert_equal(&what, &sample, latents, LATENTS * latents.abs().max().double_value(&[]).max(1.0));
    let pixels = (pipeline.decode(&sample, false) / 2.0 + 0.5).clamp(0.0, 1.0);
    assert_equal(&what, &pixels, &expected[&format!("{name}.image")], PIXELS);
    pipeline.settings(&options, edit.as_ref()).unwrap()
}

#[test]
fn stable_diffusion_1_equals_diffusers_with_each_scheduler() {
    let settings = check("sd1", "pndm", None);
    assert_eq!((settings.steps, settings.calls), (5, 6));
    assert_eq!(settings.scheduler["_class_name"], "PNDMScheduler");
    check("sd1", "euler_a", Some(SchedulerKind::EulerAncestral));
    check("sd1", "dpmpp_2m", Some(SchedulerKind::DpmMultistep));
    check("sd1", "ddim", Some(SchedulerKind::Ddim));
    check("sd1", "heun", Some(SchedulerKind::Heun));
}

#[test]
fn other_sizes_and_no_guidance_equal_diffusers() {
    check("sd1", "unguided", None);
    let settings = check("sd1", "sizes", None);
    assert_eq!((settings.height, settings.width), (40, 24));
}

#[test]
fn image_to_image_equals_diffusers() {
    let settings = check("sd1", "img2img", None);
    assert_eq!((settings.steps, settings.strength), (5, Some(0.6)));
    check("sd1", "img2img_euler", Some(SchedulerKind::Euler));
}

#[test]
fn inpainting_equals_diffusers_with_four_and_with_nine_channels() {
    check("sd1", "inpaint", Some(SchedulerKind::Ddim));
    check("sd1", "inpaint_part", Some(SchedulerKind::Ddim));
    check("inpaint", "full", None);
    check("inpaint", "part", None);
}

#[test]
fn stable_diffusion_2_equals_diffusers() {
    check("sd2", "ddim", None);
    check("sd2", "euler", Some(SchedulerKind::Euler));
}

#[test]
fn sdxl_equals_diffusers_with_and_without_a_negative_prompt() {
    check("sdxl", "zeros", None);
    check("sdxl", "negative", None);
}

#[test]
fn sd3_equals_diffusers() {
    check("sd3", "flow", None);
}

#[test]
fn instructed_edits_equal_diffusers() {
    check("pix2pix", "pix2pix", None);
}

#[test]
fn a_latent_consistency_model_equals_diffusers() {
    check("lcm", "lcm", None);
}

#[test]
fn pictures_are_the_decoded_sample() {
    let pipeline = open("sd1", &PipelineOptions::default());
    let case = &json("sd1/cases.json")["pndm"];
    let mut steps = Vec::new();
    let images = DiffusionPipeline::generate(&pipeline, &requests(case), None, &options(case), &mut |step| {
        steps.push((step.call, step.calls));
        assert_eq!((step.original)().size(), step.sample.size());
        Ok(())
    })
    .unwrap();
    assert_eq!(steps, (1..=6).map(|call| (call, 6)).collect::<Vec<_>>());
    let expected = &expected("sd1")["pndm.image"];
    for (image, expected) in images.iter().zip(expected.split(1, 0)) {
        assert_eq!(image.is_flagged, None);
        for (x, y, pixel) in image.picture.enumerate_pixels() {
            for (channel, &level) in (0..).zip(&pixel.0) {
                let exact = expected.double_value(&[0, channel, i64::from(y), i64::from(x)]) * 255.0;
                assert!((f64::from(level) - exact).abs() <= 1.0, "{x} {y}: {level} is not {exact}");
            }
        }
    }
}
