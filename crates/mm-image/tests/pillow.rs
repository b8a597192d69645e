//! Decoding and resizing against the results of Pillow: see `data/goldens/images/README.md`.

use std::fs;
use std::path::{Path, PathBuf};

use mm_image::resize::Filter;
use mm_image::{Augment, Reduced, RgbImage, decode, decode_reduced, largest_divisor, resize};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

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
fn every_format_decodes_to_pillows_pixels() {
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

/// The root of the mean squared difference of two images of one size.
fn error(a: &RgbImage, b: &RgbImage) -> f64 {
    assert_eq!(a.dimensions(), b.dimensions());
    let squares = a.as_raw().iter().zip(b.as_raw()).map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2));
    (squares.sum::<f64>() / a.as_raw().len() as f64).sqrt()
}

#[test]
fn a_reduced_jpeg_is_as_close_to_the_full_image_as_pillows_draft() {
    let jpegs: Vec<_> =
        files("reduced").into_iter().filter(|path| path.extension().unwrap() == "jpg").collect();
    assert_eq!(jpegs.len(), 7);
    for path in jpegs {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let bytes = fs::read(&path).unwrap();
        for divisor in [2, 4, 8] {
            let reduced = decode_reduced(&bytes, BACKGROUND, |width, height| {
                assert_eq!((width, height), (203, 151));
                divisor + divisor / 2 // a limit one and a half times as large gives the same divisor
            });
            let reduced = reduced.unwrap();
            assert_eq!((reduced.divisor, reduced.width, reduced.height), (divisor, 203, 151), "{name}");
            assert_eq!(reduced.pixels.dimensions(), (203u32.div_ceil(divisor), 151u32.div_ceil(divisor)));
            let expected = |kind: &str| read(&goldens().join(format!("reduced/{name}-{divisor}-{kind}.png")));
            let (whole, draft) = (expected("whole"), expected("draft"));
            let ours = reduced.exact(whole.width(), whole.height(), Filter::Bicubic);
            let (ours, theirs) = (error(&ours, &whole), error(&draft, &whole));
            println!("{name} over {divisor}: {ours:.3}, Pillow's draft {theirs:.3}");
            // Pillow uses one decoder for both; ours starts from the difference of two decoders, half a
            // level.
            assert!(
                ours <= theirs.max(0.5) * 1.02,
                "{name} over {divisor}: {ours} levels from the full image, Pillow {theirs}"
            );
        }
    }
}

#[test]
fn images_that_cannot_be_reduced_are_decoded_in_full() {
    let formats = goldens().join("formats");
    let reduced = |bytes: &[u8], most| decode_reduced(bytes, BACKGROUND, |_, _| most);
    for name in ["cmyk.jpg", "rgb.png", "lossy.webp", "rgb-420.jpg"] {
        let bytes = fs::read(formats.join(name)).unwrap();
        let most = if name == "rgb-420.jpg" { 1 } else { 8 };
        let found = reduced(&bytes, most).unwrap();
        assert_eq!((found.divisor, &*found.pixels), (1, &decode(&bytes, BACKGROUND).unwrap()), "{name}");
    }
    // The EXIF orientation is applied to a reduced image, too.
    let rotated = reduced(&fs::read(formats.join("exif-6.jpg")).unwrap(), 4).unwrap();
    let whole = read(&formats.join("exif-6.jpg"));
    assert_eq!((rotated.width, rotated.height, rotated.divisor), (whole.width(), whole.height(), 4));
    let apart = error(&rotated.exact(8, 12, Filter::Bicubic), &resize::exact(&whole, 8, 12, Filter::Bicubic));
    assert!(apart < 3.0, "{apart}");
    // A truncated file gives the error of a full decode.
    for name in ["420.jpg", "420-progressive.jpg", "420-restart.jpg"] {
        let bytes = fs::read(goldens().join("reduced").join(name)).unwrap();
        for end in [bytes.len() / 4, bytes.len() / 2, bytes.len() - 2] {
            let message = reduced(&bytes[..end], 2).unwrap_err().to_string();
            assert_eq!(message, decode(&bytes[..end], BACKGROUND).unwrap_err().to_string());
        }
    }
}

#[test]
fn a_random_crop_is_the_same_from_a_reduced_image() {
    let bytes = fs::read(goldens().join("reduced/420.jpg")).unwrap();
    let augment = Augment { scale: [0.3, 1.0], flip: 0.5, ..Augment::default() };
    let mut was_reduced = 0;
    for seed in 0..50 {
        let rng = || ChaCha8Rng::seed_from_u64(seed);
        let fast = augment.decode_and_apply(&bytes, BACKGROUND, 24, &mut rng()).unwrap();
        let whole = augment.apply(&decode(&bytes, BACKGROUND).unwrap(), 24, &mut rng());
        was_reduced += usize::from(fast != whole);
        let apart = error(&fast, &whole);
        assert!(apart < 3.0, "seed {seed}: {apart}");
    }
    assert!((20..=50).contains(&was_reduced), "{was_reduced} of 50");
    let large = augment.decode_and_apply(&bytes, BACKGROUND, 96, &mut ChaCha8Rng::seed_from_u64(1)).unwrap();
    let whole = augment.apply(&decode(&bytes, BACKGROUND).unwrap(), 96, &mut ChaCha8Rng::seed_from_u64(1));
    assert_eq!(large, whole, "there is nothing to reduce");
    assert_eq!(
        Reduced::full_size(std::borrow::Cow::Borrowed(&whole)).divisor,
        largest_divisor((96, 96), (96, 96))
    );
}
