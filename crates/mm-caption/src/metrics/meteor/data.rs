//! The data of METEOR: function words, abbreviations and synonyms from its jar, and the path of its
//! paraphrases.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use zip::ZipArchive;

use super::normalize::Prefixes;

/// The name of the jar in its folder.
const JAR: &str = "meteor-1.5.jar";

/// The places of the table of paraphrases, relative to the folder of the jar.
const PARAPHRASES: [&str; 2] = ["data/paraphrase-en.gz", "paraphrase-en.gz"];

/// The limit on the decompressed size of an entry of the jar. The largest one that is read has 3.7 MB.
const MOST_BYTES: u64 = 64 << 20;

/// Something is wrong with the data of METEOR or with the texts to score.
#[derive(Debug, thiserror::Error)]
pub enum MeteorError {
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// A file is not what METEOR has under this name.
    #[error("{}: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        reason: String,
    },
    /// The data are not complete.
    #[error(
        "{}: no {file}: give the folder `meteor` of the Python package pycocoevalcap, which has \
         meteor-1.5.jar and data/paraphrase-en.gz",
        path.display()
    )]
    Missing {
        /// The folder.
        path: PathBuf,
        /// The missing file.
        file: &'static str,
    },
    /// Each hypothesis needs a list of references.
    #[error("{hypotheses} hypotheses, but {references} lists of references")]
    Lengths {
        /// The number of hypotheses.
        hypotheses: usize,
        /// The number of lists of references.
        references: usize,
    },
    /// A hypothesis cannot be scored without a reference.
    #[error("hypothesis {segment} (from 0) has no reference")]
    NoReference {
        /// The index of the hypothesis.
        segment: usize,
    },
}

/// The data of METEOR 1.5 for English.
#[derive(Debug)]
pub struct MeteorData {
    pub(super) function_words: HashSet<String>,
    pub(super) prefixes: Prefixes,
    pub(super) synonyms: Option<Synonyms>,
    pub(super) paraphrases: Option<PathBuf>,
}

impl MeteorData {
    /// Reads the data from a folder with `meteor-1.5.jar` and `data/paraphrase-en.gz`, as in the Python
    /// package `pycocoevalcap`, or from the path of the jar in such a folder. The paraphrases are read by
    /// [`score`](Self::score).
    ///
    /// # Errors
    /// One of the files is missing, cannot be read, or is not METEOR's.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, MeteorError> {
        let path = path.as_ref();
        let jar = if path.is_dir() { path.join(JAR) } else { path.to_owned() };
        let folder = jar.parent().unwrap_or(Path::new("")).to_owned();
        if !jar.is_file() {
            return Err(MeteorError::Missing { path: path.to_owned(), file: JAR });
        }
        let paraphrases = PARAPHRASES.map(|name| folder.join(name)).into_iter().find(|path| path.is_file());
        if paraphrases.is_none() {
            return Err(MeteorError::Missing { path: folder, file: PARAPHRASES[0] });
        }
        let mut jar = Jar::open(&jar)?;
        Ok(Self {
            function_words: jar.text("function/english.words")?.lines().map(str::to_owned).collect(),
            prefixes: prefixes(&jar.text("nonbreaking/english.prefixes")?),
            synonyms: Some(Synonyms::read(&mut jar)?),
            paraphrases,
        })
    }

    /// Leaves the paraphrases out: the modules are exact, stem and synonym, as with METEOR's option
    /// `-m 'exact stem synonym'`. Scores are lower, and the table need not be read.
    pub fn without_paraphrases(self) -> Self {
        Self { paraphrases: None, ..self }
    }

    /// Leaves the synonyms and the paraphrases out: the modules are exact and stem.
    pub fn without_synonyms(self) -> Self {
        Self { synonyms: None, paraphrases: None, ..self }
    }
}

/// The jar, which is a zip file.
struct Jar {
    path: PathBuf,
    zip: ZipArchive<BufReader<File>>,
}

impl Jar {
    fn open(path: &Path) -> Result<Self, MeteorError> {
        let io = |source| MeteorError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(io)?;
        let zip = ZipArchive::new(BufReader::new(file)).map_err(|error| MeteorError::Format {
            path: path.to_owned(),
            reason: format!("not a jar: {error}"),
        })?;
        Ok(Self { path: path.to_owned(), zip })
    }

