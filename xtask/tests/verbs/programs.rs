//! Each verb starts the right programs, and reports what they print.

use std::fs;

use crate::checkout::{CONFIG, Checkout, last_error};

#[test]
fn ci_stops_at_the_first_step_that_fails_and_names_it() {
    let checkout = Checkout::new();
    checkout.program("cargo", "echo $1 >> calls; [ $1 != doc ]");
    let output = checkout.xtask(&["ci"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(checkout.calls(), "fmt\nclippy\ndoc\n");
    assert!(last_error(&output).starts_with("error: ci stopped at doc"), "{}", last_error(&output));
}

#[test]
fn all_tests_run_and_those_that_failed_are_listed_at_the_end() {
    let checkout = Checkout::new();
    let script = "[ $1 = test ] || exit 0; echo cargo $* >> calls
printf 'running 2 tests\\ntest a::b ... FAILED\\n\\nfailures:\\n    a::b\\n\\n'
echo 'test result: FAILED. 1 passed; 1 failed'
echo 'error: test failed, to rerun pass `-p mm-core --lib`' >&2
echo 'test result: ok. 7 passed'; exit 101";
    checkout.program("cargo", script);
    let list = "1 failed; `cargo xtask test` repeats each with these arguments:\n  -p mm-core --lib a::b\n";
    for (verb, context) in [("test", "error: "), ("ci", "error: ci stopped at test: ")] {
        let output = checkout.xtask(&[verb]);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && stderr.ends_with(&format!("{context}{list}")), "{stderr}");
        assert!(stderr.contains("to rerun pass `-p mm-core --lib`\n"), "{stderr}");
        let results = String::from_utf8(output.stdout).unwrap();
        assert!(
            results.contains("test a::b ... FAILED\n") && results.ends_with("test result: ok. 7 passed\n")
        );
    }
    checkout.xtask(&["test", "-p", "mm-core", "--no-fail-fast"]);
    let calls = checkout.calls();
    let calls: Vec<&str> = calls.lines().collect();
    assert_eq!(calls[0], "cargo test --release --no-fail-fast --workspace");
    assert_eq!(calls[1], "cargo test --workspace --release --no-fail-fast");
    assert_eq!(calls[2], "cargo test --release -p mm-core --no-fail-fast");
}

#[test]
fn cargo_has_the_environment_of_one_that_a_user_starts() {
    let checkout = Checkout::new();
    checkout.program(
        "cargo",
        "echo ${LIBTORCH-unset} ${CARGO_MANIFEST_DIR-unset} ${LD_LIBRARY_PATH%%:*} > calls",
    );
    assert!(checkout.xtask(&["test"]).status.success());
    let lib = checkout.path(".libtorch/torch/lib");
    assert_eq!(checkout.calls(), format!("unset unset {}\n", lib.display()));
}

#[test]
fn train_passes_all_arguments_to_mm_and_ends_with_its_exit_code() {
    let checkout = Checkout::new();
    checkout.program("mm", "echo mm $* >> calls; exit 130");
    let output = checkout.xtask(&["train", "a.toml", "--set", "train.lr=1", "--json"]);
    assert_eq!(output.status.code(), Some(130));
    assert_eq!(checkout.calls(), "mm train a.toml --set train.lr=1 --json\n");
}

#[test]
fn a_demo_trains_and_reports_and_a_finished_one_is_kept() {
    let checkout = Checkout::new();
    checkout.program(
        "mm",
        "echo mm $* >> calls; mkdir -p runs/demo/model; [ $1 = train ] || touch runs/demo/report.html",
    );
    assert!(checkout.xtask(&["demo", "--seed", "3"]).status.success());
    let calls = checkout.calls();
    assert!(calls.contains("--set run.name=demo") && calls.contains("--set run.seed=3"), "{calls}");
    assert!(calls.ends_with("mm eval runs/demo --report runs/demo/report.html\n"), "{calls}");

    let again = checkout.xtask(&["demo"]);
    assert!(last_error(&again).contains("--force"));
    assert_eq!(checkout.calls(), calls);
    assert!(checkout.xtask(&["demo", "--force"]).status.success());
}

#[test]
fn the_demo_of_search_trains_a_missing_model_then_indexes_and_serves() {
    let checkout = Checkout::new();
    checkout.program(
        "mm",
        "echo mm $* >> calls; mkdir -p runs/demo/model; [ $1 = train ] || touch runs/demo/report.html",
    );
    assert!(checkout.xtask(&["demo", "search"]).status.success());
    let calls = checkout.calls();
    let index = "mm search index --model runs/demo/model --data kind = \"emoji\", split = \"all\" --index \
                 runs/demo/emoji.index\n";
    assert!(calls.contains("mm train") && calls.contains(index), "{calls}");
    assert!(calls.ends_with("mm serve --models runs/demo/models.toml\n"), "{calls}");
    assert!(checkout.xtask(&["demo", "search"]).status.success());
    let again = checkout.calls();
    assert_eq!(again.matches("mm train").count(), 1, "{again}");
    assert_eq!(again.matches("mm serve").count(), 2, "{again}");
}

#[test]
fn a_captioner_is_a_demo_of_its_own() {
    let checkout = Checkout::new();
    let missing = last_error(&checkout.xtask(&["demo", "caption"]));
    assert_eq!(missing, "error: configs/caption/shapes.toml: there is no such configuration");
    fs::create_dir(checkout.path("configs/caption")).unwrap();
    fs::write(checkout.path("configs/caption/shapes.toml"), CONFIG).unwrap();
    let full = last_error(&checkout.xtask(&["demo", "caption", "--full"]));
    assert!(full.contains("the length of this one is in configs/caption/shapes.toml"), "{full}");
    assert_eq!(checkout.calls(), "");

    checkout.program(
        "mm",
        "echo mm $* >> calls; mkdir -p runs/demo-caption/model; \
         [ $1 = train ] || touch runs/demo-caption/report.html",
    );
    let output = checkout.xtask(&["demo", "caption", "--seed", "3"]);
    assert!(output.status.success(), "{}", last_error(&output));
    let train = "mm train configs/caption/shapes.toml --set run.name=demo-caption --set run.seed=3";
    let eval = "mm eval runs/demo-caption --report runs/demo-caption/report.html";
    assert_eq!(checkout.calls(), format!("{train} --resume latest\n{eval}\n"));
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.contains("mm caption --model runs/demo-caption/model IMAGE.png"), "{printed}");

    let again = last_error(&checkout.xtask(&["demo", "caption"]));
    assert!(again.contains("`cargo xtask demo caption --force`"), "{again}");
    assert!(checkout.xtask(&["demo", "caption", "--force"]).status.success());
}

