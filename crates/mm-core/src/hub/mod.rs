//! Models by name: a local folder, or a model of the Hugging Face hub from its local cache, downloaded if it
//! is not cached.
//!
//! The cache is shared with `huggingface_hub`: `models--ORG--NAME/refs/REVISION` holds a commit, and
//! `snapshots/COMMIT/` the files, as links to `blobs/`.

mod fetch;
mod snapshot;

pub use fetch::Download;
pub(crate) use snapshot::SENTENCE_CLIP;

use crate::checkpoint::{PICKLE, file_names, pickle};
use crate::{Error, Result};
use std::path::{Component, Path, PathBuf};

/// The folder of the model `name`, with the hub as the environment sets it; see [`Hub::resolve`].
///
/// # Errors
/// As [`Hub::resolve`].
pub fn resolve(name: &str) -> Result<PathBuf> {
    Hub::from_env().resolve(name, &mut |_| ())
}

/// The location of the hub and of its local cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hub {
    /// The folder of the cache.
    pub cache: PathBuf,
    /// URL of the hub, where it is not the public one.
    pub endpoint: Option<String>,
    /// Access token for private and gated models.
    pub token: Option<String>,
    /// Whether only the cache is used, without network.
    pub offline: bool,
}

impl Hub {
    /// The hub as `huggingface_hub` reads it from the environment: the cache is `HF_HUB_CACHE`,
    /// `HF_HOME/hub`, `XDG_CACHE_HOME/huggingface/hub` or `~/.cache/huggingface/hub`; the rest is in
    /// `HF_ENDPOINT`, `HF_TOKEN` (or the file `HF_HOME/token`, which `hf auth login` writes) and
    /// `HF_HUB_OFFLINE` (1, true, yes, on).
    pub fn from_env() -> Self {
        Self::from_variables(&|name| std::env::var(name).ok(), &std::env::home_dir().unwrap_or_default())
    }

    fn from_variables(variable: &dyn Fn(&str) -> Option<String>, user: &Path) -> Self {
        let text = |name: &str| {
            variable(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
        };
        let path = |name: &str| {
            text(name).map(|value| match value.strip_prefix("~/") {
                Some(below) => user.join(below),
                None => PathBuf::from(value),
            })
        };
        let home = path("HF_HOME").unwrap_or_else(|| {
            path("XDG_CACHE_HOME").unwrap_or_else(|| user.join(".cache")).join("huggingface")
        });
        let written =
            || std::fs::read_to_string(home.join("token")).ok().map(|token| token.trim().to_owned());
        let is_true = |value: String| ["1", "true", "yes", "on"].contains(&value.to_lowercase().as_str());
        Self {
            cache: path("HF_HUB_CACHE").unwrap_or_else(|| home.join("hub")),
            endpoint: text("HF_ENDPOINT").map(|endpoint| endpoint.trim_end_matches('/').to_owned()),
            token: text("HF_TOKEN").or_else(written).filter(|token| !token.is_empty()),
            offline: text("HF_HUB_OFFLINE").is_some_and(is_true),
        }
    }

    /// The folder of the model `name`. An existing folder is returned as it is. Otherwise `NAME` or
    /// `ORG/NAME`, with an optional `@REVISION` (a branch, a tag or a full commit hash; default `main`), is a
    /// model of the hub: its snapshot in the cache, downloaded if config or weights are missing there.
    /// `progress` is called during downloads.
    ///
    /// # Errors
    /// There is neither such a folder nor such a model in the cache, and it cannot be downloaded: the hub
    /// does not have it or gives no access, has its weights as pickles only, cannot be reached, or `offline`
    /// is set.
    pub fn resolve(&self, name: &str, progress: &mut dyn FnMut(&Download)) -> Result<PathBuf> {
        let path = Path::new(name);
        if path.is_dir() {
            return Ok(path.to_owned());
        }
        let found = if path.exists() {
            Err("this is a file; name the folder that it is in".to_owned())
        } else {
            self.model(name, progress)
        };
        found.map_err(|mut problem| {
            if let Some(near) = near_folder(path) {
                problem += &format!("; did you mean {}?", near.display());
            }
            Error::Hub { name: name.to_owned(), problem }
        })
    }

    /// The snapshot of a model of the hub, or the reason why there is none.
    fn model(&self, name: &str, progress: &mut dyn FnMut(&Download)) -> std::result::Result<PathBuf, String> {
        let Some(model) = HubName::parse(name) else {
            let form = "NAME, ORG/NAME or ORG/NAME@REVISION";
            return Err(format!("there is no such folder, and the name is not that of a hub model: {form}"));
        };
        let cached = self.cached(&model);
        let problem = match &cached {
            None => {
                format!(
                    "there is neither such a folder nor such a hub model in the cache {}",
                    self.cache.display()
                )
            }
            Some(snapshot) => match snapshot::missing_file(snapshot) {
                None => return Ok(snapshot.clone()),
                Some(file) => format!("its copy {} has no {file}", snapshot.display()),
            },
        };
        let files = cached.map(|snapshot| file_names(&snapshot)).unwrap_or_default();
        match (self.offline, pickle(&files)) {
            (true, Some(pickle)) => Err(format!("{problem}; {}", model.conversion(pickle))),
            (true, None) => Err(format!("{problem}, and HF_HUB_OFFLINE forbids the download")),
            (false, _) => self.fetch(&model, progress).map_err(|reason| format!("{problem}, and {reason}")),
        }
    }

    /// The folder of the cached snapshot, complete or not.
    fn cached(&self, model: &HubName) -> Option<PathBuf> {
        let folder = self.cache.join(format!("models--{}", model.id.replace('/', "--")));
        let commit = std::fs::read_to_string(folder.join("refs").join(model.revision));
        let commit =
            commit.ok().map(|commit| commit.trim().to_owned()).unwrap_or_else(|| model.revision.to_owned());
        Some(folder.join("snapshots").join(&commit))
            .filter(|snapshot| is_commit(&commit) && snapshot.is_dir())
    }
}

/// Whether `text` is a full commit hash.
fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The parts of `ORG/NAME@REVISION`.
struct HubName<'a> {
    id: &'a str,
    revision: &'a str,
}

