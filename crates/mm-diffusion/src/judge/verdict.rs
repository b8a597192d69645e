//! Comparison of a picture's objects with what a prompt requests.

use super::SeenObject;
use mm_data::shapes::{Colour, MARGIN, Object, Relation, Scene, Shape};
use serde::{Deserialize, Serialize};

/// What of a scene a picture has right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SceneVerdict {
    /// As many objects.
    pub count: bool,
    /// The same colors, each as often.
    pub colours: bool,
    /// The same shapes, each as often.
    pub shapes: bool,
    /// Each object with its own color and shape.
    pub kinds: bool,
    /// Where the scene has two different objects: one on the right side of the other.
    pub relation: Option<bool>,
}

impl SceneVerdict {
    /// Whether all is right.
    pub fn all_right(&self) -> bool {
        self.count && self.kinds && self.relation.unwrap_or(true)
    }
}

/// Compares the objects `seen` in a picture with those that the [prompt](Scene::prompt) of `scene` requests:
/// number, colors, shapes, and the relation of two different ones. Sizes and places are free.
pub fn judge(scene: &Scene, seen: &[SeenObject]) -> SceneVerdict {
    fn sorted<T: Ord>(items: impl Iterator<Item = T>) -> Vec<T> {
        let mut items: Vec<T> = items.collect();
        items.sort_unstable();
        items
    }
    let asked = scene.objects();
    let kinds: Vec<(Colour, Shape)> = sorted(asked.iter().map(|object| (object.colour, object.shape)));
    let found: Vec<(Colour, Shape)> = sorted(seen.iter().map(|object| (object.colour, object.shape)));
    let is_pair = matches!(kinds[..], [one, other] if one != other);
    SceneVerdict {
        count: asked.len() == seen.len(),
        colours: sorted(asked.iter().map(|object| object.colour))
            == sorted(seen.iter().map(|seen| seen.colour)),
        shapes: sorted(asked.iter().map(|object| object.shape)) == sorted(seen.iter().map(|seen| seen.shape)),
        kinds: kinds == found,
        relation: is_pair.then(|| kinds == found && has_relation(asked, seen)),
    }
}

/// Whether the two objects that were asked for have, as they were seen, the relation that the prompt names,
/// by the margin of the data set.
fn has_relation(asked: &[Object], seen: &[SeenObject]) -> bool {
    let [one, other] = asked else { return false };
    let place = |object: &Object| {
        let is_it = |seen: &&SeenObject| (seen.colour, seen.shape) == (object.colour, object.shape);
        seen.iter().find(is_it).map(|seen| (seen.x, seen.y))
    };
    let (Some(one_at), Some(other_at)) = (place(one), place(other)) else { return false };
    let distance = match Relation::between(one, other) {
        Relation::LeftOf => other_at.0 - one_at.0,
        Relation::RightOf => one_at.0 - other_at.0,
        Relation::Above => other_at.1 - one_at.1,
        Relation::Below => one_at.1 - other_at.1,
    };
    distance >= f64::from(MARGIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_data::shapes::{ShapesConfig, ShapesScenes};

    fn seen(scene: &Scene) -> Vec<SeenObject> {
        scene.objects().iter().map(SeenObject::from).collect()
    }

    #[test]
    fn a_scene_is_right_and_any_change_is_found() {
        let config =
            ShapesConfig { scenes: ShapesScenes::Prompts, objects: [1, 3], ..ShapesConfig::default() };
        let mut pairs = 0;
        for index in 0..200 {
            let scene = config.scene(index);
            let right = seen(&scene);
            assert!(judge(&scene, &right).all_right());
            let verdict = judge(&scene, &right[1..]);
            assert!(!verdict.count && !verdict.all_right());
            let mut wrong = right.clone();
            wrong[0].colour = if wrong[0].colour == Colour::Red { Colour::Blue } else { Colour::Red };
            let verdict = judge(&scene, &wrong);
            assert!(verdict.count && verdict.shapes && !verdict.kinds);
            if judge(&scene, &right).relation == Some(true) {
                pairs += 1;
                let mut swapped = right.clone();
                (swapped[0].x, swapped[1].x) = (right[1].x, right[0].x);
                (swapped[0].y, swapped[1].y) = (right[1].y, right[0].y);
                let verdict = judge(&scene, &swapped);
                assert!(verdict.kinds && verdict.relation == Some(false) && !verdict.all_right());
            }
        }
        assert!(pairs > 50);
    }
}
