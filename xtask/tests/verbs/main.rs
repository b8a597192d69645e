//! The verbs that start other programs, with a cargo, an mm and a python that only tell how they were called.

mod checkout;
mod programs;
mod ranks;
#[path = "../common/script.rs"]
mod script;
