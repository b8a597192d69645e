//! The command line as a user meets it: the program itself, run on good input and bad.

mod bad_input;
mod caption;
mod caption_metrics;
mod caption_training;
mod classify;
mod common;
mod data;
mod diffusion_data;
mod diffusion_training;
mod distributed;
mod image_metrics;
mod images;
mod lost;
mod models;
mod outputs;
mod outside_task;
mod ranks;
mod restart;
mod resume;
mod reward;
mod rl;
mod single_file;
mod text_clean;
mod vqa;
mod vqa_training;
