//! Images from encoded bytes to the numbers that a model reads: decode, resize, augment, normalize.
//!
//! Pixels are 8-bit RGB ([`RgbImage`]); the last step writes `f32` into a slice. There are no tensors here,
//! no data sets and no files but images, so that model crates can depend on this crate alone.
//!
//! 1. [`decode()`] reads JPEG, PNG, WebP, GIF, BMP, TIFF and PNM. [`decode_reduced`] decodes a JPEG at a
//!    half, a quarter or an eighth of its size, which is several times faster for large photographs.
//! 2. [`resize`] equals Pillow's to one level of 255, and so torchvision's and transformers' on Pillow
//!    images.
//! 3. [`Augment`] is torchvision's `RandomResizedCrop`, `RandomHorizontalFlip` and `ColorJitter`.
//! 4. [`Normalize`] is torchvision's `ToTensor` and `Normalize` in one pass.
//!
//! ```
//! use mm_image::{Normalize, RgbImage, decode, resize};
//!
//! let mut png = std::io::Cursor::new(Vec::new());
//! RgbImage::from_pixel(100, 80, [255, 0, 0].into()).write_to(&mut png, mm_image::image::ImageFormat::Png)?;
//!
//! let image = decode(png.get_ref(), [255; 3])?;
//! let image = resize::short_side_center_crop(&image, 64);
//! let mut pixel_values = vec![0.0; 3 * 64 * 64]; // [3, H, W]
//! Normalize::CLIP.write(&image, &mut pixel_values);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # To extend
//!
//! - An augmentation: a field of [`Augment`] or [`Jitter`], applied in `augment.rs`. Draw its random numbers
//!   after all others, so that the draws of existing configs stay as they are.
//! - An image format: its extension and the two lists in `format.rs`, and a feature of the `image` crate.
//! - A resampling filter: a variant of [`resize::Filter`].
//!
//! `tests/pillow.rs` compares all of it with files that Pillow wrote (`data/goldens/images`).

mod augment;
mod color;
mod decode;
mod draw_rectangle;
mod draw_text;
mod error;
mod format;
mod heat_map;
mod heat_map_strip;
mod jpeg;
mod normalize;
mod png_text;
mod reduced;
pub mod resize;

/// The image library, so that users name the same types.
pub use image;
pub use image::RgbImage;

pub use augment::{Augment, Jitter};
pub use decode::{Header, MAX_BYTES, MAX_PIXELS, decode, decode_reduced};
pub use draw_rectangle::draw_rectangle;
pub use draw_text::{GLYPH_SIDE, draw_text};
pub use error::{Error, Result};
pub use format::{GIT_LFS_POINTER, IMAGE_EXTENSIONS, is_git_lfs_pointer, is_image_extension};
pub use heat_map::overlay_heat_map;
pub use heat_map_strip::{HeatMap, WordAttention, draw_strip};
pub use normalize::Normalize;
pub use png_text::{read_png_text, write_png_with_text};
pub use reduced::{Reduced, largest_divisor};
