//! The configurations in `docs/captioning.md` are valid.

use mm_caption::CaptionRunConfig;
use mm_core::config::ConfigFile;
use mm_train::TaskConfig;

#[test]
fn the_configurations_of_the_page_are_valid() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/captioning.md");
    let text = std::fs::read_to_string(page).unwrap();
    let blocks = text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let mut count = 0;
    for block in blocks {
        let file = ConfigFile::from_text("docs/captioning.md", block, &[]).unwrap();
        let config: CaptionRunConfig = file.parse().unwrap_or_else(|error| panic!("{block}{error}"));
        config.validate(&file).unwrap_or_else(|error| panic!("{block}{error}"));
        count += 1;
    }
    assert_eq!(count, 5);
}
