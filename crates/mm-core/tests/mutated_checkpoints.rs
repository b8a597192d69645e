//! Checkpoints as disks, downloads and liars leave them: whatever is in the files, opening, filling and
//! taking give tensors or an error of one line, and no more memory than the files have bytes for.

use mm_core::checkpoint::{TensorLayout, Weights, quantise, write};
use mm_core::peak_memory;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;
use tch::nn::{Init, VarStore};
use tch::{Device, Kind, Tensor};

const INDEX: &str = "model.safetensors.index.json";

/// The files of a checkpoint, by name.
type Files = BTreeMap<String, Vec<u8>>;

/// The model that the checkpoints are of.
fn model() -> VarStore {
    let vs = VarStore::new(Device::Cpu);
    for (name, shape) in [
        ("self_attn.in_proj.weight", [6, 4].as_slice()),
        ("fc.weight", &[4, 3]),
        ("half", &[3, 5]),
        ("brain", &[2, 2]),
        ("double", &[7]),
        ("logit_scale", &[]),
    ] {
        let (layer, parameter) = name.rsplit_once('.').unwrap_or(("", name));
        let path = layer.split('.').filter(|part| !part.is_empty()).fold(vs.root(), |path, part| path / part);
        let _ = path.var(parameter, shape, Init::Randn { mean: 0.0, stdev: 1.0 });
    }
    vs
}

/// Its tensors in every type that is read.
fn tensors() -> Vec<(String, Tensor)> {
    let values = |shape: &[i64], kind| mm_testing::normal(1, shape).to_kind(kind);
    let mut tensors = quantise(vec![("fc.weight".to_owned(), values(&[4, 3], Kind::Float))]);
    tensors.extend(
        [
            ("self_attn.q_proj.weight", [2, 4].as_slice(), Kind::Float),
            ("self_attn.k_proj.weight", &[2, 4], Kind::Float),
            ("self_attn.v_proj.weight", &[2, 4], Kind::Float),
            ("half", &[3, 5], Kind::Half),
            ("brain", &[2, 2], Kind::BFloat16),
            ("double", &[7], Kind::Double),
            ("logit_scale", &[1], Kind::Float),
            ("position_ids", &[1, 5], Kind::Int64),
        ]
        .map(|(name, shape, kind)| (name.to_owned(), values(shape, kind))),
    );
    tensors
}

/// A checkpoint in one file, or in three with their index.
fn whole(is_sharded: bool) -> Files {
    let folder = tempfile::tempdir().unwrap();
    let mut map = serde_json::Map::new();
    let shards = if is_sharded { 3 } else { 1 };
    for shard in 0..shards {
        let name = if is_sharded { format!("{shard}.safetensors") } else { "model.safetensors".to_owned() };
        let some: Vec<_> = tensors().into_iter().skip(shard).step_by(shards).collect();
        map.extend(some.iter().map(|(tensor, _)| (tensor.clone(), json!(name))));
        write(&folder.path().join(name), &some).unwrap();
    }
    if is_sharded {
        std::fs::write(folder.path().join(INDEX), json!({ "weight_map": map }).to_string()).unwrap();
    }
    let entries = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()))
        .collect()
}

