//! Tree edit distance between documents, by the algorithm of Zhang and Shasha (1989, section 3), and Donut's
//! accuracy from it (Kim et al., 2022, section 3.1).

use super::normalize::{Fields, Values, normalize};
use serde_json::Value;

/// A node's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Label<'a> {
    /// A key, the root, or an object of a list.
    Key(&'a str),
    /// A text.
    Leaf(&'a str),
}

impl Label<'_> {
    /// The cost of inserting or removing a node: 1, or the length of its text in characters.
    fn cost(self) -> usize {
        match self {
            Self::Key(_) => 1,
            Self::Leaf(text) => text.chars().count(),
        }
    }

    /// The cost of turning a node into another one.
    fn update_cost(self, other: Label) -> usize {
        match (self, other) {
            (Self::Key(a), Label::Key(b)) => usize::from(a != b),
            (Self::Leaf(a), Label::Leaf(b)) => strsim::levenshtein(a, b),
            (Self::Leaf(_), Label::Key(_)) => 1 + self.cost(),
            (Self::Key(_), Label::Leaf(_)) => 1 + other.cost(),
        }
    }
}

/// A tree whose nodes are numbered in post-order.
#[derive(Debug, Default)]
struct Tree<'a> {
    labels: Vec<Label<'a>>,
    /// The leftmost leaf below each node.
    leftmost: Vec<usize>,
}

impl<'a> Tree<'a> {
    /// The tree of a document; `is_object` says whether that is one object, whose keys are children of the
    /// root, or a list.
    fn new(values: &'a Values, is_object: bool) -> Self {
        let mut tree = Self::default();
        match values {
            Values::Objects(objects) if is_object => {
                objects.iter().for_each(|fields| tree.push_fields(fields));
            }
            values => tree.push_values(values),
        }
        tree.push(Label::Key("<root>"), 0);
        tree
    }

    fn push_fields(&mut self, fields: &'a Fields) {
        for (key, values) in fields {
            let first = self.labels.len();
            self.push_values(values);
            self.push(Label::Key(key), first);
        }
    }

    fn push_values(&mut self, values: &'a Values) {
        match values {
            Values::Texts(texts) => {
                for text in texts {
                    self.push(Label::Leaf(text), self.labels.len());
                }
            }
            Values::Objects(objects) => {
                for fields in objects {
                    let first = self.labels.len();
                    self.push_fields(fields);
                    self.push(Label::Key("<subtree>"), first);
                }
            }
        }
    }

    /// Adds the parent of all nodes from `first` on that have none.
    fn push(&mut self, label: Label<'a>, first: usize) {
        self.labels.push(label);
        self.leftmost.push(first);
    }

    /// The nodes with a sibling on their left, and the root, in order.
    fn key_roots(&self) -> Vec<usize> {
        let mut last = vec![None; self.leftmost.len()];
        for (node, &first) in self.leftmost.iter().enumerate() {
            last[first] = Some(node);
        }
        let mut roots: Vec<usize> = last.into_iter().flatten().collect();
        roots.sort_unstable();
        roots
    }

    /// The cost of all nodes but the root: the distance to a document without any field.
    fn size(&self) -> usize {
        let (_, below) = self.labels.split_last().unzip();
        below.unwrap_or_default().iter().map(|label| label.cost()).sum()
    }
}

