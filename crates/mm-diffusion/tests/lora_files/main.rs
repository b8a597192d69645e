//! LoRA files, single-file checkpoints and textual inversion, compared with diffusers
//! (`data/goldens/diffusion-lora`).

mod bad_input;
mod common;
mod damaged;
mod single_file;
mod spellings;
mod textual_inversion;
mod writing;
