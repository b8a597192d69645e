//! The objects of a scene and their attributes, each with its English word.

use serde::Serialize;

/// An enum with one word for each value, which all texts use.
macro_rules! worded {
    ($(#[$doc:meta])* $name:ident { $($(#[$value_doc:meta])* $value:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
        )]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$value_doc])* $value,)+ }

        impl $name {
            /// All values.
            pub const ALL: [Self; [$($word),+].len()] = [$(Self::$value),+];

            /// The word of the texts.
            pub fn word(self) -> &'static str {
                match self { $(Self::$value => $word,)+ }
            }
        }
    };
}
pub(super) use worded;

worded! {
    /// The outline of an object.
    Shape {
        /// Round.
        Circle = "circle",
        /// With level sides.
        Square = "square",
        /// With its tip up.
        Triangle = "triangle",
        /// With five points.
        Star = "star",
        /// A plus sign.
        Cross = "cross",
        /// With its tip down.
        Heart = "heart",
    }
}

worded! {
    /// The color of an object.
    Colour {
        /// Red.
        Red = "red",
        /// Orange.
        Orange = "orange",
        /// Yellow.
        Yellow = "yellow",
        /// Green.
        Green = "green",
        /// Blue.
        Blue = "blue",
        /// Purple.
        Purple = "purple",
        /// Pink.
        Pink = "pink",
        /// Brown.
        Brown = "brown",
    }
}

worded! {
    /// The size of an object.
    Size {
        /// A radius of 96 thousandths of the picture.
        Small = "small",
        /// A radius of 152 thousandths of the picture.
        Large = "large",
    }
}

worded! {
    /// The fill pattern of an object, in place of CLEVR's materials.
    Pattern {
        /// Filled with its color.
        Solid = "solid",
        /// With slanted white stripes.
        Striped = "striped",
        /// With white spots.
        Spotted = "spotted",
        /// Only a colored outline.
        Hollow = "hollow",
    }
}

worded! {
    /// The uniform background. Texts do not mention it.
    Background {
        /// Off-white.
        White = "white",
        /// Light grey.
        Grey = "grey",
        /// Pale sand.
        Sand = "sand",
        /// Pale blue.
        Sky = "sky",
    }
}

/// The side of the image in the unit of positions and radii.
pub const SIDE: u32 = 1000;

/// The combinations that no training scene has: one of each color, at most two of each shape.
pub const HELD_OUT: [(Colour, Shape); 8] = [
    (Colour::Red, Shape::Star),
    (Colour::Orange, Shape::Square),
    (Colour::Yellow, Shape::Heart),
    (Colour::Green, Shape::Triangle),
    (Colour::Blue, Shape::Circle),
    (Colour::Purple, Shape::Cross),
    (Colour::Pink, Shape::Star),
    (Colour::Brown, Shape::Circle),
];

/// An object. Positions are whole thousandths of the side of the image, so that texts are exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct Object {
    /// The outline.
    pub shape: Shape,
    /// The color.
    pub colour: Colour,
    /// The size.
    pub size: Size,
    /// The fill pattern.
    pub pattern: Pattern,
    /// The horizontal center, from the left, in thousandths of the side.
    pub x: u32,
    /// The vertical center, from the top, in thousandths of the side.
    pub y: u32,
}

impl Size {
    /// Half the side of the bounding square of an object of this size, in thousandths of the side of the
    /// image.
    pub fn radius(self) -> u32 {
        match self {
            Self::Small => 96,
            Self::Large => 152,
        }
    }
}

impl Object {
    /// Whether both have the same shape, color, size and pattern.
    pub fn looks_like(&self, other: &Self) -> bool {
        Self { x: 0, y: 0, ..*self } == Self { x: 0, y: 0, ..*other }
    }

    /// Whether its color and shape are one of the [`HELD_OUT`] combinations.
    pub fn is_held_out(&self) -> bool {
        HELD_OUT.contains(&(self.colour, self.shape))
    }
}
