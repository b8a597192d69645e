//! How images attend to the words of their prompts.

use crate::open;
use mm_diffusion::{DiffusionPipeline, GenerateOptions, ImageRequest, PipelineOptions};
use mm_image::WordAttention;

fn words(pipeline: &DiffusionPipeline, options: &GenerateOptions) -> Vec<WordAttention> {
    let request =
        ImageRequest { prompt: "a red star".to_owned(), negative_prompt: Some("blue".to_owned()), seed: 4 };
    let (image, words) = pipeline.generate_with_attention(&request, None, options, &mut |_| Ok(())).unwrap();
    let alone = pipeline.generate(&[request], None, options, &mut |_| Ok(())).unwrap();
    for (found, expected) in image.picture.as_raw().iter().zip(alone[0].picture.as_raw()) {
        assert!(found.abs_diff(*expected) <= 1);
    }
    words
}

#[test]
fn each_word_has_a_map_over_the_image_that_is_the_same_in_one_pass_and_in_two() {
    for folder in ["sd1", "sdxl", "sd3"] {
        let pipeline = open(folder, &PipelineOptions::default());
        let options = GenerateOptions {
            height: Some(24),
            width: Some(16),
            steps: Some(2),
            guidance_scale: Some(4.0),
            ..GenerateOptions::default()
        };
        let maps = words(&pipeline, &options);
        assert_eq!(maps.iter().map(|map| map.word.as_str()).collect::<Vec<_>>(), ["a", "red", "star"]);
        let (columns, parts) = (maps[0].columns, maps[0].values.len());
        // 24 x 16 pixels, in any unit of the model.
        assert_eq!(columns * columns * 3, parts * 2, "{folder}");
        for part in 0..parts {
            let sum: f32 = maps.iter().map(|map| map.values[part]).sum();
            assert!(sum > 0.0 && sum < 1.0, "{folder}: the weights of a part sum to {sum}");
        }
        assert_ne!(maps[1].values, maps[2].values);
        let apart = words(&pipeline, &GenerateOptions { guidance_in_two_passes: true, ..options });
        for (one, two) in maps.iter().zip(&apart) {
            let off = one.values.iter().zip(&two.values).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(off < 1e-4, "{folder}: {off}");
        }
    }
}
