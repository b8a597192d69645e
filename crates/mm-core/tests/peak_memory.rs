//! Loading a model takes the memory of its f32 weights and little more, whatever the file's form. The most
//! memory that a process has had never falls, so that each form is loaded in a process of its own.

use mm_core::checkpoint::{TensorLayout, Weights, stored};
use mm_core::nn::{BlockConfig, BlockNames, Embedding, Transformer, uninitialized};
use mm_core::peak_memory;
use serde_json::json;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Command;
use tch::nn::VarStore;
use tch::{Device, Kind};

/// Names the form that a child process loads.
const FORM: &str = "MM_TEST_PEAK_MEMORY_OF";

/// What every weight is in the file.
const VALUE: f32 = 0.375;

/// A model on `vs` of which a large part is one table, the last of the file: reading it whole would show.
fn build(vs: &VarStore, layers: i64, rows: i64) {
    let width = 512;
    let config = BlockConfig { width, mlp_width: 2048, layers, ..BlockConfig::default() };
    uninitialized(|| {
        Transformer::new(&(vs.root() / "layers"), &config, &BlockNames::CLIP);
        Embedding::new(&(vs.root() / "token_embedding"), rows, width, 0.02);
    });
}

/// Writes the checkpoint of such a model in `form` without ever holding it in memory, and gives the size of
/// its weights in f32.
fn write(folder: &Path, form: &str, layers: i64, rows: i64) -> u64 {
    let vs = VarStore::new(Device::Cpu);
    build(&vs, layers, rows);
    let tensors = stored(vs.variables(), &TensorLayout::HF);
    let (dtype, element) = match form {
        "f16" => ("F16", 0x3600u16.to_le_bytes().to_vec()),
        "bf16" => ("BF16", 0x3ec0u16.to_le_bytes().to_vec()),
        _ => ("F32", VALUE.to_le_bytes().to_vec()),
    };
    let mut map = serde_json::Map::new();
    let shards = if form == "sharded" { 4 } else { 1 };
    for (shard, tensors) in tensors.chunks(tensors.len().div_ceil(shards)).enumerate() {
        let name = if shards > 1 { format!("{shard}.safetensors") } else { "model.safetensors".to_owned() };
        let (mut header, mut end) = (serde_json::Map::new(), 0);
        for (tensor, value) in tensors {
            let start = end;
            end += value.numel() * element.len();
            let info = json!({ "dtype": dtype, "shape": value.size(), "data_offsets": [start, end] });
            header.insert(tensor.clone(), info);
            map.insert(tensor.clone(), json!(name));
        }
        let mut header = serde_json::Value::Object(header).to_string();
        let odd = usize::from(form == "unaligned");
        header += &" ".repeat((8 - header.len() % 8) % 8 + odd);
        let mut file = BufWriter::new(File::create(folder.join(name)).unwrap());
        file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
        file.write_all(header.as_bytes()).unwrap();
        let kilobyte = element.repeat(1024 / element.len());
        for _ in 0..end / kilobyte.len() {
            file.write_all(&kilobyte).unwrap();
        }
        file.write_all(&kilobyte[..end % kilobyte.len()]).unwrap();
    }
    if shards > 1 {
        let index = json!({ "weight_map": map }).to_string();
        std::fs::write(folder.join("model.safetensors.index.json"), index).unwrap();
    }
    tensors.iter().map(|(_, tensor)| tensor.numel() as u64 * 4).sum()
}

fn load(folder: &Path, layers: i64, rows: i64) -> VarStore {
    let vs = VarStore::new(Device::Cpu);
    build(&vs, layers, rows);
    let weights = Weights::open_folder(folder, "model").unwrap();
    weights.fill(vs.variables().into_iter().collect(), &TensorLayout::HF).unwrap();
    vs
}

#[test]
fn loading_takes_at_most_a_seventh_more_than_the_f32_weights() {
    let form = std::env::var(FORM).unwrap_or_else(|_| "f32".to_owned());
    let (small, large) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (layers, rows) = (10, 50_000);
    let weights = write(large.path(), &form, layers, rows);
    assert!(weights > 200 << 20);
    write(small.path(), &form, 1, 10);
    load(small.path(), 1, 10); // libtorch's own code comes into memory with its first use

    let before = peak_memory().unwrap();
    let vs = load(large.path(), layers, rows);
    let grown = peak_memory().unwrap() - before;
    println!("{form}: {:.3} x the {} MiB of the f32 weights", grown as f64 / weights as f64, weights >> 20);
    assert!(grown > weights / 2, "the measure sees the weights: {grown} bytes");
    assert!(grown as f64 <= 1.15 * weights as f64, "{grown} bytes for {weights} bytes of weights");
    for (name, variable) in vs.variables() {
        let bounds =
            (variable.min().double_value(&[]), variable.max().to_kind(Kind::Float).double_value(&[]));
        assert_eq!(bounds, (f64::from(VALUE), f64::from(VALUE)), "{name}");
    }
}

#[test]
fn so_does_loading_of_narrow_sharded_and_unaligned_files() {
    for form in ["f16", "bf16", "sharded", "unaligned"] {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "loading_takes_at_most_a_seventh_more_than_the_f32_weights", "--nocapture"]);
        let output = child.env(FORM, form).output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        println!("{told}");
        assert!(output.status.success() && told.contains(&format!("{form}: ")), "{output:?}");
    }
}