/// One thing that is wrong. Numbers choose a file, a tensor or a place, whatever there is of them.
#[derive(Clone, Debug)]
enum Mutation {
    /// The length of the header, as a file's first bytes tell it.
    Length(u64),
    /// Bytes that are others.
    Bytes(Vec<(usize, u8)>),
    /// Bytes of the head, where lengths, names and numbers stand, that are others.
    Head(Vec<(usize, u8)>),
    /// An end that is cut off.
    Cut(usize),
    /// Bytes after the end.
    More(usize),
    /// A field of a tensor that says something else.
    Field(usize, &'static str, Value),
    /// A tensor that bears the name of another.
    Twin(usize, usize),
    /// A tensor that bears a name of no file's.
    Name(usize, String),
    /// A tensor that is not listed in the header.
    Untold(usize),
    /// A tensor that the index has elsewhere.
    Partition(usize, Value),
    /// A tensor that the index does not have.
    Unindexed(usize),
    /// A file that is not there.
    Lost,
    /// A file that holds what another should.
    Swapped(usize),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    const NUMBERS: [u64; 12] = [0, 1, 2, 4, 7, 8, 96, 1 << 31, 1 << 32, 1 << 61, 1 << 63, u64::MAX];
    const BYTES: [u8; 8] = *b"90\",:[]}";
    const TYPES: [&str; 11] = ["F64", "F32", "F16", "BF16", "I64", "I8", "U8", "BOOL", "F4", "C64", "f32"];
    const SHARDS: [&str; 9] = [
        "0.safetensors",
        "1.safetensors",
        "9.safetensors",
        "../0.safetensors",
        "/etc/passwd",
        "",
        ".",
        "..",
        INDEX,
    ];
    let number = || prop_oneof![select(&NUMBERS[..]), 0u64..2000, any::<u64>()];
    let byte = || prop_oneof![select(&BYTES[..]), any::<u8>()];
    let bytes = |places: std::ops::Range<usize>| vec((places, byte()), 1..5);
    let any_value = || {
        select(vec![json!(null), json!(-1), json!(1.5), json!("0"), json!({}), json!([[[]]]), json!([true])])
    };
    let field = prop_oneof![
        vec(number(), 0..5).prop_map(|shape| ("shape", json!(shape))),
        [number(), number()].prop_map(|offsets| ("data_offsets", json!(offsets))),
        select(&TYPES[..]).prop_map(|dtype| ("dtype", json!(dtype))),
        (select(vec!["shape", "data_offsets", "dtype", "more"]), any_value()),
    ];
    let which = || 0..16usize;
    let names = || select(vec!["", "a\nb\u{1b}[2J", "__metadata__", "ä"]).prop_map(str::to_owned);
    let shard = prop_oneof![select(&SHARDS[..]).prop_map(|shard| json!(shard)), any_value()];
    prop_oneof![
        1 => number().prop_map(Mutation::Length),
        1 => bytes(0..usize::MAX).prop_map(Mutation::Bytes),
        3 => bytes(0..1500).prop_map(Mutation::Head),
        1 => (0..1200usize).prop_map(Mutation::Cut),
        1 => (1..100usize).prop_map(Mutation::More),
        4 => (which(), field).prop_map(|(tensor, (field, value))| Mutation::Field(tensor, field, value)),
        1 => (which(), which()).prop_map(|(tensor, other)| Mutation::Twin(tensor, other)),
        1 => (which(), names()).prop_map(|(tensor, name)| Mutation::Name(tensor, name)),
        1 => which().prop_map(Mutation::Untold),
        1 => (which(), shard).prop_map(|(tensor, shard)| Mutation::Partition(tensor, shard)),
        1 => which().prop_map(Mutation::Unindexed),
        1 => Just(Mutation::Lost),
        1 => which().prop_map(Mutation::Swapped),
    ]
}

impl Mutation {
    fn apply(&self, files: &mut Files, which: usize) {
        let names: Vec<String> = files.keys().cloned().collect();
        let Some(name) = names.get(which % names.len().max(1)) else { return };
        let bytes = files.get_mut(name).unwrap();
        match self {
            Self::Length(length) => {
                let end = bytes.len().min(8);
                bytes[..end].copy_from_slice(&length.to_le_bytes()[..end]);
            }
            Self::Bytes(edits) | Self::Head(edits) => {
                for (at, byte) in edits {
                    let at = at % bytes.len().max(1);
                    bytes.iter_mut().skip(at).take(1).for_each(|place| *place = *byte);
                }
            }
            Self::Cut(end) => bytes.truncate(bytes.len().saturating_sub(*end)),
            Self::More(count) => bytes.resize(bytes.len() + count, 0),
            Self::Field(tensor, field, value) => edit_header(bytes, *tensor, |_, entry| {
                if let Some(fields) = entry.as_object_mut() {
                    fields.insert((*field).to_owned(), value.clone());
                }
            }),
            Self::Name(tensor, new) => edit_header(bytes, *tensor, |name, _| *name = new.clone()),
            Self::Untold(tensor) => edit_header(bytes, *tensor, |name, _| *name = "__metadata__".to_owned()),
            // As text, for a JSON value has no key twice.
            Self::Twin(tensor, other) => edit_header_text(bytes, |text| {
                let parsed: Value = serde_json::from_str(text).ok()?;
                let names: Vec<&String> = parsed.as_object()?.keys().collect();
                let [from, to] = [tensor, other].map(|index| names[index % names.len()]);
                Some(text.replacen(&format!("\"{from}\""), &format!("\"{to}\""), 1))
            }),
            Self::Partition(tensor, shard) => edit_index(files, *tensor, |_, entry| *entry = shard.clone()),
            Self::Unindexed(tensor) => edit_index(files, *tensor, |name, _| *name = "other".to_owned()),
            Self::Lost => drop(files.remove(name)),
            Self::Swapped(other) => {
                let other = files[&names[other % names.len()]].clone();
                files.insert(name.clone(), other);
            }
        }
    }
}

/// Applies `edit` to the header of a safetensors file, and corrects its length.
fn edit_header_text(bytes: &mut Vec<u8>, edit: impl FnOnce(&str) -> Option<String>) {
    let Some(length) = bytes.first_chunk::<8>().map(|length| u64::from_le_bytes(*length) as usize) else {
        return;
    };
    let Some((header, data)) = bytes[8..].split_at_checked(length) else { return };
    let Some(header) = std::str::from_utf8(header).ok().and_then(edit) else { return };
    *bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat();
}

/// Lets `edit` change the entry of a tensor and its name.
fn edit_header(bytes: &mut Vec<u8>, tensor: usize, edit: impl FnOnce(&mut String, &mut Value)) {
    edit_header_text(bytes, |text| {
        Some(edit_entry(serde_json::from_str(text).ok()?, tensor, edit)?.to_string())
    });
}

fn edit_index(files: &mut Files, tensor: usize, edit: impl FnOnce(&mut String, &mut Value)) {
    let Some(bytes) = files.get_mut(INDEX) else { return };
    let Ok(mut index) = serde_json::from_slice::<Value>(bytes) else { return };
    if let Some(map) = edit_entry(index["weight_map"].take(), tensor, edit) {
        *bytes = json!({ "weight_map": map }).to_string().into_bytes();
    }
}

fn edit_entry(map: Value, which: usize, edit: impl FnOnce(&mut String, &mut Value)) -> Option<Value> {
    let Value::Object(mut map) = map else { return None };
    let mut name = map.keys().nth(which % map.len().max(1))?.clone();
    let mut entry = map.remove(&name)?;
    edit(&mut name, &mut entry);
    map.insert(name, entry);
    Some(Value::Object(map))
}

/// What became of checkpoints.
#[derive(Default)]
struct Outcomes {
    not_opened: Cell<usize>,
    not_filled: Cell<usize>,
    filled: Cell<usize>,
}

fn count(outcome: &Cell<usize>) {
    outcome.set(outcome.get() + 1);
}

/// Does with the checkpoint in `folder` all that a program can.
fn use_up(folder: &Path, model: &VarStore, outcomes: &Outcomes) {
    let told = |error: mm_core::Error| {
        let message = error.to_string();
        assert!(
            message.contains(folder.to_str().unwrap()) && !message.contains(char::is_control),
            "{message}"
        );
    };
    let weights = match Weights::open_folder(folder, "model") {
        Ok(weights) => weights,
        Err(error) => {
            told(error);
            return count(&outcomes.not_opened);
        }
    };
    let bytes: u64 = weights.files().map(|file| std::fs::metadata(file).unwrap().len()).sum();
    let list = weights.list();
    assert!(list.iter().map(|tensor| tensor.bytes).sum::<u64>() <= bytes);
    match weights.fill(model.variables().into_iter().collect(), &TensorLayout::HF) {
        Ok(()) => count(&outcomes.filled),
        Err(error) => {
            told(error);
            count(&outcomes.not_filled);
        }
    }
    for tensor in list {
        match weights.tensor(&tensor.name) {
            Ok(read) => assert!(read.numel() as u64 <= bytes, "{tensor:?} is more than the files hold"),
            Err(error) => told(error),
        }
    }
}

fn put(folder: &Path, files: &Files) {
    for entry in std::fs::read_dir(folder).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    for (name, bytes) in files {
        std::fs::write(folder.join(name), bytes).unwrap();
    }
}

/// Headers that are valid JSON for long and no header: a parser's memory is a multiple of the file, whatever
/// it reads.
fn refuse_heaps_of_brackets(folder: &Path) {
    let brackets = "[],".repeat(1 << 20);
    for header in
        [format!("{{\"a\":[{brackets}[]]}}"), "[".repeat(3 << 20), format!("{{\"__metadata__\":{{{brackets}")]
    {
        let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat();
        std::fs::write(folder.join("model.safetensors"), bytes).unwrap();
        let message = Weights::open_folder(folder, "model").unwrap_err().to_string();
        assert!(message.contains("not a complete safetensors file"), "{message}");
    }
}

#[test]
fn fifteen_thousand_mutated_checkpoints_give_tensors_or_an_error_in_bounded_memory() {
    let (model, wholes) = (model(), [whole(false), whole(true)]);
    let folder = tempfile::tempdir().unwrap();
    let outcomes = Outcomes::default();
    for files in &wholes {
        put(folder.path(), files);
        use_up(folder.path(), &model, &outcomes);
    }
    assert_eq!(outcomes.filled.get(), wholes.len(), "without a mutation nothing is wrong");

    let before = peak_memory().unwrap();
    let mutations = (any::<bool>(), vec((0..4usize, mutation()), 1..3));
    let config = ProptestConfig { cases: 15_000, failure_persistence: None, ..ProptestConfig::default() };
    let run = TestRunner::new(config).run(&mutations, |(is_sharded, mutations)| {
        let mut files = wholes[usize::from(is_sharded)].clone();
        for (which, mutation) in &mutations {
            mutation.apply(&mut files, *which);
        }
        put(folder.path(), &files);
        use_up(folder.path(), &model, &outcomes);
        Ok(())
    });
    run.unwrap_or_else(|failure| panic!("{failure}"));

    let [not_opened, not_filled, filled] =
        [outcomes.not_opened, outcomes.not_filled, outcomes.filled].map(Cell::into_inner);
    let grown = peak_memory().unwrap() - before;
    println!(
        "{not_opened} were not opened, {not_filled} not filled, {filled} filled; {} KiB more memory",
        grown >> 10
    );
    assert!(not_opened > 1000 && not_filled > 100 && filled > 100, "every outcome is met");
    assert!(grown < 64 << 20, "{grown} bytes more for files of 2 kB");

    let before = peak_memory().unwrap();
    refuse_heaps_of_brackets(folder.path());
    let grown = peak_memory().unwrap() - before;
    assert!(grown < 256 << 20, "{grown} bytes more for headers of 3 MB");
    println!("{} KiB more memory for heaps of brackets", grown >> 10);
}
