//! Damaged annotation files: opening them and reading their samples gives samples or errors, in bounded time
//! and memory.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use mm_data::{DatasetConfig, SampleRng};
use rand::SeedableRng;

use crate::mutate::mutated;

#[path = "../../mm-image/tests/mutate/mod.rs"]
mod mutate;

const COCO: &str = r#"{"info": {"year": 2017}, "licenses": [], "images": [{"license": 4,
"file_name": "000000000139.jpg", "height": 427, "id": 139},
{"file_name": "000000000285.jpg", "id": 285}], "annotations": [{"image_id": 139, "id": 1,
"caption": "A café \u00e9 🐈."}, {"image_id": 285, "id": 2, "caption": "A bear"}]}"#;
const KARPATHY: &str = r#"{"images": [{"filepath": "val2014", "sentids": [1], "filename": "a.jpg",
"imgid": 0, "split": "train", "sentences": [{"tokens": ["a"], "raw": "A.", "sentid": 1}], "cocoid": 1},
{"filename": "b.jpg", "split": "restval", "sentences": [{"raw": "B."}, {"raw": "b"}]}], "dataset": "coco"}"#;
const KAGGLE: &str = "image_name| comment_number| comment\n1.jpg| 0| Two dogs .\n1.jpg| 1| Dogs | two .\n\
    2.jpg| 4   A dog .\n2.jpg| 0| É\n";
const TOKEN: &str = "1.jpg#0\tTwo dogs .\n1.jpg#1\tDogs .\n2.jpg#0\tÉ 🐈\n";
const HUGGING: &str = "raw,sentids,split,filename,img_id\n\
    \"[\"\"Two dogs\"\", \"\"É\"\"]\",\"[0, 1]\",train,1.jpg,0\n\"[\"\"x\"\"]\",[2],train,2.jpg,1\n";
const QUESTIONS: &str = r#"{"data_subtype": "val2014", "questions": [{"image_id": 1, "question": "Is it?",
"question_id": 10}, {"image_id": 2, "question": "What?", "question_id": 20}]}"#;
const ANSWERS: &str = r#"{"annotations": [{"question_id": 10, "image_id": 1, "answer_type": "yes/no",
"question_type": "is it", "multiple_choice_answer": "yes", "answers": [{"answer": "yes", "answer_id": 1}]},
{"question_id": 20, "image_id": 2, "answers": [{"answer": "cat"}]}]}"#;
const GQA: &str = r#"{"07333408": {"question": "What is it?", "imageId": "2375429", "answer": "pipe",
"types": {"detailed": "relS", "semantic": "rel", "structural": "query"}}, "02930152": {"question":
"Is é dark?", "imageId": "n57721", "answer": "yes", "types": {"structural": "verify"}}}"#;
const CLEVR: &str = r#"{"info": {"split": "val"}, "questions": [{"image_filename": "CLEVR_val_000000.png",
"question_index": 0, "question": "Are there?", "answer": "no", "question_family_index": 12, "program":
[{"inputs": [], "function": "scene"}, {"inputs": [0], "function": "exist"}]}, {"image_filename": "b.png",
"question_index": 1, "question": "How many?"}]}"#;
const POPE: &str = "{\"question_id\": 1, \"image\": \"a.jpg\", \"text\": \"Is é?\", \"label\": \"yes\"}\n\
    {\"question_id\": 2, \"image\": \"a.jpg\", \"text\": \"Is it?\", \"label\": \"no\"}\n";
const RAD: &str = r#"[{"qid": 0, "phrase_type": "freeform", "image_case_url": "case?id=4", "image_name":
"synpic1.jpg", "image_organ": "HEAD", "question": "Where?", "question_type": "POS", "answer": "left",
"answer_type": "OPEN "}, {"qid": "1", "phrase_type": "para", "image_case_url": "case?id=4", "image_name":
"synpic1.jpg", "question": "How many?", "answer": 2}]"#;
const SLAKE: &str = r#"[{"img_id": 1, "img_name": "xmlab1/source.jpg", "question": "What modality?", "answer":
"MRI", "q_lang": "en", "location": "Abdomen", "modality": "MRI", "answer_type": "OPEN", "base_type": "vqa",
"content_type": "Modality", "triple": ["vhead", "_"], "qid": 0}, {"img_name": "xmlab1/source.jpg", "question":
"这?", "answer": "有", "q_lang": "zh", "qid": 1}]"#;
const PMC: &str = "Figure_path,Question,Answer,Choice A,Choice B,Choice C,Choice D,Answer_label\n\
    PMC1_F1.jpg,\"What, é?\",CT, A:CT,B:MRI,C:PET,D:X-ray,A\n\
    PMC1_F2.jpg,Which?,MRI,A:CT,B:MRI,C:PET,D:No,B\n";