impl<'a> HubName<'a> {
    /// Parses `name`; none if it breaks the hub's rules for names.
    fn parse(name: &'a str) -> Option<Self> {
        let (id, revision) = name.split_once('@').unwrap_or((name, "main"));
        let consists_of = |text: &str, more: &[u8]| {
            text.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) || more.contains(&byte))
        };
        let is_part = |part: &str| {
            let ends = |end: Option<char>| end.is_some_and(|end| end.is_ascii_alphanumeric() || end == '_');
            part.len() <= 96
                && consists_of(part, b"")
                && ends(part.chars().next())
                && ends(part.chars().next_back())
        };
        let is_id = id.split('/').count() <= 2
            && id.split('/').all(is_part)
            && !id.contains("--")
            && !id.contains("..");
        let is_revision =
            consists_of(revision, b"/+") && revision.split('/').all(|part| !["", ".", ".."].contains(&part));
        (is_id && is_revision).then_some(Self { id, revision })
    }

    /// The message for weights that are only in the file `pickle`.
    fn conversion(&self, pickle: &str) -> String {
        let (id, revision) = (self.id, self.revision);
        if !pickle.contains("pytorch_model") || pickle.starts_with("open_clip") {
            // transformers does not read these. Opened from a folder, the error has the line that converts
            // them.
            return format!(
                "its weights are only in {pickle}, {PICKLE}: fetch it with \
                 `hf download {id} --revision {revision} --local-dir DIR` and name DIR"
            );
        }
        format!(
            "its weights are only in {pickle}, {PICKLE}, and name DIR: \
             python -c \"from transformers import AutoModel as M, AutoProcessor as P; \
             [c.from_pretrained('{id}', revision='{revision}').save_pretrained('DIR') for c in (M, P)]\""
        )
    }
}

/// The sibling folder of `path` with the most similar name, if one is similar.
fn near_folder(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let parent = path.parent().filter(|parent| parent.components().any(|part| part != Component::CurDir));
    let entries = std::fs::read_dir(parent.unwrap_or(Path::new("."))).ok()?.flatten();
    let folders = entries
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok());
    let (similarity, nearest) = folders
        .filter(|other| !other.starts_with('.'))
        .map(|other| (strsim::jaro_winkler(name, &other), other))
        .max_by(|a, b| a.0.total_cmp(&b.0).then_with(|| b.1.cmp(&a.1)))?;
    (similarity > 0.8).then(|| path.with_file_name(nearest))
}

#[cfg(test)]
mod tests;
