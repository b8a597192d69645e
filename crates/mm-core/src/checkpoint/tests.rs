//! Round trips of weights through files, and the errors of files that do not match.

use super::*;
use crate::Error;
use crate::nn::parameter;
use std::collections::BTreeSet;
use tch::nn::Init;
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
    let names: BTreeSet<String> =
        Tensor::read_safetensors(&file).unwrap().into_iter().map(|(name, _)| name).collect();
    assert!(
        names.contains("layers.0.self_attn.q_proj.weight")
            && !names.iter().any(|name| name.contains("in_proj"))
    );
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
fn a_model_of_other_sizes_is_refused_before_it_takes_memory() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    save(&store(2), &file, hf_names).unwrap();
    let huge = VarStore::new(Device::Cpu);
    let _ = crate::nn::shapes_only(|| {
        crate::nn::parameter(&huge.root(), "logit_scale", &[1 << 40], nn::Init::Const(0.0))
    });
    let weights = Weights::open(&file).unwrap();
    let message =
        weights.check(huge.variables().into_iter().collect(), &TensorLayout::HF).unwrap_err().to_string();
    assert!(message.contains("1 misshapen (logit_scale is [], the model's [1099511627776])"), "{message}");
    weights.check(store(2).variables().into_iter().collect(), &TensorLayout::HF).unwrap();
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

/// A transposed, renamed form, as open_clip's projections are.
const TRANSPOSED: TensorLayout = TensorLayout {
    names: |name| vec![name.replace("projection.weight", "proj")],
    is_transposed: |name| name == "projection.weight",
};

#[test]
fn a_transposed_variable_is_turned_at_the_file_both_ways() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    let make = || {
        let vs = VarStore::new(Device::Cpu);
        let _ = (vs.root() / "projection").var("weight", &[2, 3], nn::Init::Randn { mean: 0.0, stdev: 1.0 });
        vs
    };
    let (from, to) = (make(), make());
    write(&file, &stored(from.variables(), &TRANSPOSED)).unwrap();
    let weights = Weights::open(&file).unwrap();
    assert_eq!(weights.shape("proj"), Some([3, 2].as_slice()));
    weights.fill(to.variables().into_iter().collect(), &TRANSPOSED).unwrap();
    assert!(from.variables()["projection.weight"].equal(&to.variables()["projection.weight"]));
}

#[test]
fn narrower_types_and_int8_rows_are_read_as_f32() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    let rows = Tensor::from_slice(&[0.5f32, -1.0, 2.0, 127.0, -127.0, 64.0]).view([2, 3]);
    for kind in [Kind::Half, Kind::BFloat16, Kind::Double] {
        write(&file, &[("w".to_owned(), rows.to_kind(kind))]).unwrap();
        assert_eq!(Weights::open(&file).unwrap().tensor("w").unwrap(), rows, "{kind:?}");
    }
    let int8 = Tensor::from_slice(&[1i8, -2, 3, 127, -127, 64]).view([2, 3]);
    let scale = Tensor::from_slice(&[0.5f32, 2.0]);
    write(&file, &[("w".to_owned(), int8.shallow_clone()), ("w_scale".to_owned(), scale)]).unwrap();
    let target = Tensor::zeros([2, 3], (Kind::Float, Device::Cpu));
    read_into(&file, vec![("w".to_owned(), target.shallow_clone())]).unwrap();
    assert_eq!(target, Tensor::from_slice(&[0.5f32, -1.0, 1.5, 254.0, -254.0, 128.0]).view([2, 3]));
    write(&file, &[("w".to_owned(), int8)]).unwrap();
    let message = read_into(&file, vec![("w".to_owned(), target)]).unwrap_err().to_string();
    assert!(message.contains("w is int8 without its w_scale [2]"), "{message}");
}

