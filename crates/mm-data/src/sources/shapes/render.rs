//! Renders a scene: signed distance functions to antialiased 8-bit RGB.
//!
//! It uses only additions, products, quotients, square roots and roundings, which IEEE 754 defines exactly:
//! the bits are the same on every machine. The distances of star and heart are Inigo Quilez's
//! (<https://iquilezles.org/articles/distfunctions2d/>).

use image::{Rgb, RgbImage};

use super::object::{Background, Colour, Object, Pattern, SIDE, Shape};
use super::scene::Scene;

/// The second color of stripes and spots.
const WHITE: [f32; 3] = [255.0; 3];

impl Scene {
    /// The image, `size` x `size` pixels.
    pub fn render(&self, size: u32) -> RgbImage {
        let mut image = RgbImage::from_pixel(size, size, Rgb(self.background().rgb()));
        for object in self.objects() {
            draw(&mut image, object);
        }
        image
    }
}

fn draw(image: &mut RgbImage, object: &Object) {
    let size = image.width();
    let scale = size as f32 / SIDE as f32;
    let (x, y) = (object.x as f32 * scale, object.y as f32 * scale);
    let radius = object.size.radius() as f32 * scale;
    let colour = object.colour.rgb().map(f32::from);
    let span =
        |centre: f32| (centre - radius - 1.0).max(0.0) as u32..((centre + radius + 2.0) as u32).min(size);
    for row in span(y) {
        for column in span(x) {
            let (dx, dy) = (column as f32 + 0.5 - x, row as f32 + 0.5 - y);
            let distance = distance(object.shape, dx / radius, dy / radius) * radius;
            let covered = coverage(distance);
            if covered == 0.0 {
                continue;
            }
            let (covered, white) = fill(object, covered, distance, [dx, dy], radius);
            let pixel = &mut image.get_pixel_mut(column, row).0;
            for (channel, colour) in pixel.iter_mut().zip(colour.iter().zip(WHITE)) {
                let ink = colour.0 + (colour.1 - colour.0) * white;
                let ground = f32::from(*channel);
                *channel = (ground + (ink - ground) * covered + 0.5) as u8;
            }
        }
    }
}

/// The coverage of a pixel by an edge at `distance` pixels from its center, negative inside.
fn coverage(distance: f32) -> f32 {
    (0.5 - distance).clamp(0.0, 1.0)
}

/// The coverage of the pixel by the pattern, and the white share of it. The center of an object has its
/// color, except for hollow ones; a rim closes the outline of striped ones.
fn fill(object: &Object, covered: f32, distance: f32, [dx, dy]: [f32; 2], radius: f32) -> (f32, f32) {
    let inside = |rim: f32| coverage(distance + (rim * radius).max(1.0));
    match object.pattern {
        Pattern::Solid => (covered, 0.0),
        Pattern::Hollow => (covered - inside(0.24), 0.0),
        Pattern::Striped => {
            let period = 0.62 * radius;
            let across = (dx + dy) * std::f32::consts::FRAC_1_SQRT_2;
            let from_stripe = from_multiple(across, period).abs();
            (covered, inside(0.14) * coverage(0.27 * period - from_stripe))
        }
        Pattern::Spotted => {
            let (spot, places) = spots(object.shape);
            let from_spot = |&[x, y]: &[f32; 2]| length(dx - x * radius, dy - y * radius) - spot * radius;
            (covered, places.iter().map(|place| coverage(from_spot(place))).sum())
        }
    }
}

