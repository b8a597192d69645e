//! Tables of other models and programs, and databases without pgvector.

use super::Table;
use crate::common::{DIM, description, unit_rows};
use mm_search::{IndexDescription, IndexLocation, RowType};

#[test]
fn embeddings_of_two_models_or_two_types_do_not_share_a_table() {
    let Some(table) = Table::new(RowType::F32) else { return };
    table.fill(&unit_rows(1, 3), 0..3);
    let of = |name: &str, dim, rows| description(table.folder.path(), name, dim, rows);
    assert!(table.refusal(&of("other", DIM, RowType::F32)).contains("another model"));
    assert!(table.refusal(&of("model", DIM + 1, RowType::F32)).contains("another model"));
    assert!(table.refusal(&of("model", DIM, RowType::F16)).contains("rows are F32"));
    assert!(table.refusal(&of("model", DIM, RowType::Int8)).contains("no 8-bit rows"));
    assert_eq!(table.location().description().unwrap().as_ref(), Some(&table.folder.description));

    let mut client = table.server.client(&table.database);
    let mut after = |statement: &str| {
        client.batch_execute(statement).unwrap();
        table.location().open().err().expect(statement).to_string()
    };
    assert!(after("UPDATE items_description SET format = 2").contains("its format is 2"));
    assert!(
        after("UPDATE items_description SET format = 1; ALTER TABLE items RENAME TO moved")
            .contains("is gone")
    );
    let foreign = after("DROP TABLE moved, items_description; CREATE TABLE items (id bigint)");
    assert!(foreign.contains("name another one with ?table="), "{foreign}");
    assert!(table.refusal(&table.folder.description).contains("name another one"));
}

#[test]
fn a_database_without_pgvector_or_with_an_old_one_is_refused_in_words() {
    let Some(table) = Table::new(RowType::F32) else { return };
    let mut client = table.server.client(&table.database);
    client.batch_execute("CREATE ROLE plain LOGIN; GRANT CREATE ON SCHEMA public TO plain").unwrap();
    let location = table.server.location(&table.database, "plain", "items");
    let open = |description: &IndexDescription| {
        location.open_writer(description, "set").map(drop).map_err(|e| e.to_string())
    };
    let message = open(&table.folder.description).unwrap_err();
    assert!(message.contains("install pgvector 0.5 or later"), "{message}");
    assert!(message.contains("CREATE EXTENSION vector") && message.lines().count() == 1, "{message}");
    client.batch_execute("CREATE EXTENSION vector").unwrap();
    let mut version = |version: &str, rows| {
        client
            .execute("UPDATE pg_extension SET extversion = $1 WHERE extname = 'vector'", &[&version])
            .unwrap();
        open(&description(table.folder.path(), "model", DIM, rows))
    };
    assert!(version("0.4.4", RowType::F32).unwrap_err().contains("pgvector 0.4 is too old"));
    assert!(version("0.6.2", RowType::F16).unwrap_err().contains("install 0.7 or later"));
    version("0.8.0", RowType::F32).unwrap();
    let gone = table.server.location("no_such_database", "tester", "items").open().err().unwrap().to_string();
    assert!(gone.contains("no_such_database") && gone.contains("does not exist"), "{gone}");
}
