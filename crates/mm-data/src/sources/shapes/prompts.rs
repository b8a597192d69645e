//! Short captions for image generation.

use super::describe::{COLOUR, Description, SHAPE};
use super::draw::coin;
use super::scene::{Relation, Scene};

impl Scene {
    /// A caption with the color and shape of each object: their number where all are alike (`three blue
    /// stars`), the relation of two (`a red circle above a blue square`, from either), else a list. It says
    /// all that a picture must have to be right, but no places.
    pub fn prompt(&self) -> String {
        let describe = |place: usize| Description::of(&self.objects()[place], COLOUR | SHAPE);
        let (first, count) = (describe(0), self.objects().len());
        if self.count(&first) == count {
            return first.counted(count);
        }
        match self.objects() {
            [_, _] => {
                let (one, other) = if coin(&mut self.rng("prompt")) { (0, 1) } else { (1, 0) };
                let relation = Relation::between(&self.objects()[one], &self.objects()[other]);
                format!(
                    "{} {} {}",
                    describe(one).indefinite(),
                    relation.words(),
                    describe(other).indefinite()
                )
            }
            _ => self.inventory(COLOUR | SHAPE),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::shapes::{Pattern, ShapesConfig, ShapesScenes, ShapesSplit};

    #[test]
    fn a_prompt_counts_objects_of_one_kind_or_relates_two() {
        let config =
            ShapesConfig { scenes: ShapesScenes::Prompts, objects: [1, 3], ..ShapesConfig::default() };
        let (mut counted, mut related) = ([0; 3], 0);
        for index in 0..400 {
            let scene = config.scene(index);
            assert!(scene.objects().iter().all(|object| object.pattern == Pattern::Solid));
            assert!(!scene.is_held_out());
            let prompt = scene.prompt();
            match scene.objects() {
                [one, other] if (one.colour, one.shape) != (other.colour, other.shape) => {
                    related += 1;
                    let words = ["left of", "right of", "above", "below"];
                    assert!(words.iter().any(|word| prompt.contains(word)), "{prompt}");
                }
                objects => {
                    counted[objects.len() - 1] += 1;
                    assert!(prompt.starts_with(["a", "two", "three"][objects.len() - 1]), "{prompt}");
                }
            }
        }
        assert!(counted.iter().all(|&count| count > 40) && related > 150, "{counted:?}, {related}");
        let held_out = ShapesConfig { split: ShapesSplit::HeldOut, ..config };
        assert!((0..100).all(|index| held_out.scene(index).is_held_out()));
    }
}
