//! The names of tensors in a LoRA file.

use super::Component;

/// The tensor's place in its pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// From the input to the rank: `lora_A`, `lora.down`, `lora_down`.
    Down,
    /// From the rank to the output: `lora_B`, `lora.up`, `lora_up`.
    Up,
    /// The numerator of the scale.
    Alpha,
}

/// How a file writes the name of a layer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Spelled {
    /// With dots, as in the model.
    Dotted(String),
    /// With underscores instead of dots, as kohya's programs write it.
    Underscored(String),
}

/// A tensor's name, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    /// The component; none in a file without prefixes.
    pub component: Option<Component>,
    pub module: Spelled,
    pub role: Role,
    pub spelling: &'static str,
}

/// The endings of names with dots: before them stands the layer.
const ENDINGS: [(&str, Role, &str); 11] = [
    (".lora_A.weight", Role::Down, "PEFT"),
    (".lora_B.weight", Role::Up, "PEFT"),
    (".lora_A.default.weight", Role::Down, "PEFT"),
    (".lora_B.default.weight", Role::Up, "PEFT"),
    (".lora.down.weight", Role::Down, "diffusers"),
    (".lora.up.weight", Role::Up, "diffusers"),
    (".lora_linear_layer.down.weight", Role::Down, "diffusers"),
    (".lora_linear_layer.up.weight", Role::Up, "diffusers"),
    ("_lora.down.weight", Role::Down, PROCESSORS),
    ("_lora.up.weight", Role::Up, PROCESSORS),
    (".alpha", Role::Alpha, "diffusers"),
];

/// The endings of kohya's names.
const KOHYA_ENDINGS: [(&str, Role); 3] =
    [(".lora_down.weight", Role::Down), (".lora_up.weight", Role::Up), (".alpha", Role::Alpha)];

const PROCESSORS: &str = "attention processors";

/// What kohya's programs write before the layer.
pub(super) const KOHYA_PREFIXES: [(&str, Component); 5] = [
    ("lora_unet_", Component::Unet),
    ("lora_transformer_", Component::Transformer),
    ("lora_te_", Component::TextEncoder),
    ("lora_te1_", Component::TextEncoder),
    ("lora_te2_", Component::TextEncoder2),
];

/// Parts of names of adapters that are not plain LoRA, with what they are.
const OTHERS: [(&str, &str); 8] = [
    ("dora_scale", "DoRA, a LoRA with magnitudes"),
    ("lora_magnitude_vector", "DoRA, a LoRA with magnitudes"),
    ("hada_", "LoHa, a product of two LoRAs"),
    ("lokr_", "LoKr, a Kronecker product"),
    ("lora_mid", "a LoRA in Tucker form"),
    ("oft_", "OFT, a rotation"),
    (".diff", "a difference of whole weights"),
    ("lora_B.bias", "a LoRA with biases"),
];

/// What `name` is part of, if that is an adapter of another kind than LoRA.
pub(super) fn other_kind(name: &str) -> Option<&'static str> {
    OTHERS.iter().find(|(part, _)| name.contains(part)).map(|&(_, kind)| kind)
}

impl Key {
    /// Takes the name of a tensor apart; none if it is not of a LoRA.
    pub fn parse(name: &str) -> Option<Self> {
        let kohya = KOHYA_PREFIXES.iter().find_map(|&(prefix, component)| {
            let rest = name.strip_prefix(prefix)?;
            KOHYA_ENDINGS.iter().find_map(|&(ending, role)| {
                let module = Spelled::Underscored(rest.strip_suffix(ending)?.to_owned());
                Some(Self { component: Some(component), module, role, spelling: "kohya" })
            })
        });
        kohya.or_else(|| Self::dotted(name))
    }

