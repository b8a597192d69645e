//! Preprocessing configs read, written and refused.

use super::*;

fn read(json: &str) -> Result<ImageProcessor> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("preprocessor_config.json");
    std::fs::write(&path, json).unwrap();
    ImageProcessor::from_file(&path)
}

fn same(a: &str, b: &str) {
    assert_eq!(read(a).unwrap(), read(b).unwrap());
}

#[test]
fn old_and_new_ways_of_writing_a_size_are_one() {
    let sizes = r#""size": {"shortest_edge": 32}, "crop_size": {"height": 30, "width": 30}"#;
    same(r#"{"size": 32, "crop_size": 30}"#, &format!("{{{sizes}}}"));
    let vit = r#""feature_extractor_type": "ViTFeatureExtractor""#;
    same(
        &format!(r#"{{"size": 32, {vit}}}"#),
        &format!(r#"{{"size": {{"height": 32, "width": 32}}, {vit}}}"#),
    );
    same(
        &format!(r#"{{"size": [20, 32], {vit}}}"#),
        &format!(r#"{{"size": {{"height": 20, "width": 32}}, {vit}}}"#),
    );
}

#[test]
fn absent_and_null_keys_have_the_defaults_of_the_class() {
    assert_eq!(
        read(r#"{"image_processor_type": "CLIPImageProcessor"}"#).unwrap(),
        ImageProcessor::default_clip(224)
    );
    let siglip = r#"{"image_processor_type": "SiglipImageProcessorFast", "size": null, "do_resize": null}"#;
    assert_eq!(read(siglip).unwrap(), ImageProcessor::default_siglip(224));
    let vit = read(r#"{"feature_extractor_type": "ViTFeatureExtractor"}"#).unwrap();
    assert_eq!(vit, ImageProcessor { filter: Filter::Bilinear, ..ImageProcessor::default_siglip(224) });
    same("{}", r#"{"image_processor_type": "ViTImageProcessor"}"#);
    same(r#"{"crop_size": 224}"#, r#"{"image_processor_type": "CLIPImageProcessor"}"#);
    let blip = read(r#"{"image_processor_type": "BlipImageProcessor", "image_std": 0.5}"#).unwrap();
    assert_eq!((blip.output_size(), blip.normalize().std), ((384, 384), [0.5; 3]));
    same(
        r#"{"image_processor": {"image_processor_type": "BlipImageProcessor"}, "size": 3}"#,
        r#"{"image_processor_type": "BlipImageProcessor"}"#,
    );
}

#[test]
fn a_saved_processor_reads_back_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("preprocessor_config.json");
    let crop = ImageProcessor::default_clip(30).crop;
    let new = |resize, crop| ImageProcessor::new(resize, Filter::Lanczos, crop, Normalize::IMAGENET).unwrap();
    for processor in [
        ImageProcessor::default_clip(224),
        ImageProcessor { filter: Filter::Bilinear, ..ImageProcessor::default_siglip(40) },
        new(Some(Resize::Exact(40, 30)), None),
        new(Some(Resize::Within(40, 30)), crop),
        new(Some(Resize::ShortSideWithin { short: 30, long: 50 }), crop),
        new(None, crop),
    ] {
        processor.save(&path).unwrap();
        assert_eq!(ImageProcessor::from_file(&path).unwrap(), processor);
    }
    let error = new(Some(Resize::RoundedWithin(30, 30)), crop).save(&path).unwrap_err().to_string();
    assert!(error.contains("open_clip's way of resizing"), "{error}");
}

#[test]
fn what_cannot_be_followed_is_an_error_that_says_why() {
    let cases = [
        (r#"{"size": 32, "crop_size": 32, "resample": 6}"#, "resample is 6"),
        (
            r#"{"size": 32, "image_processor_type": "ConvNextImageProcessor"}"#,
            "is ConvNextImageProcessor: known are CLIP",
        ),
        (r#"{"size": {"shortest_edge": 32}}"#, "differ in size"),
        (r#"{"size": {"shortest_edge": 32, "longest_edge": 40}}"#, "differ in size"),
        (r#"{"size": {"longest_edge": 32}}"#, "longest_edge without shortest_edge"),
        (r#"{"size": {"height": 32}}"#, "size must have height and width"),
        (r#"{"size": {"high": 32}}"#, "expected a size"),
        (r#"{"do_resize": false}"#, "differ in size"),
        (r#"{"crop_size": {"shortest_edge": 32}}"#, "crop_size must be"),
        (r#"{"image_processor_type": "ViTImageProcessor", "do_center_crop": true}"#, "without crop_size"),
        (r#"{"size": 0, "crop_size": 32}"#, "a side of 0 pixels"),
        (r#"{"size": 32, "do_normalize": false, "rescale_factor": 0}"#, "rescale_factor is 0"),
        (r#"{"size": 32, "image_mean": [0, 0, 0], "image_std": [1, 0, 1]}"#, "std [1.0, 0.0, 1.0]"),
        (r#"{"size": 32, "image_mean": [0.5]}"#, "expected a number or three"),
        (r#"{"size": 32, "do_pad": true, "pad_size": 40}"#, "a pad_size other than 32 x 32"),
        ("{", "line 1"),
    ];
    for (json, expected) in cases {
        let message = read(json).unwrap_err().to_string();
        assert!(message.contains(expected) && message.contains("preprocessor_config.json"), "{message}");
    }
}

#[test]
fn the_image_processor_of_the_whole_goes_before_a_file_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, json: &str| std::fs::write(folder.path().join(name), json).unwrap();
    let from_folder = || ImageProcessor::from_folder(folder.path(), "CLIPImageProcessor");
    let side = || from_folder().map(|(file, found)| (file, found.output_size().0));
    let (whole, own) =
        (folder.path().join("processor_config.json"), folder.path().join("preprocessor_config.json"));
    assert!(matches!(side().unwrap_err(), Error::Io { path, .. } if path == own));
    write("preprocessor_config.json", r#"{"size": 32, "crop_size": 32}"#);
    write("processor_config.json", r#"{"image_processor": {"size": 48, "crop_size": 48}, "size": 3}"#);
    assert_eq!(side().unwrap(), (whole.clone(), 48));
    // Processors from before transformers 5 say nothing of images there.
    for without in [r#"{"processor_class": "CLIPProcessor"}"#, r#"{"image_processor": null, "crop_size": 3}"#]
    {
        write("processor_config.json", without);
        assert_eq!(side().unwrap(), (own.clone(), 32));
    }
    write("preprocessor_config.json", "{}");
    assert_eq!(
        from_folder().unwrap().1,
        ImageProcessor::default_clip(224),
        "the model's class where none is named"
    );
    write("processor_config.json", "{");
    assert!(side().unwrap_err().to_string().contains("processor_config.json"));
    write("processor_config.json", r#"{"image_processor": {"size": {"high": 3}}}"#);
    assert!(side().unwrap_err().to_string().contains("processor_config.json: expected a size"));
    std::fs::remove_file(own).unwrap();
    write("processor_config.json", "{}");
    assert!(side().unwrap_err().to_string().contains("preprocessor_config.json"));
}

#[test]
fn a_pointer_of_git_lfs_is_no_preprocessing() {
    let message = read("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 316\n")
        .unwrap_err()
        .to_string();
    assert!(message.contains("preprocessor_config.json: is a Git LFS pointer"), "{message}");
}

#[test]
fn what_transformers_has_no_words_for_is_held_in_open_clips() {
    for config in [
        json!({"size": 48, "resize_mode": "longest", "fill_color": 9}),
        json!({"size": [20, 32]}),
        json!({"size": 64}),
    ] {
        let processor = ImageProcessor::from_open_clip(&config).unwrap();
        assert_eq!(read(&processor.to_own_json().unwrap().to_string()).unwrap(), processor, "{config}");
    }
}
