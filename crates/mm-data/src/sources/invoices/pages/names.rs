//! Names of firms and people, addresses and goods, composed from lists of words.

use super::draw::{below, chance, pick};
use super::language::Language;
use super::region::Region;
use crate::SampleRng;

/// The longest name of a seller, in characters.
const LONGEST_SELLER: usize = 22;

const FIRST_SYLLABLES: [&str; 32] = [
    "Al", "Bel", "Bor", "Cor", "Dan", "Del", "Els", "Fer", "Fin", "Gal", "Hal", "Iv", "Jor", "Kel", "Kor",
    "Lum", "Mar", "Mel", "Nor", "Or", "Pel", "Quin", "Ros", "Sol", "Tal", "Tor", "Ul", "Var", "Wes", "Xan",
    "Yor", "Zel",
];
const MIDDLE_SYLLABLES: [&str; 12] = ["", "a", "an", "ar", "e", "en", "i", "il", "o", "or", "u", "um"];
const LAST_SYLLABLES: [&str; 24] = [
    "bis", "da", "dia", "fex", "ga", "ka", "lin", "lux", "mont", "na", "nix", "pa", "ra", "ro", "sen", "tec",
    "tis", "va", "vak", "ven", "via", "wick", "xo", "zon",
];

const SURNAMES: [&str; 56] = [
    "Adler",
    "Alonso",
    "Baker",
    "Becker",
    "Bell",
    "Blanc",
    "Brandt",
    "Carter",
    "Castro",
    "Cole",
    "Dubois",
    "Duran",
    "Ekberg",
    "Ellis",
    "Faber",
    "Fischer",
    "Fontaine",
    "Fuchs",
    "Garcia",
    "Girard",
    "Graf",
    "Hahn",
    "Hayes",
    "Hoffmann",
    "Ibarra",
    "Jansen",
    "Keller",
    "Kowalski",
    "Krause",
    "Lang",
    "Leroy",
    "Lopez",
    "Lindqvist",
    "Marsh",
    "Meyer",
    "Morel",
    "Moreno",
    "Novak",
    "Ortega",
    "Palmer",
    "Petit",
    "Quinn",
    "Renard",
    "Reyes",
    "Rossi",
    "Sato",
    "Schmidt",
    "Serrano",
    "Stone",
    "Tanaka",
    "Vidal",
    "Vogt",
    "Weber",
    "Wolf",
    "Young",
    "Zimmer",
];

const FIRST_NAMES: [&str; 24] = [
    "Anna", "Ben", "Carla", "David", "Elena", "Felix", "Greta", "Hugo", "Ines", "Jonas", "Kira", "Louis",
    "Marta", "Nils", "Olga", "Paul", "Rosa", "Simon", "Tara", "Ulla", "Victor", "Wendy", "Yves", "Zoe",
];

/// Endings of descriptions, with numbers that are no amounts.
const VARIANTS: [&str; 16] = [
    "A4", "A5", "XL", "S", "M12", "B2", "40 cm", "2 m", "5 kg", "500 ml", "Pro", "Mini", "Plus", "24 V",
    "II", "C3",
];

