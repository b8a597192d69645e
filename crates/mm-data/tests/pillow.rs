//! What Pillow makes of files and photographs, against what this crate makes of them. See `data/goldens/images/README.md`.

use std::fs;
use std::path::{Path, PathBuf};

use mm_data::image::RgbImage;
use mm_data::{decode, resize};

const BACKGROUND: [u8; 3] = [255, 128, 0];

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/goldens/images")
}

fn read(path: &Path) -> RgbImage {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    decode(&bytes, BACKGROUND).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn files(folder: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(goldens().join(folder)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// The largest and the mean difference of two images of one size.
fn apart(ours: &RgbImage, theirs: &RgbImage) -> (u8, f64) {
    assert_eq!(ours.dimensions(), theirs.dimensions());
    let differences = || ours.as_raw().iter().zip(theirs.as_raw()).map(|(a, b)| a.abs_diff(*b));
    let sum: u64 = differences().map(u64::from).sum();
    (differences().max().unwrap_or(0), sum as f64 / ours.as_raw().len() as f64)
}

#[test]
fn twenty_photographs_are_resized_and_cropped_to_within_one_level_of_pillow() {
    let expected = files("resized");
    assert_eq!(expected.len(), 20);
    for path in expected {
        let (name, size) = path.file_stem().unwrap().to_str().unwrap().rsplit_once('-').unwrap();
        let photo = read(&goldens().join(format!("photos/{name}.png")));
        let size = size.parse().unwrap();
        let theirs = read(&path);
        for (how, ours) in [
            ("in two steps", resize::center_crop(&resize::short_side(&photo, size), size)),
            ("in one", resize::short_side_center_crop(&photo, size)),
        ] {
            let (most, mean) = apart(&ours, &theirs);
            println!("{name} {how}: at most {most}, mean {mean:.4}");
            assert!(most <= 1, "{name} to {size} {how}: {most} levels apart");
        }
    }
}

#[test]
fn every_kind_of_file_means_the_pixels_that_pillow_sees() {
    let all = files("formats");
    assert_eq!(all.len(), 43);
    for path in all {
        let name = path.file_name().unwrap().to_str().unwrap();
        let theirs = read(&goldens().join(format!("formats-rgb/{name}.png")));
        let (most, mean) = apart(&read(&path), &theirs);
        println!("{name}: at most {most}, mean {mean:.3}");
        // Lossy decoders may differ in the inverse transform and in how they smooth halved chroma.
        let (most_allowed, mean_allowed) = match name {
            "rgb.jpg" | "grey.jpg" | "exif-6.jpg" | "profile.jpg" => (4, 0.5),
            _ if name.ends_with(".jpg") => (16, 1.0),
            "jpeg.tif" | "lossy.webp" => (16, 1.0),
            _ => (1, 1.0),
        };
        assert!(most <= most_allowed && mean <= mean_allowed, "{name}: at most {most}, mean {mean}");
    }
}
