//! Search in an index.

use crate::common::{TestServer, assert_close, config, decode, golden, models, numbers, photo, start, url};
use mm_clip::ClipPipeline;
use mm_core::OpenOptions;
use mm_search::{Index, IndexDescription, IndexWriter, ItemWriter, NewItem, RowType, Stamp, to_vectors};
use mm_serve::Server;
use serde_json::{Value, json};
use std::path::Path;

const PHOTOS: [&str; 4] = ["chelsea", "coffee", "rocket", "astronaut"];

/// Indexes the photos with the model of `from`.
fn write_index(folder: &Path, from: &str) {
    let pipeline = ClipPipeline::open(&golden("rlhf/clip"), &OpenOptions::default()).unwrap();
    let images = PHOTOS.map(|name| decode(&photo(name)));
    let rows = to_vectors(&pipeline.image.embed(&images).unwrap()).unwrap();
    let description = IndexDescription::new(&golden(from), rows[0].len(), RowType::default()).unwrap();
    let mut writer = IndexWriter::open(folder, &description, "photos").unwrap();
    for (name, row) in PHOTOS.iter().zip(&rows) {
        let (key, stamp) = (format!("{name}.png"), Stamp::new(None, name.as_bytes()));
        let metadata = json!({ "label": name, "width": if *name == "chelsea" { 100 } else { 200 } });
        let thumbnail = (*name != "rocket").then(|| name.as_bytes().to_vec());
        writer.add(NewItem { key, stamp, metadata, thumbnail }, row).unwrap();
    }
    writer.commit().unwrap();
}

fn with_index(folder: &Path) -> String {
    let index = format!("[indexes.photos]\npath = {folder:?}\nmodel = \"clip\"\n");
    index + &models("results = 50\n")
}

fn started(folder: &Path) -> TestServer {
    write_index(folder, "rlhf/clip");
    start(&with_index(folder))
}

fn keys(answer: &Value) -> Vec<&str> {
    answer["results"].as_array().unwrap().iter().map(|result| result["key"].as_str().unwrap()).collect()
}

#[test]
fn images_texts_and_items_find_the_items_of_the_index() {
    let folder = tempfile::tempdir().unwrap();
    let server = started(folder.path());
    let indexes = server.get("/v1/indexes").json();
    assert_eq!(indexes["data"][0]["id"], "photos");
    assert_eq!((&indexes["data"][0]["model"], &indexes["data"][0]["rows"]), (&json!("clip"), &json!(4)));

    let search =
        |queries: Value| server.json("/v1/search", &json!({ "index": "photos", "queries": queries, "k": 3 }));
    let answer = search(json!([{ "image": url("rocket") }]));
    assert_eq!((keys(&answer).len(), keys(&answer)[0]), (3, "rocket.png"));
    assert_eq!((&answer["total"], &answer["results"][0]["metadata"]["label"]), (&json!(4), &json!("rocket")));
    assert_close(&[answer["results"][0]["score"].as_f64().unwrap() as f32], &[1.0]);
    let id = answer["results"][0]["id"].clone();
    assert_eq!(keys(&search(json!([{ "id": id }]))), keys(&answer));
    let away = search(json!([{ "image": url("rocket"), "weight": -1.0 }]));
    assert!(!keys(&away).contains(&"rocket.png"), "{away}");

    let pipeline = ClipPipeline::open(&golden("rlhf/clip"), &OpenOptions::default()).unwrap();
    let text = pipeline.text.embed(&["a red circle"], 1).unwrap();
    let image = pipeline.image.embed(&[decode(&photo("chelsea"))]).unwrap();
    let cosine = (text * image).sum(tch::Kind::Float).double_value(&[]) as f32;
    let found = search(json!([{ "text": "a red circle" }]));
    let found = found["results"].as_array().unwrap();
    if let Some(cat) = found.iter().find(|result| result["key"] == "chelsea.png") {
        assert_close(&numbers(&json!([cat["score"]])), &[cosine]);
    }
}

#[test]
fn pages_filters_and_diversity_choose_among_the_results() {
    let folder = tempfile::tempdir().unwrap();
    let server = started(folder.path());
    let search = |more: Value| {
        let mut body = json!({ "index": "photos", "queries": [{ "text": "a cat" }], "k": 4 });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        server.json("/v1/search", &body)
    };
    let all = search(json!({}));
    let page = |offset| search(json!({ "k": 2, "offset": offset }));
    assert_eq!([keys(&page(0)), keys(&page(2))].concat(), keys(&all));
    assert_eq!(keys(&page(4)), [""; 0]);
    let filtered = search(json!({ "filter": "width >= 200" }));
    assert_eq!((&filtered["total"], keys(&filtered).len()), (&json!(3), 3));
    assert!(!keys(&filtered).contains(&"chelsea.png"));
    let mut diverse =
        keys(&search(json!({ "diverse": 0.5 }))).iter().map(|key| (*key).to_owned()).collect::<Vec<_>>();
    let mut expected: Vec<String> = keys(&all).iter().map(|key| (*key).to_owned()).collect();
    assert_eq!(diverse[0], expected[0]);
    diverse.sort();
    expected.sort();
    assert_eq!(diverse, expected);
}

