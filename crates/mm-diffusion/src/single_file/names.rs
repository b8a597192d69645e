//! Names of modules in CompVis's code and in diffusers, as one table that is read in both directions.

use std::collections::{BTreeSet, HashMap};

/// Pairs of names of modules. A tensor's name is mapped by the longest module of the table that it lies in.
#[derive(Clone, Debug, Default)]
pub(super) struct NameTable {
    diffusers: HashMap<String, String>,
    ldm: HashMap<String, String>,
}

impl NameTable {
    /// Adds a pair.
    pub fn add(&mut self, ldm: impl Into<String>, diffusers: impl Into<String>) {
        let (ldm, diffusers) = (ldm.into(), diffusers.into());
        self.ldm.insert(diffusers.clone(), ldm.clone());
        self.diffusers.insert(ldm, diffusers);
    }

    /// Adds pairs of modules that lie in the modules `ldm` and `diffusers`.
    pub fn add_below(&mut self, ldm: &str, diffusers: &str, inner: &[(&str, &str)]) {
        for (inner_ldm, inner_diffusers) in inner {
            self.add(format!("{ldm}.{inner_ldm}"), format!("{diffusers}.{inner_diffusers}"));
        }
    }

    /// diffusers' name of a tensor or module.
    pub fn to_diffusers(&self, name: &str) -> Option<String> {
        mapped(&self.diffusers, name)
    }

    /// CompVis's name of a tensor or module.
    pub fn to_ldm(&self, name: &str) -> Option<String> {
        mapped(&self.ldm, name)
    }
}

fn mapped(table: &HashMap<String, String>, name: &str) -> Option<String> {
    let ends = std::iter::once(name.len()).chain(name.rmatch_indices('.').map(|(end, _)| end));
    let mut modules = ends.filter_map(|end| Some((end, table.get(&name[..end])?)));
    modules.next().map(|(end, module)| format!("{module}{}", &name[end..]))
}

/// The number that follows `prefix` in `name`.
fn number_after(name: &str, prefix: &str) -> Option<usize> {
    let rest = name.strip_prefix(prefix)?;
    rest.split('.').next()?.parse().ok()
}

/// The number of different numbers that follow `prefix`.
fn count<'a>(names: impl IntoIterator<Item = &'a str>, prefix: &str) -> usize {
    names.into_iter().filter_map(|name| number_after(name, prefix)).collect::<BTreeSet<_>>().len()
}

/// Modules of a residual block of the U-Net.
const RESNET: [(&str, &str); 6] = [
    ("in_layers.0", "norm1"),
    ("in_layers.2", "conv1"),
    ("emb_layers.1", "time_emb_proj"),
    ("out_layers.0", "norm2"),
    ("out_layers.3", "conv2"),
    ("skip_connection", "conv_shortcut"),
];

/// Modules of a residual block of the autoencoder.
const VAE_RESNET: [(&str, &str); 5] = [
    ("norm1", "norm1"),
    ("conv1", "conv1"),
    ("norm2", "norm2"),
    ("conv2", "conv2"),
    ("nin_shortcut", "conv_shortcut"),
];

