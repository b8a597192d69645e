use super::*;
use proptest::prelude::*;
use tch::{Device, nn};

fn store(rows: i64) -> VarStore {
    let vs = VarStore::new(Device::Cpu);
    let root = vs.root();
    let attention = &root / "layers" / 0 / "self_attn" / "in_proj";
    let _ = attention.var("weight", &[3 * rows, 4], nn::Init::Randn { mean: 0.0, stdev: 1.0 });
    let _ = root.var("logit_scale", &[], nn::Init::Const(2.5));
    vs
}

#[test]
fn joined_projections_are_split_in_the_file_and_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    let (from, to) = (store(2), store(2));
    save(&from, &file, hf_names).unwrap();
    let names: BTreeSet<String> = Tensor::read_safetensors(&file).unwrap().into_iter().map(|(name, _)| name).collect();
    assert!(names.contains("layers.0.self_attn.q_proj.weight") && !names.iter().any(|name| name.contains("in_proj")));
    load(&to, &file, hf_names).unwrap();
    for (name, variable) in from.variables() {
        assert!(variable.equal(&to.variables()[&name]), "{name}");
    }
}

#[test]
fn tensors_that_are_missing_extra_or_misshapen_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    save(&store(2), &file, hf_names).unwrap();
    let message = load(&store(5), &file, hf_names).unwrap_err().to_string();
    assert!(
        message.contains("3 misshapen (layers.0.self_attn.k_proj.weight is [2, 4], the model's [5, 4]"),
        "{message}"
    );
    let other = VarStore::new(Device::Cpu);
    let _ = other.root().var("bias", &[1], nn::Init::Const(0.0));
    let message = load(&other, &file, hf_names).unwrap_err().to_string();
    assert!(message.contains("1 missing (bias)") && message.contains("4 not in the model"), "{message}");
}

#[test]
fn a_failed_write_leaves_the_old_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state.json");
    std::fs::write(&file, "old").unwrap();
    let full = write_atomically(&file, |partial| {
        std::fs::write(partial, "ne").unwrap();
        Err(Error::io("write", &file, std::io::Error::from(std::io::ErrorKind::StorageFull)))
    });
    assert!(full.is_err());
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "old");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_damaged_file_is_an_error_and_never_a_panic(cut in 0usize..400, at in 0usize..400, byte: u8) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("model.safetensors");
        save(&store(2), &file, hf_names).unwrap();
        let mut bytes = std::fs::read(&file).unwrap();
        let index = at % bytes.len();
        bytes[index] = byte;
        bytes.truncate(bytes.len().saturating_sub(cut % 50));
        std::fs::write(&file, bytes).unwrap();
        let _ = load(&store(2), &file, hf_names); // a flipped weight is legal, anything else an error
    }
}
