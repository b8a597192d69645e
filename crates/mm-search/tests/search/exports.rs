//! Embeddings in the files of other engines.

use crate::common::{DIM, Place, unit_rows};
use mm_search::{Index, RowType};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use std::fs::File;

#[test]
fn parquet_and_npy_hold_the_rows_with_their_keys() {
    let place = Place::new(RowType::F32);
    let rows = unit_rows(1, 5);
    place.fill(&rows, 0..5);
    let index = Index::open(&place.index()).unwrap();

    let file = place.path().join("rows.parquet");
    index.export_parquet(&file).unwrap();
    let reader = SerializedFileReader::new(File::open(&file).unwrap()).unwrap();
    for (at, row) in reader.get_row_iter(None).unwrap().enumerate() {
        let row = row.unwrap();
        let fields: Vec<(&String, &Field)> = row.get_column_iter().collect();
        let names: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["id", "set", "key", "metadata", "embedding"]);
        assert_eq!(fields[0].1, &Field::Long(index.ids()[at] as i64));
        assert_eq!((fields[1].1, fields[2].1), (&Field::Str("set".into()), &Field::Str(at.to_string())));
        let Field::Str(metadata) = fields[3].1 else { panic!("{:?}", fields[3]) };
        assert_eq!(serde_json::from_str::<serde_json::Value>(metadata).unwrap()["number"], at);
        let Field::ListInternal(list) = fields[4].1 else { panic!("{:?}", fields[4]) };
        let numbers: Vec<Field> = rows[at].iter().map(|&x| Field::Float(x)).collect();
        assert_eq!(list.elements(), numbers);
    }
    assert_eq!(reader.metadata().file_metadata().num_rows(), 5);

    let file = place.path().join("rows.npy");
    index.export_npy(&file).unwrap();
    let bytes = std::fs::read(&file).unwrap();
    let start = bytes.len() - 5 * DIM * 4;
    assert!(start.is_multiple_of(64) && bytes.starts_with(b"\x93NUMPY\x01\x00"));
    assert!(String::from_utf8_lossy(&bytes[..start]).contains(&format!("'shape': (5, {DIM})")));
    let numbers: Vec<f32> = bytes[start..].as_chunks().0.iter().map(|&x| f32::from_le_bytes(x)).collect();
    assert_eq!(numbers, rows.concat());
    let keys = std::fs::read_to_string(file.with_extension("keys.txt")).unwrap();
    assert_eq!(keys, "\"0\"\n\"1\"\n\"2\"\n\"3\"\n\"4\"\n");
}