impl Language {
    fn trades(self) -> &'static [&'static str] {
        match self {
            Self::English => &[
                "Supplies",
                "Systems",
                "Trading",
                "Foods",
                "Tools",
                "Media",
                "Print",
                "Motors",
                "Garden",
                "Design",
                "Energy",
                "Logistics",
                "Books",
                "Labs",
            ],
            Self::German => &[
                "Technik", "Handel", "Bau", "Druck", "Metall", "Möbel", "Logistik", "Medien", "Werkzeug",
                "Textil", "Energie", "Garten",
            ],
            Self::French => &[
                "Services",
                "Distribution",
                "Meubles",
                "Énergie",
                "Transports",
                "Conseil",
                "Jardin",
                "Textile",
                "Imprimerie",
                "Outillage",
            ],
            Self::Spanish => &[
                "Servicios",
                "Suministros",
                "Muebles",
                "Energía",
                "Transportes",
                "Diseño",
                "Jardín",
                "Textil",
                "Gráficas",
                "Talleres",
            ],
        }
    }

    fn streets(self) -> &'static [&'static str] {
        match self {
            Self::English => &[
                "{} Mill Lane",
                "{} Oak Street",
                "{} Harbour Road",
                "{} Station Rd",
                "{} Hill Avenue",
                "{} Park Row",
            ],
            Self::German => &["Lindenweg {}", "Bahnhofstr. {}", "Am Markt {}", "Hauptstr. {}", "Ringstr. {}"],
            Self::French => {
                &["{} rue du Moulin", "{} rue Verte", "{} quai Nord", "{} av. de la Gare", "{} place Neuve"]
            }
            Self::Spanish => {
                &["Calle Mayor {}", "Av. del Sol {}", "Calle Nueva {}", "Plaza Real {}", "Calle Luna {}"]
            }
        }
    }

    fn goods(self) -> &'static [&'static str] {
        match self {
            Self::English => &[
                "Office chair",
                "Desk lamp",
                "Copy paper",
                "Ink cartridge",
                "Steel bolts",
                "Consulting",
                "Web design",
                "Garden hose",
                "Paint, white",
                "Cable",
                "Monitor",
                "Keyboard",
                "Cleaning",
                "Repair",
                "Coffee beans",
                "Notebook",
                "Shelf",
                "Delivery",
                "Training",
                "Battery",
                "Filter",
                "Wood panel",
                "Gloves",
                "Printing",
            ],
            Self::German => &[
                "Bürostuhl",
                "Tischlampe",
                "Kopierpapier",
                "Druckerpatrone",
                "Schrauben",
                "Beratung",
                "Webdesign",
                "Schlauch",
                "Wandfarbe",
                "Kabel",
                "Monitor",
                "Tastatur",
                "Reinigung",
                "Reparatur",
                "Kaffee",
                "Notizbuch",
                "Regal",
                "Lieferung",
                "Schulung",
                "Batterie",
                "Filter",
                "Holzplatte",
                "Handschuhe",
                "Montage",
            ],
            Self::French => &[
                "Chaise",
                "Lampe",
                "Papier",
                "Cartouche",
                "Vis acier",
                "Conseil",
                "Site web",
                "Tuyau",
                "Peinture",
                "Câble",
                "Écran",
                "Clavier",
                "Nettoyage",
                "Réparation",
                "Café",
                "Carnet",
                "Étagère",
                "Livraison",
                "Formation",
                "Pile",
                "Filtre",
                "Panneau bois",
                "Gants",
                "Impression",
            ],
            Self::Spanish => &[
                "Silla",
                "Lámpara",
                "Papel",
                "Cartucho",
                "Tornillos",
                "Consultoría",
                "Diseño web",
                "Manguera",
                "Pintura",
                "Cable",
                "Monitor",
                "Teclado",
                "Limpieza",
                "Reparación",
                "Café",
                "Cuaderno",
                "Estante",
                "Entrega",
                "Formación",
                "Batería",
                "Filtro",
                "Tablero",
                "Guantes",
                "Impresión",
            ],
        }
    }
}

fn invented(rng: &mut SampleRng) -> String {
    let [first, middle, last] =
        [pick(rng, &FIRST_SYLLABLES), pick(rng, &MIDDLE_SYLLABLES), pick(rng, &LAST_SYLLABLES)];
    format!("{first}{middle}{last}")
}

/// The name of a firm, of one to four words and at most [`LONGEST_SELLER`] characters.
pub(super) fn firm(region: &Region, rng: &mut SampleRng) -> String {
    loop {
        let legal = pick(rng, region.legal_forms);
        let trade = pick(rng, region.language.trades());
        let (surname, other) = (pick(rng, &SURNAMES), pick(rng, &SURNAMES));
        let name = match below(rng, 8) {
            0 => invented(rng),
            1 | 2 => format!("{} {legal}", invented(rng)),
            3 => format!("{} {trade}", invented(rng)),
            4 => format!("{surname} & {other}"),
            5 => format!("{surname} {legal}"),
            6 => format!("{surname} {trade}"),
            _ => format!("{} {trade} {legal}", invented(rng)),
        };
        if name.chars().count() <= LONGEST_SELLER {
            return name;
        }
    }
}

/// The name of a person.
pub(super) fn person(rng: &mut SampleRng) -> String {
    format!("{} {}", pick(rng, &FIRST_NAMES), pick(rng, &SURNAMES))
}

/// Street and city.
pub(super) fn address(region: &Region, rng: &mut SampleRng) -> [String; 2] {
    let number = below(rng, 180) + 1;
    let street = pick(rng, region.language.streets()).replace("{}", &number.to_string());
    [street, (*pick(rng, region.cities)).to_owned()]
}

/// Goods or a service, in full and in short.
pub(super) fn goods(language: Language, rng: &mut SampleRng) -> [String; 2] {
    let name = *pick(rng, language.goods());
    let variant = pick(rng, &VARIANTS);
    let full = if chance(rng, 55) { format!("{name} {variant}") } else { name.to_owned() };
    [full, name.to_owned()]
}
