//! DICOM images: from the file of a scanner to 8-bit RGB.
//!
//! A [`DicomImage`] is parsed (`dataset.rs`: the elements; `transfer_syntax.rs`: their encoding; `pixels.rs`:
//! the layout of the pixels and its checks), a frame of it is decompressed (`codec/`), and its stored values
//! go through the pipeline of PS3.3 and PS3.4 section N.2: rescale or modality lookup table, then a window or
//! VOI lookup table (`window.rs`, `lut.rs`), then the inversion of `MONOCHROME1`; or, for colours, planes,
//! palette and YBR to RGB (`color.rs`).
//!
//! The peer is pydicom: [`DicomImage::values`] are its `apply_rescale`, [`DicomImage::render`] its
//! `apply_voi_lut` on them, scaled to 8 bits. Overlays, presentation states, presentation lookup tables and
//! colour profiles are not applied. Nothing here is meant for clinical use.

mod codec;
mod color;
mod dataset;
mod lut;
mod pixels;
mod tags;
mod transfer_syntax;
mod window;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use mm_image::{MAX_BYTES, RgbImage};

use crate::{Error, Fault, Result};
use dataset::{Attributes, DataSet};
use lut::LookupTable;
use pixels::{Frame, Layout, Photometric};
use window::Voi;

pub use window::Window;

/// The number of first bytes that [`is_dicom`] needs.
const HEAD_BYTES: u64 = 132;
/// The number of first bytes that most headers fit into.
const HEADER_BYTES: u64 = 1 << 16;

/// Whether a file that begins with these bytes is DICOM: `DICM` after a preamble of 128 bytes, or, without a
/// preamble, an element of group 2 or group 8 with an explicit value representation.
///
/// A file with implicit value representations and without a preamble looks like any other binary data;
/// its name decides.
///
/// ```
/// assert!(mm_data::dicom::is_dicom(&[&[0; 128][..], b"DICM"].concat()));
/// assert!(!mm_data::dicom::is_dicom(b"\x89PNG\r\n"));
/// ```
pub fn is_dicom(head: &[u8]) -> bool {
    head.get(128..132) == Some(b"DICM")
        || matches!(head, [2, 0, 0 | 2 | 16, 0, b'A'..=b'Z', b'A'..=b'Z', ..])
        || matches!(head, [8, 0, 0..=24, 0, b'A'..=b'Z', b'A'..=b'Z', ..])
}

/// Whether the name of a file ends in `.dcm`, `.dicom` or `.dic`, in upper or lower case.
pub(crate) fn has_dicom_extension(path: &Path) -> bool {
    let extension = path.extension().map(|extension| extension.to_ascii_lowercase());
    extension.is_some_and(|extension| ["dcm", "dicom", "dic"].iter().any(|known| extension == *known))
}

/// Whether a file is DICOM by its name or by its first bytes. A file that cannot be read is none.
pub(crate) fn is_dicom_file(path: &Path) -> bool {
    let head = || {
        let mut head = Vec::new();
        File::open(path).ok()?.take(HEAD_BYTES).read_to_end(&mut head).ok()?;
        Some(head)
    };
    has_dicom_extension(path) || head().is_some_and(|head| is_dicom(&head))
}

/// A DICOM file with an image. Its frames are decompressed on demand.
///
/// ```
/// use mm_data::dicom::{DicomImage, Window};
///
/// let file = std::fs::read("../../data/goldens/dicom/ct.dcm")?;
/// let slice = DicomImage::parse(&file)?;
/// assert_eq!((slice.width(), slice.height(), slice.header().frames), (18, 12, 1));
/// assert_eq!(slice.values(0)?[0], -1850.0); // Hounsfield units
/// let lung = slice.render(0, Window::Range { center: -600.0, width: 1500.0 })?;
/// assert_eq!(lung.get_pixel(0, 0).0, [0; 3]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct DicomImage<'a> {
    data_set: DataSet<'a>,
    layout: Layout,
    header: DicomHeader,
}

