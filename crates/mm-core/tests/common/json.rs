//! JSON files as editors, scripts and disks leave them.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

/// One thing that is wrong in a JSON file.
#[derive(Clone, Debug)]
pub enum Slip {
    /// The value at the end of a way, each step of which chooses among what there is, is another.
    Other(Vec<usize>, Value),
    /// It is not there.
    Absent(Vec<usize>),
    /// Bytes are others.
    Bytes(Vec<(usize, u8)>),
    /// The end is cut off.
    Cut(usize),
}

pub fn slip() -> impl Strategy<Value = Slip> {
    let way = || vec(0..64usize, 1..5);
    let values = vec![
        json!(null),
        json!(true),
        json!(0),
        json!(1),
        json!(2),
        json!(-1),
        json!(7),
        json!(1_000),
        json!(1_000_000),
        json!(1_000_000_000),
        json!(u32::MAX),
        json!(i64::MIN),
        json!(u64::MAX),
        json!(0.5),
        json!(-1e300),
        json!(""),
        json!("a\nb\u{1b}[2J"),
        json!("1"),
        json!([]),
        json!([1, 2]),
        json!([null, [[]]]),
        json!({}),
        json!({ "a": 1 }),
    ];
    prop_oneof![
        8 => (way(), select(values)).prop_map(|(way, value)| Slip::Other(way, value)),
        2 => way().prop_map(Slip::Absent),
        1 => vec((any::<usize>(), any::<u8>()), 1..3).prop_map(Slip::Bytes),
        1 => any::<usize>().prop_map(Slip::Cut),
    ]
}

impl Slip {
    /// Makes the slip in a file's bytes; in what is no JSON any more, nothing that needs it to be.
    pub fn make(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Bytes(edits) => {
                for (at, byte) in edits {
                    let at = at % bytes.len().max(1);
                    bytes.iter_mut().skip(at).take(1).for_each(|place| *place = *byte);
                }
            }
            Self::Cut(at) => bytes.truncate(at % bytes.len().max(1)),
            Self::Other(way, other) => edit(bytes, |json| *walk(json, way) = other.clone()),
            Self::Absent(way) => edit(bytes, |json| {
                let (last, before) = way.split_last().expect("a way has a step");
                match walk(json, before) {
                    Value::Object(map) => {
                        let name = map.keys().nth(last % map.len().max(1)).cloned();
                        name.and_then(|name| map.remove(&name));
                    }
                    Value::Array(list) if !list.is_empty() => drop(list.remove(last % list.len())),
                    _ => {}
                }
            }),
        }
    }
}

fn edit(bytes: &mut Vec<u8>, edit: impl FnOnce(&mut Value)) {
    if let Ok(mut json) = serde_json::from_slice(bytes) {
        edit(&mut json);
        *bytes = json.to_string().into_bytes();
    }
}

fn walk<'a>(json: &'a mut Value, way: &[usize]) -> &'a mut Value {
    let count = match &*json {
        Value::Object(map) => map.len(),
        Value::Array(list) => list.len(),
        _ => 0,
    };
    let Some((step, further)) = way.split_first().filter(|_| count > 0) else { return json };
    let child = match json {
        Value::Object(map) => map.values_mut().nth(step % count),
        Value::Array(list) => list.get_mut(step % count),
        _ => None,
    };
    walk(child.expect("the step is below the count"), further)
}
