//! An image is the same in any batch, and by any way that promises the same.

use crate::{assert_equal, open};
use mm_diffusion::schedulers::SchedulerKind;
use mm_diffusion::{DiffusionPipeline, GenerateOptions, ImageRequest, PipelineOptions};
use tch::Tensor;

const EQUAL: f64 = 1e-4;

fn request(prompt: &str, seed: u64) -> ImageRequest {
    ImageRequest { prompt: prompt.to_owned(), negative_prompt: None, seed }
}

fn sample(pipeline: &DiffusionPipeline, requests: &[ImageRequest], options: &GenerateOptions) -> Tensor {
    pipeline.sample(requests, None, options, &mut |_| Ok(())).unwrap()
}

fn three_steps() -> GenerateOptions {
    GenerateOptions { steps: Some(3), guidance_scale: Some(4.0), ..GenerateOptions::default() }
}

#[test]
fn an_image_of_a_batch_is_the_image_of_its_seed_alone() {
    for folder in ["sd1", "sdxl", "sd3"] {
        let scheduler = (folder != "sd3").then_some(SchedulerKind::EulerAncestral);
        let pipeline = open(folder, &PipelineOptions { scheduler, ..PipelineOptions::default() });
        // Sides of an odd number of latents, where one generator for a batch draws other numbers.
        let options = GenerateOptions { height: Some(20), width: Some(12), ..three_steps() };
        let same = [request("a red star", 1), request("a red star", 2), request("a red star", 3)];
        let mixed = [request("a red star", 1), request("two blue circles", 5), request("a cat", 2)];
        for requests in [&same, &mixed] {
            let together = sample(&pipeline, requests, &options);
            for (index, request) in requests.iter().enumerate() {
                let alone = sample(&pipeline, std::slice::from_ref(request), &options);
                assert_equal(folder, &together.narrow(0, index as i64, 1), &alone, EQUAL);
            }
        }
    }
}

#[test]
fn guidance_in_two_passes_gives_the_same_images() {
    for folder in ["sd1", "sdxl", "sd3"] {
        let pipeline = open(folder, &PipelineOptions::default());
        let requests = [request("a red star", 1), request("a cat", 2)];
        let one = sample(&pipeline, &requests, &three_steps());
        let two = GenerateOptions { guidance_in_two_passes: true, ..three_steps() };
        assert_equal(folder, &sample(&pipeline, &requests, &two), &one, EQUAL);
    }
}

#[test]
fn an_interval_of_all_steps_is_guidance_and_one_of_none_is_no_guidance() {
    let pipeline = open("sd1", &PipelineOptions::default());
    let requests = [request("a red star", 1)];
    let guided = sample(&pipeline, &requests, &three_steps());
    let unguided = GenerateOptions { guidance_scale: Some(1.0), ..three_steps() };
    let unguided = sample(&pipeline, &requests, &unguided);
    let within = |interval| GenerateOptions { guidance_interval: interval, ..three_steps() };
    assert_equal("all", &sample(&pipeline, &requests, &within([0.0, 0.999])), &guided, EQUAL);
    assert_equal("none", &sample(&pipeline, &requests, &within([0.9999, 1.0])), &unguided, EQUAL);
    let part = sample(&pipeline, &requests, &within([0.3, 0.6]));
    for other in [&guided, &unguided] {
        assert!((&part - other).abs().max().double_value(&[]) > 10.0 * EQUAL);
    }
}
