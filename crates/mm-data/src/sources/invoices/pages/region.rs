//! Regions: the language, currency, numbers, dates, taxes and addresses of an invoice.

use super::date::DateFormat::{self, Dots, Iso, Long, MonthFirst, Short, ShortMonthFirst, Slashes};
use super::language::Language;
use super::money::{Currency, NumberFormat, Sign};
use super::text::HARD_SPACE;

/// The conventions of invoices in a country.
#[derive(Debug)]
pub(super) struct Region {
    pub(super) language: Language,
    pub(super) currency: &'static Currency,
    /// The signs of the currency. A symbol stands for one currency in all regions.
    pub(super) signs: &'static [Sign],
    pub(super) numbers: &'static [NumberFormat],
    pub(super) dates: &'static [DateFormat],
    /// Tax rates in tenths of a percent.
    pub(super) rates: &'static [u32],
    /// The name of the tax, where it is not the language's.
    pub(super) tax: Option<&'static str>,
    pub(super) legal_forms: &'static [&'static str],
    pub(super) cities: &'static [&'static str],
    /// The letters of bank accounts and tax numbers.
    pub(super) country: &'static str,
    pub(super) dial: &'static str,
    /// The share among pages.
    pub(super) weight: u32,
}

const fn currency(code: &'static str, decimals: u32) -> Currency {
    Currency { code, decimals }
}

static USD: Currency = currency("USD", 2);
static EUR: Currency = currency("EUR", 2);
static GBP: Currency = currency("GBP", 2);
static CHF: Currency = currency("CHF", 2);
static JPY: Currency = currency("JPY", 0);
static SEK: Currency = currency("SEK", 2);
static CAD: Currency = currency("CAD", 2);
static AUD: Currency = currency("AUD", 2);
static PLN: Currency = currency("PLN", 2);
static MXN: Currency = currency("MXN", 2);

/// `€12`.
const fn before(text: &'static str) -> Sign {
    Sign { text, is_before: true, is_spaced: false }
}

/// `EUR 12`.
const fn before_spaced(text: &'static str) -> Sign {
    Sign { text, is_before: true, is_spaced: true }
}

/// `12 €`.
const fn after(text: &'static str) -> Sign {
    Sign { text, is_before: false, is_spaced: true }
}

const fn number(group: char, decimal: char) -> NumberFormat {
    NumberFormat { group: Some(group), decimal }
}

const fn ungrouped(decimal: char) -> NumberFormat {
    NumberFormat { group: None, decimal }
}

const COMMA_POINT: NumberFormat = number(',', '.');
const POINT_COMMA: NumberFormat = number('.', ',');
const SPACE_COMMA: NumberFormat = number(HARD_SPACE, ',');
const APOSTROPHE_POINT: NumberFormat = number('\'', '.');

