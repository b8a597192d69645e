//! Settings in a few words.

use mm_diffusion::Settings;
use serde_json::Value;

/// Settings of schedulers that decide how images look, as far as a class has them.
const SHOWN: [&str; 7] = [
    "prediction_type",
    "timestep_spacing",
    "beta_schedule",
    "algorithm_type",
    "solver_order",
    "shift",
    "flow_shift",
];

/// "512 x 512 pixels, 20 steps, guidance 7.5, ...".
pub fn in_short(settings: &Settings) -> String {
    let Settings { width, height, steps, calls, guidance_scale, .. } = settings;
    let mut parts = vec![format!("{width} x {height} pixels")];
    parts.push(match calls == steps {
        true => format!("{steps} steps"),
        false => format!("{steps} steps in {calls} calls of the model"),
    });
    parts.push(format!("guidance {guidance_scale}"));
    let [from, to] = settings.guidance_interval;
    let others = [
        ("image guidance", settings.image_guidance_scale),
        ("strength", settings.strength),
        ("guidance rescale", Some(settings.guidance_rescale).filter(|&share| share != 0.0)),
        ("clip skip", Some(settings.clip_skip as f64).filter(|&skip| skip != 0.0)),
        ("eta", Some(settings.eta).filter(|&eta| eta != 0.0)),
    ];
    parts.extend(others.iter().filter_map(|(name, value)| Some(format!("{name} {}", (*value)?))));
    if [from, to] != [0.0, 1.0] {
        parts.push(format!("guided from {from} to {to} of the steps"));
    }
    parts.join(", ")
}

/// The class of a scheduler, its most telling settings, and all that are on.
pub fn scheduler_in_short(scheduler: &Value) -> String {
    let word = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let class = word(&scheduler["_class_name"]);
    let shown = SHOWN.iter().filter_map(|&key| Some(format!("{key} {}", word(scheduler.get(key)?))));
    let on = scheduler.as_object().into_iter().flatten();
    let on = on.filter(|(_, value)| **value == Value::Bool(true)).map(|(key, _)| key.clone());
    format!("{class}: {}", shown.chain(on).collect::<Vec<_>>().join(", "))
}
