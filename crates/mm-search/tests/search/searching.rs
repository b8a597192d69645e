//! Exact search, the graph, filters, and queries of several parts.

use crate::common::{Place, item, nearest, unit_rows};
use mm_search::{Filter, GraphConfig, IdSet, Index, ItemWriter, RowType, SearchOptions};

const ROWS: usize = 900;

fn exact(k: usize) -> SearchOptions {
    SearchOptions { k, among: None, candidates: None }
}

/// The keys of the hits of each query.
fn keys(index: &Index, queries: &[Vec<f32>], options: &SearchOptions) -> Vec<Vec<usize>> {
    let key = |id| index.item(id).unwrap().key.parse().unwrap();
    let found = index.search(queries, options).unwrap();
    found.iter().map(|hits| hits.iter().map(|hit| key(hit.id)).collect()).collect()
}

#[test]
fn exact_search_finds_the_nearest_rows_whether_one_query_or_many() {
    let (rows, queries) = (unit_rows(1, ROWS), unit_rows(2, 40));
    let place = Place::new(RowType::F32);
    place.fill(&rows, 0..ROWS);
    let index = Index::open(&place.index()).unwrap();
    let expected: Vec<_> = queries.iter().map(|query| nearest(&rows, query, 7, |_| true)).collect();
    assert_eq!(keys(&index, &queries, &exact(7)), expected);
    let together = index.search(&queries, &exact(7)).unwrap();
    for (query, together) in queries.iter().zip(together) {
        assert_eq!(index.search(std::slice::from_ref(query), &exact(7)).unwrap()[0], together);
    }
    assert_eq!(index.search(&queries[..1], &exact(ROWS + 5)).unwrap()[0].len(), ROWS);
    assert!(index.search(&[vec![1.0]], &exact(1)).unwrap_err().to_string().contains("1 numbers"));
}

#[test]
fn narrower_rows_score_within_their_rounding() {
    let (rows, queries) = (unit_rows(3, ROWS), unit_rows(4, 20));
    for (row_type, tolerance) in [(RowType::F16, 1e-3), (RowType::Int8, 1e-2)] {
        let place = Place::new(row_type);
        place.fill(&rows, 0..ROWS);
        let index = Index::open(&place.index()).unwrap();
        for (query, hits) in queries.iter().zip(index.search(&queries, &exact(5)).unwrap()) {
            let best = nearest(&rows, query, 5, |_| true);
            for (hit, at) in hits.iter().zip(best) {
                let score: f32 = rows[at].iter().zip(query).map(|(a, b)| a * b).sum();
                assert!((hit.score - score).abs() < tolerance, "{row_type:?}: {} for {score}", hit.score);
            }
        }
    }
}

#[test]
fn the_graph_finds_most_of_what_exact_search_finds_and_later_rows_too() {
    let (rows, queries) = (unit_rows(5, ROWS), unit_rows(6, 30));
    let place = Place::new(RowType::F32);
    place.fill(&rows, 0..600);
    let build = || Index::build_graph(&place.index(), GraphConfig::default(), &|_, _| {}).unwrap();
    build();
    place.fill(&rows, 600..ROWS); // not in the graph
    let index = Index::open(&place.index()).unwrap();
    assert_eq!((index.len(), index.graph_len(), index.has_changed().unwrap()), (ROWS, Some(600), false));
    let recall = |index: &Index| index.recall(&queries, 10, &[64, 300]).unwrap();
    assert!(recall(&index).graph[1].recall > 0.98, "{:?}", recall(&index));
    // A query that is a row finds it, with its exact score, wherever the row is.
    let approximate = SearchOptions { k: 1, ..SearchOptions::default() };
    let own = index.search(&rows[590..610], &approximate).unwrap();
    for (at, hits) in (590..610).zip(own) {
        assert_eq!(index.item(hits[0].id).unwrap().key, at.to_string());
        assert!((hits[0].score - 1.0).abs() < 1e-5);
    }
    build();
    assert!(index.has_changed().unwrap());
    let index = Index::open(&place.index()).unwrap();
    assert_eq!(index.graph_len(), Some(ROWS));
    assert!(recall(&index).graph[1].recall > 0.98);
    let graphs = std::fs::read_dir(place.index()).unwrap();
    let graphs =
        graphs.filter(|file| file.as_ref().unwrap().file_name().to_string_lossy().contains("usearch"));
    assert_eq!(graphs.count(), 1, "the old graph is removed");
}

#[test]
fn deleted_and_replaced_items_are_not_found_with_the_graph_or_without() {
    let (rows, others) = (unit_rows(7, 300), unit_rows(8, 300));
    let place = Place::new(RowType::F32);
    place.fill(&rows, 0..300);
    Index::build_graph(&place.index(), GraphConfig::default(), &|_, _| {}).unwrap();
    let gone: Vec<u64> = Index::open(&place.index()).unwrap().ids()[100..150].to_vec();
    place.writer("set").delete(&gone).unwrap();
    place.fill(&others, 0..50); // the same keys: in place of the first fifty
    for is_rebuilt in [false, true] {
        if is_rebuilt {
            Index::build_graph(&place.index(), GraphConfig::default(), &|_, _| {}).unwrap();
        }
        let index = Index::open(&place.index()).unwrap();
        assert_eq!(index.len(), 250);
        let current: Vec<Vec<f32>> = others[..50].iter().chain(&rows[50..]).cloned().collect();
        for options in [exact(3), SearchOptions { k: 3, among: None, candidates: Some(250) }] {
            for at in [0, 49, 50, 99, 100, 149, 150, 299] {
                let found = keys(&index, &[rows[at].clone()], &options);
                let expected = nearest(&current, &rows[at], 3, |row| !(100..150).contains(&row));
                assert_eq!(found[0], expected, "row {at}, {options:?}");
            }
        }
        assert!(index.item(gone[0]).unwrap_err().to_string().contains("no item"));
        assert_eq!((index.row(gone[0]), index.thumbnail(gone[0]).unwrap()), (None, None));
    }
}