/// The distance between two trees.
fn distance(a: &Tree, b: &Tree) -> usize {
    let columns = b.labels.len();
    let updates: Vec<usize> =
        a.labels.iter().flat_map(|one| b.labels.iter().map(|other| one.update_cost(*other))).collect();
    let mut trees = vec![0; a.labels.len() * columns];
    // Distances between forests: row x, column y has the first x and y nodes of both subtrees.
    let mut forests = vec![0; (a.labels.len() + 1) * (columns + 1)];
    for root_a in a.key_roots() {
        for root_b in b.key_roots() {
            let (first_a, first_b) = (a.leftmost[root_a], b.leftmost[root_b]);
            let (rows, width) = (root_a - first_a + 2, root_b - first_b + 2);
            forests[0] = 0;
            for x in 1..rows {
                forests[x * width] = forests[(x - 1) * width] + a.labels[first_a + x - 1].cost();
            }
            for y in 1..width {
                forests[y] = forests[y - 1] + b.labels[first_b + y - 1].cost();
            }
            for x in 1..rows {
                for y in 1..width {
                    let (node_a, node_b) = (first_a + x - 1, first_b + y - 1);
                    let removed = forests[(x - 1) * width + y] + a.labels[node_a].cost();
                    let inserted = forests[x * width + y - 1] + b.labels[node_b].cost();
                    let (left_a, left_b) = (a.leftmost[node_a] - first_a, b.leftmost[node_b] - first_b);
                    let at = node_a * columns + node_b;
                    let is_tree = left_a == 0 && left_b == 0;
                    let matched = if is_tree {
                        forests[(x - 1) * width + y - 1] + updates[at]
                    } else {
                        forests[left_a * width + left_b] + trees[at]
                    };
                    let least = removed.min(inserted).min(matched);
                    forests[x * width + y] = least;
                    if is_tree {
                        trees[at] = least;
                    }
                }
            }
        }
    }
    trees.last().copied().unwrap_or(0)
}

/// The edit distance between two documents in Donut's form of a tree: keys, objects of lists and texts are
/// nodes. Inserting or removing a key costs 1 and a text its length in characters; a key becomes another one
/// for 1, a text for the edit distance of the two.
pub fn tree_edit_distance(a: &Value, b: &Value) -> usize {
    let (one, other) = (normalize(a), normalize(b));
    distance(&Tree::new(&one, a.is_object()), &Tree::new(&other, b.is_object()))
}

/// Donut's accuracy: 1 less the distance over that of a prediction without fields, but not below 0. Without a
/// right field it is 1 if nothing is predicted, else 0.
pub fn tree_edit_accuracy(predicted: &Value, right: &Value) -> f64 {
    let values = normalize(right);
    let size = Tree::new(&values, right.is_object()).size();
    match (tree_edit_distance(predicted, right), size) {
        (0, _) => 1.0,
        (_, 0) => 0.0,
        (distance, size) => (1.0 - distance as f64 / size as f64).max(0.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn distances_are_those_of_a_computation_by_hand() {
        let right = json!({"total": "12.50", "items": [{"name": "cake", "n": "2"}, {"name": "tea"}]});
        let distance = |predicted: Value| tree_edit_distance(&predicted, &right);
        assert_eq!(distance(right.clone()), 0);
        assert_eq!(
            distance(json!({"total": "12.51", "items": [{"name": "cake", "n": "2"}, {"name": "tea"}]})),
            1
        );
        // The key and its text of five characters.
        assert_eq!(distance(json!({"items": [{"name": "cake", "n": "2"}, {"name": "tea"}]})), 6);
        // The object, its key and its text.
        assert_eq!(distance(json!({"total": "12.50", "items": [{"name": "cake", "n": "2"}]})), 5);
        // Only the key differs.
        assert_eq!(
            distance(json!({"totaL": "12.50", "items": [{"name": "cake", "n": "2"}, {"name": "tea"}]})),
            1
        );
        let size = 1 + 5 + 1 + 1 + (1 + 4) + (1 + 1) + 1 + (1 + 3);
        assert_eq!(distance(json!({})), size);
        assert_eq!(tree_edit_accuracy(&json!({}), &right), 0.0);
        let found = tree_edit_accuracy(&json!({"total": "12.50"}), &right);
        assert_eq!(found, 1.0 - (size - 6) as f64 / size as f64);
        assert_eq!(tree_edit_accuracy(&json!({"a": "a long text that is nowhere"}), &json!({"b": "x"})), 0.0);
        assert_eq!(tree_edit_accuracy(&json!({}), &json!({"a": ""})), 1.0);
        assert_eq!(tree_edit_accuracy(&json!({"a": "b"}), &json!({})), 0.0);
    }
}
