//! Items are added, replaced and deleted, by several processes, through kills.

use super::{Table, keys, request};
use crate::common::{item, unit_rows};
use mm_clip::{ImageEmbedder, OpenOptions};
use mm_data::{DatasetConfig, FolderConfig};
use mm_dist::ProcessGroup;
use mm_image::RgbImage;
use mm_search::{IndexDescription, IndexSettings, RowType, Stamp, index_set, to_vectors};
use mm_train::{EvalContext, EvalSet, NoProgress};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// A small CLIP.
const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../data/goldens/rlhf/clip");

/// Brings `table` up to date with the images in `folder`: added, changed, unchanged, deleted and bad.
fn index_folder(table: &Table, model: &ImageEmbedder, folder: &Path, keep_deleted: bool) -> [usize; 5] {
    let config = FolderConfig { path: folder.to_owned(), caption: "a {label}".to_owned() };
    let set = EvalSet::open("photos", &DatasetConfig::Folder(config), [255; 3], usize::MAX).unwrap();
    let settings = IndexSettings { thumbnail: 16, keep_deleted };
    let group = ProcessGroup::alone();
    let context = EvalContext { group: &group, batch_size: 3, wants_sections: false, progress: &NoProgress };
    let dim = model.encoder.output_width() as usize;
    let description = IndexDescription::new(MODEL, dim, RowType::F16).unwrap();
    let named = ("photos", &set);
    let report = index_set(&table.location(), &description, model, named, &settings, &context).unwrap();
    [report.added, report.changed, report.unchanged, report.deleted, report.bad.len()]
}

/// A picture that differs from that of any other `seed`.
fn draw(file: &Path, seed: u8) {
    RgbImage::from_fn(40, 30, |x, y| {
        let cell = (x / 10 + 4 * (y / 10)) as u8;
        [cell.wrapping_mul(37 + 11 * seed), cell.wrapping_mul(91 * seed), 200 / (1 + seed)].into()
    })
    .save(file)
    .unwrap();
}

#[test]
fn a_table_follows_the_changes_of_a_folder() {
    let Some(table) = Table::new(RowType::F32) else { return };
    let model = ImageEmbedder::open(MODEL, &OpenOptions::default()).unwrap();
    let photos = table.folder.path().join("photos");
    fs::create_dir(&photos).unwrap();
    for (name, seed) in [("a.png", 1), ("b.png", 2), ("c.png", 3), ("d.png", 4)] {
        draw(&photos.join(name), seed);
    }
    fs::write(photos.join("broken.png"), "no image").unwrap();
    let update = |keep_deleted| index_folder(&table, &model, &photos, keep_deleted);
    assert_eq!(update(false), [4, 0, 0, 0, 1]);
    assert_eq!(update(false), [0, 0, 4, 0, 1], "nothing changed");
    draw(&photos.join("a.png"), 5);
    let content = fs::read(photos.join("b.png")).unwrap();
    fs::remove_file(photos.join("b.png")).unwrap();
    fs::write(photos.join("b.png"), content).unwrap(); // a new time alone
    fs::remove_file(photos.join("c.png")).unwrap();
    draw(&photos.join("e.png"), 6);
    assert_eq!(update(true), [1, 1, 2, 0, 1], "deleted ones are kept by choice");
    assert_eq!(update(false), [0, 0, 4, 1, 1]);
    let index = table.index();
    assert_eq!(index.len().unwrap(), 4);
    let image = mm_image::decode(&fs::read(photos.join("a.png")).unwrap(), [255; 3]).unwrap();
    let query = to_vectors(&model.embed(&[image]).unwrap()).unwrap();
    let hit = index.search(&query, &request(1, None)).unwrap()[0][0];
    assert!(index.item(hit.id).unwrap().key.ends_with("a.png"));
    let thumbnail = mm_image::decode(&index.thumbnail(hit.id).unwrap().unwrap(), [255; 3]).unwrap();
    assert_eq!(thumbnail.dimensions(), (16, 12));
}

