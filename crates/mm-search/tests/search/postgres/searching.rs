//! What is found, and exported, is what a folder of the same items gives.

use super::{Table, keys, request};
use crate::common::{DIM, item, nearest, unit_rows};
use mm_search::{Filter, GraphConfig, Index, IndexLocation, ItemWriter, RowType, SearchIndex, SearchRequest};
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

const ROWS: usize = 900;

#[test]
fn a_table_finds_the_nearest_rows_and_keeps_what_belongs_to_an_item() {
    let Some(table) = Table::new(RowType::F32) else { return };
    assert!(table.location().open().err().unwrap().to_string().contains("there is no index"));
    let (rows, queries) = (unit_rows(1, ROWS), unit_rows(2, 20));
    table.fill(&rows, 0..ROWS);
    let index = table.index();
    let found = index.search(&queries, &request(7, None)).unwrap();
    for (query, hits) in queries.iter().zip(&found) {
        let expected: Vec<String> = nearest(&rows, query, 7, |_| true).iter().map(usize::to_string).collect();
        assert_eq!(keys(&*index, hits), expected);
        let at: usize = expected[0].parse().unwrap();
        let score: f32 = rows[at].iter().zip(query).map(|(a, b)| a * b).sum();
        assert!((hits[0].score - score).abs() < 1e-5);
    }
    let hit = found[0][0];
    let kept = index.item(hit.id).unwrap();
    let at: usize = kept.key.parse().unwrap();
    assert_eq!((kept.set.as_str(), &kept.metadata), ("set", &item(at).metadata));
    assert_eq!(index.thumbnail(hit.id).unwrap(), item(at).thumbnail);
    assert_eq!(index.row(hit.id).unwrap().as_ref(), Some(&rows[at]));
    assert_eq!(index.len().unwrap(), ROWS);
    let sample = index.sample(9).unwrap();
    assert!(sample.len() == 9 && sample.iter().all(|row| rows.contains(row)));
    for id in [u64::MAX, 1 << 40] {
        assert!(index.item(id).unwrap_err().to_string().contains("has no item"));
        assert_eq!((index.row(id).unwrap(), index.thumbnail(id).unwrap()), (None, None));
    }
    assert!(index.search(&[vec![1.0]], &request(1, None)).unwrap_err().to_string().contains("1 numbers"));
}

#[test]
fn a_filter_leaves_the_items_that_it_leaves_in_a_folder() {
    let Some(table) = Table::new(RowType::F32) else { return };
    let rows = unit_rows(4, ROWS);
    table.fill(&rows, 0..ROWS);
    let mut odd = item(ROWS);
    odd.key = "photos/É.jpg".to_owned();
    odd.metadata = serde_json::json!({
        "number": "12", "label": 7, "captions": ["A Dog", "é"], "empty": null, "flag": true,
    });
    let mut writers: [Box<dyn ItemWriter>; 2] = [table.writer("set"), Box::new(table.folder.writer("set"))];
    for writer in &mut writers {
        writer.add(odd.clone(), &rows[0]).unwrap();
        writer.commit().unwrap();
    }
    table.build_graph();
    let (index, folder) = (table.index(), Index::open(&table.folder.index()).unwrap());
    let filters = [
        "label = 'cat'",
        "label != 'cat'",
        "label = 7 or number = '12'",
        "not label < 8",
        "caption ~ 'A CAT OF 8'",
        "captions ~ 'a dog'",
        "number >= 850 and not label = 'cat'",
        "number < 10 or number > 890.5",
        "number < 'B'",
        "caption >= 'A dog'",
        "key = '17' or key ~ 'PHOTOS/'",
        "key > '5' and key <= '61'",
        "set = 'set' and missing = 1",
        "empty = 'null' or empty ~ ''",
        "not missing > 'a' and label < 5",
        "key = \"' OR 1=1; --\"",
    ];
    for filter in filters {
        let parsed = Filter::parse(filter).unwrap();
        let expected: BTreeSet<String> =
            folder.matching(&parsed).unwrap().iter().map(|id| folder.item(id).unwrap().key).collect();
        for candidates in [None, Some(128)] {
            let request = SearchRequest { k: ROWS + 1, filter: Some(&parsed), candidates };
            let hits = index.search(&rows[..1], &request).unwrap();
            assert_eq!(BTreeSet::from_iter(keys(&*index, &hits[0])), expected, "{filter}");
        }
        let request = SearchRequest { k: 5, filter: Some(&parsed), candidates: None };
        let both: [&dyn SearchIndex; 2] = [&*index, &folder];
        let [found, expected] =
            both.map(|index| keys(index, &index.search(&rows[7..8], &request).unwrap()[0]));
        assert_eq!(found, expected, "{filter}");
    }
}

