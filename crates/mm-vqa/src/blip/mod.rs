//! BLIP for questions (Li et al. 2022, section 4.4): a question encoder that reads the image, and an answer
//! decoder that reads the question.
//!
//! Answers are generated, or ranked: the decoder's likelihood orders a list of answers. Both equal
//! transformers' `BlipForQuestionAnswering` for one question without padding. In a batch, in training too,
//! the decoder of transformers 5.23 reads the padding of shorter questions; here it is hidden, so that a
//! batch gives what its questions give alone.

mod config;
mod images;
mod model;

pub use config::{BlipVqaConfig, QuestionToken};
pub use model::BlipVqa;
