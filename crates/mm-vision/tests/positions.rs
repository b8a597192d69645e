//! Tables of positions at another resolution equal open_clip's (data/goldens/positions, made by
//! `cargo xtask goldens positions`).

use mm_vision::resize_positions;
use std::collections::HashMap;
use std::path::Path;
use tch::Tensor;

#[test]
fn resized_tables_of_positions_equal_open_clips() {
    let file =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/goldens/positions/positions.safetensors");
    let tensors: HashMap<String, Tensor> = Tensor::read_safetensors(file).unwrap().into_iter().collect();
    for grid in [2, 3, 7, 12] {
        let resized = resize_positions(&tensors["table"], 1, grid).unwrap();
        let difference = (resized - &tensors[&format!("grid_{grid}")]).abs().max().double_value(&[]);
        assert!(difference < 1e-5, "{grid} places a side differ by {difference}");
    }
}
