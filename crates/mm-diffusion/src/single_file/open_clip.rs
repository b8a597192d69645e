//! Text transformers of open_clip, under transformers' names.
//!
//! open_clip keeps query, key and value as one `in_proj`, and its projection of the text is the transpose of
//! transformers'.

use super::names::NameTable;

/// Where a tensor of transformers comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The tensor of this name.
    Whole(String),
    /// The transpose of the tensor of this name.
    Transposed(String),
    /// Third 0, 1 or 2 of the rows of the tensor of this name.
    Third(String, i64),
}

const LAYERS: &str = "transformer.resblocks";
const HF_LAYERS: &str = "text_model.encoder.layers";
pub(super) const PROJECTION: &str = "text_projection";

const LAYER: [(&str, &str); 5] = [
    ("ln_1", "layer_norm1"),
    ("ln_2", "layer_norm2"),
    ("mlp.c_fc", "mlp.fc1"),
    ("mlp.c_proj", "mlp.fc2"),
    ("attn.out_proj", "self_attn.out_proj"),
];

const PARTS: [&str; 3] = ["q_proj", "k_proj", "v_proj"];

/// The layer that an open_clip name is of.
pub(super) fn layer(name: &str) -> Option<usize> {
    name.strip_prefix(LAYERS)?.strip_prefix('.')?.split('.').next()?.parse().ok()
}

fn table(layers: usize) -> NameTable {
    let mut table = NameTable::default();
    table.add("token_embedding", "text_model.embeddings.token_embedding");
    table.add("positional_embedding", "text_model.embeddings.position_embedding.weight");
    table.add("ln_final", "text_model.final_layer_norm");
    for layer in 0..layers {
        table.add_below(&format!("{LAYERS}.{layer}"), &format!("{HF_LAYERS}.{layer}"), &LAYER);
    }
    table
}

/// The tensors of transformers that the open_clip tensors `names` make, of which the first `layers` layers
/// are used. Names of neither give the error.
pub(super) fn to_transformers<'a>(
    names: impl Iterator<Item = &'a str>,
    layers: usize,
    has_projection: bool,
) -> Result<Vec<(String, Source)>, String> {
    let table = table(layers);
    let mut found = Vec::new();
    for name in names {
        if layer(name).is_some_and(|layer| layer >= layers) || matches!(name, "logit_scale" | "attn_mask") {
            continue;
        }
        if name == PROJECTION {
            if has_projection {
                found.push((format!("{PROJECTION}.weight"), Source::Transposed(name.to_owned())));
            }
        } else if let Some((stem, kind)) = name.split_once(".attn.in_proj_") {
            let number = layer(stem).ok_or_else(|| unknown(name))?;
            for (third, part) in PARTS.iter().enumerate() {
                let to = format!("{HF_LAYERS}.{number}.self_attn.{part}.{kind}");
                found.push((to, Source::Third(name.to_owned(), third as i64)));
            }
        } else {
            let to = table.to_diffusers(name).ok_or_else(|| unknown(name))?;
            found.push((to, Source::Whole(name.to_owned())));
        }
    }
    Ok(found)
}

fn unknown(name: &str) -> String {
    format!("{name} is no tensor of an open_clip text transformer")
}

/// Where a tensor of open_clip comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// The tensor of this name is the one of transformers.
    Whole(String),
    /// It is its transpose.
    Transposed(String),
    /// It is the rows of these three tensors of transformers.
    Joined(String, [String; 3]),
}

/// The open_clip tensor that transformers' tensor `name` makes; none for key and value, which go with the
/// query.
pub(super) fn to_open_clip(name: &str) -> Result<Option<Target>, String> {
    if name == format!("{PROJECTION}.weight") {
        return Ok(Some(Target::Transposed(PROJECTION.to_owned())));
    }
    let unknown = || format!("{name} is no tensor of a CLIP text model");
    if let Some((stem, rest)) = name.split_once(".self_attn.")
        && let Some((part, kind)) = rest.split_once('.')
        && PARTS.contains(&part)
    {
        let number = stem.strip_prefix(HF_LAYERS).ok_or_else(unknown)?;
        let parts = PARTS.map(|part| format!("{stem}.self_attn.{part}.{kind}"));
        let joined = Target::Joined(format!("{LAYERS}{number}.attn.in_proj_{kind}"), parts);
        return Ok((part == PARTS[0]).then_some(joined));
    }
    let number =
        name.strip_prefix(HF_LAYERS).and_then(|rest| rest.strip_prefix('.')?.split('.').next()?.parse().ok());
    let layers = number.map_or(0, |number: usize| number.saturating_add(1).min(MAX_LAYERS));
    table(layers).to_ldm(name).map(|to| Some(Target::Whole(to))).ok_or_else(unknown)
}

/// Far more than any has.
const MAX_LAYERS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_joined_projection_is_split_and_joined_again() {
        let names = ["transformer.resblocks.0.attn.in_proj_bias", "text_projection", "logit_scale"];
        let made = to_transformers(names.into_iter(), 1, true).unwrap();
        let key = "text_model.encoder.layers.0.self_attn.k_proj.bias".to_owned();
        assert_eq!(made[1], (key.clone(), Source::Third(names[0].to_owned(), 1)));
        assert_eq!(made[3], ("text_projection.weight".to_owned(), Source::Transposed(names[1].to_owned())));
        assert_eq!(made.len(), 4);
        assert_eq!(to_open_clip(&key), Ok(None));
        let Some(Target::Joined(name, parts)) = to_open_clip(&made[0].0).unwrap() else { panic!() };
        assert_eq!((name.as_str(), &parts[1]), (names[0], &key));
    }

    #[test]
    fn layers_beyond_the_last_are_dropped_and_strange_names_are_errors() {
        let names = ["transformer.resblocks.1.ln_1.weight", "transformer.resblocks.0.ln_1.weight"];
        let made = to_transformers(names.into_iter(), 1, false).unwrap();
        assert_eq!(made.len(), 1);
        assert_eq!(made[0].0, "text_model.encoder.layers.0.layer_norm1.weight");
        assert!(
            to_transformers(["visual.conv1"].into_iter(), 1, false).unwrap_err().contains("visual.conv1")
        );
        assert!(to_open_clip("text_model.encoder.layers.x.y").is_err());
    }
}
