//! The config of the invoices data set.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The limit on the number of samples.
const MAX_SAMPLES: usize = 1_000_000_000;

/// The characters beyond ASCII of sellers and goods.
const ACCENTED: &str = "ÀÁÉÍÑÓÖÜßàáâäåçèéêíñóöúü";

/// The part of the split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InvoicesSplit {
    /// Pages to learn from.
    #[default]
    Train,
    /// Other pages with the layouts and fonts of training.
    Seen,
    /// Pages with layouts and fonts that no training page has.
    HeldOut,
    /// Pages with any layout and any font.
    All,
}

impl InvoicesSplit {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Seen => "seen",
            Self::HeldOut => "held_out",
            Self::All => "all",
        }
    }
}

/// A key of the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InvoiceField {
    /// The number of the invoice as it is printed: `INV-2024-00123`.
    Number,
    /// The date of the invoice: `2024-03-05`.
    Date,
    /// The name of the seller as it is printed.
    Seller,
    /// The ISO code of the currency: `EUR`.
    Currency,
    /// The sum of the items: `1234.56`, with the decimals of the currency.
    Subtotal,
    /// The tax.
    Tax,
    /// The total: the subtotal less a discount, with the tax.
    Total,
    /// A list of `description`, `quantity`, `price` and `amount`.
    Items,
}

impl InvoiceField {
    /// All fields in the order of the target.
    pub const ALL: [Self; 8] = [
        Self::Number,
        Self::Date,
        Self::Seller,
        Self::Currency,
        Self::Subtotal,
        Self::Tax,
        Self::Total,
        Self::Items,
    ];

    /// The key in the target.
    pub fn word(self) -> &'static str {
        match self {
            Self::Number => "number",
            Self::Date => "date",
            Self::Seller => "seller",
            Self::Currency => "currency",
            Self::Subtotal => "subtotal",
            Self::Tax => "tax",
            Self::Total => "total",
            Self::Items => "items",
        }
    }
}

/// The config of the invoices data set:
///
/// ```
/// let toml = "kind = 'invoices'\nsplit = 'held_out'\nsamples = 100\nfields = ['date', 'total']";
/// let config: mm_data::DatasetConfig = toml::from_str(toml)?;
/// # Ok::<(), toml::de::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InvoicesConfig {
    /// The number of samples, up to 1,000,000,000.
    pub samples: usize,
    /// The part of the split.
    pub split: InvoicesSplit,
    /// Width and height of a page in pixels. Text is legible from the default of 224 x 320 on; a larger page
    /// has larger text.
    pub size: [u32; 2],
    /// The seed of the pages.
    pub seed: u64,
    /// The keys of the target, in any order; by default all but the items.
    pub fields: Vec<InvoiceField>,
    /// Whether pages are scans, with rotation up to one degree, blur, grey paper, shadow, noise and stamps.
    /// Otherwise they are clean prints.
    pub scan: bool,
    /// The share of blank pages, from 0 to 1. Their target is an object without keys.
    pub blank: f64,
}

impl Default for InvoicesConfig {
    fn default() -> Self {
        Self {
            samples: 10_000,
            split: InvoicesSplit::Train,
            size: [224, 320],
            seed: 0,
            fields: InvoiceField::ALL.into_iter().filter(|&field| field != InvoiceField::Items).collect(),
            scan: true,
            blank: 0.0,
        }
    }
}

impl InvoicesConfig {
    /// Checks the ranges of all settings.
    ///
    /// # Errors
    /// A setting that is out of its range, by name.
    pub fn check(&self) -> Result<()> {
        let [width, height] = self.size;
        let repeated =
            (1..self.fields.len()).find(|&place| self.fields[..place].contains(&self.fields[place]));
        let wrong = if !(1..=MAX_SAMPLES).contains(&self.samples) {
            format!("samples = {} must be between 1 and {MAX_SAMPLES}", self.samples)
        } else if ![width, height].iter().all(|side| (64..=4096).contains(side)) {
            format!("size = [{width}, {height}] must be a width and a height of 64 to 4096 pixels")
        } else if height < width || height > 2 * width {
            format!("size = [{width}, {height}]: the height must be one to two times the width")
        } else if self.fields.is_empty() {
            "fields = [] must have at least one key of the target".to_owned()
        } else if let Some(place) = repeated {
            format!("fields has `{}` twice", self.fields[place].word())
        } else if !(0.0..=1.0).contains(&self.blank) {
            format!("blank = {} must be a share from 0 to 1", self.blank)
        } else {
            return Ok(());
        };
        Err(Error::Setting(format!("invoices: {wrong}")))
    }

    /// All characters that the texts of targets can have, for a tokenizer that must know each of them.
    pub fn characters(&self) -> String {
        let has_names =
            self.fields.iter().any(|field| matches!(field, InvoiceField::Seller | InvoiceField::Items));
        let accented = if has_names { ACCENTED } else { "" };
        (' '..='~').chain(accented.chars()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_out_of_range_are_named() {
        let message =
            |toml: &str| toml::from_str::<InvoicesConfig>(toml).unwrap().check().unwrap_err().to_string();
        assert_eq!(message("samples = 0"), "invoices: samples = 0 must be between 1 and 1000000000");
        assert_eq!(
            message("size = [224, 10]"),
            "invoices: size = [224, 10] must be a width and a height of 64 to 4096 pixels"
        );
        assert!(message("size = [224, 200]").contains("one to two times"));
        assert!(message("fields = []").contains("at least one"));
        assert_eq!(message("fields = ['tax', 'date', 'tax']"), "invoices: fields has `tax` twice");
        for blank in ["-0.1", "1.5", "nan"] {
            assert!(message(&format!("blank = {blank}")).contains("a share from 0 to 1"));
        }
        assert!(toml::from_str::<InvoicesConfig>("field = ['tax']").is_err());
        assert!(InvoicesConfig::default().check().is_ok());
    }
}
