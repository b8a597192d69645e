//! What an image costs on its way to the model, step by step: `cargo bench -p mm-data`.

use std::hint::black_box;
use std::path::Path;

use criterion::{Criterion, criterion_group, criterion_main};
use mm_data::image::{DynamicImage, ImageFormat, RgbImage, imageops};
use mm_data::{Normalize, decode, resize};

/// A photograph of 640 x 480, about what the web gives.
fn photo() -> RgbImage {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/goldens/images/photos/china.png");
    let small = decode(&std::fs::read(path).expect("the goldens are there"), [255; 3]).expect("a PNG");
    imageops::resize(&small, 640, 480, imageops::FilterType::CatmullRom)
}

fn encoded(image: &RgbImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    DynamicImage::from(image.clone()).write_to(&mut bytes, format).expect("memory takes it");
    bytes.into_inner()
}

fn images(criterion: &mut Criterion) {
    let photo = photo();
    let mut group = criterion.benchmark_group("640x480 to 224");
    for (name, format) in [("jpeg", ImageFormat::Jpeg), ("png", ImageFormat::Png), ("webp", ImageFormat::WebP)] {
        let bytes = encoded(&photo, format);
        group.bench_function(format!("decode {name}"), |bench| bench.iter(|| decode(black_box(&bytes), [255; 3])));
    }
    group.bench_function("resize and crop", |bench| {
        bench.iter(|| resize::short_side_center_crop(black_box(&photo), 224));
    });
    let cropped = resize::short_side_center_crop(&photo, 224);
    let mut out = vec![0.0; 3 * 224 * 224];
    group.bench_function("normalise", |bench| bench.iter(|| Normalize::CLIP.write(black_box(&cropped), &mut out)));
    let bytes = encoded(&photo, ImageFormat::Jpeg);
    group.bench_function("all, from jpeg", |bench| {
        bench.iter(|| {
            let image = decode(black_box(&bytes), [255; 3]).expect("a JPEG");
            Normalize::CLIP.write(&resize::short_side_center_crop(&image, 224), &mut out);
        });
    });
    group.finish();
}

criterion_group!(benches, images);
criterion_main!(benches);