#[test]
fn the_demo_of_vqa_is_shorter_than_its_configuration_unless_full() {
    for (arguments, steps) in [(&["demo", "vqa"][..], 1_500), (&["demo", "vqa", "--full"], 4_500)] {
        let checkout = Checkout::new();
        fs::create_dir(checkout.path("configs/vqa")).unwrap();
        fs::write(checkout.path("configs/vqa/shapes.toml"), CONFIG).unwrap();
        checkout.program("mm", "echo mm $* >> calls; mkdir -p runs/demo-vqa/model; exit 130");
        checkout.xtask(arguments);
        let train = "mm train configs/vqa/shapes.toml --set run.name=demo-vqa --set train.steps=";
        assert_eq!(checkout.calls(), format!("{train}{steps} --resume latest\n"));
    }
}

#[test]
fn a_demo_starts_and_continues_by_the_same_command() {
    let checkout = Checkout::new();
    checkout.program("mm", "echo mm $* >> calls; mkdir -p runs/demo; exit 130");
    for _ in ["first", "interrupted"] {
        let output = checkout.xtask(&["demo"]);
        assert_eq!(output.status.code(), Some(130), "{}", last_error(&output));
    }
    let calls = checkout.calls();
    let lines: Vec<&str> = calls.lines().collect();
    assert!(lines.len() == 2 && lines[0] == lines[1] && lines[0].ends_with("--resume latest"), "{calls}");
}

