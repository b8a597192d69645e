//! The emoji data set as files, for other tools and for reading the examples of a table.

use std::fs;
use std::path::{Path, PathBuf};

use super::{CREDIT, EmojiPair, pairs};
use crate::{Error, Result};

/// What [`export`] wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EmojiStats {
    /// Pairs in `train.tsv`.
    pub train: usize,
    /// Pairs in `held_out.tsv`.
    pub held_out: usize,
    /// Bytes of all pictures.
    pub image_bytes: usize,
}

/// Writes `out/images/KEY.png`, `out/train.tsv` and `out/held_out.tsv` (columns `image`, `caption`, `label`, with the
/// canonical caption) and `out/LICENSE`. `out` appears whole or not at all: it is written beside and then renamed.
///
/// Errors: `out` exists with something in it, or cannot be written.
pub fn export(out: &Path) -> Result<EmojiStats> {
    if fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some()) || out.is_file() {
        return Err(Error::Setting(format!("{} exists: remove it or name another folder", out.display())));
    }
    let parent = match out.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    fs::create_dir_all(&parent).map_err(Error::io(&parent))?;
    let staging = tempfile::Builder::new().prefix(".emoji-").tempdir_in(&parent).map_err(Error::io(&parent))?;
    // Inside the private temporary folder, because that one keeps its strict permissions when renamed.
    let folder = staging.path().join("emoji");

    let images = folder.join("images");
    fs::create_dir_all(&images).map_err(Error::io(&images))?;
    for pair in pairs() {
        let path = images.join(format!("{}.png", pair.key));
        fs::write(&path, pair.png).map_err(Error::io(&path))?;
    }
    let stats = EmojiStats {
        train: write_table(&folder.join("train.tsv"), |pair| !pair.held_out)?,
        held_out: write_table(&folder.join("held_out.tsv"), |pair| pair.held_out)?,
        image_bytes: pairs().iter().map(|pair| pair.png.len()).sum(),
    };
    let license = folder.join("LICENSE");
    fs::write(&license, format!("{CREDIT}\n")).map_err(Error::io(&license))?;
    fs::rename(&folder, out).map_err(Error::io(out))?;
    Ok(stats)
}

fn write_table(path: &Path, keep: fn(&EmojiPair) -> bool) -> Result<usize> {
    let mut table = String::from("image\tcaption\tlabel\n");
    let mut rows = 0;
    for pair in pairs().iter().filter(|pair| keep(pair)) {
        table += &format!("images/{}.png\t{}\t{}\n", pair.key, pair.captions[0], pair.group);
        rows += 1;
    }
    fs::write(path, table).map_err(Error::io(path))?;
    Ok(rows)
}
