//! The metrics of answers to questions about images. Plain functions of texts and numbers, without tensors.
