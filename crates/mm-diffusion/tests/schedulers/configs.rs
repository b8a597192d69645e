//! Reading, swapping, changing and writing `scheduler_config.json`.

use super::{build, sd15};
use mm_diffusion::schedulers::{PredictionType, SchedulerConfig, SchedulerKind, SchedulerOptions};
use mm_testing::normal;
use serde_json::{Value, json};

#[test]
fn an_unknown_class_is_refused_with_a_list_of_the_known() {
    let error = SchedulerConfig::new(json!({"_class_name": "EDMEulerScheduler"})).unwrap_err().to_string();
    assert!(error.contains("EDMEulerScheduler"), "{error}");
    for kind in SchedulerKind::ALL {
        assert!(error.contains(kind.class_name()), "{error}");
    }
    // Its file can still be read by a known class.
    assert!(
        SchedulerConfig::new_as(json!({"_class_name": "EDMEulerScheduler"}), SchedulerKind::Euler).is_ok()
    );
}

#[test]
fn every_kind_is_found_by_its_word_and_its_class() {
    for kind in SchedulerKind::ALL {
        assert_eq!(kind.word().parse::<SchedulerKind>().unwrap(), kind);
        assert_eq!(SchedulerKind::from_class_name(kind.class_name()).unwrap(), kind);
    }
    let error = "dpmpp".parse::<SchedulerKind>().unwrap_err().to_string();
    assert!(error.contains("dpmpp_2m"), "{error}");
}

#[test]
fn unknown_keys_are_kept_and_written_back() {
    let mut value = sd15();
    value["my_key"] = json!({"a": [1, 2]});
    let config = SchedulerConfig::new(value.clone()).unwrap();
    assert_eq!(config.to_json(), value);
    let swapped = config.with_kind(SchedulerKind::Euler).unwrap();
    assert_eq!(swapped.to_json()["my_key"], json!({"a": [1, 2]}));
    assert_eq!(swapped.with_kind(SchedulerKind::Pndm).unwrap().to_json(), value);
}

#[test]
fn a_missing_key_takes_the_default_of_the_class_that_reads_it() {
    let config = SchedulerConfig::new(json!({"_class_name": "DDIMScheduler"})).unwrap();
    assert_eq!(config.effective()["timestep_spacing"], "leading");
    assert_eq!(config.effective()["beta_start"], 0.0001);
    assert_eq!(config.effective()["set_alpha_to_one"], true);
    let heun = config.with_kind(SchedulerKind::Heun).unwrap();
    assert_eq!(heun.effective()["timestep_spacing"], "linspace");
    assert_eq!(heun.effective()["beta_start"], 0.00085);
    assert_eq!(heun.effective().get("set_alpha_to_one"), None);
    assert_eq!(heun.effective()["_class_name"], "HeunDiscreteScheduler");
}

#[test]
fn a_setting_that_fails_leaves_the_config_as_it_was() {
    let mut config = SchedulerConfig::new(sd15()).unwrap();
    config.set("steps_offset", 0).unwrap();
    assert_eq!(build(&config, 4).timesteps(), [750.0, 500.0, 500.0, 250.0, 0.0]);
    let error = config.set("timestep_spacing", "even").unwrap_err().to_string();
    for part in ["timestep_spacing", "even", "leading", "trailing", "linspace"] {
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(build(&config, 4).timesteps(), [750.0, 500.0, 500.0, 250.0, 0.0]);
}

#[test]
fn numbers_that_json_lacks_are_read_as_python_writes_them() {
    let text = r#"{"_class_name": "DPMSolverMultistepScheduler", "lambda_min_clipped": -Infinity,
        "note": "-Infinity, \"NaN\" and \\", "variance_type": null}"#;
    let config = SchedulerConfig::from_json(text).unwrap();
    assert_eq!(config.to_json()["note"], "-Infinity, \"NaN\" and \\");
    assert_eq!(config.to_json().get("lambda_min_clipped"), None);
    assert_eq!(build(&config, 4).timesteps(), [999.0, 749.0, 500.0, 250.0]);
}

