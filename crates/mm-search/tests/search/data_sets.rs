//! Data sets brought into an index, again and again.

use mm_clip::{ImageEmbedder, OpenOptions};
use mm_data::{DatasetConfig, FolderConfig};
use mm_dist::ProcessGroup;
use mm_image::RgbImage;
use mm_search::{Index, IndexDescription, IndexReport, IndexSettings, SearchOptions, index_set, to_vectors};
use mm_train::{EvalContext, EvalSet, NoProgress};
use std::fs;
use std::path::{Path, PathBuf};

/// A folder of images with an index.
struct Photos {
    folder: tempfile::TempDir,
    model: ImageEmbedder,
    description: IndexDescription,
}

impl Photos {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let name = small_clip(folder.path());
        let model = ImageEmbedder::open(&name, &OpenOptions::default()).unwrap();
        let dim = model.encoder.output_width() as usize;
        let description = IndexDescription::new(&name, dim, Default::default()).unwrap();
        fs::create_dir(folder.path().join("photos")).unwrap();
        Self { folder, model, description }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("photos").join(name)
    }

    fn index_folder(&self) -> PathBuf {
        self.folder.path().join("index")
    }

    /// A picture that differs from that of any other `seed`.
    fn draw(&self, name: &str, seed: u32) {
        picture(seed).save(self.path(name)).unwrap();
    }

    fn index(&self, keep_deleted: bool) -> IndexReport {
        let path = self.folder.path().join("photos");
        let config = FolderConfig { path, caption: "a {label}".to_owned() };
        let set = EvalSet::open("photos", &DatasetConfig::Folder(config), [255; 3], usize::MAX).unwrap();
        let settings = IndexSettings { thumbnail: 16, keep_deleted };
        let group = ProcessGroup::alone();
        let context =
            EvalContext { group: &group, batch_size: 3, wants_sections: false, progress: &NoProgress };
        let named = ("photos", &set);
        index_set(&self.index_folder(), &self.description, &self.model, named, &settings, &context).unwrap()
    }

    /// The names of the files in the order of their similarity to the file `name`.
    fn similar(&self, name: &str) -> Vec<String> {
        let index = Index::open(&self.index_folder()).unwrap();
        let image = mm_image::decode(&fs::read(self.path(name)).unwrap(), [255; 3]).unwrap();
        let query = to_vectors(&self.model.embed(&[image]).unwrap()).unwrap();
        let found = index.search(&query, &SearchOptions::default()).unwrap();
        let name =
            |id| Path::new(&index.item(id).unwrap().key).file_name().unwrap().to_str().unwrap().to_owned();
        found[0].iter().map(|hit| name(hit.id)).collect()
    }
}

/// A CLIP of the goldens with preprocessing, below `folder`.
fn small_clip(folder: &Path) -> String {
    let golden = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../data/goldens/clip/clip"));
    let model = folder.join("model");
    fs::create_dir(&model).unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(golden.join(file), model.join(file)).unwrap();
    }
    let processor = serde_json::json!({
        "image_processor_type": "CLIPImageProcessor", "do_resize": true, "size": { "shortest_edge": 32 },
        "resample": 3, "do_center_crop": true, "crop_size": { "height": 32, "width": 32 }, "do_rescale": true,
        "do_normalize": true, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.3, 0.3, 0.3],
    });
    fs::write(model.join("preprocessor_config.json"), processor.to_string()).unwrap();
    model.to_str().unwrap().to_owned()
}

fn picture(seed: u32) -> RgbImage {
    let level = |x: u32| (x.wrapping_mul(2_654_435_761) >> 24) as u8;
    RgbImage::from_fn(40, 30, |x, y| {
        let cell = (x / 10 + 7 * (y / 10) + 101 * seed) * 3;
        [level(cell), level(cell + 1), level(cell + 2)].into()
    })
}

/// Added, changed, unchanged, deleted and bad.
fn counts(report: &IndexReport) -> [usize; 5] {
    [report.added, report.changed, report.unchanged, report.deleted, report.bad.len()]
}

#[test]
fn an_index_follows_the_changes_of_a_folder() {
    let photos = Photos::new();
    for (name, seed) in [("a.png", 1), ("b.png", 2), ("c.png", 3), ("d.png", 4)] {
        photos.draw(name, seed);
    }
    fs::write(photos.path("broken.png"), "no image").unwrap();
    assert_eq!(counts(&photos.index(false)), [4, 0, 0, 0, 1]);
    assert_eq!(photos.similar("b.png")[0], "b.png");
    assert_eq!(counts(&photos.index(false)), [0, 0, 4, 0, 1], "nothing changed");

    photos.draw("a.png", 5);
    let content = fs::read(photos.path("b.png")).unwrap();
    fs::remove_file(photos.path("b.png")).unwrap();
    fs::write(photos.path("b.png"), content).unwrap(); // a new time alone
    fs::remove_file(photos.path("c.png")).unwrap();
    photos.draw("e.png", 6);
    fs::write(photos.path("d.png"), "no image any more").unwrap();
    let report = photos.index(true);
    assert_eq!(counts(&report), [1, 1, 1, 0, 2], "deleted ones are kept by choice");
    let report = photos.index(false);
    assert_eq!(counts(&report), [0, 0, 3, 2, 2]);
    assert_eq!(Index::open(&photos.index_folder()).unwrap().len(), 3);
    for name in ["a.png", "b.png", "e.png"] {
        assert_eq!(photos.similar(name)[0], name);
    }
}

#[test]
fn an_item_has_the_size_the_caption_and_the_thumbnail_of_its_image() {
    let photos = Photos::new();
    fs::create_dir(photos.path("cats")).unwrap();
    photos.draw("cats/a.png", 1);
    photos.index(false);
    let index = Index::open(&photos.index_folder()).unwrap();
    let id = index.ids()[0];
    let expected = serde_json::json!({ "caption": "a cats", "label": "cats", "width": 40, "height": 30 });
    assert_eq!(index.item(id).unwrap().metadata, expected);
    let thumbnail = mm_image::decode(&index.thumbnail(id).unwrap().unwrap(), [255; 3]).unwrap();
    assert_eq!(thumbnail.dimensions(), (16, 12));
}

#[test]
fn an_index_made_in_two_parts_has_the_rows_of_one_made_at_once() {
    let (parts, once) = (Photos::new(), Photos::new());
    for seed in 0..7 {
        once.draw(&format!("{seed}.png"), seed);
    }
    for part in [0..2, 2..7] {
        part.for_each(|seed| parts.draw(&format!("{seed}.png"), seed));
        parts.index(false);
    }
    once.index(false);
    let rows = |photos: &Photos| {
        let index = Index::open(&photos.index_folder()).unwrap();
        let mut rows: Vec<(String, Vec<f32>)> = index
            .ids()
            .into_iter()
            .map(|id| {
                (index.item(id).unwrap().key.rsplit('/').next().unwrap().to_owned(), index.row(id).unwrap())
            })
            .collect();
        rows.sort_by(|a, b| a.0.cmp(&b.0));
        rows
    };
    for ((name, a), (other, b)) in rows(&parts).iter().zip(&rows(&once)) {
        assert_eq!(name, other);
        assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5), "{name}");
    }
}
