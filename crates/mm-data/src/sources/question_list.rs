//! Images with questions that a command line names.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::sources::lines::{Rows, check_some, row, rows};
use crate::{Dataset, Question, Result, Sample, SampleImage, text};

/// Questions about images: some about one image, or a file of them, one JSON object a line:
///
/// ```json
/// {"image": "photos/a.jpg", "question": "Is it raining?", "question_id": 7}
/// ```
///
/// A sample is an image with its questions, or a line; its key is the path of the image. A line without
/// `question_id` has its number in the file, from 1.
#[derive(Debug)]
pub struct QuestionList {
    name: String,
    path: PathBuf,
    /// The folder that relative paths start from.
    root: PathBuf,
    rows: Rows<Asked>,
}

/// An image with questions.
#[derive(Debug)]
struct Asked {
    image: PathBuf,
    questions: Vec<Question>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    image: PathBuf,
    question: String,
    question_id: Option<u64>,
}

impl QuestionList {
    /// Questions about one image, with the ids 1, 2, ...
    pub fn of_image(image: &Path, questions: &[String]) -> Self {
        let question =
            |(id, text): (u64, &String)| Question { id, text: text.clone(), ..Question::default() };
        let questions = (1..).zip(questions).map(question).collect();
        let name = image.display().to_string();
        let rows = vec![(1, Ok(Asked { image: image.to_owned(), questions }))];
        Self { name, path: image.to_owned(), root: PathBuf::new(), rows }
    }

    /// The questions of a file of JSON lines, with relative paths of images below `root`. A line that is not
    /// such an object, or whose question is empty, is a bad sample in its place.
    ///
    /// # Errors
    /// The file cannot be read or has no such line.
    pub fn read(path: &Path, root: &Path) -> Result<Self> {
        let mut number = 0;
        let rows = rows(path, text::open(path)?, |line| {
            number += 1;
            Ok(parse(line, number))
        })?;
        check_some(path, &rows)?;
        Ok(Self { name: path.display().to_string(), path: path.to_owned(), root: root.to_owned(), rows })
    }
}

fn parse(line: &str, number: u64) -> std::result::Result<Asked, String> {
    let Line { image, question, question_id } =
        serde_json::from_str(line).map_err(|error| format!("not a question about an image: {error}"))?;
    if question.trim().is_empty() {
        return Err("the question is empty".to_owned());
    }
    let id = question_id.unwrap_or(number);
    Ok(Asked { image, questions: vec![Question { id, text: question, ..Question::default() }] })
}

impl Dataset for QuestionList {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.rows.len()
    }

    fn key(&self, index: usize) -> String {
        match &self.rows[index] {
            (_, Ok(asked)) => asked.image.display().to_string(),
            (line, Err(_)) => format!("{}:{line}", self.name),
        }
    }

    fn sample(&self, index: usize) -> Result<Sample> {
        let (_, asked) = row(&self.path, &self.rows, index)?;
        let image = SampleImage::File(self.root.join(&asked.image));
        Ok(Sample { questions: asked.questions.clone(), ..Sample::new(self.key(index), image) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_a_question_and_a_wrong_one_is_a_bad_sample_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("questions.jsonl");
        let lines = "{\"image\": \"a.png\", \"question\": \"What?\", \"question_id\": 7}\n\n\
                     {\"image\": \"b.png\", \"question\": \" \"}\n{\"image\": 3}\n\
                     {\"image\": \"/c.png\", \"question\": \"Who?\"}\n";
        std::fs::write(&path, lines).unwrap();
        let list = QuestionList::read(&path, Path::new("photos")).unwrap();
        assert_eq!((list.len(), list.key(0), list.key(3)), (4, "a.png".to_owned(), "/c.png".to_owned()));
        let first = list.sample(0).unwrap();
        assert_eq!((first.questions[0].id, &first.questions[0].text[..]), (7, "What?"));
        assert!(
            matches!(first.image().unwrap(), SampleImage::File(path) if path == Path::new("photos/a.png"))
        );
        assert_eq!(list.sample(3).unwrap().questions[0].id, 4);
        let messages = [1, 2].map(|index| list.sample(index).unwrap_err().to_string());
        assert!(messages[0].contains("questions.jsonl:3: the question is empty"), "{messages:?}");
        assert!(messages[1].contains("questions.jsonl:4: not a question"), "{messages:?}");
    }

    #[test]
    fn the_questions_about_an_image_are_one_sample() {
        let list = QuestionList::of_image(Path::new("a.png"), &["What?".to_owned(), "Who?".to_owned()]);
        let sample = list.sample(0).unwrap();
        assert_eq!((list.len(), &sample.key[..], sample.questions.len()), (1, "a.png", 2));
        assert_eq!(sample.questions[1].id, 2);
    }
}
