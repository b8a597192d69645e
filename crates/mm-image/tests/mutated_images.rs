//! Damaged files: decoding gives an image or an error, never a panic.

use std::fs;
use std::path::Path;

use mm_image::{decode, decode_reduced};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::mutate::mutated;

mod mutate;

#[test]
fn ten_thousand_mutated_files_never_panic() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/goldens/images/formats");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let (mut whole, mut refused) = (0, 0);
    for number in 0..10_000 {
        let path = &files[number % files.len()];
        let bytes = mutated(&fs::read(path).unwrap(), &mut rng);
        match decode(&bytes, [0; 3]) {
            Ok(_) => whole += 1,
            Err(error) => {
                assert!(error.to_string().starts_with("cannot decode the image: "), "{error}");
                refused += 1;
            }
        }
    }
    println!("{whole} still decode, {refused} are refused");
    assert!(refused > 500 && whole > 100);
}

#[test]
fn mutated_jpegs_that_are_reduced_never_panic_and_fail_as_in_a_full_decode() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/goldens/images/reduced");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "jpg")).collect();
    files.sort();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let (mut reduced, mut whole, mut refused) = (0, 0, 0);
    for number in 0..3_000 {
        let bytes = mutated(&fs::read(&files[number % files.len()]).unwrap(), &mut rng);
        match decode_reduced(&bytes, [0; 3], |_, _| [2, 4, 8][number % 3]) {
            Ok(image) if image.divisor > 1 => reduced += 1,
            Ok(_) => whole += 1,
            Err(error) => {
                assert_eq!(error.to_string(), decode(&bytes, [0; 3]).unwrap_err().to_string());
                refused += 1;
            }
        }
    }
    println!("{reduced} are reduced, {whole} decoded whole, {refused} refused");
    assert!(reduced > 100 && whole > 100 && refused > 100);
}