#[test]
fn an_item_has_its_thumbnail_and_its_neighbours() {
    let folder = tempfile::tempdir().unwrap();
    let server = started(folder.path());
    let all = server.json("/v1/search", &json!({ "index": "photos", "queries": [{ "text": "a" }] }));
    let id = |name: &str| {
        let key = format!("{name}.png");
        all["results"].as_array().unwrap().iter().find(|result| result["key"] == *key).unwrap()["id"].clone()
    };
    let path = |name: &str, of: &str| format!("/v1/indexes/photos/items/{}/{of}", id(name));
    let thumbnail = server.get(&path("coffee", "image"));
    assert_eq!((thumbnail.status, thumbnail.header("content-type")), (200, Some("image/jpeg")));
    assert_eq!(thumbnail.body, b"coffee");
    assert_eq!(server.get(&path("rocket", "image")).status, 404);
    let similar = server.get(&path("rocket", "similar?k=2")).json();
    assert_eq!(keys(&similar).len(), 2);
    assert!(!keys(&similar).contains(&"rocket.png"));
}

#[test]
fn what_cannot_be_searched_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let server = started(folder.path());
    let refused = |more: Value, status: u16, param: &str| {
        let mut body = json!({ "index": "photos", "queries": [{ "text": "a cat" }] });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = server.post("/v1/search", &body);
        assert_eq!(
            (answer.status, answer.json()["error"]["param"].as_str()),
            (status, Some(param)),
            "{answer:?}"
        );
    };
    refused(json!({ "index": "none" }), 404, "index");
    refused(json!({ "queries": [] }), 400, "queries");
    refused(json!({ "queries": [{}] }), 400, "queries[0]");
    refused(json!({ "queries": [{ "text": "a", "id": 1 }] }), 400, "queries[0]");
    refused(json!({ "queries": [{ "id": 12345 }] }), 404, "queries[0]");
    refused(json!({ "queries": [{ "text": "a" }, { "text": "a", "weight": -1 }] }), 400, "queries");
    refused(json!({ "filter": "width >" }), 400, "filter");
    refused(json!({ "k": 0 }), 400, "k");
    refused(json!({ "k": 50, "offset": 1 }), 400, "offset");
    refused(json!({ "diverse": 2 }), 400, "diverse");
    for (path, status) in [
        ("/v1/indexes/none/items/1/image", 404),
        ("/v1/indexes/photos/items/1/image", 404),
        ("/v1/indexes/photos/items/x/image", 400),
        ("/v1/indexes/photos/items/%ff/image", 400),
        ("/v1/indexes/photos/items/1/similar", 404),
    ] {
        let answer = server.get(path);
        assert_eq!(answer.status, status, "{path}");
        assert!(answer.json()["error"]["message"].is_string(), "{path}");
    }
}

#[test]
fn an_index_of_another_model_ends_the_server_and_is_named() {
    let folder = tempfile::tempdir().unwrap();
    write_index(folder.path(), "caption/blip");
    let config = config(&with_index(folder.path())).unwrap();
    let server = Server::bind(&config, ([127, 0, 0, 1], 0).into(), None).unwrap();
    let error = server.run(|| panic!("it is ready")).unwrap_err().to_string();
    assert!(error.starts_with("cannot open [indexes.photos]: "), "{error}");
    assert!(error.contains("another model"), "{error}");
}

#[test]
fn an_index_that_changes_is_searched_as_it_is_now() {
    let folder = tempfile::tempdir().unwrap();
    let server = started(folder.path());
    let search = || {
        let queries = json!([{ "image": url("chelsea") }]);
        server.json("/v1/search", &json!({ "index": "photos", "queries": queries }))
    };
    assert_eq!((keys(&search())[0], &search()["total"]), ("chelsea.png", &json!(4)));
    let index = Index::open(folder.path()).unwrap();
    let cat = index.ids().into_iter().find(|&id| index.item(id).unwrap().key == "chelsea.png").unwrap();
    let mut writer = IndexWriter::open(folder.path(), index.description(), "photos").unwrap();
    writer.delete(&[cat]).unwrap();
    let found = search();
    assert_eq!((keys(&found).len(), &found["total"]), (3, &json!(3)));
    assert!(!keys(&found).contains(&"chelsea.png"));
}