const PROMPTS: &str = "a red fox in the snow\n\nein Füchslein 🦊\r\nlast";
const PAIRS: &str = r#"
{"before": "a", "after": "b", "instruction": "c", "before_caption": "É", "after_caption": "d"}
{"prompt": "a fox", "first": "a.jpg", "second": "b.jpg", "preferred": "tie"}
{"prompt": "a bear", "first": "c.jpg", "second": "d.jpg", "preferred": 0.25, "label": "x"}
{"prompt": "a bear", "ranked": ["e.jpg", "c.jpg", "d.jpg"], "label": "y"}
"#;

/// The bytes of a file to damage, and the config that reads it.
fn cases() -> Vec<(Vec<u8>, String)> {
    let json = |kind: &str, text: &str| (text.as_bytes().to_vec(), format!("kind = '{kind}'\npath = 'FILE'"));
    let mut cases = vec![
        json("coco", COCO),
        json("karpathy", KARPATHY),
        json("flickr30k", KAGGLE),
        json("flickr30k", TOKEN),
        json("flickr30k", HUGGING),
        json("vqa_v2", QUESTIONS),
        json("gqa", GQA),
        json("clevr", CLEVR),
        json("pope", POPE),
        json("slake", SLAKE),
        json("pmc_vqa", PMC),
        json("prompts", PROMPTS),
        json("pairs", PAIRS),
        (
            RAD.as_bytes().to_vec(),
            "kind = 'vqa_rad'\npath = 'FILE'\nsplit_by = 'image'\nsplit = 'all'".into(),
        ),
        (ANSWERS.as_bytes().to_vec(), "kind = 'vqa_v2'\npath = 'QUESTIONS'\nannotations = 'FILE'".into()),
    ];
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/goldens/readers");
    let parquet = [
        ("captioned/train-00000-of-00002.parquet", "label_column = 'label'"),
        (
            "questions.parquet",
            "image_column = 'picture'\ncaption_column = ['title', 'description']\nlabel_column = 'kind'",
        ),
        ("odd/none.parquet", "label_column = 'number'"),
        ("odd/gzip.parquet", ""),
    ];
    cases.extend(parquet.map(|(file, keys)| {
        (fs::read(goldens.join(file)).unwrap(), format!("kind = 'parquet'\npath = 'FILE'\n{keys}"))
    }));
    cases
}

/// The peak memory of this process, where the system reports it.
fn peak_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

#[test]
fn six_thousand_mutated_files_give_samples_or_errors() {
    let folder = tempfile::tempdir().unwrap();
    let (file, questions) = (folder.path().join("file"), folder.path().join("questions"));
    fs::write(&questions, QUESTIONS).unwrap();
    let cases = cases();
    let mut rng = SampleRng::seed_from_u64(3);
    let (mut refused, mut bad, mut whole, mut panics) = (0, 0, 0, 0);
    for number in 0..6400 {
        let (bytes, config) = &cases[number % cases.len()];
        // Overwriting a file would sync it to the disk, which is slow.
        let _ = fs::remove_file(&file);
        fs::write(&file, mutated(bytes, &mut rng)).unwrap();
        let config =
            config.replace("FILE", file.to_str().unwrap()).replace("QUESTIONS", questions.to_str().unwrap());
        let config: DatasetConfig = toml::from_str(&config).unwrap();
        let began = Instant::now();
        match config.open() {
            Err(error) => {
                assert!(error.to_string().contains(folder.path().to_str().unwrap()), "{error}");
                refused += 1;
            }
            Ok(source) => {
                assert!(source.len() < 100, "{} samples of {} bytes", source.len(), bytes.len());
                for index in 0..source.len() {
                    match source.sample(index) {
                        Ok(_) => whole += 1,
                        Err(error) => {
                            assert!(error.to_string().contains(folder.path().to_str().unwrap()), "{error}");
                            panics += usize::from(error.fault() == mm_data::Fault::Panic);
                            bad += 1;
                        }
                    }
                }
            }
        }
        assert!(began.elapsed() < Duration::from_secs(60), "file {number} took {:?}", began.elapsed());
    }
    println!(
        "{refused} files refused; of the others {whole} samples whole, {bad} bad, {panics} of them by a panic"
    );
    println!("peak memory: {:?}", peak_bytes());
    assert!(refused > 400 && bad > 400 && whole > 2000);
    assert!(peak_bytes().is_none_or(|bytes| bytes < 1 << 30), "{:?}", peak_bytes());
}
