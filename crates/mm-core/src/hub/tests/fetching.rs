//! Downloads from a server on this machine.

use super::server::{Break, Server, Site};
use super::*;
use std::net::TcpListener;

const ID: &str = "org/clip-vit";
const WEIGHTS: &str = "what a safetensors file would hold, of some length";

fn site(files: &[(&str, &str)]) -> Site {
    Site {
        id: ID.to_owned(),
        revision: "main".to_owned(),
        commit: COMMIT.to_owned(),
        files: files.iter().map(|(name, content)| ((*name).to_owned(), (*content).to_owned())).collect(),
        token: None,
        refused: None,
        broken: None,
    }
}

fn whole() -> Site {
    site(&[
        ("README.md", "not needed"),
        ("config.json", r#"{"model_type": "clip"}"#),
        ("1_Pooling/config.json", "{}"),
        ("model.safetensors", WEIGHTS),
        ("pytorch_model.bin", "never"),
        ("tokenizer.json", r#"{"version": "1.0"}"#),
    ])
}

fn online(folder: &Path, server: &Server) -> Hub {
    Hub { offline: false, endpoint: Some(server.endpoint()), ..offline(folder) }
}

fn reference(hub: &Hub) -> PathBuf {
    hub.cache.join("models--org--clip-vit/refs/main")
}

#[test]
fn a_model_is_fetched_into_the_cache_and_noted_there_last() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(whole());
    let hub = online(folder.path(), &server);
    let mut told = Vec::new();
    let snapshot = hub
        .resolve(ID, &mut |download| {
            assert!(!reference(&hub).exists(), "{download:?}");
            told.push(download.clone());
        })
        .unwrap();
    assert_eq!(snapshot, hub.cache.join("models--org--clip-vit/snapshots").join(COMMIT));
    assert_eq!(fs::read_to_string(snapshot.join("model.safetensors")).unwrap(), WEIGHTS);
    assert!(
        snapshot.join("model.safetensors").is_symlink() && snapshot.join("1_Pooling/config.json").is_file()
    );
    assert!(!snapshot.join("README.md").exists() && !snapshot.join("pytorch_model.bin").exists());
    assert_eq!(fs::read_to_string(reference(&hub)).unwrap(), COMMIT);
    let length = WEIGHTS.len() as u64;
    let last = Download { file: "model.safetensors".to_owned(), bytes: length, total: length };
    assert_eq!(told.last(), Some(&last));

    let asked = server.requests().len();
    assert_eq!(hub.find(ID).unwrap(), snapshot);
    assert_eq!(offline(folder.path()).find(&format!("{ID}@{COMMIT}")).unwrap(), snapshot);
    assert_eq!(server.requests().len(), asked, "cached files are not requested");
}

#[test]
fn a_clip_of_sentence_transformers_is_fetched_from_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(site(&[
        ("modules.json", "[]"),
        ("0_CLIPModel/config.json", r#"{"model_type": "clip"}"#),
        ("0_CLIPModel/model.safetensors", WEIGHTS),
        ("0_CLIPModel/vocab.json", "{}"),
    ]));
    let snapshot = online(folder.path(), &server).find(ID).unwrap();
    assert_eq!(fs::read_to_string(snapshot.join("0_CLIPModel/model.safetensors")).unwrap(), WEIGHTS);
    assert!(snapshot.join("0_CLIPModel/vocab.json").exists());
    let asked = server.requests().len();
    assert_eq!(online(folder.path(), &server).find(ID).unwrap(), snapshot);
    assert_eq!(server.requests().len(), asked, "the snapshot is complete");
}

#[test]
fn weights_that_transformers_does_not_read_are_to_be_fetched_as_files() {
    let folder = tempfile::tempdir().unwrap();
    let files = [("open_clip_config.json", "{}"), ("open_clip_pytorch_model.bin", "")];
    let message = online(folder.path(), &Server::start(site(&files))).refusal(ID);
    assert!(message.contains("open_clip_pytorch_model.bin, a pickle"), "{message}");
    assert!(message.contains("hf download org/clip-vit --revision main --local-dir DIR"), "{message}");
}

#[test]
fn every_shard_that_the_index_names_is_fetched() {
    let folder = tempfile::tempdir().unwrap();
    let index = r#"{"weight_map": {"x": "a.safetensors", "y": "b.safetensors", "z": "a.safetensors"}}"#;
    let files = [
        ("config.json", "{}"),
        ("model.safetensors.index.json", index),
        ("a.safetensors", "a"),
        ("b.safetensors", "b"),
    ];
    let mut site = site(&files);
    site.revision = "refs/pr/3".to_owned();
    let server = Server::start(site.clone());
    let hub = online(folder.path(), &server);
    let snapshot = hub.find("org/clip-vit@refs/pr/3").unwrap();
    assert_eq!(fs::read_to_string(snapshot.join("b.safetensors")).unwrap(), "b");

    fs::remove_file(snapshot.join("b.safetensors")).unwrap();
    assert_eq!(hub.find("org/clip-vit@refs/pr/3").unwrap(), snapshot, "a removed file is downloaded again");
    assert!(snapshot.join("b.safetensors").exists());

    fs::remove_file(snapshot.join("b.safetensors")).unwrap();
    site.files.remove("b.safetensors");
    let server = Server::start(site);
    let message = online(folder.path(), &server).refusal("org/clip-vit@refs/pr/3");
    assert!(message.contains("has no b.safetensors, and on the hub it has no b.safetensors"), "{message}");
}

#[test]
fn an_index_that_names_files_elsewhere_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let index = r#"{"weight_map": {"x": "../../../../evil"}}"#;
    let server = Server::start(site(&[("config.json", "{}"), ("model.safetensors.index.json", index)]));
    let message = online(folder.path(), &server).refusal(ID);
    assert!(
        message.contains("model.safetensors.index.json") && message.contains("not the name of a file"),
        "{message}"
    );
    assert!(!server.requests().iter().any(|request| request.contains("evil")));
}

