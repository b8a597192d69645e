//! The layouts that no training page has. Their upper parts are theirs alone, too.

use super::layout::Align::{Center, Left, Right};
use super::layout::Block::{
    AmountDue, Cells, Contact, Inline, Other, Recipient, Rule, Seller, SellerLogo, Stacked, Terms, Title,
    Window,
};
use super::layout::Entry::{Customer, Date, Number, Order};
use super::layout::{Band, Emphasis, Form, Head, Layout, Rules};
use super::layouts::{BANK, CDQPA, DPQA, NDQPA, NLA, layout, slot, table, totals, wide, with_discount};

const SELLER_BELOW: &[Band] = &[
    &[slot(Stacked(&[Date, Number]), 0, 5, Left), slot(Title, 5, 12, Right)],
    &[slot(Window, 6, 12, Right)],
];
const SELLER_AT_END: &[Band] =
    &[&[wide(Rule(4), Left)], &[slot(Seller, 0, 7, Left), slot(Contact, 7, 12, Right)]];
const COLUMN_RIGHT: &[Band] = &[
    &[slot(Recipient, 0, 6, Left), slot(SellerLogo, 6, 12, Left)],
    &[slot(Title, 0, 6, Left), slot(Inline(&[Number, Date, Order]), 6, 12, Left)],
    &[wide(Rule(2), Left)],
];
const FORM: &[Band] = &[
    &[wide(Cells(&[Customer, Number, Date]), Left)],
    &[slot(Window, 0, 6, Left), slot(Seller, 6, 12, Right)],
    &[wide(Title, Center)],
];
const DUE_BANNER: &[Band] = &[
    &[wide(Title, Center)],
    &[slot(AmountDue(Emphasis::Dark), 0, 6, Left), slot(Stacked(&[Number, Date]), 7, 12, Right)],
    &[slot(Seller, 0, 6, Left), slot(Recipient, 7, 12, Left)],
];
const TERMS_OTHER: &[Band] = &[&[wide(Terms, Left)], &[wide(Other, Right)]];

/// The layouts that no training page has.
pub(super) static HELD_OUT: [Layout; 4] = [
    layout(
        "seller-below",
        SELLER_BELOW,
        table(NDQPA, Head::Bold, Rules::Rows, true),
        totals(Form::Lines, 4, 12, Emphasis::Boxed, false),
        SELLER_AT_END,
    ),
    layout(
        "column-right",
        COLUMN_RIGHT,
        table(DPQA, Head::Dark, Rules::Columns, false),
        totals(Form::Stacked, 7, 12, Emphasis::Large, false),
        TERMS_OTHER,
    ),
    with_discount(layout(
        "form",
        FORM,
        table(CDQPA, Head::Plain, Rules::Grid, false),
        totals(Form::Leaders, 0, 12, Emphasis::RuleAbove, false),
        TERMS_OTHER,
    )),
    layout(
        "due-banner",
        DUE_BANNER,
        table(NLA, Head::Shaded, Rules::Ends, false),
        totals(Form::Strip, 2, 12, Emphasis::Plain, true),
        BANK,
    ),
];
