//! Word vectors of GloVe and word2vec in text files.

use crate::{Error, Result, Tokenizer};
use mm_core::nn::Embedding;
use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use tch::Tensor;

/// What [`read_glove`] found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GloveReport {
    /// Words in the file.
    pub words: usize,
    /// Words of the vocabulary that have a vector now.
    pub found: usize,
    /// Rows of the vocabulary that keep their initial values: special tokens, and words that are not in the
    /// file.
    pub missing: usize,
    /// Further vectors of words that had one, which are passed over.
    pub repeated: usize,
}

/// Fills the rows of `embedding` that belong to a whole word of `tokenizer` with the vectors of `file`, the
/// text form of GloVe (Pennington et al. 2014): a line for each word, `word v1 ... vn`, where a word may have
/// spaces, as in glove.840B. A first line `words n`, as word2vec writes, is accepted. Of words outside the
/// vocabulary the numbers are counted but not read.
///
/// # Errors
/// The file cannot be read, a line has another number of values than the embedding is wide, or one that is no
/// finite number (both with the number of the line), or no word is in the vocabulary.
pub fn read_glove(file: &Path, tokenizer: &Tokenizer, embedding: &Embedding) -> Result<GloveReport> {
    let width = embedding.weight().size()[1] as usize;
    let io = |source| Error::Io { path: file.to_owned(), source };
    let at = |number: usize, reason: String| Error::Format {
        path: file.to_owned(),
        reason: format!("line {number}: {reason}"),
    };
    let mut reader = BufReader::with_capacity(1 << 20, File::open(file).map_err(io)?);
    let (mut ids, mut values): (Vec<i64>, Vec<f32>) = (Vec::new(), Vec::new());
    let (mut seen, mut report) = (HashSet::new(), GloveReport::default());
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        if reader.read_until(b'\n', &mut line).map_err(io)? == 0 {
            break;
        }
        let text = std::str::from_utf8(&line).map_err(|reason| at(number, reason.to_string()))?;
        let text = text.trim_end_matches(['\n', '\r', ' ']);
        if number == 1 && is_header(text, width).map_err(|reason| at(number, reason))? {
            continue;
        }
        let (word, numbers) = split(text, width).map_err(|reason| at(number, reason))?;
        report.words += 1;
        let Some(id) = tokenizer.word_id(word) else { continue };
        if !seen.insert(id) {
            report.repeated += 1;
            continue;
        }
        ids.push(i64::from(id));
        for number_text in numbers.split(' ') {
            let value = number_text.parse().ok().filter(|value: &f32| value.is_finite());
            values.push(value.ok_or_else(|| at(number, format!("{number_text:?} is no finite number")))?);
        }
    }
    if ids.is_empty() {
        let reason = format!("none of its {} words is in the vocabulary of the tokenizer", report.words);
        return Err(Error::Format { path: file.to_owned(), reason });
    }
    let device = embedding.weight().device();
    let rows = Tensor::from_slice(&values).view([ids.len() as i64, width as i64]).to_device(device);
    let places = Tensor::from_slice(&ids).to_device(device);
    let mut table = embedding.weight().shallow_clone();
    tch::no_grad(|| table.f_index_copy_(0, &places, &rows).map(drop))?;
    report.found = ids.len();
    report.missing = tokenizer.vocab_size() - ids.len();
    Ok(report)
}

/// Whether the first line of a file is word2vec's: the number of words and their `width`. It also refuses a
/// file of vectors of another width, whose numbers would be taken for a part of the word.
fn is_header(text: &str, width: usize) -> std::result::Result<bool, String> {
    let mut parts = text.split(' ');
    let is_count = |part: Option<&str>| part.is_some_and(|part| part.parse::<u64>().is_ok());
    let (word, rest): (_, Vec<&str>) = (parts.next(), parts.collect());
    if rest.len() == 1 && width > 1 && is_count(word) && is_count(rest.first().copied()) {
        return match rest[0].parse() == Ok(width) {
            true => Ok(true),
            false => Err(format!("vectors of {} values, the embedding has a width of {width}", rest[0])),
        };
    }
    if rest.len() != width && rest.iter().all(|part| part.parse::<f32>().is_ok()) {
        return Err(format!("a vector of {} values, the embedding has a width of {width}", rest.len()));
    }
    Ok(false)
}

/// A line as the word and the text of its `width` numbers.
fn split(text: &str, width: usize) -> std::result::Result<(&str, &str), String> {
    let start = text.bytes().enumerate().rev().filter(|&(_, byte)| byte == b' ').nth(width - 1);
    match start {
        Some((start, _)) if start > 0 => Ok((&text[..start], &text[start + 1..])),
        _ => {
            let values = text.split(' ').count() - 1;
            Err(format!("expected a word and {width} values, got {values}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train_word_level;
    use tch::nn::VarStore;
    use tch::{Device, Kind};

    /// The report on a file of `text` and the rows of `red`, `blue` and `[UNK]`, which begin as zeros.
    fn read(text: &str) -> Result<(GloveReport, Vec<f32>)> {
        let tokenizer = train_word_level(["red blue green".to_owned()].into_iter(), 1, 8)?;
        let vs = VarStore::new(Device::Cpu);
        let embedding = Embedding::new(&vs.root(), tokenizer.vocab_size() as i64, 2, 0.0);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("glove.txt");
        std::fs::write(&file, text).unwrap();
        let report = read_glove(&file, &tokenizer, &embedding)?;
        let id = |word: &str| i64::from(tokenizer.token_id(word).unwrap());
        let rows = Tensor::from_slice(&["red", "blue", "[UNK]"].map(id));
        let rows = embedding.forward(&rows).to_kind(Kind::Float).view(-1);
        Ok((report, Vec::try_from(rows).unwrap()))
    }

    #[test]
    fn words_of_the_vocabulary_get_their_vectors_and_others_are_counted() {
        let text = "red 1 -2.5\n. . . 3 4\nblue 0.5 1e-1\npurple 5 6\nred 7 8\n";
        let (report, rows) = read(text).unwrap();
        assert_eq!(rows, [1.0, -2.5, 0.5, 0.1, 0.0, 0.0]);
        assert_eq!(report, GloveReport { words: 5, found: 2, missing: 4, repeated: 1 });
    }

    #[test]
    fn the_header_and_the_trailing_spaces_of_word2vec_are_accepted() {
        let (report, rows) = read("2 2\nred 1 2 \r\nblue 3 4 \n").unwrap();
        assert_eq!((report.words, report.found, &rows[..4]), (2, 2, &[1.0, 2.0, 3.0, 4.0][..]));
    }

    #[test]
    fn a_damaged_line_is_named() {
        for (text, problem) in [
            ("red 1 2\nblue 3\n", "line 2: expected a word and 2 values, got 1"),
            ("red 1 2\nblue 3 x\n", "line 2: \"x\" is no finite number"),
            ("red 1 inf\n", "line 1: \"inf\" is no finite number"),
            ("red 1 2\n\n", "line 2: expected a word and 2 values, got 0"),
            ("red 1 2 3\n", "line 1: a vector of 3 values, the embedding has a width of 2"),
            ("9 300\nred 1 2\n", "line 1: vectors of 300 values, the embedding has a width of 2"),
            ("purple 1 2\n", "none of its 1 words is in the vocabulary"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(problem), "{text:?}: {error}");
        }
    }
}
