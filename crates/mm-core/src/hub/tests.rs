//! The cache of the hub, without network.

use super::*;
use std::fs;

mod fetching;
mod server;

const COMMIT: &str = "1f0bb98a0e4f6a0c35a3a3d1a17ab0b0f3a6f0c1";
const OLDER: &str = "00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee";
const WHOLE: [&str; 2] = ["config.json", "model.safetensors"];

/// An offline hub with its cache in `folder`.
fn offline(folder: &Path) -> Hub {
    Hub { cache: folder.join("hub"), endpoint: None, token: None, offline: true }
}

impl Hub {
    /// Writes a model into the cache as `huggingface_hub` does, and returns its snapshot.
    fn store(&self, id: &str, reference: Option<&str>, commit: &str, files: &[(&str, &str)]) -> PathBuf {
        let model = self.cache.join(format!("models--{}", id.replace('/', "--")));
        let (blobs, snapshot) = (model.join("blobs"), model.join("snapshots").join(commit));
        fs::create_dir_all(&blobs).unwrap();
        fs::create_dir_all(&snapshot).unwrap();
        for (index, (file, content)) in files.iter().enumerate() {
            let blob = format!("{commit}{index}");
            fs::write(blobs.join(&blob), content).unwrap();
            std::os::unix::fs::symlink(Path::new("../../blobs").join(blob), snapshot.join(file)).unwrap();
        }
        if let Some(reference) = reference {
            let file = model.join("refs").join(reference);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, commit).unwrap();
        }
        snapshot
    }

    /// As [`Hub::store`], with files of arbitrary content.
    fn store_named(&self, id: &str, reference: Option<&str>, commit: &str, files: &[&str]) -> PathBuf {
        let files: Vec<(&str, &str)> = files.iter().map(|file| (*file, "{}")).collect();
        self.store(id, reference, commit, &files)
    }

    fn find(&self, name: &str) -> Result<PathBuf> {
        self.resolve(name, &mut |_| ())
    }

    /// The error for `name`, which cannot be resolved.
    fn refusal(&self, name: &str) -> String {
        let message = self.find(name).unwrap_err().to_string();
        assert!(message.starts_with(&format!("model {name}: ")) && !message.contains('\n'), "{message}");
        message
    }
}

#[test]
fn a_cached_model_is_found_by_name_branch_tag_and_commit() {
    let folder = tempfile::tempdir().unwrap();
    let hub = offline(folder.path());
    let (newest, older) = (
        hub.store_named("org/clip-vit", Some("main"), COMMIT, &WHOLE),
        hub.store_named("org/clip-vit", Some("v1.0"), OLDER, &WHOLE),
    );
    hub.store_named("org/clip-vit", Some("refs/pr/3"), OLDER, &[]);
    assert_eq!(hub.find("org/clip-vit").unwrap(), newest);
    assert_eq!(hub.find("org/clip-vit@main").unwrap(), newest);
    assert_eq!(hub.find("org/clip-vit@v1.0").unwrap(), older);
    assert_eq!(hub.find("org/clip-vit@refs/pr/3").unwrap(), older);
    assert_eq!(hub.find(&format!("org/clip-vit@{OLDER}")).unwrap(), older, "a commit needs no reference");
    assert_eq!(fs::read_to_string(older.join("config.json")).unwrap(), "{}");
    assert!(hub.refusal("org/clip-vit@v2.0").contains("nor such a hub model in the cache"));
    let short = hub.store_named("gpt2", Some("main"), COMMIT, &WHOLE);
    assert_eq!(hub.find("gpt2").unwrap(), short, "the oldest models have no organization");
}

#[test]
fn a_folder_is_itself_and_a_file_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let hub = offline(folder.path());
    let model = folder.path().join("any name at all");
    fs::create_dir(&model).unwrap();
    assert_eq!(hub.find(model.to_str().unwrap()).unwrap(), model);
    fs::write(model.join("model.safetensors"), "").unwrap();
    let file = model.join("model.safetensors");
    assert!(hub.refusal(file.to_str().unwrap()).contains("this is a file; name the folder that it is in"));
}

#[test]
fn the_folder_with_the_nearest_name_is_offered() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["emoji-vit-tiny", "emoji-resnet", ".emoji-vit-tine"] {
        fs::create_dir(folder.path().join(name)).unwrap();
    }
    let hub = offline(folder.path());
    let typo = folder.path().join("emoji-vit-tine");
    let message = hub.refusal(typo.to_str().unwrap());
    assert!(message.ends_with("/emoji-vit-tiny?") && message.contains("did you mean"), "{message}");
    let far = folder.path().join("qqqq");
    assert!(!hub.refusal(far.to_str().unwrap()).contains("did you mean"));
}

#[test]
fn names_that_no_model_can_have_never_reach_the_cache() {
    let folder = tempfile::tempdir().unwrap();
    let hub = offline(folder.path());
    fs::create_dir_all(hub.cache.join("models--org--name/refs")).unwrap();
    let long = "x".repeat(97);
    let bad = [
        "", "/no/such", "./no", "../no", "a/b/c", "org/", "/name", "a b", "-a/b", "org/a.", "org/a--b",
        "a..b", "ä/b",
    ];
    let revisions =
        ["org/name@", "org/name@../main", "org/name@a//b", "org/name@a b", "org/name@/etc", "org/name@a\\b"];
    for name in bad.into_iter().chain(revisions).chain([long.as_str()]) {
        let message = hub.refusal(name);
        assert!(
            message.contains("the name is not that of a hub model: NAME, ORG/NAME or ORG/NAME@REVISION"),
            "{message}"
        );
    }
}

