//! The autoencoder.

use crate::{assert_equal, expected, json, weights};
use mm_core::Precision;
use mm_core::checkpoint::Weights;
use mm_diffusion::{Vae, VaeConfig};
use tch::Device;
use tch::nn::VarStore;

fn vae(mut weights: Weights) -> (VarStore, Vae) {
    let config = VaeConfig::from_hf(&json("sd1/vae/config.json")).unwrap();
    let vs = VarStore::new(Device::Cpu);
    Vae::rename_old_attention(&mut weights);
    let vae = weights.build(&vs, &Vae::LAYOUT, |path| Vae::new(path, &config)).unwrap();
    (vs, vae)
}

#[test]
fn latents_and_pixels_equal_diffusers_before_and_after_packing() {
    let (expected, (_vs, mut vae)) = (expected("sd1"), vae(weights("sd1/vae")));
    for is_packed in [false, true] {
        if is_packed {
            vae.pack(Precision::F32);
        }
        tch::no_grad(|| {
            let latents = vae.encode(&expected["vae.pixels"]);
            assert_equal("the mean", &latents.mean, &expected["vae.mean"], 1e-4);
            assert_equal("the variance", &latents.log_variance, &expected["vae.logvar"], 1e-4);
            assert_equal("pixels", &vae.decode(&latents.mean), &expected["vae.decoded"], 1e-4);
            assert_equal("tiles", &vae.decode_tiled(&expected["vae.wide"]), &expected["vae.tiled"], 1e-4);
        });
    }
}

#[test]
fn weights_under_the_names_of_old_checkpoints_are_read() {
    let mut old = weights("sd1/vae");
    old.rename(|name| {
        let names = [("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")];
        names
            .iter()
            .fold(name.to_owned(), |name, (new, old)| name.replace(&format!(".{new}."), &format!(".{old}.")))
    });
    assert!(old.has_suffix("attentions.0.proj_attn.bias"));
    let (expected, (_vs, vae)) = (expected("sd1"), vae(old));
    let found = tch::no_grad(|| vae.decode(&expected["vae.mean"]));
    assert_equal("pixels", &found, &expected["vae.decoded"], 1e-4);
}

#[test]
fn scaled_latents_come_back() {
    let config = VaeConfig { block_out_channels: vec![32], ..VaeConfig::default() };
    for config in [
        VaeConfig { shift_factor: Some(0.06), ..config.clone() },
        VaeConfig {
            latents_mean: Some(vec![0.1, 0.2, 0.3, 0.4]),
            latents_std: Some(vec![1.0, 2.0, 3.0, 4.0]),
            ..config
        },
    ] {
        let vae = Vae::new(&VarStore::new(Device::Cpu).root(), &config).unwrap();
        let latents = mm_testing::normal(1, &[2, 4, 3, 3]);
        let scaled = vae.scale_latents(&latents);
        assert!(scaled != latents);
        assert_equal("latents", &vae.unscale_latents(&scaled), &latents, 1e-5);
    }
}
