//! Scenes at random: what is in them, then where it lies.

use rand::RngExt;

use super::draw::{coin, one_of, pick};
use super::object::{Background, Colour, HELD_OUT, Object, Pattern, Shape, Size};
use super::scene::{MAX_OBJECTS, Scene};
use super::{ShapesConfig, ShapesSplit};
use crate::SampleRng;

/// How often a place is drawn before the layout begins again, and how often it begins before the grid takes
/// over.
const TRIES: usize = 40;

/// The centres of a grid on which even six large objects lie apart.
const GRID: [u32; 3] = [166, 500, 834];

/// A scene as the config wants them.
pub(super) fn scene(config: &ShapesConfig, rng: &mut SampleRng) -> Scene {
    let [least, most] = config.objects.map(|count| count.clamp(1, MAX_OBJECTS as u32));
    let count = rng.random_range(least..=most.max(least));
    let mut objects: Vec<Object> = Vec::with_capacity(count as usize);
    for _ in 0..count {
        objects.push(another(config.split, &objects, rng));
    }
    let background = one_of(rng, Background::ALL);
    if !(0..TRIES).any(|_| scatter(&mut objects, rng)) {
        onto_grid(&mut objects, rng);
    }
    objects.sort_unstable_by_key(|object| (object.x, object.y));
    Scene::of(objects, background)
}

/// An object that looks like none of the others. Half of the time it shares a shape or a colour with one of
/// them, so that there is something to count.
fn another(split: ShapesSplit, others: &[Object], rng: &mut SampleRng) -> Object {
    loop {
        let (mut colour, mut shape) = (one_of(rng, Colour::ALL), one_of(rng, Shape::ALL));
        match pick(rng, others) {
            None if split == ShapesSplit::HeldOut => (colour, shape) = one_of(rng, HELD_OUT),
            Some(other) if coin(rng) => match coin(rng) {
                true => colour = other.colour,
                false => shape = other.shape,
            },
            _ => {}
        }
        let (size, pattern) = (one_of(rng, Size::ALL), one_of(rng, Pattern::ALL));
        let object = Object { shape, colour, size, pattern, x: 0, y: 0 };
        let allowed = split != ShapesSplit::Train || !object.is_held_out();
        if allowed && !others.iter().any(|other| object.looks_like(other)) {
            return object;
        }
    }
}

/// Lays each object somewhere free; false where one finds no place.
fn scatter(objects: &mut [Object], rng: &mut SampleRng) -> bool {
    (0..objects.len()).all(|placed| {
        (0..TRIES).any(|_| {
            let (x, y) =
                (rng.random_range(objects[placed].range()), rng.random_range(objects[placed].range()));
            objects[placed] = Object { x, y, ..objects[placed] };
            objects[..placed].iter().all(|other| objects[placed].is_clear_of(other))
        })
    })
}

/// Lays each object into a cell of its own, drawn at random.
fn onto_grid(objects: &mut [Object], rng: &mut SampleRng) {
    let mut cells: Vec<(u32, u32)> = GRID.into_iter().flat_map(|x| GRID.map(|y| (x, y))).collect();
    for object in objects {
        let cell = rng.random_range(0..cells.len() as u32) as usize;
        (object.x, object.y) = cells.swap_remove(cell);
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn the_grid_takes_six_large_objects() {
        let mut rng = SampleRng::seed_from_u64(0);
        let large = |colour| Object {
            shape: Shape::Cross,
            colour,
            size: Size::Large,
            pattern: Pattern::Solid,
            x: 0,
            y: 0,
        };
        let mut objects: Vec<Object> = Colour::ALL.into_iter().take(MAX_OBJECTS).map(large).collect();
        for _ in 0..100 {
            onto_grid(&mut objects, &mut rng);
            assert!(Scene::new(objects.clone(), Background::White).is_ok());
        }
    }
}