#[test]
fn a_batch_replaces_items_of_the_same_keys_and_the_last_of_equal_keys_counts() {
    let Some(table) = Table::new(RowType::F32) else { return };
    let rows = unit_rows(3, 6);
    table.fill(&rows, 0..3);
    let mut writer = table.writer("set");
    let before = writer.known().unwrap();
    assert_eq!(before.len(), 3);
    writer.add(item(0), &rows[3]).unwrap();
    writer.add(item(0), &rows[4]).unwrap();
    let mut odd = item(1);
    odd.metadata = serde_json::json!({ "caption": "a\0b", "list": ["\0"] });
    odd.stamp = Stamp { file: Some((7, 8)), ..odd.stamp };
    writer.add(odd, &rows[1]).unwrap();
    assert_eq!(writer.pending(), 3);
    writer.commit().unwrap();
    let after = writer.known().unwrap();
    let ids = |known: &std::collections::HashMap<_, (u64, Stamp)>| -> BTreeSet<u64> {
        known.values().map(|(id, _)| *id).collect()
    };
    assert_eq!(ids(&before), ids(&after), "a changed item keeps its id");
    let touched = after.values().find(|(_, stamp)| stamp.file == Some((7, 8))).unwrap();
    let stamp = Stamp { file: Some((9, 10)), digest: touched.1.digest.clone() };
    writer.touch(touched.0, stamp.clone());
    writer.commit().unwrap();
    assert!(writer.known().unwrap().values().any(|(id, found)| *id == touched.0 && *found == stamp));

    let index = table.index();
    let hits = index.search(&[rows[4].clone()], &request(1, None)).unwrap();
    assert_eq!((keys(&*index, &hits[0]), index.len().unwrap()), (vec!["0".to_owned()], 3));
    let replaced = serde_json::json!({ "caption": "a\u{fffd}b", "list": ["\u{fffd}"] });
    assert_eq!(index.item(touched.0).unwrap().metadata, replaced);
    let mut other_set = table.writer("other");
    assert!(other_set.known().unwrap().is_empty());
    other_set.add(item(0), &rows[5]).unwrap();
    other_set.commit().unwrap();
    assert_eq!(index.len().unwrap(), 4);
    other_set.delete(&ids(&after).into_iter().collect::<Vec<_>>()).unwrap();
    assert_eq!(index.len().unwrap(), 1);
    assert!(writer.add(item(1), &[1.0]).unwrap_err().to_string().contains("1 numbers, not"));
    let mut odd = item(2);
    odd.key = "a\0b".to_owned();
    assert!(writer.add(odd, &rows[0]).unwrap_err().to_string().contains("NUL"));
}

#[test]
fn a_killed_writer_loses_what_it_did_not_commit_and_nothing_else() {
    let Some(table) = Table::new(RowType::F32) else { return };
    let rows = unit_rows(7, 20);
    table.fill(&rows, 0..10);
    let mut writer = table.writer("set");
    (10..20).for_each(|at| writer.add(item(at), &rows[at]).unwrap());
    // The writer has copied its batch and waits for this lock when it is killed.
    let mut other = table.server.client(&table.database);
    let mut transaction = other.transaction().unwrap();
    transaction.batch_execute("LOCK TABLE items IN SHARE MODE").unwrap();
    let message = std::thread::scope(|scope| {
        let killed = scope.spawn(|| writer.commit().unwrap_err().to_string());
        let mut client = table.server.client(&table.database);
        let waiting = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE NOT granted AND relation = \
                       'items'::regclass";
        while client.query(waiting, &[]).unwrap().is_empty() {}
        killed.join().unwrap()
    });
    assert!(message.contains("terminating connection"), "{message}");
    transaction.commit().unwrap();
    assert_eq!(table.index().len().unwrap(), 10);
    assert!(writer.commit().is_err(), "the batch is not lost without a word");
    let mut next = table.writer("set");
    assert_eq!(next.known().unwrap().len(), 10);
    (10..20).for_each(|at| next.add(item(at), &rows[at]).unwrap());
    next.commit().unwrap();
    assert_eq!(table.index().len().unwrap(), 20);
}

#[test]
fn several_writers_fill_one_table_at_once() {
    let Some(table) = Table::new(RowType::F32) else { return };
    let rows = unit_rows(8, 300);
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let (table, rows) = (&table, &rows);
            scope.spawn(move || {
                let mut open = table.writer("set");
                // Each batch has keys of the others', in another order.
                for part in 0..10 {
                    for step in 0..30 {
                        let at = part * 30 + if writer % 2 == 0 { step } else { 29 - step };
                        open.add(item(at), &rows[at]).unwrap();
                    }
                    open.commit().unwrap();
                }
            });
        }
    });
    let index = table.index();
    assert_eq!(index.len().unwrap(), 300);
    for (at, hits) in index.search(&rows, &request(1, None)).unwrap().iter().enumerate() {
        assert_eq!(keys(&*index, hits), [at.to_string()]);
    }
}
