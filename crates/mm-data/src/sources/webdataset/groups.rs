//! Groups the members of a tar into samples.
//!
//! A sample is the adjacent members of one key. A repeated extension ends it: two adjacent samples of one
//! key, which writers produce that restart their numbering, are two samples if each has an image and a text.
//! Otherwise it is unclear which members belong together, and both are one group that is not a sample.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;

use super::members::TEXTS;
use mm_image::IMAGE_EXTENSIONS;

/// The name of a member: key and extension, split at the first dot of the file name as in the webdataset
/// library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    pub key: String,
    pub extension: String,
}

impl Name {
    pub fn parse(name: &[u8]) -> Option<Self> {
        let name = String::from_utf8_lossy(name);
        let file = name.rfind('/').map_or(0, |slash| slash + 1);
        let dot = file + name[file..].find('.').filter(|&dot| dot > 0)?;
        Some(Self { key: name[..dot].to_owned(), extension: name[dot + 1..].to_owned() })
    }

    /// The extension in lower case, which is unique among the members of a sample.
    pub fn field(&self) -> String {
        self.extension.to_lowercase()
    }
}

/// A member of a group.
#[derive(Debug)]
pub(super) struct Placed<T> {
    pub content: T,
    /// The first byte in the tar.
    start: u64,
    /// The extension, if it differs from the field.
    extension: Option<String>,
}

/// The members of one sample.
#[derive(Debug)]
pub(super) struct Group<T> {
    pub key: String,
    /// The members by field; empty where a field repeats.
    pub members: BTreeMap<String, Placed<T>>,
    /// The bytes in the tar.
    pub bytes: Range<u64>,
    /// The reason why it is not a sample, where a field repeats.
    pub repeated: Option<String>,
    /// Whether the last part of it has an image and a text.
    ends_whole: bool,
}

/// Groups the members of a tar, given in order.
#[derive(Debug)]
pub(super) struct Groups<T> {
    /// The previous group, until it is known whether the next one of its key is complete.
    held: Option<Group<T>>,
    current: Option<Group<T>>,
    /// The two members of the repeated field at which the current group starts.
    repeated: Option<String>,
}

impl<T> Default for Groups<T> {
    fn default() -> Self {
        Self { held: None, current: None, repeated: None }
    }
}

/// The groups that a member completes, in order.
pub(super) type Ended<T> = std::iter::Flatten<std::array::IntoIter<Option<Group<T>>, 2>>;

impl<T> Groups<T> {
    /// Begins a member that starts at byte `start`. Returns the groups before it that are complete.
    pub fn begin(&mut self, name: &Name, field: &str, start: u64) -> Ended<T> {
        let repeated = match &self.current {
            Some(current) if current.key == name.key => match current.members.get(field) {
                None => return [None, None].into_iter().flatten(),
                Some(first) => {
                    let first_extension = first.extension.as_deref().unwrap_or(field);
                    let at = first.start;
                    let Name { key, extension } = name;
                    Some(format!(
                        "`{key}.{first_extension}` at byte {at} and `{key}.{extension}` at byte {start}"
                    ))
                }
            },
            _ => None,
        };
        let ended = match repeated {
            Some(_) => [self.end_current(), None].into_iter().flatten(),
            None => self.finish(),
        };
        self.repeated = repeated;
        self.current = Some(Group {
            key: name.key.clone(),
            members: BTreeMap::new(),
            bytes: start..start,
            repeated: None,
            ends_whole: false,
        });
        ended
    }

    /// The length of the current group, if its current member ends at byte `end`.
    pub fn length_to(&self, end: u64) -> u64 {
        self.current.as_ref().map_or(0, |current| end.saturating_sub(current.bytes.start))
    }

    /// Adds the current member, which spans `bytes`.
    pub fn add(&mut self, name: Name, field: String, bytes: Range<u64>, content: T) {
        let Some(current) = &mut self.current else { return };
        current.bytes.end = bytes.end;
        let extension = Some(name.extension).filter(|extension| *extension != field);
        current.members.insert(field, Placed { content, start: bytes.start, extension });
    }

