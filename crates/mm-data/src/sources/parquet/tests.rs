//! The files are what `xtask/goldens/readers.py` writes with Hugging Face `datasets` and pyarrow.

use std::fs;
use std::path::Path;

use super::*;
use crate::SampleImage;

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/goldens/readers")
}

fn open(path: impl AsRef<Path>, keys: &str) -> Result<ParquetDataset> {
    let path = goldens().join(path);
    ParquetDataset::open(&toml::from_str(&format!("path = {:?}\n{keys}", path.to_str().unwrap())).unwrap())
}

fn message_of(result: Result<impl Sized>) -> String {
    result.err().expect("an error").to_string()
}

/// The colour of the middle.
fn colour(sample: &Sample) -> [u8; 3] {
    sample.image().unwrap().decode([0; 3]).unwrap().get_pixel(12, 12).0
}

#[test]
fn a_data_set_of_hugging_face_is_read_completely() {
    let source = open("captioned", "split = 'train'\nlabel_column = 'label'").unwrap();
    assert_eq!((source.len(), source.blocks()), (8, Some(vec![3, 2, 3])));
    let samples: Vec<_> = (0..8).map(|index| source.sample(index).unwrap()).collect();
    assert_eq!(samples[5].captions, ["a blue square", "square number 5"]);
    assert_eq!(samples[6].captions, ["a red square"]);
    let labels: Vec<_> = samples.iter().map(|sample| sample.label.as_deref().unwrap()).collect();
    assert_eq!(labels, ["red", "green", "blue", "red", "green", "blue", "red", "green"]);
    assert_eq!((colour(&samples[0]), colour(&samples[7])), ([220, 20, 30], [20, 200, 60]));
    assert!(samples[4].key.ends_with("train-00000-of-00002.parquet:4"), "{}", samples[4].key);
    assert!(samples[5].key.ends_with("train-00001-of-00002.parquet:0"), "{}", samples[5].key);
    assert_eq!(open("captioned", "split = 'validation'").unwrap().len(), 2);
}

#[test]
fn any_order_gives_the_same_samples_with_no_room_to_keep_them() {
    let (kept, unkept) =
        (open("captioned", "split = 'train'"), open("captioned", "split = 'train'\ncache_bytes = 0"));
    let (kept, unkept) = (kept.unwrap(), unkept.unwrap());
    for index in [7, 0, 4, 3, 6, 1, 5, 2] {
        let (one, other) = (kept.sample(index).unwrap(), unkept.sample(index).unwrap());
        assert_eq!(
            (one.image().unwrap().bytes().unwrap(), &one.captions),
            (other.image().unwrap().bytes().unwrap(), &other.captions)
        );
    }
}

#[test]
fn plain_columns_are_read_too() {
    let keys = "image_column = 'picture'\ncaption_column = ['title', 'description']\nlabel_column = 'kind'";
    let source = open("questions.parquet", keys).unwrap();
    assert_eq!(source.sample(0).unwrap().captions, ["red"]);
    let sample = source.sample(2).unwrap();
    assert_eq!(
        (sample.captions.join("|"), sample.label.as_deref()),
        ("blue|a square".to_owned(), Some("blue"))
    );
    let paths =
        open("odd/none.parquet", "image_column = 'caption'\nlabel_column = 'number'\ncaption_column = []")
            .unwrap();
    let sample = paths.sample(0).unwrap();
    assert!(matches!(sample.image().unwrap(), SampleImage::File(path) if path.ends_with("odd/whole")));
    assert_eq!(sample.label.as_deref(), Some("0"));
}