    fn wrong(&self, reason: String) -> MeteorError {
        MeteorError::Format { path: self.path.clone(), reason }
    }

    /// The text of an entry.
    fn text(&mut self, name: &str) -> Result<String, MeteorError> {
        let mut text = String::new();
        let read = match self.zip.by_name(name) {
            Ok(entry) => entry.take(MOST_BYTES).read_to_string(&mut text).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        read.map_err(|error| self.wrong(format!("{name}: {error}; expected is meteor-1.5.jar")))?;
        Ok(text)
    }
}

/// The words that a period may follow within a sentence, one a line, `#` for comments.
fn prefixes(text: &str) -> Prefixes {
    let words = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let entries = words.filter_map(|words| match words[..] {
        [word, ..] if word.starts_with('#') => None,
        [word, ref rest @ ..] => Some((word.to_owned(), rest.first() == Some(&"#NUMERIC_ONLY#"))),
        [] => None,
    });
    entries.collect()
}

/// WordNet's synsets of words, and the base forms of irregular words.
#[derive(Debug, Default)]
pub(super) struct Synonyms {
    synsets: HashMap<String, Vec<u32>>,
    bases: HashMap<String, Vec<String>>,
}

/// The endings that WordNet's morphology replaces, in its order: nouns, verbs, adjectives.
const ENDINGS: [(&str, &str); 20] = [
    ("s", ""),
    ("ses", "s"),
    ("xes", "x"),
    ("zes", "z"),
    ("ches", "ch"),
    ("shes", "sh"),
    ("men", "man"),
    ("ies", "y"),
    ("s", ""),
    ("ies", "y"),
    ("es", "e"),
    ("es", ""),
    ("ed", "e"),
    ("ed", ""),
    ("ing", "e"),
    ("ing", ""),
    ("er", ""),
    ("est", ""),
    ("er", "e"),
    ("est", "e"),
];

impl Synonyms {
    fn read(jar: &mut Jar) -> Result<Self, MeteorError> {
        let exceptions = jar.text("synonym/english.exceptions")?;
        let synsets = jar.text("synonym/english.synsets")?;
        Self::parse(&exceptions, &synsets).map_err(|reason| jar.wrong(format!("synonym/{reason}")))
    }

    /// Parses two files of pairs of lines: a base form and its irregular forms; a word and its synsets.
    pub fn parse(exceptions: &str, synsets: &str) -> Result<Self, String> {
        let mut parsed = Self::default();
        for (base, _, forms) in pairs(exceptions) {
            for form in forms.split_whitespace() {
                parsed.bases.entry(form.to_owned()).or_default().push(base.to_owned());
            }
        }
        for (word, line, numbers) in pairs(synsets) {
            let numbers: Result<Vec<u32>, _> = numbers.split_whitespace().map(str::parse).collect();
            let numbers = numbers
                .map_err(|error| format!("english.synsets, line {line}: synsets of {word:?}: {error}"))?;
            parsed.synsets.insert(word.to_owned(), numbers);
        }
        Ok(parsed)
    }

    /// The synsets of a word and of its base forms, ascending.
    pub fn synsets(&self, word: &str) -> Vec<u32> {
        let of = |word: &str| self.synsets.get(word).into_iter().flatten().copied();
        let mut all: Vec<u32> = of(word).collect();
        match self.bases.get(word) {
            Some(bases) => all.extend(bases.iter().flat_map(|base| of(base))),
            None => all.extend(self.regular_base(word).iter().flat_map(|base| of(base))),
        }
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The first word with a synset that a replaced ending leads to.
    fn regular_base(&self, word: &str) -> Option<String> {
        if word.ends_with("ss") || word.encode_utf16().count() <= 2 {
            return None;
        }
        let replaced =
            ENDINGS.iter().filter_map(|(ending, base)| Some(word.strip_suffix(ending)?.to_owned() + base));
        replaced.into_iter().find(|base| self.synsets.contains_key(base))
    }
}

/// Pairs of lines, with the number of the second line from 1.
fn pairs(text: &str) -> impl Iterator<Item = (&str, usize, &str)> {
    let mut lines = text.lines().zip(1..);
    std::iter::from_fn(move || {
        let (first, _) = lines.next()?;
        let (second, number) = lines.next()?;
        Some((first, number, second))
    })
}
