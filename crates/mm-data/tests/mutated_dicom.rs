//! Damaged DICOM files: an image or an error, never a panic, in bounded memory.

use std::fs;
use std::path::Path;

use mm_data::dicom::{DicomImage, Window};
use mm_data::{Fault, SampleRng};
use rand::SeedableRng;

use crate::mutate::mutated;

#[path = "../../mm-image/tests/mutate/mod.rs"]
mod mutate;

/// The peak memory of this process, where the system reports it.
fn peak_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

#[test]
fn ten_thousand_mutated_files_give_images_or_errors() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/goldens/dicom");
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = paths.filter(|path| path.extension().is_some_and(|end| end == "dcm")).collect();
    paths.sort();
    let files: Vec<Vec<u8>> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
    let mut rng = SampleRng::seed_from_u64(0);
    let (mut whole, mut refused, mut panics) = (0, 0, 0);
    for number in 0..10_000 {
        // The preamble means nothing: it is left out in half of the files.
        let file = &files[number % files.len()][if number % 2 == 0 { 132 } else { 0 }..];
        let bytes = mutated(file, &mut rng);
        let rendered = DicomImage::parse(&bytes).and_then(|image| {
            image.render(image.header().frames - 1, Window::Number(0))?;
            image.render(0, Window::MinMax)
        });
        match rendered {
            Ok(_) => whole += 1,
            Err(error) if error.fault() == Fault::Panic => panics += 1,
            Err(error) => {
                assert!(error.to_string().starts_with("cannot decode the DICOM image: "), "{error}");
                assert_eq!(error.fault(), Fault::Image);
                refused += 1;
            }
        }
    }
    println!("{whole} still decode, {refused} are refused, {panics} of them by a codec's panic");
    println!("peak memory: {:?}", peak_bytes());
    assert!(whole > 1000 && refused > 1000);
    assert!(peak_bytes().is_none_or(|bytes| bytes < 1 << 30), "{:?}", peak_bytes());
}
