//! The pages: their content, then their look, then their pixels and their target.

mod blocks;
mod content;
mod dataset;
mod date;
mod draw;
mod font;
mod held_out;
mod language;
mod layout;
mod layouts;
mod money;
mod names;
mod page;
mod piece;
mod region;
mod render;
mod scan;
mod style;
mod table;
mod target;
mod text;
mod totals;

pub(super) use dataset::InvoicesDataset;