#[test]
fn a_filter_leaves_the_items_that_fulfil_it() {
    let (rows, queries) = (unit_rows(9, ROWS), unit_rows(10, 9));
    let place = Place::new(RowType::F32);
    place.fill(&rows, 0..ROWS);
    Index::build_graph(&place.index(), GraphConfig::default(), &|_, _| {}).unwrap();
    let index = Index::open(&place.index()).unwrap();
    let matching = |filter: &str| index.matching(&Filter::parse(filter).unwrap()).unwrap();
    let is_cat = |at: usize| at.is_multiple_of(3);
    let cases: [(&str, &dyn Fn(usize) -> bool); 8] = [
        ("label = 'cat'", &is_cat),
        ("label != 'cat'", &|at| !is_cat(at)),
        ("caption ~ 'A CAT OF 8'", &|at| is_cat(at) && at.to_string().starts_with('8')),
        ("number >= 850 and not label = 'cat'", &|at| at >= 850 && !is_cat(at)),
        ("number < 10 or number > 890.5", &|at| !(10..=890).contains(&at)),
        ("key = '17' or number = 18", &|at| at == 17 || at == 18),
        ("set = 'set' and missing = 1", &|_| false),
        ("not missing > 'a' and label < 5", &|_| false), // a text is not less than a number
    ];
    for (filter, is_wanted) in cases {
        let among = matching(filter);
        assert_eq!(among.len(), (0..ROWS).filter(|&at| is_wanted(at)).count(), "{filter}");
        for candidates in [None, Some(ROWS)] {
            let options = SearchOptions { k: 5, among: Some(among.clone()), candidates };
            let expected: Vec<_> = queries.iter().map(|query| nearest(&rows, query, 5, is_wanted)).collect();
            assert_eq!(keys(&index, &queries, &options), expected, "{filter}");
        }
    }
    assert_eq!(
        index.search(&queries, &SearchOptions { among: Some(IdSet::default()), ..exact(3) }).unwrap(),
        vec![vec![]; 9]
    );
}

#[test]
fn similar_items_diverse_results_and_near_duplicates() {
    let mut rows = unit_rows(11, 60);
    // 40 to 44 are nearly 0; 50 and 51 are nearly 1.
    for (of, copies) in [(0, 40..45), (1, 50..52)] {
        for (step, copy) in copies.enumerate() {
            rows[copy] = rows[of].clone();
            rows[copy][3] += 1e-3 * (step + 1) as f32;
        }
    }
    let place = Place::new(RowType::F32);
    place.fill(&rows, 0..60);
    let index = Index::open(&place.index()).unwrap();
    let key = |id| index.item(id).unwrap().key.parse::<usize>().unwrap();
    let id = |at: usize| index.ids()[at];
    let similar = index.similar(id(0), &exact(5)).unwrap();
    assert_eq!(similar.iter().map(|hit| key(hit.id)).collect::<Vec<_>>(), [40, 41, 42, 43, 44]);
    let groups = index.near_duplicates(0.99, None, &|_, _| {}).unwrap();
    let groups: Vec<Vec<usize>> =
        groups.iter().map(|group| group.iter().map(|&id| key(id)).collect()).collect();
    assert_eq!(groups, [vec![0, 40, 41, 42, 43, 44], vec![1, 50, 51]]);
    let diverse = |diversity| {
        let hits = index.search_diverse(&rows[0], &exact(4), diversity).unwrap();
        hits.iter().map(|hit| key(hit.id)).collect::<Vec<_>>()
    };
    assert_eq!(diverse(0.0), [0, 40, 41, 42]);
    let found = diverse(0.6);
    assert!(found[0] == 0 && found[1..].iter().all(|at| !(40..45).contains(at)), "{found:?}");
    assert!(index.search_diverse(&rows[0], &exact(4), 1.5).is_err());
    assert!(index.near_duplicates(2.0, None, &|_, _| {}).is_err());
}

#[test]
fn items_keep_their_metadata_and_thumbnails() {
    let place = Place::new(RowType::Int8);
    place.fill(&unit_rows(12, 4), 0..4);
    let index = Index::open(&place.index()).unwrap();
    let id = index.ids()[2];
    let found = index.item(id).unwrap();
    assert_eq!((found.key.as_str(), found.set.as_str(), &found.metadata), ("2", "set", &item(2).metadata));
    assert_eq!(index.thumbnail(id).unwrap(), item(2).thumbnail);
    assert_eq!(index.sets().unwrap(), [("set".to_owned(), 4)]);
}