#[test]
fn a_reference_to_no_commit_leads_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let hub = offline(folder.path());
    hub.store_named("org/name", Some("main"), COMMIT, &WHOLE);
    let reference = hub.cache.join("models--org--name/refs/main");
    for lie in ["", "../../models--org--name", OLDER, &COMMIT[1..]] {
        fs::write(&reference, lie).unwrap();
        assert!(hub.refusal("org/name").contains("neither such a folder"), "{lie}");
    }
    fs::write(&reference, format!("{COMMIT}\n")).unwrap();
    assert!(hub.find("org/name").is_ok(), "a line's end is no part of it");
}

#[test]
fn offline_the_cache_is_all_there_is() {
    let folder = tempfile::tempdir().unwrap();
    let message = offline(folder.path()).refusal("org/name");
    assert!(message.contains("HF_HUB_OFFLINE forbids the download"), "{message}");
    assert!(!folder.path().join("hub").exists(), "looking for a model makes no folder");
}

#[test]
fn a_snapshot_that_is_not_whole_says_what_it_lacks() {
    let folder = tempfile::tempdir().unwrap();
    let hub = offline(folder.path());
    let index =
        ("model.safetensors.index.json", r#"{"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}"#);
    let (config, shard) = (("config.json", "{}"), ("a.safetensors", ""));
    let missing = |id: &str, files: &[(&str, &str)]| {
        hub.store(id, Some("main"), COMMIT, files);
        hub.refusal(id)
    };
    assert!(missing("no/config", &[("model.safetensors", "")]).contains("has no config.json"));
    assert!(missing("no/weights", &[config]).contains("has no model.safetensors"));
    assert!(missing("no/shard", &[config, index, shard]).contains("has no b.safetensors"));
    let damaged = missing("no/index", &[config, ("model.safetensors.index.json", "{")]);
    assert!(damaged.contains("has no model.safetensors.index.json"), "{damaged}");

    let snapshot = hub.store("no/blob", Some("main"), COMMIT, &[config, ("model.safetensors", "")]);
    assert!(hub.find("no/blob").is_ok());
    fs::remove_file(snapshot.join("model.safetensors").canonicalize().unwrap()).unwrap();
    assert!(hub.refusal("no/blob").contains("has no model.safetensors"), "a broken link is not a file");

    hub.store("whole/shards", Some("main"), COMMIT, &[config, index, shard, ("b.safetensors", "")]);
    assert!(hub.find("whole/shards").is_ok());
    hub.store_named(
        "whole/open-clip",
        Some("main"),
        COMMIT,
        &["open_clip_config.json", "open_clip_model.safetensors"],
    );
    assert!(hub.find("whole/open-clip").is_ok());
}

#[test]
fn pickles_alone_are_refused_with_the_reason_and_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let hub = offline(folder.path());
    hub.store_named("org/old", Some("v1"), COMMIT, &["config.json", "pytorch_model.bin"]);
    let message = hub.refusal("org/old@v1");
    assert!(
        message.contains("pytorch_model.bin, a pickle, and reading one runs the code in it"),
        "{message}"
    );
    assert!(
        message.contains("from_pretrained('org/old', revision='v1').save_pretrained('DIR')"),
        "{message}"
    );
    hub.store_named(
        "org/both",
        Some("main"),
        COMMIT,
        &["config.json", "pytorch_model.bin", "model.safetensors"],
    );
    assert!(hub.find("org/both").is_ok(), "a pickle beside safetensors does no harm");
}

#[test]
fn the_environment_says_where_the_cache_is_and_what_may_be_asked() {
    let user = tempfile::tempdir().unwrap();
    let user = user.path();
    let hub = |set: &[(&str, &str)]| {
        let value =
            |name: &str| set.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).to_owned());
        Hub::from_variables(&value, user)
    };
    let plain = hub(&[]);
    assert_eq!(plain.cache, user.join(".cache/huggingface/hub"));
    assert_eq!((plain.endpoint, plain.token, plain.offline), (None, None, false));
    assert_eq!(hub(&[("XDG_CACHE_HOME", "/xdg")]).cache, Path::new("/xdg/huggingface/hub"));
    assert_eq!(hub(&[("XDG_CACHE_HOME", "/xdg"), ("HF_HOME", "/home")]).cache, Path::new("/home/hub"));
    assert_eq!(hub(&[("HF_HOME", "/home"), ("HF_HUB_CACHE", "~/cache")]).cache, user.join("cache"));
    assert_eq!(hub(&[("HF_HOME", " ")]).cache, plain.cache, "an empty variable counts as not set");
    let endpoint = hub(&[("HF_ENDPOINT", "https://mirror.example/")]).endpoint;
    assert_eq!(endpoint.as_deref(), Some("https://mirror.example"));
    for (value, offline) in
        [("1", true), ("True", true), ("ON", true), ("yes", true), ("0", false), ("no", false)]
    {
        assert_eq!(hub(&[("HF_HUB_OFFLINE", value)]).offline, offline, "{value}");
    }
}

#[test]
fn the_token_is_the_variable_or_what_logging_in_wrote() {
    let home = tempfile::tempdir().unwrap();
    let token = |variable: Option<&str>| {
        let value = |name: &str| match name {
            "HF_HOME" => home.path().to_str().map(str::to_owned),
            "HF_TOKEN" => variable.map(str::to_owned),
            _ => None,
        };
        Hub::from_variables(&value, Path::new("/nobody")).token
    };
    assert_eq!(token(None), None);
    fs::write(home.path().join("token"), "hf_written\n").unwrap();
    assert_eq!(token(None).as_deref(), Some("hf_written"));
    assert_eq!(token(Some("hf_set")).as_deref(), Some("hf_set"));
    fs::write(home.path().join("token"), "\n").unwrap();
    assert_eq!(token(None), None);
}
