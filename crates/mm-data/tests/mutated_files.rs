//! Files as disks and downloads leave them: whatever is in them, decoding gives an image or an error.

use std::fs;
use std::path::Path;

use mm_data::{SampleRng, decode};
use rand::SeedableRng;

use crate::mutate::mutated;

mod mutate;

#[test]
fn ten_thousand_mutated_files_never_panic() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/goldens/images/formats");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut rng = SampleRng::seed_from_u64(0);
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
