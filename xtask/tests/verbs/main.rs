//! The verbs that start other programs, with scripts in the place of cargo, mm and Python.

mod checkout;
mod programs;
mod ranks;
#[path = "../common/script.rs"]
mod script;