/// The attributes that a data set needs of a file beside its pixels. Empty ones are `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DicomHeader {
    /// The number of frames, at least 1.
    pub frames: usize,
    /// Patient ID (0010,0020).
    pub patient_id: Option<String>,
    /// Study Instance UID (0020,000D).
    pub study_uid: Option<String>,
    /// Series Instance UID (0020,000E).
    pub series_uid: Option<String>,
    /// SOP Instance UID (0008,0018), that of the file.
    pub instance_uid: Option<String>,
    /// Modality (0008,0060): `CT`, `MR`, `DX`.
    pub modality: Option<String>,
    /// Body Part Examined (0018,0015): `CHEST`.
    pub body_part: Option<String>,
}

impl DicomHeader {
    /// Reads the header of a file, in most cases from its first 64 KiB. The pixel data may still be missing
    /// or corrupt.
    ///
    /// # Errors
    /// The file cannot be read, is damaged before its pixel data, declares more frames than it has bytes, or
    /// has an unsupported transfer syntax.
    pub fn read(path: &Path) -> Result<Self> {
        let mut head = Vec::new();
        let file = File::open(path).map_err(Error::io(path))?;
        let length = file.metadata().map_err(Error::io(path))?.len();
        file.take(HEADER_BYTES).read_to_end(&mut head).map_err(Error::io(path))?;
        let of_head = DataSet::read_up_to_pixels(&head).and_then(|data_set| Self::of(&data_set));
        let header = of_head.or_else(|_| {
            let bytes = std::fs::read(path).map_err(Error::io(path))?;
            Self::of(&DataSet::read_up_to_pixels(&bytes)?)
        })?;
        if header.frames as u64 > length {
            return Err(undecodable(format!("{} frames in a file of {length} bytes", header.frames)));
        }
        Ok(header)
    }

    fn of(data_set: &DataSet) -> Result<Self> {
        let text = |tag| data_set.text(&data_set.root, tag);
        Ok(Self {
            frames: pixels::frames(data_set)?,
            patient_id: text(tags::PATIENT_ID),
            study_uid: text(tags::STUDY_INSTANCE_UID),
            series_uid: text(tags::SERIES_INSTANCE_UID),
            instance_uid: text(tags::SOP_INSTANCE_UID),
            modality: text(tags::MODALITY),
            body_part: text(tags::BODY_PART_EXAMINED),
        })
    }
}

/// A frame of a DICOM file with the window that shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct DicomFrame {
    /// The file.
    pub path: PathBuf,
    /// The frame, from 0.
    pub frame: usize,
    /// The window.
    pub window: Window,
}

impl DicomFrame {
    /// Reads the file and renders the frame.
    ///
    /// # Errors
    /// The file cannot be read, and those of [`DicomImage::parse`] and [`DicomImage::render`].
    pub fn render(&self) -> Result<RgbImage> {
        let bytes = std::fs::read(&self.path).map_err(Error::io(&self.path))?;
        DicomImage::parse(&bytes)?.render(self.frame, self.window)
    }
}

impl<'a> DicomImage<'a> {
    /// Parses a file, and checks its sizes. No pixel is decoded.
    ///
    /// # Errors
    /// A file without pixel data, a truncated or damaged one, frames that are larger than the data or than
    /// [`MAX_PIXELS`](mm_image::MAX_PIXELS) samples, a transfer syntax or colour space that is not supported,
    /// which is named.
    pub fn parse(file: &'a [u8]) -> Result<Self> {
        if file.len() > MAX_BYTES {
            return Err(undecodable(format!("{} bytes are more than {MAX_BYTES}", file.len())));
        }
        let data_set = DataSet::read(file)?;
        let layout = Layout::read(&data_set)?;
        let header = DicomHeader::of(&data_set)?;
        Ok(Self { data_set, layout, header })
    }

    /// The width of a frame in pixels.
    pub fn width(&self) -> u32 {
        self.layout.columns
    }

    /// The height of a frame in pixels.
    pub fn height(&self) -> u32 {
        self.layout.rows
    }

