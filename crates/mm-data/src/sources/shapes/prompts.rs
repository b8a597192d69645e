//! Short captions for image generation.

use super::describe::{COLOUR, Description, SHAPE};
use super::draw::coin;
use super::object::{Background, Colour, Object, Pattern, Shape, Size};
use super::scene::{MAX_OBJECTS, Relation, Scene};

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

    /// A scene with what a text in the form of [`Scene::prompt`] says: its objects, and the relation of two.
    /// They are large and solid, at places of their own. `None` where the text has another form.
    pub fn of_prompt(text: &str) -> Option<Self> {
        let text = text.trim();
        for relation in Relation::ALL {
            if let Some((one, other)) = text.split_once(&format!(" {} ", relation.words())) {
                let (&[one], &[other]) = (&counted(one)?[..], &counted(other)?[..]) else { return None };
                let [first, second] = match relation {
                    Relation::LeftOf | Relation::Above => [one, other],
                    Relation::RightOf | Relation::Below => [other, one],
                };
                let places = match relation {
                    Relation::LeftOf | Relation::RightOf => [(250, 500), (750, 500)],
                    Relation::Above | Relation::Below => [(500, 250), (500, 750)],
                };
                return (one != other).then(|| placed(&[first, second], &places));
            }
        }
        let phrases: Vec<&str> = text.split(", ").flat_map(|part| part.split(" and ")).collect();
        let kinds: Vec<Vec<Kind>> = phrases.iter().map(|phrase| counted(phrase)).collect::<Option<_>>()?;
        let (phrases, kinds) = (kinds.len(), kinds.concat());
        // Two different objects have a relation in their prompt.
        let is_complete = phrases == 1 || kinds.len() > 2;
        (is_complete && kinds.len() <= MAX_OBJECTS).then(|| placed(&kinds, &GRID))
    }
}

/// A color and a shape.
type Kind = (Colour, Shape);

/// Places for as many objects as a scene has, in order.
const GRID: [(u32, u32); MAX_OBJECTS] =
    [(180, 300), (180, 700), (500, 300), (500, 700), (820, 300), (820, 700)];

/// The objects of a phrase such as `a red circle` or `two red circles`.
fn counted(phrase: &str) -> Option<Vec<Kind>> {
    let kinds = Colour::ALL.into_iter().flat_map(|colour| Shape::ALL.map(|shape| (colour, shape)));
    let mut counts = kinds.flat_map(|kind| (1..=MAX_OBJECTS).map(move |count| (count, kind)));
    counts.find_map(|(count, (colour, shape))| {
        let kind = Description { colour: Some(colour), shape: Some(shape), ..Description::default() };
        (kind.counted(count) == phrase).then(|| vec![(colour, shape); count])
    })
}

/// Large solid objects of `kinds` at `places`, which are in the order of a scene's objects.
fn placed(kinds: &[Kind], places: &[(u32, u32)]) -> Scene {
    let object = |(&(colour, shape), &(x, y))| Object {
        shape,
        colour,
        size: Size::Large,
        pattern: Pattern::Solid,
        x,
        y,
    };
    Scene::of(kinds.iter().zip(places).map(object).collect(), Background::White)
}

#[cfg(test)]
mod tests {
    use crate::shapes::{Pattern, Relation, Scene, ShapesConfig, ShapesScenes, ShapesSplit};

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

    #[test]
    fn a_prompt_gives_back_its_objects_and_their_relation() {
        let kinds = |scene: &Scene| {
            let mut kinds: Vec<_> =
                scene.objects().iter().map(|object| (object.colour, object.shape)).collect();
            kinds.sort_unstable();
            kinds
        };
        for scenes in [ShapesScenes::Prompts, ShapesScenes::Varied] {
            let config = ShapesConfig { scenes, objects: [1, 6], ..ShapesConfig::default() };
            for index in 0..400 {
                let scene = config.scene(index);
                let prompt = scene.prompt();
                let read = Scene::of_prompt(&prompt).unwrap_or_else(|| panic!("{prompt}"));
                assert_eq!(kinds(&read), kinds(&scene), "{prompt}");
                if let ([one, other], [first, second]) = (scene.objects(), read.objects())
                    && kinds(&scene)[0] != kinds(&scene)[1]
                {
                    let is_swapped = (one.colour, one.shape) != (first.colour, first.shape);
                    let (first, second) = if is_swapped { (second, first) } else { (first, second) };
                    assert_eq!(Relation::between(first, second), Relation::between(one, other), "{prompt}");
                }
            }
        }
    }

    #[test]
    fn other_texts_have_no_scene() {
        for text in [
            "",
            "red circle",
            "a photo of a dog",
            "a red circle and a blue star",
            "a red circle above a red circle",
            "two red circles above a blue star",
            "four red circles and three blue stars",
        ] {
            assert_eq!(Scene::of_prompt(text), None, "{text}");
        }
        assert_eq!(Scene::of_prompt(" three blue stars ").unwrap().prompt(), "three blue stars");
    }
}