    fn dotted(name: &str) -> Option<Self> {
        let (component, rest) = Component::ALL
            .iter()
            .find_map(|&component| {
                Some((Some(component), name.strip_prefix(component.name())?.strip_prefix('.')?))
            })
            .unwrap_or((None, name));
        let rest = rest.strip_prefix("base_model.model.").unwrap_or(rest);
        let (module, role, spelling) = ENDINGS
            .iter()
            .find_map(|&(ending, role, spelling)| Some((rest.strip_suffix(ending)?, role, spelling)))?;
        // An alpha stands beside `lora.down` or beside the layer.
        let module = match role {
            Role::Alpha => module.strip_suffix(".lora").unwrap_or(module),
            _ => module,
        };
        let module = match (spelling, role) {
            (PROCESSORS, _) => processor_layer(module)?,
            (_, Role::Alpha) if module.ends_with("_lora") => processor_layer(module.strip_suffix("_lora")?)?,
            _ => module.replace(".processor.", "."),
        };
        (!module.is_empty()).then_some(Self { component, module: Spelled::Dotted(module), role, spelling })
    }
}

/// The layer of an attention processor's `to_q`, `to_k`, `to_v` or `to_out`: the same of a U-Net's attention,
/// `q_proj` and so on of a text encoder's.
fn processor_layer(name: &str) -> Option<String> {
    let (parent, layer) = name.rsplit_once('.')?;
    let parent = parent.strip_suffix(".processor").unwrap_or(parent);
    let layer = match (parent.ends_with("self_attn"), layer) {
        (true, _) => format!("{}_proj", layer.strip_prefix("to_")?),
        (false, "to_out") => "to_out.0".to_owned(),
        (false, _) => layer.to_owned(),
    };
    Some(format!("{parent}.{layer}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dotted(name: &str) -> (Option<Component>, String, Role) {
        let key = Key::parse(name).unwrap();
        match key.module {
            Spelled::Dotted(module) => (key.component, module, key.role),
            Spelled::Underscored(module) => panic!("{module} has no dots"),
        }
    }

    #[test]
    fn every_spelling_names_the_same_layer() {
        let layer = "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0";
        let spelled = [
            "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0.lora_A.weight",
            "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0.lora.down.weight",
            "unet.mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_out_lora.down.weight",
        ];
        for name in spelled {
            assert_eq!(dotted(name), (Some(Component::Unet), layer.to_owned(), Role::Down), "{name}");
        }
        let bare =
            "base_model.model.mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0.lora_B.weight";
        assert_eq!(dotted(bare), (None, layer.to_owned(), Role::Up));
    }

    #[test]
    fn the_layers_of_text_encoders_have_the_names_of_transformers() {
        let layer = ("text_model.encoder.layers.0.self_attn.out_proj".to_owned(), Role::Down);
        for name in [
            "text_encoder_2.text_model.encoder.layers.0.self_attn.out_proj.lora_linear_layer.down.weight",
            "text_encoder_2.text_model.encoder.layers.0.self_attn.to_out_lora.down.weight",
        ] {
            let (component, module, role) = dotted(name);
            assert_eq!((component, (module, role)), (Some(Component::TextEncoder2), layer.clone()));
        }
    }

    #[test]
    fn kohyas_names_keep_their_underscores() {
        let key = Key::parse("lora_te1_text_model_encoder_layers_0_mlp_fc1.alpha").unwrap();
        assert_eq!((key.component, key.role), (Some(Component::TextEncoder), Role::Alpha));
        assert_eq!(key.module, Spelled::Underscored("text_model_encoder_layers_0_mlp_fc1".to_owned()));
    }

    #[test]
    fn names_of_other_tensors_are_none() {
        for name in ["", "unet.conv_in.weight", ".lora_A.weight", "lora_unet_x.hada_w1_a", "_lora.up.weight"]
        {
            assert_eq!(Key::parse(name), None, "{name}");
        }
        assert!(other_kind("lora_unet_x.dora_scale").unwrap().starts_with("DoRA"));
        assert!(other_kind("unet.x.lora_A.weight").is_none());
    }
}
