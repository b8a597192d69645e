//! From values to 8-bit levels: windows and tables of the values of interest (VOI, PS3.3 section C.11.2).

use serde::{Deserialize, Serialize};

use super::dataset::{Attributes, DataSet};
use super::lut::LookupTable;
use super::tags;
use super::undecodable;
use crate::Result;

/// The choice of the values that a grey image shows. Colours are shown as they are.
///
/// ```
/// use mm_data::dicom::Window;
///
/// #[derive(serde::Deserialize)]
/// struct Keys {
///     window: Window,
/// }
/// let window = |text| toml::from_str::<Keys>(text).map(|keys| keys.window);
/// assert_eq!(window("window = 1")?, Window::Number(1));
/// let soft_tissue = Window::Range { center: 40.0, width: 400.0 };
/// assert_eq!(window("window = { center = 40, width = 400 }")?, soft_tissue);
/// assert_eq!(window("window = 'min_max'")?, Window::MinMax);
/// # Ok::<(), toml::de::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(from = "Setting", into = "Setting")]
pub enum Window {
    /// The VOI lookup table or window of this number in the file, from 0: tables first, then windows, as
    /// pydicom prefers them. 0 in a file with neither is [`MinMax`](Self::MinMax).
    Number(usize),
    /// A window in the units of the image, such as Hounsfield units of CT.
    Range {
        /// The value in the middle.
        center: f64,
        /// The difference of the values shown as white and as black.
        width: f64,
    },
    /// From the lowest value of the frame to the highest, padding included.
    MinMax,
}

impl Default for Window {
    fn default() -> Self {
        Self::Number(0)
    }
}

/// A [`Window`] as the configuration has it.
#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a number, { center, width } or \"min_max\"")]
enum Setting {
    Number(usize),
    Range { center: f64, width: f64 },
    Name(Name),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Name {
    MinMax,
}

impl From<Setting> for Window {
    fn from(setting: Setting) -> Self {
        match setting {
            Setting::Number(number) => Self::Number(number),
            Setting::Range { center, width } => Self::Range { center, width },
            Setting::Name(Name::MinMax) => Self::MinMax,
        }
    }
}

impl From<Window> for Setting {
    fn from(window: Window) -> Self {
        match window {
            Window::Number(number) => Self::Number(number),
            Window::Range { center, width } => Self::Range { center, width },
            Window::MinMax => Self::Name(Name::MinMax),
        }
    }
}

/// The function of a window (PS3.3 section C.11.2.1.2.1 and C.11.2.1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Linear,
    LinearExact,
    Sigmoid,
}

/// The mapping of the values of a frame to levels.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Voi {
    Table(LookupTable),
    Window { center: f64, width: f64, function: Function },
    MinMax,
}

impl Voi {
    /// The mapping that `window` selects of those of the data set. `of_frame` has the windows of a frame in a
    /// multi-frame file with functional groups; `is_signed` says whether the values may be negative.
    ///
    /// # Errors
    /// No such number, an invalid window or table.
    pub(super) fn select(
        data_set: &DataSet,
        of_frame: &Attributes,
        window: Window,
        is_signed: bool,
    ) -> Result<Self> {
        match window {
            Window::MinMax => Ok(Self::MinMax),
            Window::Range { center, width } => Self::window(center, width, Function::Linear),
            Window::Number(number) => Self::numbered(data_set, of_frame, number, is_signed),
        }
    }

    fn numbered(data_set: &DataSet, of_frame: &Attributes, number: usize, is_signed: bool) -> Result<Self> {
        let tables = data_set.root.items(tags::VOI_LUT_SEQUENCE);
        if let Some(item) = tables.get(number) {
            return LookupTable::of_item(data_set, item, is_signed).map(Self::Table);
        }
        let centers = data_set.numbers(of_frame, tags::WINDOW_CENTER);
        let widths = data_set.numbers(of_frame, tags::WINDOW_WIDTH);
        let count = tables.len() + centers.len().min(widths.len());
        if count == 0 && number == 0 {
            return Ok(Self::MinMax);
        }
        if number >= count {
            return Err(undecodable(format!(
                "the file has no window {number}, only {count}, counted from 0: choose another number, a \
                 center and width, or \"min_max\""
            )));
        }
        let index = number - tables.len();
        let (Some(center), Some(width)) = (centers[index], widths[index]) else {
            return Err(undecodable(format!("window {number} is not a pair of numbers")));
        };
        let function = match data_set.text(of_frame, tags::VOI_LUT_FUNCTION).as_deref() {
            None | Some("LINEAR") => Function::Linear,
            Some("LINEAR_EXACT") => Function::LinearExact,
            Some("SIGMOID") => Function::Sigmoid,
            Some(other) => {
                return Err(undecodable(format!("the VOI LUT Function `{other}` is not supported")));
            }
        };
        Self::window(center, width, function)
    }