#[test]
fn a_run_prepares_trains_and_evaluates_in_the_processes_of_the_configuration() {
    let checkout = Checkout::new();
    checkout.program("mm", "[ $MM_LAUNCHER = $PPID ] && echo mm $* >> calls");
    fs::write(checkout.path("a.toml"), format!("prepare = [\"emoji\"]\n{CONFIG}")).unwrap();
    let output = checkout.xtask(&["run", "a.toml", "--set", "run.out=elsewhere", "--set", "run.name=b"]);
    assert!(output.status.success(), "{}", last_error(&output));
    let calls = checkout.calls();
    let lines: Vec<&str> = calls.lines().collect();
    assert!(lines[0].starts_with("cargo run") && lines[0].ends_with("/data/emoji"), "{calls}");
    let sets = "--set run.out=elsewhere --set run.name=b";
    assert_eq!(lines[1], format!("mm train a.toml {sets} --resume latest"));
    assert_eq!(lines[2..], ["mm eval elsewhere/b --report elsewhere/b/report.html"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("elsewhere/b/report.html"));

    let checkout = Checkout::new();
    checkout.program("mm", "echo $1 $RANK/$WORLD_SIZE >> calls");
    fs::write(checkout.path("a.toml"), format!("{CONFIG}\n[launch]\nnproc = 2\n")).unwrap();
    for args in [&["run", "a.toml"][..], &["train", "a.toml", "--json"], &["train", "a.toml", "--nproc", "1"]]
    {
        let output = checkout.xtask(args);
        assert!(output.status.success(), "{}", last_error(&output));
    }
    let (calls, mut ranks) = (checkout.calls(), Vec::new());
    ranks.extend(calls.lines());
    ranks[4..6].sort_unstable();
    assert_eq!(ranks[4..], ["train 0/2", "train 1/2", "train 0/1"]);
    assert!(ranks[..2].contains(&"train 1/2") && ranks[2..4].contains(&"eval 1/2"), "{calls}");
}

#[test]
fn an_interrupted_run_is_not_evaluated_and_one_without_evaluation_sets_is_trained() {
    let checkout = Checkout::new();
    let config = "configs/clip/emoji-vit-tiny.toml";
    checkout.program("mm", "echo mm $* >> calls; exit 130");
    assert_eq!(checkout.xtask(&["run", config]).status.code(), Some(130));
    assert_eq!(checkout.calls(), format!("mm train {config} --resume latest\n"));

    let checkout = Checkout::new();
    fs::write(checkout.path("a.toml"), "[run]\nname = \"a\"\n").unwrap();
    assert!(checkout.xtask(&["run", "a.toml"]).status.success());
    assert_eq!(checkout.calls(), "mm train a.toml --resume latest\n");
}

#[test]
fn a_bad_pipeline_is_refused_before_anything_is_built() {
    let checkout = Checkout::new();
    checkout.program("cargo", "echo cargo $* >> calls");
    for (text, expected) in [
        ("prepare = [\"minilmm\"]", "a.toml:1: `prepare`: unknown step `minilmm`; did you mean `minilm`?"),
        ("[launch]\nnprocs = 2", "a.toml:2: `launch.nprocs`: unknown key; did you mean `nproc`?"),
        ("[run]\nseed = 1", "a.toml: `run.name` is missing"),
        ("run = ", "a.toml:1: "),
    ] {
        fs::write(checkout.path("a.toml"), text).unwrap();
        let output = checkout.xtask(&["run", "a.toml"]);
        assert!(!output.status.success() && output.stdout.is_empty());
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.starts_with(&format!("error: {expected}")) && stderr.lines().count() == 1, "{stderr}");
    }
    let missing = last_error(&checkout.xtask(&["run", "none.toml"]));
    assert_eq!(missing, "error: none.toml: there is no such configuration");
    assert_eq!(checkout.calls(), "");
}

