//! Textual inversions in pipelines equal diffusers' `load_textual_inversion`.

use crate::cases::{options, requests};
use crate::{assert_equal, expected, golden, json, open};
use mm_diffusion::textual_inversion::TextualInversion;
use mm_diffusion::{DiffusionPipeline, GenerateOptions, ImageRequest, PipelineOptions};
use std::path::PathBuf;
use tch::Tensor;

type Embedding<'a> = (&'a str, Option<&'a str>);

fn with(embeddings: &[Embedding]) -> PipelineOptions {
    let embedding = |(file, token): &Embedding| -> (PathBuf, Option<String>) {
        (golden("inversions").join(file), token.map(str::to_owned))
    };
    PipelineOptions { embeddings: embeddings.iter().map(embedding).collect(), ..PipelineOptions::default() }
}

fn sample(pipeline: &DiffusionPipeline, requests: &[ImageRequest], options: &GenerateOptions) -> Tensor {
    pipeline.sample(requests, None, options, &mut |_| Ok(())).unwrap()
}

const BOTH: [Embedding; 2] = [("one.safetensors", None), ("two.safetensors", None)];

#[test]
fn tokens_of_one_and_of_two_vectors_equal_diffusers_in_prompts_and_negative_prompts() {
    for (case, embeddings) in [("sd1", &BOTH[..]), ("sdxl", &[("xl.safetensors", None)])] {
        let pipeline = open(case, &with(embeddings));
        let arguments = &json("inversions/cases.json")[case];
        let found = sample(&pipeline, &requests(arguments), &options(arguments));
        let expected = &expected("inversions")[&format!("{case}.latents")];
        assert_equal(case, &found, expected, 1e-4 * expected.abs().max().double_value(&[]).max(1.0));
        let tokens: Vec<&str> = pipeline.embeddings().iter().map(|(_, token)| token.as_str()).collect();
        assert_eq!(tokens, if case == "sd1" { vec!["<ring>", "<two-rings>"] } else { vec!["xl"] });
    }
}

#[test]
fn another_name_gives_the_same_image() {
    let [own, renamed] = [None, Some("<zz>")].map(|name| open("sd1", &with(&[("two.safetensors", name)])));
    let request = |token: &str| {
        let prompt = format!("a {token} on the {token}");
        [ImageRequest { prompt, negative_prompt: None, seed: 3 }]
    };
    let options = GenerateOptions { steps: Some(2), ..GenerateOptions::default() };
    let expected = sample(&own, &request("<two-rings>"), &options);
    assert_eq!(sample(&renamed, &request("<zz>"), &options), expected);
    assert_ne!(sample(&renamed, &request("<two-rings>"), &options), expected);
}

#[test]
fn what_does_not_fit_is_refused_with_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let wide = folder.path().join("wide.safetensors");
    let vectors = Tensor::ones([2, 8], tch::kind::FLOAT_CPU);
    TextualInversion::new("<wide>", vectors, None).unwrap().write(&wide).unwrap();
    let message = |model: &str, embeddings: &[Embedding]| {
        let opened = DiffusionPipeline::open(golden(model).to_str().unwrap(), &with(embeddings));
        opened.unwrap_err().to_string()
    };
    let cases: [(&str, &[Embedding], &str); 6] = [
        ("sd1", &[(wide.to_str().unwrap(), None)], "[2, 8]: the text encoder needs [n, 16]"),
        ("sd1", &[("one.safetensors", Some("the</w>"))], "\"the</w>\" is in the vocabulary already"),
        ("sd1", &[BOTH[0], BOTH[0]], "\"<ring>\" is in the vocabulary already"),
        ("sd1", &[("xl.safetensors", None)], "for two text encoders, and the model has one"),
        ("sdxl", &[BOTH[0]], "for one text encoder, and the model has two"),
        ("sd1", &[("none.safetensors", None)], "none.safetensors"),
    ];
    for (model, embeddings, expected) in cases {
        let message = message(model, embeddings);
        assert!(message.contains(expected) && message.contains(".safetensors"), "{message}");
        assert_eq!(message.lines().count(), 1);
    }
}
