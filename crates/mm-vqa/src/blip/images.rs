//! Questions grouped by their image, so that the image's keys and values are computed once for all of them.

use crate::{Error, Result};
use std::collections::BTreeMap;

/// Images that have the same number of questions: the rows of cross-attention must be spread evenly over its
/// contexts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ImageGroup {
    /// The images.
    pub images: Vec<i64>,
    /// The questions of the first image, then those of the second, and so on.
    pub questions: Vec<i64>,
}

/// The groups of `image_index`, the image of each question, of which there are `images`.
///
/// # Errors
/// A question is about an image that does not exist.
pub(super) fn image_groups(image_index: &[i64], images: i64) -> Result<Vec<ImageGroup>> {
    let mut questions: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for (question, &image) in (0..).zip(image_index) {
        if !(0..images).contains(&image) {
            return Err(Error::Model(format!("question {question} is about image {image} of {images}")));
        }
        questions.entry(image).or_default().push(question);
    }
    let mut groups: BTreeMap<usize, ImageGroup> = BTreeMap::new();
    for (image, questions) in questions {
        let empty = || ImageGroup { images: Vec::new(), questions: Vec::new() };
        let group = groups.entry(questions.len()).or_insert_with(empty);
        group.images.push(image);
        group.questions.extend(questions);
    }
    Ok(groups.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_with_as_many_questions_are_one_group() {
        let group = |images: &[i64], questions: &[i64]| ImageGroup {
            images: images.to_vec(),
            questions: questions.to_vec(),
        };
        assert_eq!(image_groups(&[0, 1, 2], 3).unwrap(), [group(&[0, 1, 2], &[0, 1, 2])]);
        assert_eq!(
            image_groups(&[2, 0, 2, 1, 1], 4).unwrap(),
            [group(&[0], &[1]), group(&[1, 2], &[3, 4, 0, 2])]
        );
        assert_eq!(image_groups(&[], 4).unwrap(), []);
    }

    #[test]
    fn an_image_that_does_not_exist_is_named() {
        for image in [-1, 2] {
            let error = image_groups(&[0, image], 2).unwrap_err().to_string();
            assert!(error.contains(&format!("question 1 is about image {image} of 2")), "{error}");
        }
    }
}