/// Modules of the autoencoder's attention.
const VAE_ATTENTION: [(&str, &str); 5] =
    [("norm", "group_norm"), ("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("proj_out", "to_out.0")];

/// Names of such attention in old files of diffusers.
const OLD_VAE_ATTENTION: [(&str, &str); 4] =
    [("q", "query"), ("k", "key"), ("v", "value"), ("proj_out", "proj_attn")];

/// The names of a U-Net.
#[derive(Clone, Debug)]
pub(crate) struct UnetNames {
    table: NameTable,
    /// The number of blocks on each side of the middle.
    pub blocks: usize,
    /// The residual blocks of a downward block.
    pub layers_per_block: usize,
}

impl UnetNames {
    /// The table for a U-Net with these tensors or modules, under diffusers' names.
    pub fn of_diffusers<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let names: Vec<&str> = names.collect();
        let blocks = count(names.iter().copied(), "down_blocks.");
        let layers = count(names.iter().copied(), "down_blocks.0.resnets.");
        let has_attention = |block: usize| {
            let prefix = format!("up_blocks.{block}.attentions.");
            names.iter().any(|name| name.starts_with(&prefix))
        };
        Self::new(blocks, layers, has_attention)
    }

    /// The table for a U-Net with these tensors, under CompVis's names.
    pub fn of_ldm<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let names: Vec<&str> = names.collect();
        let inputs = count(names.iter().copied(), "input_blocks.");
        // Each block ends with a downsampling, but for the last.
        let first_op = names
            .iter()
            .filter(|name| name.contains(".0.op."))
            .filter_map(|name| number_after(name, "input_blocks."))
            .min();
        let layers = first_op.unwrap_or(inputs).min(inputs).saturating_sub(1);
        let has_attention = |block: usize| {
            let prefix = format!("output_blocks.{}.1.norm.", block * (layers + 1));
            names.iter().any(|name| name.starts_with(&prefix))
        };
        Self::new(inputs / (layers + 1), layers, has_attention)
    }

    fn new(blocks: usize, layers_per_block: usize, has_attention: impl Fn(usize) -> bool) -> Self {
        let mut table = NameTable::default();
        for (ldm, diffusers) in [
            ("time_embed.0", "time_embedding.linear_1"),
            ("time_embed.2", "time_embedding.linear_2"),
            ("label_emb.0.0", "add_embedding.linear_1"),
            ("label_emb.0.2", "add_embedding.linear_2"),
            ("input_blocks.0.0", "conv_in"),
            ("middle_block.1", "mid_block.attentions.0"),
            ("out.0", "conv_norm_out"),
            ("out.2", "conv_out"),
        ] {
            table.add(ldm, diffusers);
        }
        table.add_below("middle_block.0", "mid_block.resnets.0", &RESNET);
        table.add_below("middle_block.2", "mid_block.resnets.1", &RESNET);
        let step = layers_per_block + 1;
        for block in 0..blocks {
            for layer in 0..layers_per_block {
                let (ldm, diffusers) = (1 + block * step + layer, format!("down_blocks.{block}"));
                table.add_below(
                    &format!("input_blocks.{ldm}.0"),
                    &format!("{diffusers}.resnets.{layer}"),
                    &RESNET,
                );
                table.add(format!("input_blocks.{ldm}.1"), format!("{diffusers}.attentions.{layer}"));
            }
            for layer in 0..step {
                let (ldm, diffusers) = (block * step + layer, format!("up_blocks.{block}"));
                table.add_below(
                    &format!("output_blocks.{ldm}.0"),
                    &format!("{diffusers}.resnets.{layer}"),
                    &RESNET,
                );
                table.add(format!("output_blocks.{ldm}.1"), format!("{diffusers}.attentions.{layer}"));
            }
            if block + 1 < blocks {
                let last = (block + 1) * step;
                table.add(
                    format!("input_blocks.{last}.0.op"),
                    format!("down_blocks.{block}.downsamplers.0.conv"),
                );
                // The upsampling follows the attention where there is one.
                let place = if has_attention(block) { 2 } else { 1 };
                let ldm = format!("output_blocks.{}.{place}.conv", last - 1);
                table.add(ldm, format!("up_blocks.{block}.upsamplers.0.conv"));
            }
        }
        Self { table, blocks, layers_per_block }
    }

    /// diffusers' name.
    pub fn to_diffusers(&self, name: &str) -> Option<String> {
        self.table.to_diffusers(name)
    }

    /// CompVis's and Stability AI's name.
    pub fn to_ldm(&self, name: &str) -> Option<String> {
        self.table.to_ldm(name)
    }
}

/// The names of an autoencoder.
#[derive(Clone, Debug)]
pub(super) struct VaeNames {
    table: NameTable,
    /// The number of blocks on each side.
    pub blocks: usize,
    /// The residual blocks of an encoder's block.
    pub layers_per_block: usize,
}

impl VaeNames {
    /// The table for an autoencoder with these tensors, under diffusers' names.
    pub fn of_diffusers<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Self {
        Self::new(
            count(names.clone(), "encoder.down_blocks."),
            count(names, "encoder.down_blocks.0.resnets."),
        )
    }

    /// The table for an autoencoder with these tensors, under CompVis's names.
    pub fn of_ldm<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Self {
        Self::new(count(names.clone(), "encoder.down."), count(names, "encoder.down.0.block."))
    }

    fn new(blocks: usize, layers_per_block: usize) -> Self {
        let mut table = NameTable::default();
        table.add("quant_conv", "quant_conv");
        table.add("post_quant_conv", "post_quant_conv");
        for half in ["encoder", "decoder"] {
            for (ldm, diffusers) in
                [("conv_in", "conv_in"), ("conv_out", "conv_out"), ("norm_out", "conv_norm_out")]
            {
                table.add(format!("{half}.{ldm}"), format!("{half}.{diffusers}"));
            }
            let mid = |part: &str| format!("{half}.mid_block.{part}");
            let attention = format!("{half}.mid.attn_1");
            table.add_below(&attention, &mid("attentions.0"), &OLD_VAE_ATTENTION);
            // After the old names, so that reading gives the new ones.
            table.add_below(&attention, &mid("attentions.0"), &VAE_ATTENTION);
            table.add_below(&format!("{half}.mid.block_1"), &mid("resnets.0"), &VAE_RESNET);
            table.add_below(&format!("{half}.mid.block_2"), &mid("resnets.1"), &VAE_RESNET);
        }
        for block in 0..blocks {
            let (down, up) = (format!("encoder.down_blocks.{block}"), format!("decoder.up_blocks.{block}"));
            // CompVis counts the decoder's blocks from the image.
            let (ldm_down, ldm_up) =
                (format!("encoder.down.{block}"), format!("decoder.up.{}", blocks - 1 - block));
            for layer in 0..layers_per_block {
                table.add_below(
                    &format!("{ldm_down}.block.{layer}"),
                    &format!("{down}.resnets.{layer}"),
                    &VAE_RESNET,
                );
            }
            for layer in 0..=layers_per_block {
                table.add_below(
                    &format!("{ldm_up}.block.{layer}"),
                    &format!("{up}.resnets.{layer}"),
                    &VAE_RESNET,
                );
            }
            table.add(format!("{ldm_down}.downsample.conv"), format!("{down}.downsamplers.0.conv"));
            table.add(format!("{ldm_up}.upsample.conv"), format!("{up}.upsamplers.0.conv"));
        }
        Self { table, blocks, layers_per_block }
    }

