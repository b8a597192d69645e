//! The models that the peers saved (`xtask/goldens/clip.py`): what they give, what becomes of them in
//! training, in other forms, and as pickles.

mod conversions;
mod folders;
mod layouts;
mod lora;
mod pickles;
mod towers;
mod training;
