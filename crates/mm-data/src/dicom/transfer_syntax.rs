//! Transfer syntaxes (PS3.5 section 8 and annex A): how a file encodes its data set and its frames.

use crate::Result;

use super::undecodable;

/// The encoding of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TransferSyntax {
    pub(super) explicit_vr: bool,
    pub(super) big_endian: bool,
    /// Whether the data set is compressed with deflate.
    pub(super) deflated: bool,
    pub(super) pixels: PixelCoding,
}

/// The encoding of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PixelCoding {
    /// Not compressed, one frame after the other.
    Native,
    /// RLE Lossless (PS3.5 annex G).
    Rle,
    /// JPEG baseline, extended or lossless.
    Jpeg,
    Jpeg2000,
}

const LITTLE_ENDIAN: TransferSyntax =
    TransferSyntax { explicit_vr: true, big_endian: false, deflated: false, pixels: PixelCoding::Native };

impl TransferSyntax {
    /// The default of DICOM, and that of a file without file meta information.
    pub(super) const IMPLICIT: Self = Self { explicit_vr: false, ..LITTLE_ENDIAN };
    /// Explicit VR Little Endian, that of the file meta information.
    pub(super) const EXPLICIT: Self = LITTLE_ENDIAN;

    /// # Errors
    /// The transfer syntax is not supported. The message has its UID, and its name where it is known.
    pub(super) fn of(uid: &str) -> Result<Self> {
        let compressed = |pixels| Self { pixels, ..LITTLE_ENDIAN };
        Ok(match uid {
            "1.2.840.10008.1.2" => Self::IMPLICIT,
            "1.2.840.10008.1.2.1" => LITTLE_ENDIAN,
            "1.2.840.10008.1.2.1.99" => Self { deflated: true, ..LITTLE_ENDIAN },
            "1.2.840.10008.1.2.2" => Self { big_endian: true, ..LITTLE_ENDIAN },
            // Baseline, extended, lossless, and lossless with first-order prediction, in this order.
            "1.2.840.10008.1.2.4.50"
            | "1.2.840.10008.1.2.4.51"
            | "1.2.840.10008.1.2.4.57"
            | "1.2.840.10008.1.2.4.70" => compressed(PixelCoding::Jpeg),
            "1.2.840.10008.1.2.4.90" | "1.2.840.10008.1.2.4.91" => compressed(PixelCoding::Jpeg2000),
            "1.2.840.10008.1.2.5" => compressed(PixelCoding::Rle),
            other => return Err(unsupported(other)),
        })
    }
}

fn unsupported(uid: &str) -> crate::Error {
    let name = match uid.strip_prefix("1.2.840.10008.1.2.") {
        Some("1.98") => "Encapsulated Uncompressed Explicit VR Little Endian",
        Some("4.80") => "JPEG-LS Lossless",
        Some("4.81") => "JPEG-LS Near-lossless",
        Some("4.92" | "4.93") => "JPEG 2000 Multi-component",
        Some("4.94" | "4.95" | "4.204" | "4.205") => "JPIP Referenced",
        Some("4.100" | "4.100.1" | "4.101" | "4.101.1") => "MPEG-2",
        Some("4.102" | "4.102.1" | "4.103" | "4.103.1" | "4.104" | "4.104.1" | "4.105" | "4.105.1") => {
            "MPEG-4 AVC/H.264"
        }
        Some("4.106" | "4.106.1") => "MPEG-4 AVC/H.264 Stereo",
        Some("4.107" | "4.108") => "HEVC/H.265",
        Some("4.110" | "4.111" | "4.112") => "JPEG XL",
        Some("4.201" | "4.202" | "4.203") => "High-Throughput JPEG 2000",
        Some("8.1") => "Deflated Image Frame Compression",
        _ => "unknown",
    };
    undecodable(format!(
        "the transfer syntax {uid} ({name}) is not supported: convert the file to an uncompressed one, for \
         example with `gdcmconv --raw` or `dcmdjpls`"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_syntax_that_is_not_read_is_named() {
        let message = TransferSyntax::of("1.2.840.10008.1.2.4.80").unwrap_err().to_string();
        assert!(message.contains("1.2.840.10008.1.2.4.80 (JPEG-LS Lossless)"), "{message}");
        assert!(TransferSyntax::of("1.2.3").unwrap_err().to_string().contains("1.2.3 (unknown)"));
        assert_eq!(TransferSyntax::of("1.2.840.10008.1.2").unwrap(), TransferSyntax::IMPLICIT);
    }
}