    /// diffusers' name.
    pub fn to_diffusers(&self, name: &str) -> Option<String> {
        self.table.to_diffusers(name)
    }

    /// CompVis's name.
    pub fn to_ldm(&self, name: &str) -> Option<String> {
        self.table.to_ldm(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names of modules of SDXL's U-Net that say how it is built.
    fn sdxl() -> UnetNames {
        let names: Vec<String> = (0..3)
            .flat_map(|block| (0..2).map(move |layer| format!("down_blocks.{block}.resnets.{layer}.conv1")))
            .chain((0..2).map(|block| format!("up_blocks.{block}.attentions.0.proj_in")))
            .collect();
        UnetNames::of_diffusers(names.iter().map(String::as_str))
    }

    #[test]
    fn known_modules_of_sdxl_have_their_names_in_both_directions() {
        let names = sdxl();
        for (ldm, diffusers) in [
            (
                "input_blocks.4.1.transformer_blocks.0.attn1.to_q",
                "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
            ),
            ("input_blocks.8.0.emb_layers.1", "down_blocks.2.resnets.1.time_emb_proj"),
            ("input_blocks.3.0.op", "down_blocks.0.downsamplers.0.conv"),
            ("middle_block.2.out_layers.3", "mid_block.resnets.1.conv2"),
            ("output_blocks.2.1.proj_out", "up_blocks.0.attentions.2.proj_out"),
            ("output_blocks.2.2.conv", "up_blocks.0.upsamplers.0.conv"),
            ("output_blocks.8.0.skip_connection", "up_blocks.2.resnets.2.conv_shortcut"),
            ("label_emb.0.2.bias", "add_embedding.linear_2.bias"),
        ] {
            assert_eq!(names.to_diffusers(ldm).as_deref(), Some(diffusers));
            assert_eq!(names.to_ldm(diffusers).as_deref(), Some(ldm));
        }
        assert_eq!((names.blocks, names.layers_per_block), (3, 2));
        for unknown in ["input_blocks.9.0.op", "output_blocks.99.0.in_layers.0", "x", "", "middle_block.0.x"]
        {
            assert_eq!(names.to_diffusers(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn a_block_without_attention_upsamples_in_the_second_place() {
        let modules = ["down_blocks.0.resnets.0", "down_blocks.1.resnets.0", "up_blocks.1.attentions.0.norm"];
        let names = UnetNames::of_diffusers(modules.into_iter());
        let upsampler = names.to_ldm("up_blocks.0.upsamplers.0.conv.weight");
        assert_eq!(upsampler.as_deref(), Some("output_blocks.1.1.conv.weight"));
        let tensors = [
            "input_blocks.0.0.weight",
            "input_blocks.1.0.in_layers.0.bias",
            "input_blocks.2.0.op.weight",
            "input_blocks.3.0.in_layers.0.bias",
            "output_blocks.2.1.norm.bias",
        ];
        let same = UnetNames::of_ldm(tensors.into_iter());
        assert_eq!((same.blocks, same.layers_per_block), (2, 1));
        let name = "output_blocks.1.1.conv.weight";
        assert_eq!(same.to_diffusers(name).as_deref(), Some("up_blocks.0.upsamplers.0.conv.weight"));
    }

    #[test]
    fn the_autoencoders_attention_is_written_from_its_old_and_new_names() {
        let modules = ["encoder.down_blocks.0.resnets.0", "encoder.down_blocks.1.resnets.0"];
        let names = VaeNames::of_diffusers(modules.into_iter());
        let ldm = "decoder.mid.attn_1.proj_out.weight";
        for name in ["to_out.0", "proj_attn"] {
            let name = format!("decoder.mid_block.attentions.0.{name}.weight");
            assert_eq!(names.to_ldm(&name).as_deref(), Some(ldm));
        }
        let read = names.to_diffusers(ldm);
        assert_eq!(read.as_deref(), Some("decoder.mid_block.attentions.0.to_out.0.weight"));
        let up = names.to_diffusers("decoder.up.1.block.1.nin_shortcut.bias");
        assert_eq!(up.as_deref(), Some("decoder.up_blocks.0.resnets.1.conv_shortcut.bias"));
    }
}