    /// The attributes beside the pixels.
    pub fn header(&self) -> &DicomHeader {
        &self.header
    }

    /// The values of a grey frame after the rescale or the modality lookup table, such as Hounsfield units:
    /// `[rows, columns]` in one slice.
    ///
    /// # Errors
    /// A colour image, no such frame, corrupt compressed data.
    pub fn values(&self, frame: usize) -> Result<Vec<f32>> {
        if !self.is_grey() {
            return Err(undecodable("a colour image has no grey values"));
        }
        self.grey_values(&self.frame(frame)?, frame)
    }

    /// A frame as 8-bit RGB. Grey values are shown through `window`, which colours ignore; `MONOCHROME1` is
    /// inverted afterwards.
    ///
    /// # Errors
    /// No such frame or window, corrupt compressed data.
    pub fn render(&self, frame: usize, window: Window) -> Result<RgbImage> {
        let stored = self.frame(frame)?;
        let rgb = if self.layout.photometric == Photometric::Palette {
            let tables = LookupTable::of_palette(&self.data_set, self.layout.is_signed)?;
            color::palette(&stored.values(&self.layout), &tables)
        } else if self.is_grey() {
            let windows = self.group(frame, tags::FRAME_VOI_LUT_SEQUENCE);
            let voi = Voi::select(&self.data_set, windows, window, self.layout.is_signed)?;
            let levels = voi.levels(&self.grey_values(&stored, frame)?);
            let inverted = if stored.photometric == Photometric::Monochrome1 { 255 } else { 0 };
            levels.into_iter().flat_map(|level| [level ^ inverted; 3]).collect()
        } else {
            color::rgb(&stored, &self.layout)
        };
        Ok(color::image(rgb, &self.layout))
    }

    fn is_grey(&self) -> bool {
        matches!(self.layout.photometric, Photometric::Monochrome1 | Photometric::Monochrome2)
    }

    fn frame(&self, number: usize) -> Result<Frame<'_>> {
        let frames = self.layout.frames;
        if number >= frames {
            return Err(undecodable(format!("frame {number}, from 0, of {frames} frames")));
        }
        pixels::frame(&self.data_set, &self.layout, number)
    }

    /// The modality transformation (PS3.3 section C.11.1).
    fn grey_values(&self, stored: &Frame, frame: usize) -> Result<Vec<f32>> {
        let mut values = stored.values(&self.layout);
        let data_set = &self.data_set;
        if let Some(item) = data_set.root.items(tags::MODALITY_LUT_SEQUENCE).first() {
            let table = LookupTable::of_item(data_set, item, self.layout.is_signed)?;
            values.iter_mut().for_each(|value| *value = table.get(*value).into());
            return Ok(values);
        }
        let group = self.group(frame, tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE);
        let number = |tag| data_set.numbers(group, tag).first().copied().flatten();
        if let (Some(slope), Some(intercept)) = (number(tags::RESCALE_SLOPE), number(tags::RESCALE_INTERCEPT))
        {
            values.iter_mut().for_each(|value| *value = (f64::from(*value) * slope + intercept) as f32);
        }
        Ok(values)
    }

    /// The attributes of a functional group of an enhanced multi-frame image (PS3.3 section C.7.6.16): those
    /// of the frame, else those of all frames, else those of the data set.
    fn group(&self, frame: usize, group: tags::Tag) -> &Attributes {
        let root = &self.data_set.root;
        let of_frame = root.items(tags::PER_FRAME_FUNCTIONAL_GROUPS).get(frame);
        let of_all = root.items(tags::SHARED_FUNCTIONAL_GROUPS).first();
        [of_frame, of_all]
            .into_iter()
            .flatten()
            .find_map(|groups| groups.items(group).first())
            .unwrap_or(root)
    }
}

/// The error of a file that is not a readable DICOM image.
fn undecodable(reason: impl std::fmt::Display) -> Error {
    Error::bad(Fault::Image, format!("cannot decode the DICOM image: {reason}"))
}