#[test]
fn a_model_that_the_hub_does_not_have_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(whole());
    let hub = online(folder.path(), &server);
    let message = hub.refusal("org/clip-vir");
    assert!(message.contains("the hub has no model org/clip-vir with a revision main"), "{message}");
    let message = hub.refusal("org/clip-vit@v9");
    assert!(message.contains("the hub has no model org/clip-vit with a revision v9"), "{message}");
}

#[test]
fn a_gated_model_asks_for_the_token_that_opens_it() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(Site { token: Some("hf_key".to_owned()), ..whole() });
    let hub = online(folder.path(), &server);
    let message = hub.refusal(ID);
    assert!(message.contains("(status 401)") && message.contains("set HF_TOKEN"), "{message}");
    assert!(Hub { token: Some("hf_other".to_owned()), ..hub.clone() }.find(ID).is_err());
    assert!(Hub { token: Some("hf_key".to_owned()), ..hub }.find(ID).is_ok());

    let folder = tempfile::tempdir().unwrap();
    let refused = Some(("model.safetensors".to_owned(), 403));
    let server = Server::start(Site { refused, ..whole() });
    let message = online(folder.path(), &server).refusal(ID);
    assert!(
        message.contains("gives no access to model.safetensors (status 403)") && message.contains("HF_TOKEN"),
        "{message}"
    );
}

#[test]
fn a_hub_that_fails_is_named_with_its_status() {
    let folder = tempfile::tempdir().unwrap();
    let refused = Some(("config.json".to_owned(), 503));
    let server = Server::start(Site { refused, ..whole() });
    let message = online(folder.path(), &server).refusal(ID);
    assert!(message.contains("the hub refuses config.json (status 503); try again later"), "{message}");
    let server = Server::start(Site { commit: "../../..".to_owned(), ..whole() });
    assert!(online(folder.path(), &server).refusal(ID).contains("as its commit, which is not a commit"));
}

#[test]
fn what_broke_off_is_not_taken_for_whole_and_goes_on_where_it_can() {
    for how in [Break::Announced, Break::Silent] {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start(Site { broken: Some(("model.safetensors".to_owned(), how)), ..whole() });
        let hub = online(folder.path(), &server);
        let message = hub.refusal(ID);
        assert!(message.contains("model.safetensors") && message.contains("try again"), "{message}");
        assert!(!reference(&hub).exists() && offline(folder.path()).find(ID).is_err());
        let by_commit = format!("{ID}@{COMMIT}");
        assert!(offline(folder.path()).refusal(&by_commit).contains("has no model.safetensors"));

        let server = Server::start(whole());
        let snapshot = online(folder.path(), &server).find(ID).unwrap();
        assert_eq!(fs::read_to_string(snapshot.join("model.safetensors")).unwrap(), WEIGHTS);
        let from = if how == Break::Announced { WEIGHTS.len() / 2 } else { 0 };
        let expected = format!("/{ID}/resolve/{COMMIT}/model.safetensors {from}-");
        assert_eq!(server.requests().last(), Some(&expected), "only the missing bytes are requested");
        assert!(
            !server
                .requests()
                .iter()
                .any(|request| request.contains("/config.json") && !request.contains("Pooling"))
        );
    }
}

#[test]
fn what_lies_half_fetched_and_is_no_half_says_what_to_remove() {
    for left in [WEIGHTS.to_owned(), WEIGHTS.repeat(2)] {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start(whole());
        let hub = online(folder.path(), &server);
        let blobs = hub.cache.join("models--org--clip-vit/blobs");
        fs::create_dir_all(&blobs).unwrap();
        fs::write(blobs.join("model-safetensors.part"), left).unwrap();
        let message = hub.refusal(ID);
        assert!(message.contains("the partial download of model.safetensors is damaged"), "{message}");
        assert!(message.contains("remove the .part files"), "{message}");
    }
}

#[test]
fn a_model_of_the_hub_without_safetensors_or_config_is_refused_before_anything_is_fetched() {
    let folder = tempfile::tempdir().unwrap();
    for (files, reason) in [
        (vec![("config.json", "{}"), ("pytorch_model.bin", "x")], "pytorch_model.bin, a pickle"),
        (vec![("config.json", "{}")], "no weights in safetensors"),
        (vec![("model.safetensors", "x")], "no config.json"),
    ] {
        let server = Server::start(site(&files));
        let message = online(folder.path(), &server).refusal(ID);
        assert!(message.contains(reason), "{message}");
        assert_eq!(server.requests().len(), 1, "only the list of files was requested");
    }
    assert!(!folder.path().join("hub").exists());
}

#[test]
fn offline_nothing_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(whole());
    let hub = Hub { offline: true, ..online(folder.path(), &server) };
    assert!(hub.refusal(ID).contains("HF_HUB_OFFLINE"));
    assert_eq!(server.requests(), Vec::<String>::new());
}

#[test]
fn a_hub_that_cannot_be_reached_is_said_to_be_so() {
    let folder = tempfile::tempdir().unwrap();
    // the port is free again at the end of this line
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let hub = Hub { offline: false, endpoint: Some(format!("http://{address}")), ..offline(folder.path()) };
    let message = hub.refusal(ID);
    assert!(message.contains("cannot be fetched from the hub") && message.contains("try again"), "{message}");
}
