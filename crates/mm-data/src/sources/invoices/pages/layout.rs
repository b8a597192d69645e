//! Layouts as data: which block stands where, and in which form.

/// The arrangement of a page: bands from the top, the table, the sums, and bands at the bottom.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) name: &'static str,
    pub(super) top: &'static [Band],
    pub(super) table: Table,
    pub(super) totals: Totals,
    pub(super) bottom: &'static [Band],
    /// Whether a discount may stand between the sum of the items and the tax.
    pub(super) has_discount: bool,
}

/// Blocks side by side.
pub(super) type Band = &'static [Slot];

/// A block in some columns of a band.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) block: Block,
    /// The left and the right edge in twelfths of the width.
    pub(super) columns: [u8; 2],
    pub(super) align: Align,
}

/// The alignment of text between two edges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Center,
    Right,
}

/// A block of text.
#[derive(Debug, Clone, Copy)]
pub(super) enum Block {
    /// The word for an invoice.
    Title,
    /// The title with the number of the invoice.
    TitleNumber,
    /// The seller's name, large, and address.
    Seller,
    /// The same beside a logo.
    SellerLogo,
    /// The seller's name alone, large.
    SellerName,
    /// The seller's name and address in one small line, as above the window of an envelope.
    SellerLine,
    /// The seller's name on the left and the title on the right, on a dark band.
    Banner,
    /// The seller's phone and tax number.
    Contact,
    /// The recipient with a heading.
    Recipient,
    /// The recipient without a heading.
    Window,
    /// Labels on the left, values on the right.
    Pairs(&'static [Entry]),
    /// Each label above its value.
    Stacked(&'static [Entry]),
    /// A line of label and value each.
    Inline(&'static [Entry]),
    /// Framed cells side by side, each a label above a value.
    Cells(&'static [Entry]),
    /// The total, large, with its label.
    AmountDue(Emphasis),
    /// The bank account and the tax number.
    Bank,
    /// The terms of payment.
    Terms,
    /// Thanks.
    Thanks,
    /// An amount that is mentioned only.
    Other,
    /// A line of a thickness in quarters of a pixel.
    Rule(u8),
}

/// A fact about the invoice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    Number,
    Date,
    Due,
    Customer,
    Order,
}

/// The table of items.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) columns: &'static [Column],
    pub(super) head: Head,
    pub(super) rules: Rules,
    /// Whether every other row is shaded.
    pub(super) is_striped: bool,
}

/// A column of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    Position,
    Code,
    Description,
    /// The description above the quantity and the price.
    Lines,
    Quantity,
    /// `3 pcs`.
    QuantityUnit,
    Price,
    Rate,
    Amount,
}

/// The head of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Head {
    Plain,
    Bold,
    Shaded,
    Dark,
}

/// The lines of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rules {
    None,
    /// Below the head.
    Head,
    /// Above and below the head and at the end.
    Ends,
    /// Below each row.
    Rows,
    /// Around each cell.
    Grid,
    /// Around the table and its columns.
    Columns,
}

/// The sums below the table.
#[derive(Debug)]
pub(super) struct Totals {
    pub(super) form: Form,
    /// The left and the right edge in twelfths of the width.
    pub(super) columns: [u8; 2],
    pub(super) emphasis: Emphasis,
    /// Whether the total is above the sums that it is made of.
    pub(super) total_first: bool,
}

/// The form of the sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Labels on the left, amounts on the right.
    Lines,
    /// The same with dots between.
    Leaders,
    /// The same in framed rows.
    Rows,
    /// A line of label and amount each, aligned on the right.
    Inline,
    /// Cells side by side, each a label above an amount.
    Strip,
    /// Each label above its amount.
    Stacked,
}

/// The emphasis of the total.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Emphasis {
    Plain,
    Bold,
    Large,
    RuleAbove,
    DoubleRule,
    Boxed,
    Dark,
}