    /// A window. One of `LINEAR` that is narrower than 1, which its formula excludes, is `LINEAR_EXACT`.
    fn window(center: f64, width: f64, function: Function) -> Result<Self> {
        if width.is_nan() || width <= 0.0 || !center.is_finite() {
            return Err(undecodable(format!(
                "the window has center {center} and width {width}: choose another number, a center and \
                 width, or \"min_max\""
            )));
        }
        if function == Function::Linear && width < 1.0 {
            tracing::warn!("DICOM window of width {width}, below 1: LINEAR_EXACT is used in place of LINEAR");
            return Ok(Self::Window { center, width, function: Function::LinearExact });
        }
        Ok(Self::Window { center, width, function })
    }

    /// The levels of the values of a frame.
    pub(super) fn levels(&self, values: &[f32]) -> Vec<u8> {
        match self {
            Self::Table(table) => values.iter().map(|value| table.level(*value)).collect(),
            Self::Window { center, width, function } => {
                let level = |value: &f32| level(function.fraction(f64::from(*value), *center, *width));
                values.iter().map(level).collect()
            }
            Self::MinMax => {
                let finite = || values.iter().copied().filter(|value| value.is_finite());
                let (low, high) = (finite().fold(f32::MAX, f32::min), finite().fold(f32::MIN, f32::max));
                let range = f64::from(high) - f64::from(low);
                let fraction = |value: f32| (f64::from(value) - f64::from(low)) / range;
                // A uniform frame is black.
                values.iter().map(|value| level(if range > 0.0 { fraction(*value) } else { 0.0 })).collect()
            }
        }
    }
}

fn level(fraction: f64) -> u8 {
    (fraction * 255.0).round() as u8
}

impl Function {
    /// The brightness of a value, from 0 to 1.
    fn fraction(self, value: f64, center: f64, width: f64) -> f64 {
        match self {
            Self::Linear => ramp(value, center - 0.5, width - 1.0),
            Self::LinearExact => ramp(value, center, width),
            Self::Sigmoid => 1.0 / (1.0 + (-4.0 * (value - center) / width).exp()),
        }
    }
}

/// 0 up to `width / 2` below the center, 1 above `width / 2` over it, linear between.
fn ramp(value: f64, center: f64, width: f64) -> f64 {
    if value <= center - width / 2.0 {
        0.0
    } else if value > center + width / 2.0 {
        1.0
    } else {
        (value - center) / width + 0.5
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_have_the_values_of_the_standard() {
        // The example of PS3.3 C.11.2.1.2.1: c = 2048, w = 4096 maps 0 to 4095 onto the whole range.
        let linear = |value| Function::Linear.fraction(value, 2048.0, 4096.0);
        assert_eq!([linear(0.0), linear(4095.0), linear(2047.5)], [0.0, 1.0, 0.5]);
        let exact = |value| Function::LinearExact.fraction(value, 2048.0, 4096.0);
        assert_eq!([exact(0.0), exact(4096.0), exact(2048.0)], [0.0, 1.0, 0.5]);
        // w = 1 is a step at c - 0.5.
        let step = |value| Function::Linear.fraction(value, 10.0, 1.0);
        assert_eq!([step(9.5), step(9.6)], [0.0, 1.0]);
        let sigmoid = |value| Function::Sigmoid.fraction(value, 40.0, 400.0);
        assert_eq!(sigmoid(40.0), 0.5);
        assert!((sigmoid(140.0) - 1.0 / (1.0 + (-1.0f64).exp())).abs() < 1e-15);
    }

    #[test]
    fn a_narrow_linear_window_is_exact_and_one_without_width_is_an_error() {
        let exact = Voi::Window { center: 2.0, width: 0.5, function: Function::LinearExact };
        assert_eq!(Voi::window(2.0, 0.5, Function::Linear).unwrap(), exact);
        assert_eq!(exact.levels(&[1.0, 2.0, 3.0]), [0, 128, 255]);
        for width in [0.0, -4.0, f64::NAN] {
            let message = Voi::window(2.0, width, Function::Linear).unwrap_err().to_string();
            assert!(message.contains(&format!("width {width}")), "{message}");
        }
    }

    #[test]
    fn without_a_window_the_range_of_the_frame_is_shown() {
        assert_eq!(Voi::MinMax.levels(&[-5.0, 0.0, 5.0]), [0, 128, 255]);
        assert_eq!(Voi::MinMax.levels(&[7.0, 7.0]), [0, 0]);
        assert_eq!(Voi::MinMax.levels(&[f32::NAN, f32::INFINITY, 0.0, 1.0]), [0, 255, 0, 255]);
    }
}