#[test]
fn goldens_are_replaced_only_by_a_script_that_succeeds() {
    let checkout = Checkout::new();
    let python = checkout.path("bin/python");
    let python = python.to_str().unwrap();
    fs::write(checkout.path("xtask/goldens/clip.py"), "").unwrap();
    fs::create_dir_all(checkout.path("data/goldens/clip")).unwrap();
    fs::write(checkout.path("data/goldens/clip/old"), "").unwrap();

    checkout.program("python", "touch $2/half; exit 1");
    let output = checkout.xtask(&["goldens", "--python", python]);
    assert!(last_error(&output).contains("data/goldens/clip is unchanged"), "{}", last_error(&output));
    assert!(checkout.path("data/goldens/clip/old").exists());

    checkout.program("python", "touch $2/new");
    assert!(checkout.xtask(&["goldens", "clip", "--python", python]).status.success());
    assert!(
        checkout.path("data/goldens/clip/new").exists() && !checkout.path("data/goldens/clip/old").exists()
    );
    assert!(last_error(&checkout.xtask(&["goldens", "vqa"])).contains("the scripts are clip"));
}

#[test]
fn a_round_trip_is_recorded_and_a_failure_is_named() {
    let checkout = Checkout::new();
    let python = checkout.path("bin/python");
    let check = ["goldens", "--check", "--python", python.to_str().unwrap()];
    fs::create_dir(checkout.path("docs")).unwrap();
    let page = checkout.path("docs/checkpoints.md");
    fs::write(&page, "# Checkpoints\n").unwrap();
    // One answer per request: the requests are counted in the plan.
    let answers = |answer: &str| {
        let each = format!("for _ in $(grep -o source $4); do echo '{answer}'; done");
        format!("[ $2 = make ] && exit; echo peer 1.0; {each}")
    };

    checkout.program("python", &answers(r#"{"opened_by":"CLIPModel","difference":2e-6,"error":"too far"}"#));
    let error = last_error(&checkout.xtask(&check));
    assert!(error.contains("the first: clip, written as hf: too far"), "{error}");
    checkout.program("mm", "echo mm $* >> calls; echo error: no room >&2; [ $1 = convert ]; exit $?");
    checkout.program("python", &answers(r#"{"opened_by":"CLIPModel","difference":0}"#));
    let error = last_error(&checkout.xtask(&check));
    assert!(error.contains("the first: clip-words, unconverted: no room"), "{error}");
    assert_eq!(fs::read_to_string(&page).unwrap(), "# Checkpoints\n", "a failed check records nothing");

    checkout.program("mm", "echo mm $* >> calls");
    let answer = r#"{"opened_by":"CLIPModel","texts":9,"photos":2,"pixels":0,"difference":2e-6}"#;
    checkout.program("python", &answers(answer));
    let output = checkout.xtask(&check);
    assert!(output.status.success(), "{}", last_error(&output));
    let text = fs::read_to_string(&page).unwrap();
    assert!(
        text.contains("with peer 1.0.")
            && text.contains("| openai-vit            | hf, then open_clip, then openai |")
    );
    assert!(text.contains("| 9           | 2: 0                 | 2.0e-6        |"), "{text}");
    assert!(text.contains("| caption/vit-gpt2-projected | hf "), "{text}");
    assert!(checkout.calls().contains("--format open_clip --dtype f32"), "{}", checkout.calls());
    let captioner = format!("mm convert --from {}", checkout.path("data/goldens/caption/blip").display());
    assert!(checkout.calls().contains(&captioner), "{}", checkout.calls());
    assert!(!checkout.path("bin/round_trip").exists());

    checkout.program(
        "python",
        "[ $2 = make ] && exit; echo peer 1.0; echo no module named open_clip >&2; exit 1",
    );
    let error = last_error(&checkout.xtask(&check));
    assert!(
        error.contains("the peers answered 0 of ") && error.ends_with(": no module named open_clip"),
        "{error}"
    );
}

#[test]
fn a_benchmark_measures_mm_and_the_peers_and_writes_its_page() {
    let checkout = Checkout::new();
    let example = checkout.path("bin/bench_clip");
    let built = format!(r#"{{"executable":"{}","target":{{"name":"bench_clip"}}}}"#, example.display());
    checkout.program("cargo", &format!("echo '{built}'"));
    let sample = |seconds: &str| {
        let times = r#""items_per_iteration":16,"gflop_per_iteration":140,"peak_mb":900"#;
        format!(r#"echo '{{"seconds":[{seconds}],{times}}}'"#)
    };
    checkout.program("bench_clip", &format!("[ $1 = captions ] && echo a cat && exit; {}", sample("1,1,1")));
    checkout.program("python", &sample("2,2,2"));
    fs::create_dir(checkout.path("docs")).unwrap();
    let python = checkout.path("bin/python");
    let bench = ["bench", "clip", "--rounds", "2", "--peer-python", python.to_str().unwrap()];

    let output = checkout.xtask(&bench);
    assert!(output.status.success(), "{}", last_error(&output));
    let page = fs::read_to_string(checkout.path("docs/benchmarks.md")).unwrap();
    for part in ["140 GFLOP/s in f32, 140 GFLOP/s in bf16", "| 16.0    | 100%", "| 8.0     | 50%", "2.00x"] {
        assert!(page.contains(part), "{part} is not in {page}");
    }

    checkout.program("python", "echo no module named open_clip >&2; exit 1");
    let error = last_error(&checkout.xtask(&bench));
    assert_eq!(error, "error: the peers cannot tokenise: no module named open_clip");
}

#[test]
fn captioning_is_measured_in_each_precision_beside_the_peer_on_one_model() {
    let checkout = Checkout::new();
    let built = |name: &str| {
        let path = checkout.path("bin").join(name);
        format!(r#"echo '{{"executable":"{}","target":{{"name":"{name}"}}}}'"#, path.display())
    };
    checkout.program("cargo", &format!("{}; {}", built("bench_clip"), built("bench_caption")));
    let common = r#""items_per_iteration":8,"gflop_per_iteration":100,"peak_mb":900"#;
    let product = format!(r#"echo '{{"seconds":[1],{common}}}'"#);
    let caption = |seconds: u32, phases: &str| {
        let parts = r#""encode_seconds":0.5,"tokens_per_second":90,"ids":[[1,2],[3,4]]"#;
        format!(r#"echo "$@" >> calls; echo '{{"seconds":[{seconds}],{parts},{common}{phases}}}'"#)
    };
    let phase = r#"{"seconds":0.5,"gflop":25}"#;
    let phases = format!(r#","phases":{{"encoder":{phase},"keys":{phase},"step":{phase}}}"#);
    checkout.program("bench_clip", &product);
    checkout.program("bench_caption", &caption(1, &phases));
    checkout.program("python", &caption(2, ""));
    fs::create_dir(checkout.path("docs")).unwrap();
    let python = checkout.path("bin/python");
    let bench = ["bench", "caption", "--rounds", "1", "--peer-python", python.to_str().unwrap()];

    let output = checkout.xtask(&bench);
    assert!(output.status.success(), "{}", last_error(&output));
    let page = fs::read_to_string(checkout.path("docs/benchmarks.md")).unwrap();
    for part in ["100 GFLOP/s in int8", "| 8.0     | 100%", "2.00x", "| 500.0 ms (50%)", "1.00x in bf16"] {
        assert!(page.contains(part), "{part} is not in {page}");
    }
    let (calls, model) = (checkout.calls(), checkout.path("bin/bench_caption_model"));
    let lines: Vec<&str> = calls.lines().collect();
    // The model, captions and training by both in two precisions, and int8 by mm alone.
    assert_eq!(lines.len(), 1 + 8 + 1, "{calls}");
    assert!(lines[0].ends_with(&format!("--make {} --seed 0", model.display())), "{calls}");
    let options = format!("--folder {} --precision f32 --iterations 3 --warmup 1", model.display());
    assert!(lines[1] == options && lines[2].ends_with(&options), "{calls}");
}
