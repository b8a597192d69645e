//! Tests of whole indexes: what is written is found again, exactly, after changes and accidents.

mod accidents;
mod common;
mod data_sets;
mod exports;
mod postgres;
mod searching;
