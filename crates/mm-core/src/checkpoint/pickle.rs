//! Weights pickled by PyTorch, which are not read: the command that converts each kind.

use super::files::is_lfs_pointer_file;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// The reason why a pickle is not read, followed by how to convert it.
pub(crate) const PICKLE: &str = "a pickle, and reading one runs the code in it; convert it if you trust it";

/// Bytes at the end of a zip archive that are searched for the names of its entries.
const DIRECTORY_BYTES: u64 = 4 << 20;

/// The signature of an entry in the central directory of a zip archive.
const DIRECTORY_ENTRY: &[u8] = b"PK\x01\x02";

/// The file among `names` with pickled weights: of a model before an optimizer, of the last epoch before
/// earlier ones. The name becomes part of a shell command, so names with special characters are skipped.
pub(crate) fn pickle(names: &BTreeSet<String>) -> Option<&str> {
    let is_plain =
        |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    let is_pickle = |name: &str| [".bin", ".pt", ".pth", ".ckpt"].iter().any(|ending| name.ends_with(ending));
    let pickles = || names.iter().map(String::as_str).filter(|name| is_pickle(name) && is_plain(name));
    pickles()
        .find(|name| name.contains("model"))
        .or_else(|| pickles().filter_map(|name| Some((epoch(name)?, name))).max().map(|(_, name)| name))
        .or_else(|| pickles().next())
}

/// The epoch of an open_clip checkpoint, by its name `epoch_N.pt` or `epoch_latest.pt`.
fn epoch(name: &str) -> Option<u64> {
    let epoch = name.strip_prefix("epoch_")?.strip_suffix(".pt")?;
    if epoch == "latest" { Some(u64::MAX) } else { epoch.parse().ok() }
}

/// The message for a `folder` with weights only in the pickle `name`: the command that writes them as
/// `target`.
pub(crate) fn conversion(folder: &Path, name: &str, target: &str) -> String {
    let file = folder.join(name);
    if let Some(problem) = is_lfs_pointer_file(&file) {
        return format!("there is only {name}, which {problem}");
    }
    let target = if name.starts_with("open_clip") { "open_clip_model.safetensors" } else { target };
    let save = format!(
        "s.save_file({{k.removeprefix('module.'): v.contiguous().clone() for k, v in d.items() \
         if torch.is_tensor(v)}}, '{target}', {{'format': 'pt'}})"
    );
    if is_torch_script(&file) {
        return format!(
            "there is only {name}, a TorchScript program, and loading one runs it; convert it if you trust \
             it, \
             in this folder: python -c \"import torch, safetensors.torch as s; \
             d = torch.jit.load('{name}', map_location='cpu').state_dict(); {save}\""
        );
    }
    let parts = match name.split_once("-00001-of-") {
        Some((stem, _)) => format!("{stem}-*"),
        None => name.to_owned(),
    };
    // Trainers save the model beside the optimizer's state, under one of these keys.
    format!(
        "there is only {name}, {PICKLE}, in this folder: \
         python -c \"import glob, torch, safetensors.torch as s; \
         load = lambda f: torch.load(f, map_location='cpu', weights_only=True); \
         model = lambda w: next((w[k] for k in ('state_dict', 'model_state_dict', 'model', 'module') \
         if isinstance(w.get(k), dict)), w); \
         d = {{k: v for f in glob.glob('{parts}') for k, v in model(load(f)).items()}}; {save}\""
    )
}

/// Whether a file is a TorchScript archive, as OpenAI released its models: a zip archive with code in it.
fn is_torch_script(file: &Path) -> bool {
    let Some(directory) = end_of_zip(file) else { return false };
    let entries = memmem(&directory, DIRECTORY_ENTRY).filter_map(|start| {
        let header = &directory[start..];
        let length = u16::from_le_bytes([*header.get(28)?, *header.get(29)?]) as usize;
        std::str::from_utf8(header.get(46..46 + length)?).ok()
    });
    entries.into_iter().any(|name| name.ends_with("/constants.pkl") || name.contains("/code/"))
}

/// The last bytes of a zip archive, with the names of its entries; none if `file` is not an archive.
fn end_of_zip(file: &Path) -> Option<Vec<u8>> {
    let mut file = File::open(file).ok()?;
    let mut magic = [0; 4];
    file.read_exact(&mut magic).ok()?;
    if &magic != b"PK\x03\x04" {
        return None;
    }
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(DIRECTORY_BYTES))).ok()?;
    let mut end = Vec::new();
    file.read_to_end(&mut end).ok()?;
    Some(end)
}

/// The positions of `needle` in `haystack`.
fn memmem<'a>(haystack: &'a [u8], needle: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    haystack
        .windows(needle.len())
        .enumerate()
        .filter(move |(_, window)| *window == needle)
        .map(|(start, _)| start)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first bytes of an archive, and a central directory of `entries`.
    fn archive(entries: &[&str]) -> Vec<u8> {
        let mut bytes = b"PK\x03\x04 what the entries hold ".to_vec();
        for name in entries {
            bytes.extend(DIRECTORY_ENTRY);
            bytes.extend([0; 24]);
            bytes.extend((name.len() as u16).to_le_bytes());
            bytes.extend([0; 16]);
            bytes.extend(name.as_bytes());
        }
        bytes
    }

    #[test]
    fn each_kind_of_file_has_the_line_that_converts_it() {
        let folder = tempfile::tempdir().unwrap();
        let line = |name: &str, bytes: &[u8]| {
            std::fs::write(folder.path().join(name), bytes).unwrap();
            conversion(folder.path(), name, "model.safetensors")
        };
        let state = archive(&["archive/data.pkl", "archive/data/0", "archive/version"]);
        let script = archive(&["ViT-B-32/data.pkl", "ViT-B-32/code/__torch__.py", "ViT-B-32/constants.pkl"]);
        assert!(line("epoch_3.pt", &state).contains("torch.load(f, map_location='cpu', weights_only=True)"));
        assert!(
            line("epoch_3.pt", &state).contains("'state_dict'")
                && line("epoch_3.pt", &state).contains("'module.'")
        );
        assert!(line("ViT-B-32.pt", &script).contains("torch.jit.load('ViT-B-32.pt', map_location='cpu')"));
        assert!(line("old.bin", b"\x80\x02 from before archives").contains("torch.load"));
        assert!(line("open_clip_pytorch_model.bin", &state).contains("'open_clip_model.safetensors'"));
        let pointer = line(
            "pytorch_model.bin",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 605\n",
        );
        assert!(pointer.contains("git lfs pull") && !pointer.contains("python"), "{pointer}");
    }

    #[test]
    fn a_model_goes_before_an_optimizer_and_the_last_epoch_before_the_others() {
        let first =
            |names: &[&str]| pickle(&names.iter().map(|&name| name.to_owned()).collect()).map(str::to_owned);
        assert_eq!(first(&["optimizer.pt", "pytorch_model.bin"]).unwrap(), "pytorch_model.bin");
        assert_eq!(first(&["epoch_10.pt", "epoch_2.pt", "epoch_9.pt"]).unwrap(), "epoch_10.pt");
        assert_eq!(first(&["epoch_10.pt", "epoch_latest.pt"]).unwrap(), "epoch_latest.pt");
        assert_eq!(first(&["model.safetensors", "';x'.bin"]), None);
    }
}