/// The radius and the centers of the spots of a shape, in radii of the shape; y points down.
fn spots(shape: Shape) -> (f32, &'static [[f32; 2]]) {
    match shape {
        Shape::Circle => (0.21, &[[-0.37, -0.37], [0.37, -0.37], [-0.37, 0.37], [0.37, 0.37]]),
        Shape::Square => (0.21, &[[-0.42, -0.42], [0.42, -0.42], [-0.42, 0.42], [0.42, 0.42]]),
        Shape::Triangle => (0.19, &[[0.0, -0.38], [-0.36, 0.42], [0.36, 0.42]]),
        Shape::Star => (0.15, &[[0.0, -0.44], [-0.42, -0.12], [0.42, -0.12], [-0.27, 0.37], [0.27, 0.37]]),
        Shape::Cross => (0.17, &[[0.0, -0.56], [-0.56, 0.0], [0.56, 0.0], [0.0, 0.56]]),
        Shape::Heart => (0.21, &[[-0.45, -0.4], [0.45, -0.4], [0.0, 0.34]]),
    }
}

/// The signed distance of a number from the nearest multiple of `step`.
fn from_multiple(number: f32, step: f32) -> f32 {
    number - step * (number / step + 0.5).floor()
}

/// The signed distance from the outline, negative inside, of a shape in the square from -1 to 1; y points
/// down.
fn distance(shape: Shape, x: f32, y: f32) -> f32 {
    let x = x.abs();
    match shape {
        Shape::Circle => length(x, y) - 0.96,
        Shape::Square => x.max(y.abs()) - 0.86,
        Shape::Triangle => (0.8725 * x - 0.4886 * (y + 0.97)).max(y - 0.78),
        Shape::Star => star(x, 0.06 - y, 1.04),
        Shape::Cross => {
            let (long, short) = (x.max(y.abs()), x.min(y.abs()));
            (long - 0.96).max(short - 0.36)
        }
        Shape::Heart => heart(0.62 * x, 0.52 - 0.62 * y) / 0.62,
    }
}

fn length(x: f32, y: f32) -> f32 {
    (x * x + y * y).sqrt()
}

/// A five-pointed star with its inner corners at 0.46 of the outer radius; y points up.
fn star(x: f32, y: f32, radius: f32) -> f32 {
    const INNER: f32 = 0.46;
    const COS: f32 = 0.809_017; // of 36 degrees
    const SIN: f32 = 0.587_785_24;
    // Two reflections fold the five points onto one.
    let fold = 2.0 * (COS * x - SIN * y).max(0.0);
    let (x, y) = (x - fold * COS, y + fold * SIN);
    let fold = 2.0 * (-COS * x - SIN * y).max(0.0);
    let (x, y) = ((x + fold * COS).abs(), y + fold * SIN - radius);
    let (edge_x, edge_y) = (INNER * SIN, INNER * COS - 1.0);
    let along = ((x * edge_x + y * edge_y) / (edge_x * edge_x + edge_y * edge_y)).clamp(0.0, radius);
    let distance = length(x - edge_x * along, y - edge_y * along);
    if y * edge_x > x * edge_y { distance } else { -distance }
}

/// A heart with its tip at the origin, about 1.1 high, for x >= 0; y points up.
fn heart(x: f32, y: f32) -> f32 {
    const LOBE: f32 = 0.353_553_4; // the root of two, over four
    if x + y > 1.0 {
        return length(x - 0.25, y - 0.75) - LOBE;
    }
    let on_side = 0.5 * (x + y).max(0.0);
    let distance = length(x, y - 1.0).min(length(x - on_side, y - on_side));
    if x > y { distance } else { -distance }
}

impl Colour {
    /// The color in the image.
    pub fn rgb(self) -> [u8; 3] {
        match self {
            Self::Red => [214, 32, 36],
            Self::Orange => [255, 132, 0],
            Self::Yellow => [246, 208, 16],
            Self::Green => [30, 148, 62],
            Self::Blue => [28, 84, 216],
            Self::Purple => [122, 40, 168],
            Self::Pink => [255, 120, 186],
            Self::Brown => [116, 66, 30],
        }
    }
}

impl Background {
    /// The color in the image.
    pub fn rgb(self) -> [u8; 3] {
        match self {
            Self::White => [248, 248, 246],
            Self::Grey => [206, 208, 212],
            Self::Sand => [232, 222, 198],
            Self::Sky => [204, 222, 236],
        }
    }
}
