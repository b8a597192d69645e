//! The invoices data set: pages of invoices with exact targets, drawn on demand, in any number.
//!
//! A page is drawn from random content in one of 36 layouts, so that its target is exact, and so is the place
//! of each printed character. Sellers, numbers, dates, amounts and goods are composed at random in four
//! languages, 15 regions and ten currencies; items add up to the subtotal, and with discount and tax to the
//! total, in whole minor units. Due dates, customer numbers, bank accounts, credit limits and the like stand
//! beside them. The sample of a page has a [`Document`](crate::Document) of the schema `invoice`:
//!
//! ```json
//! {"number": "2024/0815", "date": "2024-03-05", "seller": "Norvak GmbH", "currency": "EUR",
//!  "subtotal": "1040.00", "tax": "197.60", "total": "1237.60"}
//! ```
//!
//! ```
//! # #[cfg(feature = "invoices")] {
//! let config: mm_data::DatasetConfig = toml::from_str("kind = 'invoices'")?;
//! let sample = config.open()?.sample(7)?;
//! assert_eq!(sample.image()?.dimensions()?, (224, 320));
//! let document = sample.document.ok_or("a document")?;
//! let total = document.fields.iter().find(|field| field.key == "total").ok_or("a total")?;
//! assert_eq!(total.places.len(), total.value.len()); // where each of its characters is printed
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The split
//!
//! `train` and `seen` have 32 layouts, set in DejaVu Sans, DejaVu Sans Condensed and Noto Sans. They draw
//! from different random numbers, so that no page of `seen` is a page of `train`, whatever the seeds and
//! indices: `train` is learned, `seen` measures reading. `held_out` has the four other layouts, set in DejaVu
//! Serif, DejaVu Serif Condensed and DejaVu Sans Mono: it measures reading of pages unlike any in training.
//! `all` has any layout in any font.
//!
//! # What is unambiguous
//!
//! Dates with dots or slashes have the day first, and others the name of the month or ISO order. A symbol
//! stands for one currency: `$` is USD, `kr` SEK. A page without a symbol at its amounts has the code in a
//! heading or a note.
//!
//! # Determinism
//!
//! A page depends on split, seed, index and size; its blank share and fields change no other random number.
//! Content and layout are the same on every machine. Pixels are, too, up to the last bit of the rasterizer's
//! coverage, which may differ between processors.
//!
//! # The fonts
//!
//! The fonts (10 MB) are in the program where the feature `invoices` of this crate is on, as it is in `mm`.
//! Without it the kind is known, and opening it is an error.

mod config;

#[cfg(feature = "invoices")]
mod pages;

pub use config::{InvoiceField, InvoicesConfig, InvoicesSplit};

use crate::{Dataset, Result};

/// Opens the data set.
#[cfg(feature = "invoices")]
pub(crate) fn open(config: &InvoicesConfig) -> Result<Box<dyn Dataset>> {
    Ok(Box::new(pages::InvoicesDataset::new(config)?))
}

/// The error of a build without fonts, or that of the config.
#[cfg(not(feature = "invoices"))]
pub(crate) fn open(config: &InvoicesConfig) -> Result<Box<dyn Dataset>> {
    config.check()?;
    Err(crate::Error::Setting(
        "invoices: this build has no fonts to draw them: build it with the feature `invoices` of mm-data"
            .to_owned(),
    ))
}