#[test]
fn a_quantised_matrix_comes_back_within_half_a_step_and_quantises_to_the_same_again() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    let rows = Tensor::arange(12, (Kind::Float, Device::Cpu)).view([3, 4]).sin()
        * Tensor::from_slice(&[1f32, 0.0, 90.0]).view([3, 1]);
    let quantised =
        quantise(vec![("fc.weight".to_owned(), rows.shallow_clone()), ("bias".to_owned(), rows.get(0))]);
    write(&file, &quantised).unwrap();
    let weights = Weights::open(&file).unwrap();
    assert_eq!(weights.tensor("bias").unwrap(), rows.get(0));
    let back = weights.tensor("fc.weight").unwrap();
    let step = rows.abs().amax([1i64].as_slice(), true) / 127.0;
    assert!(bool::try_from((&back - &rows).abs().le_tensor(&(step * 0.5001)).all()).unwrap());
    let again = quantise(vec![("fc.weight".to_owned(), back)]);
    assert_eq!(again[1].1, quantised[1].1);
}

/// A checkpoint in two shards with its index.
fn shards(folder: &Path) {
    let tensor = |value: f32| Tensor::from_slice(&[value, value]);
    write(&folder.join("a.safetensors"), &[("x".to_owned(), tensor(1.0))]).unwrap();
    write(&folder.join("b.safetensors"), &[("y".to_owned(), tensor(2.0))]).unwrap();
    index(folder, r#"{"x": "a.safetensors", "y": "b.safetensors"}"#);
}

fn index(folder: &Path, map: &str) {
    std::fs::write(folder.join("model.safetensors.index.json"), format!(r#"{{"weight_map": {map}}}"#))
        .unwrap();
}

#[test]
fn shards_are_read_as_one_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    shards(folder.path());
    let mut weights = Weights::open_folder(folder.path(), "model").unwrap();
    assert_eq!(weights.list().len(), 2);
    assert_eq!(weights.tensor("y").unwrap(), Tensor::from_slice(&[2f32, 2.0]));
    weights.retain(|name| name != "y");
    assert_eq!(weights.list().len(), 1);
}

#[test]
fn shards_that_are_missing_or_not_as_the_index_says_are_named() {
    let folder = tempfile::tempdir().unwrap();
    shards(folder.path());
    let message = || Weights::open_folder(folder.path(), "model").unwrap_err().to_string();
    index(folder.path(), r#"{"x": "a.safetensors", "z": "b.safetensors"}"#);
    assert!(message().contains("z should be in b.safetensors"), "{}", message());
    index(folder.path(), r#"{"x": "../a.safetensors"}"#);
    assert!(message().contains("not the name of a file beside it"), "{}", message());
    index(folder.path(), r#"{"x": "c.safetensors"}"#);
    assert!(message().contains("the shard c.safetensors is missing"), "{}", message());
    index(folder.path(), "7");
    assert!(message().contains("not an index of shards"), "{}", message());
}

#[test]
fn a_pickle_is_refused_with_the_reason_and_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let message = |files: &[&str]| {
        files.iter().for_each(|file| std::fs::write(folder.path().join(file), "PK").unwrap());
        Weights::open_folder(folder.path(), "model").unwrap_err().to_string()
    };
    let strange = message(&["'; import evil; '.bin"]);
    assert!(strange.contains("there are no weights here") && !strange.contains("evil"), "{strange}");
    assert!(message(&["optimizer.pt"]).contains("only optimizer.pt, a pickle"));
    let plain = message(&["pytorch_model.bin"]);
    assert!(
        plain.contains("only pytorch_model.bin, a pickle, and reading one runs the code in it"),
        "{plain}"
    );
    assert!(plain.contains("glob.glob('pytorch_model.bin')") && plain.contains("save_file"), "{plain}");
    let sharded = message(&["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"]);
    assert!(sharded.contains("glob.glob('pytorch_model-*')"), "{sharded}");
}

#[test]
fn numbers_that_are_not_finite_are_refused_with_the_tensors_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    let target = || vec![("layers.weight".to_owned(), Tensor::zeros([1 << 21], (Kind::Float, Device::Cpu)))];
    for (odd, kind) in [(f64::NAN, Kind::Float), (f64::INFINITY, Kind::Half)] {
        let tensor = Tensor::zeros([1 << 21], (kind, Device::Cpu));
        // behind the first rows that are copied at once
        let _ = tensor.narrow(0, (1 << 21) - 5, 1).fill_(odd);
        write(&file, &[("layers.weight".to_owned(), tensor)]).unwrap();
        let weights = Weights::open(&file).unwrap();
        let message = weights.fill(target(), &TensorLayout::AS_IS).unwrap_err().to_string();
        assert!(message.contains("layers.weight has NaN or infinite numbers"), "{message}");
        read_into(&file, target()).unwrap();
    }
}

#[test]
fn weights_with_a_variant_in_their_name_are_found_and_others_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let tensor = |value: f32| [("x".to_owned(), Tensor::from_slice(&[value]))];
    let open = || Weights::open_folder(folder.path(), "model").map_err(|error| error.to_string());
    let below = folder.path().join("text_encoder");
    std::fs::create_dir(&below).unwrap();
    write(&below.join("model.safetensors"), &tensor(1.0)).unwrap();
    let message = open().unwrap_err();
    assert!(message.contains("text_encoder/model.safetensors: name the folder"), "{message}");
    write(&folder.path().join("clip.safetensors"), &tensor(2.0)).unwrap();
    assert!(
        open()
            .unwrap_err()
            .contains("only clip.safetensors here: if these are the weights, call it model.safetensors")
    );
    write(&folder.path().join("model.fp16.safetensors"), &tensor(3.0)).unwrap();
    assert_eq!(open().unwrap().tensor("x").unwrap(), Tensor::from_slice(&[3f32]));
    write(&folder.path().join("model.safetensors"), &tensor(4.0)).unwrap();
    assert_eq!(open().unwrap().tensor("x").unwrap(), Tensor::from_slice(&[4f32]));

    let sharded = tempfile::tempdir().unwrap();
    shards(sharded.path());
    let index = sharded.path().join("model.safetensors.index.json");
    std::fs::rename(&index, index.with_file_name("model.safetensors.index.fp16.json")).unwrap();
    assert_eq!(Weights::open_folder(sharded.path(), "model").unwrap().list().len(), 2);
}

#[test]
fn a_pointer_of_git_lfs_is_named_as_such() {
    let folder = tempfile::tempdir().unwrap();
    let pointer = "version https://git-lfs.github.com/spec/v1\noid \
    sha256:4d7a214614ab2935c943f9e0ff69d22e\nsize 605157884\n";
    for file in ["model.safetensors", "model.safetensors.index.json"] {
        let path = folder.path().join(file);
        std::fs::write(&path, pointer).unwrap();
        let message = Weights::open_folder(folder.path(), "model").unwrap_err().to_string();
        assert!(
            message.contains(file)
                && message.contains("is a Git LFS pointer")
                && message.contains("git lfs pull"),
            "{message}"
        );
        std::fs::remove_file(path).unwrap();
    }
}

#[test]
fn a_replaced_tensor_fills_its_variable_and_has_its_own_shape() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    write(&file, &[("a".to_owned(), Tensor::from_slice(&[1f32, 2.0]))]).unwrap();
    let mut weights = Weights::open(&file).unwrap();
    let resized = Tensor::from_slice(&[1f32, 1.5, 2.0]);
    weights.replace("a", resized.shallow_clone());
    assert_eq!(weights.shape("a"), Some([3].as_slice()));
    let target = Tensor::zeros([3], (Kind::Float, Device::Cpu));
    weights.fill(vec![("a".to_owned(), target.shallow_clone())], &TensorLayout::AS_IS).unwrap();
    assert_eq!(target, resized);
}

#[test]
fn a_model_is_built_and_filled_only_where_shapes_match() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    let values = Tensor::from_slice(&[1f32, 2.0]);
    write(&file, &[("a".to_owned(), values.shallow_clone())]).unwrap();
    let weights = Weights::open(&file).unwrap();
    let build = |vs: &VarStore, size: i64| {
        weights.build(vs, &TensorLayout::AS_IS, |path| {
            crate::Result::Ok(parameter(path, "a", &[size], Init::Const(0.0)))
        })
    };
    let vs = VarStore::new(Device::Cpu);
    assert_eq!(build(&vs, 2).unwrap(), values);
    let other = VarStore::new(Device::Cpu);
    let message = build(&other, 1 << 50).unwrap_err().to_string();
    assert!(message.contains("1 misshapen (a is [2]"), "{message}");
    assert!(other.variables().is_empty(), "nothing is allocated for a model that does not fit");
}
