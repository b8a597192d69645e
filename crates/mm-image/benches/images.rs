//! The time of each step from an encoded image to the model's input: `cargo bench -p mm-image`.

use std::hint::black_box;
use std::path::Path;

use criterion::{Criterion, criterion_group, criterion_main};
use mm_image::image::{DynamicImage, ImageFormat, imageops};
use mm_image::resize::Filter;
use mm_image::{Normalize, RgbImage, decode, decode_reduced, largest_divisor, resize};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A photograph of 640 x 480, a typical size on the web.
fn photo() -> RgbImage {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/goldens/images/photos/china.png");
    let small = decode(&std::fs::read(path).expect("the goldens are there"), [255; 3]).expect("a PNG");
    imageops::resize(&small, 640, 480, imageops::FilterType::CatmullRom)
}

fn encoded(image: &RgbImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    DynamicImage::from(image.clone()).write_to(&mut bytes, format).expect("writing to memory succeeds");
    bytes.into_inner()
}

fn images(criterion: &mut Criterion) {
    let photo = photo();
    let mut group = criterion.benchmark_group("640x480 to 224");
    for (name, format) in
        [("jpeg", ImageFormat::Jpeg), ("png", ImageFormat::Png), ("webp", ImageFormat::WebP)]
    {
        let bytes = encoded(&photo, format);
        group.bench_function(format!("decode {name}"), |bench| {
            bench.iter(|| decode(black_box(&bytes), [255; 3]))
        });
    }
    group.bench_function("resize and crop", |bench| {
        bench.iter(|| resize::short_side_center_crop(black_box(&photo), 224));
    });
    let cropped = resize::short_side_center_crop(&photo, 224);
    let mut out = vec![0.0; 3 * 224 * 224];
    group.bench_function("normalize", |bench| {
        bench.iter(|| Normalize::CLIP.write(black_box(&cropped), &mut out))
    });
    let bytes = encoded(&photo, ImageFormat::Jpeg);
    group.bench_function("all, from jpeg", |bench| {
        bench.iter(|| {
            let image = decode(black_box(&bytes), [255; 3]).expect("a JPEG");
            Normalize::CLIP.write(&resize::short_side_center_crop(&image, 224), &mut out);
        });
    });
    group.finish();
}

/// Overlapping discs of all sizes and noise, with the bit rate of a camera's JPEG: 4 bits per pixel.
fn noisy(width: u32, height: u32) -> RgbImage {
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let mut image = RgbImage::from_pixel(width, height, [110, 130, 150].into());
    for disc in 0..1500 {
        let radius = f64::from(width) / 4.0 / f64::from(1 + disc).sqrt();
        let (x, y) = (rng.random_range(0.0..f64::from(width)), rng.random_range(0.0..f64::from(height)));
        let colour: [u8; 3] = std::array::from_fn(|_| rng.random_range(20..236));
        let side =
            |centre: f64, most: u32| (centre - radius).max(0.0) as u32..((centre + radius) as u32).min(most);
        for (row, column) in side(y, height).flat_map(|row| side(x, width).map(move |column| (row, column))) {
            if (f64::from(column) - x).hypot(f64::from(row) - y) < radius {
                image[(column, row)].0 = colour;
            }
        }
    }
    for level in image.iter_mut() {
        *level = level.saturating_add_signed(rng.random_range(-4..=4));
    }
    image
}

/// Photographs of several megapixels to a crop of 224. The environment variable `MM_BENCH_JPEGS` sets a
/// folder of other JPEGs (such as progressive ones) to measure instead.
fn reduced(criterion: &mut Criterion) {
    let files: Vec<(String, Vec<u8>)> = match std::env::var_os("MM_BENCH_JPEGS") {
        None => [(2048, 1536), (4000, 3000)]
            .map(|(w, h)| (format!("{w}x{h}"), encoded(&noisy(w, h), ImageFormat::Jpeg)))
            .into(),
        Some(folder) => {
            let entries = std::fs::read_dir(folder).expect("MM_BENCH_JPEGS is a folder").flatten();
            let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
            paths.retain(|path| path.extension().is_some_and(|end| end == "jpg"));
            paths.sort();
            let read = |path: &std::path::PathBuf| std::fs::read(path).expect("a readable JPEG");
            paths
                .iter()
                .map(|path| (path.file_stem().unwrap_or_default().display().to_string(), read(path)))
                .collect()
        }
    };
    let mut group = criterion.benchmark_group("photograph to 224");
    group.sample_size(10);
    for (name, bytes) in &files {
        for (how, most) in [("whole", 1), ("reduced", 8)] {
            group.bench_function(format!("{name} {how}"), |bench| {
                bench.iter(|| {
                    let (mut width, mut height) = (0, 0);
                    let image = decode_reduced(black_box(bytes), [255; 3], |w, h| {
                        (width, height) = resize::short_side_size(w, h, 224);
                        largest_divisor((w, h), (width, height)).min(most)
                    });
                    image.expect("a JPEG").exact(width, height, Filter::Bicubic)
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, images, reduced);
criterion_main!(benches);
