//! Passwords that stand in no address: `PGPASSWORD` and the password file, as libpq has them
//! (<https://www.postgresql.org/docs/current/libpq-pgpass.html>).

use postgres::Config;
use postgres::config::Host;
use std::env;
use std::fs;
use std::path::PathBuf;

/// The password for the first host of `config`; None where there is none.
pub(super) fn find(config: &Config) -> Option<String> {
    if let Ok(password) = env::var("PGPASSWORD") {
        return Some(password);
    }
    let file = match env::var_os("PGPASSFILE") {
        Some(file) => PathBuf::from(file),
        None => PathBuf::from(env::var_os("HOME")?).join(".pgpass"),
    };
    if !is_private(&file) {
        tracing::warn!("{} is not used: others can read it; run chmod 600 on it", file.display());
        return None;
    }
    let host = match config.get_hosts().first()? {
        Host::Tcp(host) => host.clone(),
        Host::Unix(_) => "localhost".to_owned(),
    };
    let port = config.get_ports().first().copied().unwrap_or(5432).to_string();
    let user = config.get_user().map(str::to_owned).or_else(|| env::var("USER").ok()).unwrap_or_default();
    let database = config.get_dbname().unwrap_or(&user);
    entry(&fs::read_to_string(file).ok()?, &[&host, &port, database, &user])
}

/// Whether the owner alone can read the file, or there is no file.
fn is_private(file: &std::path::Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata().map_or(true, |metadata| metadata.permissions().mode() & 0o077 == 0)
}

/// The password of the first line of a password file whose other fields are `fields` or `*`.
fn entry(text: &str, fields: &[&str; 4]) -> Option<String> {
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let found = split(line);
        let (password, found) = found.split_last().filter(|(_, found)| found.len() == fields.len())?;
        let fits = found.iter().zip(fields).all(|(found, field)| found == "*" || found == field);
        fits.then(|| password.clone())
    })
}

/// The fields of a line; a backslash stands before a colon or a backslash of a field.
fn split(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match (character, fields.last_mut()) {
            (':', _) => fields.push(String::new()),
            ('\\', Some(field)) => field.extend(characters.next()),
            (other, Some(field)) => field.push(other),
            (_, None) => {}
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_that_fits_has_the_password() {
        let text = "# comment\ndb:5432:photos:bob:one\ndb:*:*:ann:t\\:w\\\\o\n*:*:*:*:three\n";
        let find = |fields| entry(text, fields);
        assert_eq!(find(&["db", "5432", "photos", "bob"]).as_deref(), Some("one"));
        assert_eq!(find(&["db", "5432", "photos", "ann"]).as_deref(), Some("t:w\\o"));
        assert_eq!(find(&["other", "1", "x", "y"]).as_deref(), Some("three"));
        assert_eq!(entry("db:5432:photos:ann", &["db", "5432", "photos", "ann"]), None);
        assert_eq!(entry("", &["db", "5432", "photos", "ann"]), None);
    }
}
