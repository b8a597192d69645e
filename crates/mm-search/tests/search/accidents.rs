//! Indexes of other models, damaged files, killed and concurrent writers.

use crate::common::{DIM, Place, description, item, unit_rows};
use mm_search::{GraphConfig, Index, IndexWriter, ItemWriter, RowType};
use std::fs::{self, OpenOptions};
use std::path::Path;

fn refused(folder: &Path) -> String {
    Index::open(folder).err().expect("a damaged index is refused").to_string()
}

#[test]
fn embeddings_of_two_models_or_two_types_do_not_share_an_index() {
    let place = Place::new(RowType::F32);
    place.fill(&unit_rows(1, 3), 0..3);
    let open = |name: &str, dim, rows| {
        let description = description(place.path(), name, dim, rows);
        IndexWriter::open(&place.index(), &description, "set").map(drop).map_err(|error| error.to_string())
    };
    open("model", DIM, RowType::F32).unwrap();
    assert!(open("other", DIM, RowType::F32).unwrap_err().contains("another model"));
    assert!(open("model", DIM + 1, RowType::F32).unwrap_err().contains("another model"));
    assert!(open("model", DIM, RowType::F16).unwrap_err().contains("rows are F32"));
}

#[test]
fn rows_that_were_not_committed_are_gone_and_their_place_is_taken() {
    let place = Place::new(RowType::F32);
    let rows = unit_rows(2, 6);
    place.fill(&rows, 0..3);
    // A process killed between its rows and its transaction.
    let segment = fs::read_dir(place.index().join("rows")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = fs::read(&segment).unwrap();
    bytes.extend(vec![7; 100]);
    fs::write(&segment, bytes).unwrap();
    assert_eq!(Index::open(&place.index()).unwrap().len(), 3);
    place.fill(&rows, 3..6);
    let index = Index::open(&place.index()).unwrap();
    let found: Vec<_> = index.ids().into_iter().filter_map(|id| index.row(id)).collect();
    assert_eq!(found, rows);
}

#[test]
fn damaged_and_foreign_files_are_refused_with_words() {
    let place = Place::new(RowType::F32);
    assert!(refused(&place.index()).contains("it is no index"));
    place.fill(&unit_rows(3, 50), 0..50);
    Index::build_graph(&place.index(), GraphConfig::default(), &|_, _| {}).unwrap();
    let damaged = |name: &str, damage: &dyn Fn(&Path)| {
        let file = match name {
            "rows" => fs::read_dir(place.index().join("rows")).unwrap().next().unwrap().unwrap().path(),
            name => place.index().join(name),
        };
        let whole = fs::read(&file).unwrap();
        damage(&file);
        let message = refused(&place.index());
        fs::write(&file, whole).unwrap();
        Index::open(&place.index()).unwrap();
        message
    };
    let cut = |file: &Path| {
        let length = file.metadata().unwrap().len();
        OpenOptions::new().write(true).open(file).unwrap().set_len(length / 2).unwrap();
    };
    assert!(damaged("rows", &cut).contains("is cut off"));
    assert!(damaged("graph-1.usearch", &cut).contains("remove graph.json and index again"));
    assert!(damaged("graph-1.usearch", &|file| fs::remove_file(file).unwrap()).contains("missing"));
    assert!(damaged("graph.json", &|file| fs::write(file, "{}").unwrap()).contains("graph.json"));
    assert!(
        damaged("items.sqlite", &|file| fs::write(file, "no database".repeat(500)).unwrap())
            .contains("items.sqlite")
    );
    let foreign = |file: &Path| {
        fs::remove_file(file).unwrap();
        let other = rusqlite::Connection::open(file).unwrap();
        other.execute_batch("CREATE TABLE items (id INTEGER)").unwrap();
    };
    assert!(damaged("items.sqlite", &foreign).contains("of another program"));
    let newer = |file: &Path| {
        let text = fs::read_to_string(file).unwrap().replace("\"format\": 1", "\"format\": 2");
        fs::write(file, text).unwrap();
    };
    assert!(damaged("index.json", &newer).contains("its format is 2"));
    fs::create_dir(place.path().join("full")).unwrap();
    fs::write(place.path().join("full/photo.jpg"), "").unwrap();
    let full = IndexWriter::open(&place.path().join("full"), &place.description, "set");
    assert!(full.err().unwrap().to_string().contains("has files but no index.json"));
}

#[test]
fn several_writers_fill_one_index_each_in_a_segment_of_its_own() {
    let place = Place::new(RowType::F16);
    let rows = unit_rows(4, 400);
    drop(place.writer("set"));
    std::thread::scope(|scope| {
        for part in 0..4 {
            let (place, rows) = (&place, &rows);
            scope.spawn(move || {
                let mut writer = place.writer("set");
                for (at, row) in rows.iter().enumerate().skip(part * 100).take(100) {
                    writer.add(item(at), row).unwrap();
                    if at % 10 == 9 {
                        writer.commit().unwrap();
                    }
                }
            });
        }
    });
    let index = Index::open(&place.index()).unwrap();
    assert_eq!(index.len(), 400);
    for id in index.ids() {
        let at: usize = index.item(id).unwrap().key.parse().unwrap();
        let row = index.row(id).unwrap();
        assert!(row.iter().zip(&rows[at]).all(|(a, b)| (a - b).abs() < 1e-3), "{at}");
    }
    place.fill(&rows, 0..1);
    let segments = fs::read_dir(place.index().join("rows")).unwrap().count();
    assert!(segments <= 4, "{segments} segments: free ones are used again");
}
