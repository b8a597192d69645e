//! The layouts of training and of seen pages.

use super::layout::Align::{self, Center, Left, Right};
use super::layout::Block::{
    AmountDue, Bank, Banner, Cells, Contact, Inline, Other, Pairs, Recipient, Rule, Seller, SellerLine,
    SellerLogo, SellerName, Stacked, Terms, Thanks, Title, TitleNumber, Window,
};
use super::layout::Column::{
    Amount, Code, Description, Lines, Position, Price, Quantity, QuantityUnit, Rate,
};
use super::layout::Entry::{Customer, Date, Due, Number, Order};
use super::layout::{Band, Block, Column, Emphasis, Form, Head, Layout, Rules, Slot, Table, Totals};

pub(super) const fn slot(block: Block, from: u8, to: u8, align: Align) -> Slot {
    Slot { block, columns: [from, to], align }
}

/// A block over the whole width.
pub(super) const fn wide(block: Block, align: Align) -> Slot {
    slot(block, 0, 12, align)
}

pub(super) const fn table(columns: &'static [Column], head: Head, rules: Rules, is_striped: bool) -> Table {
    Table { columns, head, rules, is_striped }
}

pub(super) const fn totals(form: Form, from: u8, to: u8, emphasis: Emphasis, total_first: bool) -> Totals {
    Totals { form, columns: [from, to], emphasis, total_first }
}

/// A layout, without and with a discount.
pub(super) const fn layout(
    name: &'static str,
    top: &'static [Band],
    table: Table,
    totals: Totals,
    bottom: &'static [Band],
) -> Layout {
    Layout { name, top, table, totals, bottom, has_discount: false }
}

pub(super) const fn with_discount(layout: Layout) -> Layout {
    Layout { has_discount: true, ..layout }
}

// Columns of tables.
const DQPA: &[Column] = &[Description, Quantity, Price, Amount];
const QDPA: &[Column] = &[Quantity, Description, Price, Amount];
pub(super) const NDQPA: &[Column] = &[Position, Description, Quantity, Price, Amount];
pub(super) const CDQPA: &[Column] = &[Code, Description, Quantity, Price, Amount];
pub(super) const DPQA: &[Column] = &[Description, Price, Quantity, Amount];
const DUPA: &[Column] = &[Description, QuantityUnit, Price, Amount];
const DQPRA: &[Column] = &[Description, Quantity, Price, Rate, Amount];
const LA: &[Column] = &[Lines, Amount];
pub(super) const NLA: &[Column] = &[Position, Lines, Amount];

// Upper parts of seen pages.
const LETTERHEAD: &[Band] = &[
    &[slot(Seller, 0, 7, Left), slot(Title, 7, 12, Right)],
    &[wide(Rule(2), Left)],
    &[slot(Recipient, 0, 6, Left), slot(Pairs(&[Number, Date, Due]), 6, 12, Right)],
];
const WINDOW: &[Band] = &[
    &[wide(SellerName, Right)],
    &[wide(SellerLine, Left)],
    &[slot(Window, 0, 6, Left), slot(Pairs(&[Number, Date, Customer]), 6, 12, Right)],
    &[wide(TitleNumber, Left)],
];
const CENTERED: &[Band] = &[
    &[wide(Seller, Center)],
    &[wide(Rule(3), Left)],
    &[wide(Title, Center)],
    &[slot(Inline(&[Number, Date]), 0, 6, Left), slot(Recipient, 6, 12, Left)],
];
const LOGO: &[Band] = &[
    &[slot(SellerLogo, 0, 7, Left), slot(Inline(&[Number, Date, Due]), 7, 12, Right)],
    &[wide(Title, Left)],
    &[slot(Recipient, 0, 7, Left)],
];
const BANNER: &[Band] = &[
    &[wide(Banner, Left)],
    &[slot(Contact, 0, 6, Left), slot(Pairs(&[Number, Date, Order]), 6, 12, Right)],
    &[slot(Recipient, 0, 7, Left)],
];
const CELLS: &[Band] = &[
    &[slot(Title, 0, 5, Left), slot(Seller, 5, 12, Right)],
    &[slot(Window, 0, 7, Left)],
    &[wide(Cells(&[Number, Date, Customer]), Left)],
];
const META_LEFT: &[Band] = &[
    &[slot(TitleNumber, 0, 12, Left)],
    &[slot(Pairs(&[Date, Due, Order]), 0, 6, Left), slot(Seller, 6, 12, Right)],
    &[wide(Rule(2), Left)],
    &[slot(Recipient, 0, 7, Left)],
];
const STACKED: &[Band] = &[
    &[slot(SellerName, 0, 8, Left), slot(Title, 8, 12, Right)],
    &[slot(Contact, 0, 7, Left)],
    &[slot(Recipient, 0, 7, Left), slot(Stacked(&[Number, Date]), 8, 12, Right)],
];
const DUE_ABOVE: &[Band] = &[
    &[slot(Seller, 0, 7, Left), slot(AmountDue(Emphasis::Boxed), 7, 12, Right)],
    &[slot(Title, 0, 6, Left)],
    &[slot(Recipient, 0, 6, Left), slot(Pairs(&[Number, Date, Due]), 6, 12, Right)],
];
const RECIPIENT_RIGHT: &[Band] = &[
    &[slot(SellerLogo, 0, 8, Left)],
    &[slot(Pairs(&[Number, Date, Customer]), 0, 6, Left), slot(Window, 7, 12, Left)],
    &[wide(Title, Left)],
];
const TITLE_RIGHT: &[Band] = &[
    &[wide(Title, Right)],
    &[slot(Inline(&[Date, Number]), 6, 12, Right), slot(Seller, 0, 6, Left)],
    &[slot(Recipient, 0, 7, Left)],
];
const TWO_ADDRESSES: &[Band] = &[
    &[wide(TitleNumber, Center)],
    &[wide(Rule(4), Left)],
    &[slot(Seller, 0, 6, Left), slot(Recipient, 6, 12, Right)],
    &[wide(Cells(&[Date, Due, Order]), Left)],
];