    /// Returns the remaining groups at the end of the tar.
    pub fn finish(&mut self) -> Ended<T> {
        let ended = self.end_current();
        [ended, self.held.take()].into_iter().flatten()
    }

    /// Returns the remaining groups where the last member is truncated: its group is dropped.
    pub fn abandon(&mut self) -> Ended<T> {
        self.current = None;
        [self.held.take(), None].into_iter().flatten()
    }

    fn end_current(&mut self) -> Option<Group<T>> {
        let mut current = self.current.take()?;
        let has = |fields: &[&str]| fields.iter().any(|field| current.members.contains_key(*field));
        current.ends_whole = has(&IMAGE_EXTENSIONS) && has(&TEXTS);
        let Some(mut held) = self.held.take() else {
            self.held = Some(current);
            return None;
        };
        if held.ends_whole && current.ends_whole {
            self.held = Some(current);
            return Some(held);
        }
        held.members.clear();
        held.bytes.end = current.bytes.end;
        held.ends_whole = current.ends_whole;
        let both = self.repeated.take().unwrap_or_default();
        held.repeated.get_or_insert_with(|| {
            format!("two samples of one key, not both with image and text: {both}: give each its own key")
        });
        self.held = Some(held);
        None
    }
}

/// The keys of a tar so far.
pub(super) struct Keys {
    /// By hash, the number of groups of a key and the start of the last one.
    seen: HashMap<u64, (u32, u64)>,
    hasher: RandomState,
    most: usize,
}

impl Keys {
    /// Remembers up to `most` keys; further ones count as new.
    pub fn of(most: usize) -> Self {
        Self { seen: HashMap::new(), hasher: RandomState::new(), most }
    }

