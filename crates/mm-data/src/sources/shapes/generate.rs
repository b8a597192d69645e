//! Random scenes: first their objects, then the places of these.

use rand::RngExt;

use super::draw::{coin, one_of, pick};
use super::object::{Background, Colour, HELD_OUT, Object, Pattern, Shape, Size};
use super::scene::{MAX_OBJECTS, Scene};
use super::{ShapesConfig, ShapesSplit};
use crate::SampleRng;

/// The number of places drawn for an object before the layout restarts, and the number of layouts before the
/// fallback to a grid.
const TRIES: usize = 40;

/// The centers of a grid on which six large objects do not overlap.
const GRID: [u32; 3] = [166, 500, 834];

/// A random scene of a config.
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

/// The largest number of objects of one kind in a scene for a prompt.
const ALIKE: u32 = 3;

/// A random scene of `scenes = "prompts"`: large solid objects of one color and shape, or two different ones.
/// Small ones have six pixels at a side of 32, too few for a model to learn a heart from in minutes.
pub(super) fn prompt_scene(config: &ShapesConfig, rng: &mut SampleRng) -> Scene {
    let solid =
        |(colour, shape)| Object { shape, colour, size: Size::Large, pattern: Pattern::Solid, x: 0, y: 0 };
    let first = kind(config.split, true, rng);
    let mut objects = vec![solid(first)];
    let [least, most] = config.objects.map(|count| count.clamp(1, ALIKE));
    if most < 2 || (least < 3 && rng.random_range(0..100u32) < 100 - config.pairs.min(100)) {
        let count = rng.random_range(least..=most);
        objects.extend((1..count).map(|_| solid(first)));
    } else {
        let other = loop {
            let other = kind(config.split, false, rng);
            if other != first {
                break other;
            }
        };
        objects.push(solid(other));
    }
    let background = one_of(rng, Background::ALL);
    if !(0..TRIES).any(|_| scatter(&mut objects, rng)) {
        onto_grid(&mut objects, rng);
    }
    objects.sort_unstable_by_key(|object| (object.x, object.y));
    Scene::of(objects, background)
}

/// A color and a shape of a split; the first of a held-out scene is held out.
fn kind(split: ShapesSplit, is_first: bool, rng: &mut SampleRng) -> (Colour, Shape) {
    if split == ShapesSplit::HeldOut && is_first {
        return one_of(rng, HELD_OUT);
    }
    loop {
        let kind = (one_of(rng, Colour::ALL), one_of(rng, Shape::ALL));
        if split != ShapesSplit::Train || !HELD_OUT.contains(&kind) {
            return kind;
        }
    }
}

/// An object that differs from all others in an attribute. Half of the time it shares a shape or a color with
/// another one, so that counts vary.
fn another(split: ShapesSplit, others: &[Object], rng: &mut SampleRng) -> Object {
    loop {
        let (mut colour, mut shape) = (one_of(rng, Colour::ALL), one_of(rng, Shape::ALL));
        match pick(rng, others) {
            None if split == ShapesSplit::HeldOut => (colour, shape) = one_of(rng, HELD_OUT),
            Some(other) if coin(rng) => {
                if coin(rng) {
                    colour = other.colour;
                } else {
                    shape = other.shape;
                }
            }
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

/// Places each object at a random free place; false where there is none.
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

/// Places each object in a random cell of the grid.
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
