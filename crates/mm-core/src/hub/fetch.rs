//! Downloads from the hub into its local cache.

use super::snapshot::{self, CONFIGS, EXTRAS};
use super::{Hub, HubName, is_commit};
use crate::checkpoint::{ShardIndex, pickle};
use hf_hub::api::Progress;
use hf_hub::api::sync::{ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The progress of the download of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Download {
    /// Name of the file in the model.
    pub file: String,
    /// Bytes downloaded so far.
    pub bytes: u64,
    /// Size of the file in bytes.
    pub total: u64,
}

impl Hub {
    /// Downloads the files of the model that are missing in the cache, all of one commit, and returns the
    /// snapshot. The reference to the commit is written last, so that an interrupted download is not taken
    /// for complete.
    ///
    /// # Errors
    /// The reason, phrased to follow "and".
    pub(super) fn fetch(
        &self,
        model: &HubName,
        progress: &mut dyn FnMut(&Download),
    ) -> Result<PathBuf, String> {
        let cache = Cache::new(self.cache.clone());
        let mut builder = ApiBuilder::from_cache(cache.clone()).with_token(self.token.clone());
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint.clone());
        }
        let api =
            builder.build().map_err(|error| format!("no connection to the hub can be made: {error}"))?;
        let at =
            |revision: &str| Repo::with_revision(model.id.to_owned(), RepoType::Model, revision.to_owned());
        let (commit, names) = listing(&api.repo(at(model.revision)), model)?;
        let root = snapshot::root(&names);
        let names: BTreeSet<String> =
            names.into_iter().filter_map(|name| Some(name.strip_prefix(&root)?.to_owned())).collect();
        let weights = snapshot::weights(&names).ok_or_else(|| match pickle(&names) {
            Some(pickle) => model.conversion(pickle),
            None => "on the hub it has no weights in safetensors".to_owned(),
        })?;
        if !CONFIGS.iter().any(|config| names.contains(*config)) {
            return Err("on the hub it has no config.json".to_owned());
        }

        let snapshot = cache.repo(at(&commit)).pointer_path(&commit);
        let mut files = Files { repo: api.repo(at(&commit)), snapshot: &snapshot, root: &root, progress };
        for config in CONFIGS.iter().filter(|config| names.contains(**config)) {
            files.require(config)?;
        }
        for extra in EXTRAS.iter().filter(|extra| names.contains(**extra)) {
            files.download(extra)?;
        }
        // The weights are last: with them the snapshot counts as complete.
        files.require(weights)?;
        if weights.ends_with(".index.json") {
            let json = std::fs::read(snapshot.join(&root).join(weights)).map_err(|error| error.to_string());
            let index = json.and_then(|json| ShardIndex::parse(&json));
            let index = index.map_err(|problem| format!("its {weights} cannot be used: {problem}"))?;
            for shard in index.shards() {
                files.require(shard)?;
            }
        }
        let noted = cache.repo(at(model.revision)).create_ref(&commit);
        noted.map_err(|error| format!("the cache {} cannot be written: {error}", self.cache.display()))?;
        Ok(snapshot)
    }
}

/// The commit of the revision, and the files of the model there.
fn listing(repo: &ApiRepo, model: &HubName) -> Result<(String, BTreeSet<String>), String> {
    let info = repo.info().map_err(|error| match status(&error) {
        Some(404) => format!("the hub has no model {} with a revision {}", model.id, model.revision),
        _ => refusal("its list of files", &error),
    })?;
    if !is_commit(&info.sha) {
        return Err(format!("the hub names {:?} as its commit, which is not a commit", info.sha));
    }
    Ok((info.sha, info.siblings.into_iter().map(|sibling| sibling.rfilename).collect()))
}

/// The files of one commit.
struct Files<'a> {
    repo: ApiRepo,
    snapshot: &'a Path,
    /// The prefix of the names of the model's files.
    root: &'a str,
    progress: &'a mut dyn FnMut(&Download),
}

impl Files<'_> {
    /// Downloads `file` into the snapshot.
    fn require(&mut self, file: &str) -> Result<(), String> {
        if self.download(file)? { Ok(()) } else { Err(format!("on the hub it has no {file}")) }
    }

    /// As [`Files::require`], but false where the hub has no such file.
    fn download(&mut self, file: &str) -> Result<bool, String> {
        let file = &format!("{}{file}", self.root);
        if self.snapshot.join(file).exists() {
            return Ok(true);
        }
        let download = Download { file: file.to_owned(), bytes: 0, total: 0 };
        let mut watch = Watch { download, report: self.progress };
        let path = match self.repo.download_with_progress(file, &mut watch) {
            Ok(path) => path,
            Err(error) if status(&error) == Some(404) => return Ok(false),
            Err(error) => return Err(refusal(file, &error)),
        };
        // The library accepts a file that is cut off with the connection.
        let (total, bytes) = (watch.download.total, std::fs::metadata(&path).map_or(0, |found| found.len()));
        if bytes != total {
            for half in [path.canonicalize().ok(), Some(path)].into_iter().flatten() {
                let _ = std::fs::remove_file(half); // the error below is the one to report
            }
            return Err(format!("only {bytes} of {total} bytes of {file} were received; try again"));
        }
        Ok(true)
    }
}

/// Reports the progress of a download.
struct Watch<'a> {
    download: Download,
    report: &'a mut dyn FnMut(&Download),
}

impl Progress for &mut Watch<'_> {
    fn init(&mut self, size: usize, _: &str) {
        (self.download.bytes, self.download.total) = (0, size as u64);
    }

    fn update(&mut self, size: usize) {
        self.download.bytes += size as u64;
        (self.report)(&self.download);
    }

    fn finish(&mut self) {}
}

/// The HTTP status of the error, if it has one.
fn status(error: &ApiError) -> Option<u16> {
    match error {
        ApiError::RequestError(error) => match **error {
            ureq::Error::StatusCode(status) => Some(status),
            _ => None,
        },
        _ => None,
    }
}

/// The message for a failed download of `what`.
fn refusal(what: &str, error: &ApiError) -> String {
    match (status(error), error) {
        (Some(status @ (401 | 403)), _) => format!(
            "the hub gives no access to {what} (status {status}): check the name; if the model is private or \
             gated, set HF_TOKEN to a token of an account with access"
        ),
        // 416: the partial file is as long as the complete one and was never verified.
        (Some(416), _) | (None, ApiError::InvalidResume) => {
            format!("the partial download of {what} is damaged; remove the .part files of its blobs")
        }
        (Some(status), _) => format!("the hub refuses {what} (status {status}); try again later"),
        (None, ApiError::LockAcquisition(lock)) => {
            format!("another program is downloading {what} ({}); wait for it", lock.display())
        }
        (None, ApiError::RequestError(error)) => {
            format!("{what} cannot be fetched from the hub: {error}; try again")
        }
        (None, error) => format!("{what} cannot be fetched from the hub: {error}; try again"),
    }
}
