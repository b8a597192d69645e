//! The address of a table, and connections to it.

use super::password;
use super::schema::{self, Tables};
use super::{PostgresIndex, PostgresWriter, graph};
use crate::backend::{IndexLocation, ProgressFn, SearchIndex};
use crate::{Error, GraphConfig, IndexDescription, ItemWriter, Result};
use postgres::config::{Host, SslMode};
use postgres::{Client, Config, NoTls};
use std::path::Path;
use std::time::Duration;

/// The table of an address that names none.
const TABLE: &str = "mm_items";

/// The bound on connecting, where the address has no `connect_timeout`.
const CONNECT: Duration = Duration::from_secs(30);

/// An index in a table of a PostgreSQL database.
#[derive(Clone)]
pub struct PostgresLocation {
    config: Config,
    pub(super) place: Place,
}

/// The name of an index in messages, and those of its tables.
#[derive(Clone)]
pub(super) struct Place {
    /// The address without user and password.
    pub name: String,
    pub tables: Tables,
}

impl Place {
    /// An error of the index.
    pub fn problem(&self, problem: impl ToString) -> Error {
        Error::index(Path::new(&self.name), problem)
    }

    /// The error of the server or of the connection to it.
    pub fn error(&self, error: postgres::Error) -> Error {
        self.problem(described(&error))
    }
}

/// The message of the server with its detail and hint, or the chain of causes of a lost connection.
pub(super) fn described(error: &postgres::Error) -> String {
    if let Some(database) = error.as_db_error() {
        let more = [database.detail(), database.hint()].into_iter().flatten();
        let joined = more.fold(database.message().to_owned(), |text, more| format!("{text}: {more}"));
        return joined.trim_end_matches('.').to_owned();
    }
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

impl PostgresLocation {
    /// Reads `postgres://user:password@host:port/database?table=NAME`, with libpq's other parameters behind
    /// the question mark. The table is `mm_items` where none is named. Without a password in it, that of
    /// `PGPASSWORD` or of the password file (`PGPASSFILE`, `~/.pgpass`) is used.
    ///
    /// # Errors
    /// The address has no host, an unknown parameter or a name that is none of a table, or requires TLS.
    pub fn parse(url: &str) -> Result<Self> {
        let refused = |problem: String| {
            let form = "write postgres://user@host/database?table=NAME";
            Error::index(Path::new("postgres://..."), format!("the address: {problem}; {form}"))
        };
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let (tables, others): (Vec<&str>, Vec<&str>) =
            query.split('&').filter(|part| !part.is_empty()).partition(|part| part.starts_with("table="));
        let table = tables.last().and_then(|part| part.strip_prefix("table=")).unwrap_or(TABLE);
        let tables = Tables::new(table).map_err(refused)?;
        let config: Config = match others.is_empty() {
            true => base.parse(),
            false => format!("{base}?{}", others.join("&")).parse(),
        }
        .map_err(|error| refused(described(&error)))?;
        let Some(host) = config.get_hosts().first() else {
            return Err(refused("it names no host".to_owned()));
        };
        if config.get_ssl_mode() == SslMode::Require {
            let problem = "sslmode=require: this program has no TLS of its own, see docs/search-at-scale.md";
            return Err(refused(problem.to_owned()));
        }
        let host = match host {
            Host::Tcp(host) => host.clone(),
            Host::Unix(folder) => folder.display().to_string(),
        };
        let port = config.get_ports().first().map(|port| format!(":{port}")).unwrap_or_default();
        let database = config.get_dbname().unwrap_or_default();
        let name = format!("postgres://{host}{port}/{database}?table={table}");
        Ok(Self { config, place: Place { name, tables } })
    }

    /// Connects to the database.
    ///
    /// # Errors
    /// The server cannot be reached or refuses.
    pub(super) fn connect(&self) -> Result<Client> {
        let mut config = self.config.clone();
        config.application_name("mm search");
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT);
        }
        if config.get_password().is_none()
            && let Some(password) = password::find(&config)
        {
            config.password(password);
        }
        config.connect(NoTls).map_err(|error| self.place.error(error))
    }
}

impl IndexLocation for PostgresLocation {
    fn name(&self) -> String {
        self.place.name.clone()
    }

    fn description(&self) -> Result<Option<IndexDescription>> {
        schema::read_description(&mut self.connect()?, &self.place)
    }

    fn open(&self) -> Result<Box<dyn SearchIndex>> {
        Ok(Box::new(PostgresIndex::open(self)?))
    }

    fn open_writer(&self, description: &IndexDescription, set: &str) -> Result<Box<dyn ItemWriter>> {
        Ok(Box::new(PostgresWriter::open(self, description, set)?))
    }

    fn build_graph(&self, config: GraphConfig, progress: ProgressFn) -> Result<()> {
        graph::build(&mut self.connect()?, &self.place, config, progress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str) -> String {
        PostgresLocation::parse(url).err().expect(url).to_string()
    }

    #[test]
    fn an_address_is_named_without_user_and_password() {
        let named = |url: &str| PostgresLocation::parse(url).unwrap().name();
        assert_eq!(
            named("postgres://ann:secret@db.example:5433/photos?table=cats"),
            "postgres://db.example:5433/photos?table=cats"
        );
        assert_eq!(
            named("postgresql:///photos?host=/run/pg&connect_timeout=3"),
            "postgres:///run/pg/photos?table=mm_items"
        );
    }

    #[test]
    fn a_wrong_address_is_refused_without_its_password() {
        let cases = [
            ("postgres://ann:secret@host/db?table=a-b", "a-b"),
            ("postgres://ann:secret@host/db?table=", "table"),
            ("postgres://ann:secret@host/db?colour=red", "colour"),
            ("postgres://ann:secret@host:port/db", "port"),
            ("postgres:///db", "no host"),
            ("postgres://ann:secret@host/db?sslmode=require", "TLS"),
        ];
        for (url, expected) in cases {
            let message = refused(url);
            assert!(message.contains(expected) && !message.contains("secret"), "{url}: {message}");
        }
    }
}