/// All regions.
pub(super) static REGIONS: [Region; 15] = [
    Region {
        language: Language::English,
        currency: &USD,
        signs: &[before("$"), before("$"), before_spaced("USD"), after("USD")],
        numbers: &[COMMA_POINT, COMMA_POINT, COMMA_POINT, ungrouped('.')],
        dates: &[ShortMonthFirst, MonthFirst, Iso],
        rates: &[50, 60, 72, 82, 88],
        tax: Some("Sales tax"),
        legal_forms: &["LLC", "Inc.", "Corp.", "Co."],
        cities: &[
            "Austin, TX 78701",
            "Denver, CO 80202",
            "Salem, OR 97301",
            "Boise, ID 83702",
            "Tampa, FL 33602",
        ],
        country: "US",
        dial: "+1",
        weight: 4,
    },
    Region {
        language: Language::English,
        currency: &GBP,
        signs: &[before("£"), before("£"), before_spaced("GBP")],
        numbers: &[COMMA_POINT, COMMA_POINT, ungrouped('.')],
        dates: &[Short, Long, Slashes, Iso],
        rates: &[200, 200, 50],
        tax: None,
        legal_forms: &["Ltd", "Ltd.", "PLC", "LLP"],
        cities: &["Leeds LS1 4AP", "York YO1 7HH", "Bath BA1 1SU", "Exeter EX4 3LS", "Perth PH1 5TJ"],
        country: "GB",
        dial: "+44",
        weight: 3,
    },
    Region {
        language: Language::English,
        currency: &EUR,
        signs: &[before("€"), before_spaced("EUR"), before_spaced("€")],
        numbers: &[COMMA_POINT],
        dates: &[Short, Long, Slashes, Iso],
        rates: &[230, 135, 90],
        tax: None,
        legal_forms: &["Ltd", "DAC", "Teo"],
        cities: &["Cork T12 W8CD", "Sligo F91 X2V4", "Galway H91 E9K1", "Dublin D02 X285"],
        country: "IE",
        dial: "+353",
        weight: 2,
    },
    Region {
        language: Language::German,
        currency: &EUR,
        signs: &[after("€"), after("€"), after("EUR"), before_spaced("EUR")],
        numbers: &[POINT_COMMA, POINT_COMMA, POINT_COMMA, ungrouped(',')],
        dates: &[Dots, Dots, Dots, Long, Iso],
        rates: &[190, 190, 70],
        tax: None,
        legal_forms: &["GmbH", "KG", "OHG", "AG", "e.K."],
        cities: &["04109 Leipzig", "37073 Göttingen", "55116 Mainz", "28195 Bremen", "99084 Erfurt"],
        country: "DE",
        dial: "+49",
        weight: 5,
    },
    Region {
        language: Language::German,
        currency: &EUR,
        signs: &[before_spaced("€"), before_spaced("EUR"), after("€")],
        numbers: &[POINT_COMMA, SPACE_COMMA],
        dates: &[Dots, Dots, Short],
        rates: &[200, 130, 100],
        tax: None,
        legal_forms: &["GmbH", "KG", "OG", "AG"],
        cities: &["8010 Graz", "4020 Linz", "6020 Innsbruck", "5020 Salzburg"],
        country: "AT",
        dial: "+43",
        weight: 2,
    },
    Region {
        language: Language::German,
        currency: &CHF,
        signs: &[before_spaced("CHF"), before_spaced("CHF"), before_spaced("Fr."), after("CHF")],
        numbers: &[APOSTROPHE_POINT],
        dates: &[Dots, Dots, Long],
        rates: &[81, 77, 26],
        tax: None,
        legal_forms: &["AG", "GmbH", "& Co."],
        cities: &["9000 St. Gallen", "6003 Luzern", "3011 Bern", "7000 Chur"],
        country: "CH",
        dial: "+41",
        weight: 2,
    },
    Region {
        language: Language::French,
        currency: &EUR,
        signs: &[after("€"), after("€"), after("EUR"), before_spaced("EUR")],
        numbers: &[SPACE_COMMA, SPACE_COMMA, ungrouped(',')],
        dates: &[Slashes, Slashes, Long, Short, Iso],
        rates: &[200, 200, 100, 55],
        tax: None,
        legal_forms: &["SARL", "SA", "SAS", "EURL"],
        cities: &["21000 Dijon", "37000 Tours", "49000 Angers", "86000 Poitiers", "54000 Nancy"],
        country: "FR",
        dial: "+33",
        weight: 4,
    },
    Region {
        language: Language::French,
        currency: &CHF,
        signs: &[before_spaced("CHF"), after("CHF"), before_spaced("Fr.")],
        numbers: &[APOSTROPHE_POINT],
        dates: &[Dots, Long],
        rates: &[81, 26],
        tax: None,
        legal_forms: &["SA", "Sàrl"],
        cities: &["1003 Lausanne", "1204 Genève", "2000 Neuchâtel", "1950 Sion"],
        country: "CH",
        dial: "+41",
        weight: 1,
    },
    Region {
        language: Language::Spanish,
        currency: &EUR,
        signs: &[after("€"), after("€"), after("EUR")],
        numbers: &[POINT_COMMA, POINT_COMMA, ungrouped(',')],
        dates: &[Slashes, Slashes, Long, Short, Iso],
        rates: &[210, 210, 100],
        tax: None,
        legal_forms: &["S.L.", "S.A.", "S.L.U."],
        cities: &["37001 Salamanca", "33001 Oviedo", "18001 Granada", "26001 Logroño", "11001 Cádiz"],
        country: "ES",
        dial: "+34",
        weight: 4,
    },
    Region {
        language: Language::Spanish,
        currency: &MXN,
        signs: &[before_spaced("MXN"), after("MXN")],
        numbers: &[COMMA_POINT],
        dates: &[Slashes, Long, Short],
        rates: &[160, 80],
        tax: None,
        legal_forms: &["S.A.", "S.C."],
        cities: &["72000 Puebla", "97000 Mérida", "44100 Guadalajara", "68000 Oaxaca"],
        country: "MX",
        dial: "+52",
        weight: 1,
    },
    Region {
        language: Language::English,
        currency: &SEK,
        signs: &[after("kr"), after("SEK"), before_spaced("SEK")],
        numbers: &[SPACE_COMMA],
        dates: &[Iso, Iso, Short],
        rates: &[250, 120],
        tax: None,
        legal_forms: &["AB", "HB"],
        cities: &["582 22 Linköping", "901 03 Umeå", "252 25 Helsingborg"],
        country: "SE",
        dial: "+46",
        weight: 2,
    },
    Region {
        language: Language::English,
        currency: &JPY,
        signs: &[before("¥"), before("¥"), before_spaced("JPY")],
        numbers: &[COMMA_POINT],
        dates: &[Iso, ShortMonthFirst, Short],
        rates: &[100, 80],
        tax: Some("Tax"),
        legal_forms: &["K.K.", "Co. Ltd"],
        cities: &["Nara 630-8213", "Sendai 980-0811", "Kobe 650-0021"],
        country: "JP",
        dial: "+81",
        weight: 2,
    },
    Region {
        language: Language::English,
        currency: &CAD,
        signs: &[before_spaced("CAD"), before("CA$")],
        numbers: &[COMMA_POINT],
        dates: &[ShortMonthFirst, Iso],
        rates: &[50, 130],
        tax: Some("GST"),
        legal_forms: &["Inc.", "Ltd."],
        cities: &["Halifax NS B3J 1P3", "Regina SK S4P 3Y2", "Victoria BC V8W 1P6"],
        country: "CA",
        dial: "+1",
        weight: 1,
    },
    Region {
        language: Language::English,
        currency: &PLN,
        signs: &[after("zł"), after("PLN")],
        numbers: &[SPACE_COMMA],
        dates: &[Dots, Iso, Short],
        rates: &[230, 80],
        tax: None,
        legal_forms: &["S.A.", "Sp. k."],
        cities: &["30-001 Krakow", "80-001 Gdansk", "87-100 Torun"],
        country: "PL",
        dial: "+48",
        weight: 1,
    },
    Region {
        language: Language::English,
        currency: &AUD,
        signs: &[before_spaced("AUD"), before("A$")],
        numbers: &[COMMA_POINT],
        dates: &[Short, Slashes, Long],
        rates: &[100],
        tax: Some("GST"),
        legal_forms: &["Pty Ltd", "Ltd"],
        cities: &["Hobart TAS 7000", "Darwin NT 0800", "Perth WA 6000"],
        country: "AU",
        dial: "+61",
        weight: 1,
    },
];
