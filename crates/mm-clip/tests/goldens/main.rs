//! The models that the peers saved (`xtask/goldens/clip.py`): what they give, what becomes of them in
//! training, in other forms, and as pickles.

mod conversions;
mod folders;
mod hf_towers;
mod layouts;
mod lora;
mod pickles;
mod towers;
mod training;