// Lower parts of seen pages.
pub(super) const BANK: &[Band] = &[&[wide(Rule(2), Left)], &[wide(Bank, Center)]];
const TERMS_BANK: &[Band] = &[&[wide(Terms, Left)], &[wide(Bank, Left)]];
const THANKS: &[Band] = &[&[wide(Thanks, Center)]];
const OTHER_TERMS: &[Band] = &[&[wide(Other, Left)], &[wide(Terms, Left)]];
const OTHER_BANK: &[Band] =
    &[&[wide(Rule(2), Left)], &[slot(Contact, 0, 6, Left), slot(Other, 6, 12, Right)]];
const CONTACT: &[Band] = &[&[wide(Contact, Center)]];

/// The layouts of training and of seen pages.
pub(super) static SEEN: [Layout; 32] = [
    layout(
        "letterhead-ruled",
        LETTERHEAD,
        table(DQPA, Head::Bold, Rules::Head, false),
        totals(Form::Lines, 6, 12, Emphasis::RuleAbove, false),
        BANK,
    ),
    layout(
        "letterhead-grid",
        LETTERHEAD,
        table(NDQPA, Head::Shaded, Rules::Grid, false),
        totals(Form::Rows, 6, 12, Emphasis::Bold, false),
        TERMS_BANK,
    ),
    with_discount(layout(
        "letterhead-large-total",
        LETTERHEAD,
        table(QDPA, Head::Dark, Rules::None, true),
        totals(Form::Lines, 5, 12, Emphasis::Large, false),
        THANKS,
    )),
    layout(
        "window-lines",
        WINDOW,
        table(NDQPA, Head::Bold, Rules::Ends, false),
        totals(Form::Lines, 5, 12, Emphasis::DoubleRule, false),
        BANK,
    ),
    layout(
        "window-columns",
        WINDOW,
        table(DUPA, Head::Bold, Rules::Columns, false),
        totals(Form::Lines, 6, 12, Emphasis::Boxed, false),
        OTHER_BANK,
    ),
    with_discount(layout(
        "window-two-lines",
        WINDOW,
        table(LA, Head::Plain, Rules::Rows, false),
        totals(Form::Lines, 4, 12, Emphasis::Bold, false),
        TERMS_BANK,
    )),
    layout(
        "centered-plain",
        CENTERED,
        table(DQPA, Head::Plain, Rules::Ends, false),
        totals(Form::Inline, 4, 12, Emphasis::Bold, false),
        THANKS,
    ),
    layout(
        "centered-leaders",
        CENTERED,
        table(QDPA, Head::Bold, Rules::Head, false),
        totals(Form::Leaders, 3, 12, Emphasis::Bold, false),
        CONTACT,
    ),
    with_discount(layout(
        "centered-grid",
        CENTERED,
        table(DPQA, Head::Shaded, Rules::Grid, false),
        totals(Form::Rows, 5, 12, Emphasis::Dark, false),
        OTHER_TERMS,
    )),
    layout(
        "logo-striped",
        LOGO,
        table(DQPA, Head::Dark, Rules::None, true),
        totals(Form::Lines, 6, 12, Emphasis::Dark, false),
        BANK,
    ),
    layout(
        "logo-codes",
        LOGO,
        table(CDQPA, Head::Bold, Rules::Rows, false),
        totals(Form::Lines, 6, 12, Emphasis::RuleAbove, false),
        OTHER_TERMS,
    ),
    layout(
        "logo-total-first",
        LOGO,
        table(LA, Head::Bold, Rules::Head, false),
        totals(Form::Lines, 5, 12, Emphasis::Large, true),
        TERMS_BANK,
    ),
    layout(
        "banner-rates",
        BANNER,
        table(DQPRA, Head::Bold, Rules::Head, false),
        totals(Form::Lines, 5, 12, Emphasis::Dark, false),
        THANKS,
    ),
    with_discount(layout(
        "banner-striped",
        BANNER,
        table(DQPA, Head::Shaded, Rules::None, true),
        totals(Form::Lines, 6, 12, Emphasis::Large, false),
        BANK,
    )),
    layout(
        "banner-strip",
        BANNER,
        table(NDQPA, Head::Plain, Rules::Rows, false),
        totals(Form::Strip, 0, 12, Emphasis::Dark, false),
        TERMS_BANK,
    ),
    layout(
        "cells-grid",
        CELLS,
        table(CDQPA, Head::Bold, Rules::Grid, false),
        totals(Form::Rows, 6, 12, Emphasis::Large, false),
        BANK,
    ),
    layout(
        "cells-columns",
        CELLS,
        table(QDPA, Head::Shaded, Rules::Columns, false),
        totals(Form::Lines, 6, 12, Emphasis::Bold, false),
        OTHER_BANK,
    ),
    layout(
        "cells-strip",
        CELLS,
        table(DQPA, Head::Dark, Rules::Rows, false),
        totals(Form::Strip, 0, 12, Emphasis::Boxed, false),
        THANKS,
    ),
    layout(
        "meta-left-lines",
        META_LEFT,
        table(DUPA, Head::Bold, Rules::Head, false),
        totals(Form::Lines, 5, 12, Emphasis::DoubleRule, false),
        TERMS_BANK,
    ),
    with_discount(layout(
        "meta-left-totals-left",
        META_LEFT,
        table(DQPA, Head::Shaded, Rules::Ends, false),
        totals(Form::Lines, 0, 7, Emphasis::Bold, false),
        BANK,
    )),
    layout(
        "stacked-light",
        STACKED,
        table(DPQA, Head::Plain, Rules::Head, false),
        totals(Form::Inline, 5, 12, Emphasis::Large, false),
        OTHER_TERMS,
    ),
    layout(
        "stacked-two-lines",
        STACKED,
        table(NLA, Head::Bold, Rules::Rows, false),
        totals(Form::Lines, 6, 12, Emphasis::RuleAbove, false),
        CONTACT,
    ),
    layout(
        "stacked-dark",
        STACKED,
        table(DQPA, Head::Dark, Rules::None, false),
        totals(Form::Lines, 6, 12, Emphasis::Boxed, true),
        BANK,
    ),
    layout(
        "due-above-lines",
        DUE_ABOVE,
        table(DQPA, Head::Bold, Rules::Ends, false),
        totals(Form::Lines, 6, 12, Emphasis::Plain, false),
        TERMS_BANK,
    ),
    layout(
        "due-above-striped",
        DUE_ABOVE,
        table(QDPA, Head::Shaded, Rules::None, true),
        totals(Form::Lines, 5, 12, Emphasis::RuleAbove, false),
        OTHER_BANK,
    ),
    layout(
        "recipient-right-lines",
        RECIPIENT_RIGHT,
        table(NDQPA, Head::Bold, Rules::Head, false),
        totals(Form::Lines, 6, 12, Emphasis::DoubleRule, false),
        BANK,
    ),
    with_discount(layout(
        "recipient-right-leaders",
        RECIPIENT_RIGHT,
        table(DUPA, Head::Dark, Rules::Rows, false),
        totals(Form::Leaders, 4, 12, Emphasis::Large, false),
        THANKS,
    )),
    layout(
        "title-right-ruled",
        TITLE_RIGHT,
        table(DQPA, Head::Plain, Rules::Rows, false),
        totals(Form::Lines, 6, 12, Emphasis::Bold, false),
        OTHER_TERMS,
    ),
    layout(
        "title-right-codes",
        TITLE_RIGHT,
        table(CDQPA, Head::Shaded, Rules::Head, false),
        totals(Form::Rows, 5, 12, Emphasis::Bold, false),
        BANK,
    ),
    layout(
        "title-right-total-first",
        TITLE_RIGHT,
        table(LA, Head::Dark, Rules::Rows, false),
        totals(Form::Lines, 6, 12, Emphasis::Dark, true),
        CONTACT,
    ),
    layout(
        "two-addresses-grid",
        TWO_ADDRESSES,
        table(DQPA, Head::Bold, Rules::Grid, false),
        totals(Form::Rows, 6, 12, Emphasis::Dark, false),
        TERMS_BANK,
    ),
    with_discount(layout(
        "two-addresses-lines",
        TWO_ADDRESSES,
        table(DQPRA, Head::Shaded, Rules::Ends, false),
        totals(Form::Lines, 6, 12, Emphasis::Large, false),
        OTHER_BANK,
    )),
];