#[test]
fn the_graph_finds_most_of_what_exact_search_finds_and_later_rows_too() {
    for rows_type in [RowType::F32, RowType::F16] {
        let Some(table) = Table::new(rows_type) else { return };
        let (rows, queries) = (unit_rows(5, ROWS), unit_rows(6, 30));
        table.fill(&rows, 0..600);
        assert!(table.index().recall(&queries, 10, &[64]).unwrap_err().to_string().contains("no graph"));
        table.build_graph();
        table.fill(&rows, 600..ROWS);
        let index = table.index();
        assert_eq!(index.graph_len().unwrap(), Some(ROWS));
        let report = index.recall(&queries, 10, &[64, 300]).unwrap();
        assert!(report.graph[1].recall > 0.98, "{rows_type:?}: {report:?}");
        for (at, hits) in (590..610).zip(index.search(&rows[590..610], &request(1, Some(64))).unwrap()) {
            assert_eq!(keys(&*index, &hits[0..1]), [at.to_string()]);
            assert!((hits[0].score - 1.0).abs() < 2e-3);
        }
        assert_eq!(index.search(&rows[..1], &request(ROWS + 5, Some(64))).unwrap()[0].len(), ROWS);
        let refused = index.search(&queries, &request(5, Some(1001))).unwrap_err().to_string();
        assert!(refused.contains("at most 1000 candidates"), "{refused}");

        let mut client = table.server.client(&table.database);
        let mut graph = || {
            client
                .query_one(
                    "SELECT oid::bigint, reloptions::text FROM pg_class WHERE relname = 'items_graph'",
                    &[],
                )
                .map(|row| (row.get::<_, i64>(0), row.get::<_, String>(1)))
                .unwrap()
        };
        let before = graph();
        table.build_graph();
        assert_eq!(graph(), before, "the server keeps it up to date");
        let other = GraphConfig { connectivity: 8, expansion: 40 };
        table.location().build_graph(other, &|_, _| {}).unwrap();
        assert_eq!(graph().1, "{m=8,ef_construction=40}");
        let wrong = GraphConfig { connectivity: 200, expansion: 40 };
        assert!(table.location().build_graph(wrong, &|_, _| {}).unwrap_err().to_string().contains("200"));
        // A poor graph misses rows, so that searches do go through it.
        let poor = GraphConfig { connectivity: 2, expansion: 4 };
        table.location().build_graph(poor, &|_, _| {}).unwrap();
        let report = index.recall(&queries, 10, &[10]).unwrap();
        assert!(report.graph[0].recall < 0.98, "{report:?}");
    }
}

#[test]
fn duplicates_diverse_results_and_exports_are_those_of_a_folder() {
    let Some(table) = Table::new(RowType::F32) else { return };
    let mut rows = unit_rows(11, 600);
    for (of, copies) in [(0, 40..45), (1, 550..552)] {
        for (step, copy) in copies.enumerate() {
            rows[copy] = rows[of].clone();
            rows[copy][3] += 1e-3 * (step + 1) as f32;
        }
    }
    table.fill(&rows, 0..600);
    table.build_graph();
    let (index, folder) = (table.index(), Index::open(&table.folder.index()).unwrap());
    let both: [&dyn SearchIndex; 2] = [&*index, &folder];
    for candidates in [None, Some(64)] {
        let [found, expected] = both.map(|index| {
            let groups = index.near_duplicates(0.99, candidates, &|_, _| {}).unwrap();
            let key = |&id: &u64| index.item(id).unwrap().key;
            groups.iter().map(|group| group.iter().map(key).collect()).collect::<Vec<Vec<_>>>()
        });
        assert_eq!((found.len(), &found), (2, &expected));
    }
    assert!(index.near_duplicates(2.0, None, &|_, _| {}).is_err());
    for diversity in [0.0, 0.6] {
        let [found, expected] = both
            .map(|index| keys(index, &index.search_diverse(&rows[0], &request(4, None), diversity).unwrap()));
        assert_eq!(found, expected);
    }
    assert!(index.search_diverse(&rows[0], &request(4, None), 1.5).is_err());

    // The ids, and so the order, are those of each index.
    let [npy, folder_npy] = both.map(|index| {
        let file = table.folder.path().join("rows.npy");
        index.export_npy(&file).unwrap();
        let bytes = fs::read(&file).unwrap();
        let keys = fs::read_to_string(file.with_extension("keys.txt")).unwrap();
        let (header, numbers) = bytes.split_at(bytes.len() - 600 * DIM * 4);
        let rows = numbers.chunks(DIM * 4).map(<[u8]>::to_vec);
        (header.to_vec(), keys.lines().map(str::to_owned).zip(rows).collect::<BTreeSet<_>>())
    });
    assert!(npy == folder_npy && npy.1.len() == 600);
    let [parquet, folder_parquet] = both.map(|index| {
        let file = table.folder.path().join("rows.parquet");
        index.export_parquet(&file).unwrap();
        parquet_rows(file)
    });
    assert!(parquet == folder_parquet && parquet.len() == 600);
}

/// The rows of a Parquet file without their first column, the ids.
fn parquet_rows(file: PathBuf) -> BTreeSet<String> {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    let reader = SerializedFileReader::new(std::fs::File::open(file).unwrap()).unwrap();
    let rows = reader.get_row_iter(None).unwrap();
    rows.map(|row| {
        let row = row.unwrap();
        row.get_column_iter().skip(1).map(|(name, value)| format!("{name}: {value}")).collect::<String>()
    })
    .collect()
}
