//! Writes the emoji data set as files, for other tools and as an example of a table.

use std::fs;
use std::path::{Path, PathBuf};

use crate::sources::emoji::{CREDIT, EmojiPair, HeldOutBy, pairs};
use crate::{Error, Result};

/// The contents that [`export_emoji`] wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EmojiStats {
    /// Pairs in `train.tsv`.
    pub train: usize,
    /// Pairs in `held_out.tsv`.
    pub held_out: usize,
    /// The number of bytes of all pictures.
    pub image_bytes: usize,
}

/// Writes `out/images/KEY.png`, `out/train.tsv` and `out/held_out.tsv` (columns `image`, `caption`, `label`,
/// with the canonical caption) and `out/LICENSE`. The folder is written under a temporary name and then
/// renamed, so that `out` is complete or absent.
///
/// # Errors
/// `out` exists and is not empty, or cannot be written.
pub fn export_emoji(out: &Path) -> Result<EmojiStats> {
    if fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some()) || out.is_file() {
        return Err(Error::Setting(format!("{} exists: remove it or name another folder", out.display())));
    }
    let parent = match out.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    fs::create_dir_all(&parent).map_err(Error::io(&parent))?;
    let staging =
        tempfile::Builder::new().prefix(".emoji-").tempdir_in(&parent).map_err(Error::io(&parent))?;
    // A subfolder, because the temporary folder keeps its private permissions when renamed.
    let folder = staging.path().join("emoji");

    let images = folder.join("images");
    fs::create_dir_all(&images).map_err(Error::io(&images))?;
    for pair in pairs(HeldOutBy::Caption) {
        let path = images.join(format!("{}.png", pair.key));
        fs::write(&path, pair.png).map_err(Error::io(&path))?;
    }
    let stats = EmojiStats {
        train: write_table(&folder.join("train.tsv"), |pair| !pair.held_out)?,
        held_out: write_table(&folder.join("held_out.tsv"), |pair| pair.held_out)?,
        image_bytes: pairs(HeldOutBy::Caption).iter().map(|pair| pair.png.len()).sum(),
    };
    let license = folder.join("LICENSE");
    fs::write(&license, format!("{CREDIT}\n")).map_err(Error::io(&license))?;
    fs::rename(&folder, out).map_err(Error::io(out))?;
    Ok(stats)
}

fn write_table(path: &Path, keep: fn(&EmojiPair) -> bool) -> Result<usize> {
    let mut table = String::from("image\tcaption\tlabel\n");
    let mut rows = 0;
    for pair in pairs(HeldOutBy::Caption).iter().filter(|pair| keep(pair)) {
        table += &format!("images/{}.png\t{}\t{}\n", pair.key, pair.captions[0], pair.group);
        rows += 1;
    }
    fs::write(path, table).map_err(Error::io(path))?;
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DatasetConfig;

    #[test]
    fn exported_files_read_back_as_the_same_pairs() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("data/emoji");
        let stats = export_emoji(&out).unwrap();
        assert_eq!((stats.train, stats.held_out), (3550, 394));
        for (split, rows) in [("train", 3550), ("held_out", 394)] {
            let table =
                format!("kind = 'tsv'\nlabel_column = 'label'\npath = '{}/{split}.tsv'", out.display());
            let files = toml::from_str::<DatasetConfig>(&table).unwrap().open().unwrap();
            let embedded = format!("kind = 'emoji'\nsplit = '{split}'");
            let embedded = toml::from_str::<DatasetConfig>(&embedded).unwrap().open().unwrap();
            assert_eq!(files.len(), rows);
            for index in 0..rows {
                let (file, pair) = (files.sample(index).unwrap(), embedded.sample(index).unwrap());
                assert_eq!((&file.captions[0], &file.label), (&pair.captions[0], &pair.label));
                assert_eq!(file.image().unwrap().bytes().unwrap(), pair.image().unwrap().bytes().unwrap());
            }
        }
        assert!(fs::read_to_string(out.join("LICENSE")).unwrap().contains("CC-BY 4.0"));
        assert_eq!(fs::read_dir(out.parent().unwrap()).unwrap().count(), 1, "nothing temporary is left");
    }

    #[test]
    fn a_folder_that_is_not_empty_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("mine"), "x").unwrap();
        assert!(
            export_emoji(folder.path()).unwrap_err().to_string().contains("remove it or name another folder")
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
