//! TensorBoard's event files: TFRecords of `Event` messages, written by hand as both formats are a few
//! fields.

use mm_image::RgbImage;
use mm_image::image::ImageFormat;
use std::fs::File;
use std::io::{Cursor, Result, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// An event file that scalars and images are appended to.
#[derive(Debug)]
pub(crate) struct EventWriter {
    file: File,
}

impl EventWriter {
    /// Starts a new event file in `folder`.
    pub(crate) fn create(folder: &Path) -> Result<Self> {
        let now = wall_time();
        let name = format!("events.out.tfevents.{:.0}.mm.{}", now, std::process::id());
        let mut writer = Self { file: File::create(folder.join(name))? };
        let mut event = Message::default();
        event.double(1, now);
        event.bytes(3, b"brain.Event:2");
        writer.record(&event.0)?;
        Ok(writer)
    }

    /// Appends scalars of one step.
    pub(crate) fn scalars<'a>(
        &mut self,
        step: u64,
        values: impl Iterator<Item = (&'a str, f64)>,
    ) -> Result<()> {
        let mut summary = Message::default();
        for (tag, value) in values {
            let mut entry = Message::default();
            entry.bytes(1, tag.as_bytes());
            entry.float(2, value as f32);
            summary.bytes(1, &entry.0);
        }
        self.summary(step, &summary)
    }

    /// Appends an image of one step.
    pub(crate) fn image(&mut self, step: u64, tag: &str, image: &RgbImage) -> Result<()> {
        let mut png = Cursor::new(Vec::new());
        image.write_to(&mut png, ImageFormat::Png).map_err(std::io::Error::other)?;
        let mut encoded = Message::default();
        encoded.varint(1, u64::from(image.height()));
        encoded.varint(2, u64::from(image.width()));
        encoded.varint(3, 3); // RGB
        encoded.bytes(4, png.get_ref());
        let mut entry = Message::default();
        entry.bytes(1, tag.as_bytes());
        entry.bytes(4, &encoded.0);
        let mut summary = Message::default();
        summary.bytes(1, &entry.0);
        self.summary(step, &summary)
    }

    fn summary(&mut self, step: u64, summary: &Message) -> Result<()> {
        let mut event = Message::default();
        event.double(1, wall_time());
        event.varint(2, step);
        event.bytes(5, &summary.0);
        self.record(&event.0)
    }

    /// A TFRecord: length, checksum of the length, data, checksum of the data.
    fn record(&mut self, data: &[u8]) -> Result<()> {
        let length = (data.len() as u64).to_le_bytes();
        let mut record = length.to_vec();
        record.extend(masked_crc(&length).to_le_bytes());
        record.extend(data);
        record.extend(masked_crc(data).to_le_bytes());
        self.file.write_all(&record)
    }
}

fn wall_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |elapsed| elapsed.as_secs_f64())
}

fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// A protocol buffer in the making.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn tag(&mut self, field: u8, wire_type: u8) {
        self.0.push(field << 3 | wire_type);
    }

    fn raw_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn varint(&mut self, field: u8, value: u64) {
        self.tag(field, 0);
        self.raw_varint(value);
    }

    fn double(&mut self, field: u8, value: f64) {
        self.tag(field, 1);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u8, value: &[u8]) {
        self.tag(field, 2);
        self.raw_varint(value.len() as u64);
        self.0.extend(value);
    }

    fn float(&mut self, field: u8, value: f32) {
        self.tag(field, 5);
        self.0.extend(value.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_framed_and_checksummed_as_tensorboard_reads_them() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::create(folder.path()).unwrap();
        writer.scalars(300, [("train/loss", 0.5)].into_iter()).unwrap();
        let path = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
        let bytes = std::fs::read(path).unwrap();
        let (mut rest, mut events) = (bytes.as_slice(), Vec::new());
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            assert_eq!(rest[8..12], masked_crc(&rest[..8]).to_le_bytes());
            let data = &rest[12..12 + length];
            assert_eq!(rest[12 + length..16 + length], masked_crc(data).to_le_bytes());
            events.push(data.to_vec());
            rest = &rest[16 + length..];
        }
        assert_eq!(events.len(), 2);
        // After the wall time: step 300 as a varint, then a summary with one value of tag and float.
        let expected =
            [&[0x10, 0xac, 0x02, 0x2a, 19, 0x0a, 17, 0x0a, 10][..], b"train/loss", &[0x15, 0, 0, 0, 0x3f]]
                .concat();
        assert_eq!(events[1][9..], expected);
    }
}