#[test]
fn a_file_that_is_not_json_is_refused_with_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("scheduler_config.json");
    for text in ["", "{", "[]", "{}", "{\"_class_name\": 3}", "\u{fffd}\\", "\"", "{\"a\": \"\\"] {
        std::fs::write(&path, text).unwrap();
        let error = SchedulerConfig::read(&path).unwrap_err().to_string();
        assert!(error.contains("scheduler_config.json"), "{error}");
    }
    std::fs::write(&path, sd15().to_string()).unwrap();
    assert_eq!(SchedulerConfig::read(&path).unwrap().kind(), SchedulerKind::Pndm);
}

#[test]
fn solver_types_of_the_other_solver_are_read_as_the_own_default() {
    let value = json!({"_class_name": "UniPCMultistepScheduler", "solver_type": "bh2"});
    let unipc = SchedulerConfig::new(value).unwrap();
    assert!(unipc.with_kind(SchedulerKind::DpmMultistep).unwrap().build(4, &Default::default()).is_ok());
}

#[test]
fn a_flow_model_can_be_sampled_with_the_solvers_that_know_flows() {
    let value = json!({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0});
    let flow = SchedulerConfig::new(value).unwrap();
    assert_eq!(flow.prediction_type(), PredictionType::FlowPrediction);
    for kind in [SchedulerKind::DpmMultistep, SchedulerKind::UniPc] {
        let swapped = flow.with_kind(kind).unwrap();
        assert_eq!(swapped.prediction_type(), PredictionType::FlowPrediction);
        let sigmas = build(&swapped, 4).sigmas().to_vec();
        assert!(sigmas[0] > 0.99 && (sigmas[1] - 0.9).abs() < 0.01, "{sigmas:?}");
    }
    for kind in [SchedulerKind::Euler, SchedulerKind::Ddim] {
        let error = flow.with_kind(kind).unwrap_err().to_string();
        assert!(error.contains("flow_match_euler"), "{error}");
    }
    assert!(SchedulerConfig::new(sd15()).unwrap().with_kind(SchedulerKind::FlowMatchEuler).is_err());
}

#[test]
fn the_dynamic_shift_grows_with_the_image() {
    let value = json!({"_class_name": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": true});
    let mut config = SchedulerConfig::new(value).unwrap();
    assert!((config.dynamic_shift(256).unwrap() - 0.5).abs() < 1e-12);
    assert!((config.dynamic_shift(4096).unwrap() - 1.15).abs() < 1e-12);
    let mu = config.dynamic_shift(1024);
    assert!(config.build(4, &SchedulerOptions { mu, ..Default::default() }).is_ok());
    assert!(config.build(4, &SchedulerOptions::default()).unwrap_err().to_string().contains("mu"));
    config.set("use_dynamic_shifting", false).unwrap();
    assert_eq!(config.dynamic_shift(1024), None);
}

#[test]
fn any_value_of_any_key_is_read_or_refused_but_never_panics() {
    let values = [
        Value::Null,
        json!(true),
        json!(0),
        json!(-3),
        json!(1e300),
        json!(0.3),
        json!(u64::MAX),
        json!("epsilon"),
        json!([1]),
        json!({}),
    ];
    for kind in SchedulerKind::ALL {
        let config = SchedulerConfig::new_as(json!({}), kind).unwrap();
        let keys: Vec<String> = config.effective().as_object().unwrap().keys().cloned().collect();
        for key in &keys {
            for value in &values {
                let mut changed = config.clone();
                if changed.set(key, value.clone()).is_ok() {
                    for steps in [1, 3, 20] {
                        let options = SchedulerOptions { mu: Some(1.0), ..Default::default() };
                        let Ok(mut scheduler) = changed.build(steps, &options) else { continue };
                        let sample = scheduler.scale_model_input(&normal(1, &[1, 2, 2, 2]), 0);
                        let _ = scheduler.step(&sample, 0, &sample, &mut || sample.shallow_clone());
                    }
                }
            }
        }
    }
}