#[test]
fn an_incomplete_row_is_one_bad_sample() {
    for file in ["odd/none.parquet", "odd/gzip.parquet"] {
        let source = open(file, "images_root = 'pictures'").unwrap();
        let samples: Vec<_> = (0..7).map(|index| source.sample(index)).collect();
        let faults: Vec<_> = samples.iter().map(|sample| sample.as_ref().err().map(Error::fault)).collect();
        let (image, caption, text) = (Some(Fault::NoImage), Some(Fault::NoCaption), Some(Fault::Text));
        assert_eq!(faults, [None, None, image, image, caption, text, None]);
        let beside = samples[1].as_ref().unwrap();
        let SampleImage::File(path) = beside.image().unwrap() else { panic!("a file") };
        assert_eq!(path, Path::new("pictures/beside.png"));
        assert_eq!(samples[6].as_ref().unwrap().captions, ["whole again"]);
        assert!(samples[5].as_ref().unwrap_err().to_string().ends_with("parquet:5: not UTF-8 text"));
    }
}

#[test]
fn a_wrong_setting_is_an_error_with_the_alternatives() {
    let message = message_of(open("captioned", ""));
    let expected = "files of `train` (2), `validation` (1): set `split` to one of these";
    assert!(message.contains(expected), "{message}");
    let message = message_of(open("captioned", "split = 'test'"));
    assert!(message.contains("no file of split `test`; the folder has files of `train` (2)"), "{message}");
    assert!(message_of(open("questions.parquet", "split = 'test'")).contains("remove it"));
    let message = message_of(open("questions.parquet", ""));
    assert!(
        message.contains("no column `image`; the file has `picture`, `title`, `description`, `kind`"),
        "{message}"
    );
    let message = message_of(open("odd/none.parquet", "label_column = 'label'"));
    assert!(
        message.contains("`label` is not a label: text or a whole number; it is `label` (DOUBLE)"),
        "{message}"
    );
    let message = message_of(open("odd/none.parquet", "image_column = 'number'"));
    assert!(message.contains("`number` is not an image"), "{message}");
    let message = message_of(open("odd/none.parquet", "caption_column = 'image'"));
    assert!(message.contains("it is `image.bytes` (BYTE_ARRAY), `image.path` (BYTE_ARRAY)"), "{message}");
    assert!(message_of(open("odd/none.parquet", "caption_column = []")).contains("or a label_column"));
    assert!(message_of(open("none.parquet", "split = 'train'")).contains("No such file"));
    let list = format!("path = {:?}", [goldens(), goldens()]);
    assert!(
        message_of(ParquetDataset::open(&toml::from_str(&list).unwrap()))
            .contains("a folder in a list of Parquet files")
    );
    let folder = tempfile::tempdir().unwrap();
    let message = message_of(open(folder.path(), ""));
    assert!(message.contains("the folder and its subfolder `data` have no .parquet file"), "{message}");
}

#[test]
fn a_folder_with_its_files_in_data_is_found_and_a_list_keeps_its_order() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    let files = ["train-00001-of-00002.parquet", "train-00000-of-00002.parquet"];
    for file in files {
        fs::copy(goldens().join("captioned").join(file), data.join(file)).unwrap();
    }
    assert_eq!(open(folder.path(), "").unwrap().blocks(), Some(vec![3, 2, 3]));
    let list = format!("path = {:?}", files.map(|file| data.join(file)));
    assert_eq!(ParquetDataset::open(&toml::from_str(&list).unwrap()).unwrap().blocks(), Some(vec![3, 3, 2]));
}

#[test]
fn a_truncated_file_does_not_open_and_a_broken_group_loses_its_rows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("train.parquet");
    let whole = fs::read(goldens().join("captioned/train-00000-of-00002.parquet")).unwrap();
    for length in [0, 3, 8, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        let message = message_of(open(&path, ""));
        assert!(
            message.contains("not a complete Parquet file") && message.ends_with("download it again"),
            "{message}"
        );
    }
    let mut broken = whole.clone();
    broken[4..24].fill(0xff);
    fs::write(&path, &broken).unwrap();
    let source = open(&path, "").unwrap();
    let faults: Vec<_> = (0..5).map(|index| source.sample(index).err().map(|error| error.fault())).collect();
    let shard = Some(Fault::Shard);
    assert_eq!(faults, [shard, shard, shard, None, None]);
    let message = message_of(source.sample(1));
    assert!(message.contains("train.parquet: row group 0: "), "{message}");
}