    /// A name for a group that is unique in the tar, and the start of the previous group of the same key.
    pub fn name(&mut self, key: String, start: u64) -> (String, Option<u64>) {
        let hash = self.hasher.hash_one(&key);
        if self.seen.len() >= self.most && !self.seen.contains_key(&hash) {
            return (key, None);
        }
        let (count, last) = self.seen.entry(hash).or_insert((0, start));
        *count += 1;
        match *count {
            1 => (key, None),
            count => (format!("{key}#{count}"), Some(std::mem::replace(last, start))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The groups of these members, each of a hundred bytes: the key, the fields, and the reason where one
    /// repeats.
    fn groups(members: &[&str]) -> Vec<String> {
        let mut groups = Groups::default();
        let mut found = Vec::new();
        let message_of = |group: Group<()>| {
            let fields: Vec<String> = group.members.into_keys().collect();
            let Range { start, end } = group.bytes;
            format!("{} {start}..{end} {}{}", group.key, fields.join("+"), group.repeated.unwrap_or_default())
        };
        for (number, member) in (0..).zip(members) {
            let name = Name::parse(member.as_bytes()).unwrap();
            let field = name.field();
            found.extend(groups.begin(&name, &field, number * 100).map(message_of));
            groups.add(name, field, number * 100..(number + 1) * 100, ());
        }
        found.extend(groups.finish().map(message_of));
        found
    }

    #[test]
    fn names_part_at_the_first_dot_of_the_file() {
        let parts = |name: &str| Name::parse(name.as_bytes()).map(|name| (name.field(), name.key));
        let some = |key: &str, field: &str| Some((field.to_owned(), key.to_owned()));
        assert_eq!(parts("a.b/000.seg.PNG"), some("a.b/000", "seg.png"));
        assert_eq!(parts("./0001.jpg"), some("./0001", "jpg"));
        assert_eq!((parts("a/.hidden"), parts("a/b"), parts("a/")), (None, None, None));
    }

    #[test]
    fn neighbours_of_one_key_are_a_sample() {
        assert_eq!(groups(&["a.jpg", "a.txt", "b.txt", "b.jpg"]), ["a 0..200 jpg+txt", "b 200..400 jpg+txt"]);
        // Other fields of the same key, and images of two kinds.
        let members = ["a.jpg", "a.seg.png", "a.png", "a.1.txt", "a.txt", "a.jpg.json"];
        assert_eq!(groups(&members), ["a 0..600 1.txt+jpg+jpg.json+png+seg.png+txt"]);
        assert_eq!(
            groups(&["a.jpg", "b.jpg", "a.txt"]),
            ["a 0..100 jpg", "b 100..200 jpg", "a 200..300 txt"]
        );
        assert!(groups(&[]).is_empty());
    }

    #[test]
    fn two_complete_adjacent_samples_of_one_key_are_two() {
        let whole = ["a.jpg", "a.txt", "a.txt", "a.JPG", "a.json", "a.json", "a.jpeg"];
        assert_eq!(groups(&whole), ["a 0..200 jpg+txt", "a 200..500 jpg+json+txt", "a 500..700 jpeg+json"]);
        // The last of these has no image: its members and those before it are ambiguous.
        let found = groups(&["a.jpg", "a.txt", "a.jpg", "a.cls", "a.PNG", "a.CLS", "a.json", "b.jpg"]);
        assert!(found[1].starts_with("a 200..700 two samples"), "{}", found[1]);
        assert_eq!((&*found[0], &*found[2], found.len()), ("a 0..200 jpg+txt", "b 700..800 jpg", 3));
    }

    #[test]
    fn a_repeated_field_without_two_samples_names_both_members() {
        let message_of = |both: &str| {
            format!("two samples of one key, not both with image and text: {both}: give each its own key")
        };
        let found = groups(&["a.jpg", "a.txt", "a.JPG", "b.txt"]);
        assert_eq!(found[0], format!("a 0..300 {}", message_of("`a.jpg` at byte 0 and `a.JPG` at byte 200")));
        assert_eq!(found[1], "b 300..400 txt");
        let found = groups(&["b.jpg", "a.jpg", "a.jpg", "a.txt", "a.jpg", "a.txt"]);
        assert_eq!(
            found[1],
            format!("a 100..400 {}", message_of("`a.jpg` at byte 100 and `a.jpg` at byte 200"))
        );
        assert_eq!(found[2], "a 400..600 jpg+txt");
        let found = groups(&["a.TXT", "a.txt", "a.txt"]);
        assert_eq!(found, [format!("a 0..300 {}", message_of("`a.TXT` at byte 0 and `a.txt` at byte 100"))]);
    }

    #[test]
    fn a_group_with_a_member_cut_off_is_given_up() {
        let mut groups = Groups::default();
        for (start, member) in [(0, "a.jpg"), (100, "a.txt"), (200, "a.jpg")] {
            let name = Name::parse(member.as_bytes()).unwrap();
            assert_eq!(groups.begin(&name, &name.field(), start).count(), 0);
            if start < 200 {
                let field = name.field();
                groups.add(name, field, start..start + 100, ());
            }
        }
        assert_eq!(groups.abandon().next().unwrap().bytes, 0..200);
        assert_eq!(groups.finish().count(), 0);
    }

    #[test]
    fn a_key_that_comes_again_gets_another_name() {
        let mut keys = Keys::of(2);
        assert_eq!(keys.name("a".into(), 0), ("a".into(), None));
        assert_eq!(keys.name("b".into(), 5), ("b".into(), None));
        assert_eq!(keys.name("a".into(), 7), ("a#2".into(), Some(0)));
        assert_eq!(keys.name("a".into(), 9), ("a#3".into(), Some(7)));
        assert_eq!(
            (keys.name("c".into(), 10), keys.name("c".into(), 11)),
            (("c".into(), None), ("c".into(), None))
        );
    }
}
