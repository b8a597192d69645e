//! A PostgreSQL server with pgvector for the tests, which start it and stop it.

use mm_search::PostgresLocation;
use postgres::{Client, NoTls};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// A server that listens on a socket in a temporary folder. It ends with its last test.
pub struct Server {
    folder: tempfile::TempDir,
    binaries: PathBuf,
    user: Option<User>,
}

/// The user that runs the server where the tests run as root: PostgreSQL refuses to run as root.
#[derive(Clone, Copy)]
struct User {
    uid: u32,
    gid: u32,
}

/// The number of databases that were made: their names are those of one process.
static DATABASES: AtomicUsize = AtomicUsize::new(0);

static RUNNING: Mutex<Weak<Server>> = Mutex::new(Weak::new());

impl Server {
    /// The server that runs, or a new one; None, with the reason printed, where there is no PostgreSQL with
    /// pgvector.
    pub fn get() -> Option<Arc<Self>> {
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = running.upgrade() {
            return Some(server);
        }
        match binaries() {
            Some(binaries) => {
                let server = Arc::new(Self::start(binaries));
                *running = Arc::downgrade(&server);
                Some(server)
            }
            None => {
                eprintln!(
                    "skipped: no PostgreSQL with pgvector (share/extension/vector.control) in MM_POSTGRES, a \
                     folder of binaries, in PATH or in /usr/lib/postgresql"
                );
                None
            }
        }
    }

    fn start(binaries: PathBuf) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let is_root = folder.path().metadata().unwrap().uid() == 0;
        let user = is_root.then(|| user("postgres").or(user("nobody")).expect("a user that is not root"));
        if let Some(User { uid, gid }) = user {
            chown(folder.path(), Some(uid), Some(gid)).unwrap();
        }
        let server = Self { folder, binaries, user };
        let data = server.folder.path().join("data");
        let data = data.to_str().unwrap();
        server.run("initdb", &["-D", data, "-U", "tester", "-A", "trust", "-E", "UTF8", "--locale=C", "-N"]);
        let options = format!("-c listen_addresses='' -c fsync=off -k {}", server.folder.path().display());
        let log = server.folder.path().join("log");
        server.run("pg_ctl", &["start", "-w", "-D", data, "-o", &options, "-l", log.to_str().unwrap()]);
        server
    }

    fn command(&self, program: &str) -> Command {
        let program = self.binaries.join(program);
        let mut command = match self.user {
            None => Command::new(program),
            Some(User { uid, gid }) => {
                let mut command = Command::new("setpriv");
                let (uid, gid) = (format!("--reuid={uid}"), format!("--regid={gid}"));
                command.args([&uid, &gid, "--clear-groups"]).arg(program);
                command
            }
        };
        command.current_dir(self.folder.path()).env("LC_ALL", "C");
        command
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let Output { status, stdout, stderr } = self.command(program).args(arguments).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(status.success(), "{program}: {}{}", text(&stdout), text(&stderr));
    }

    /// A new database; its name.
    pub fn database(&self) -> String {
        let name = format!("test_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
        self.client("postgres").batch_execute(&format!("CREATE DATABASE {name}")).unwrap();
        name
    }

    /// The location of the table `table` of `database` for the user `user`.
    pub fn location(&self, database: &str, user: &str, table: &str) -> PostgresLocation {
        let host = self.folder.path().display();
        PostgresLocation::parse(&format!("postgres:///{database}?host={host}&user={user}&table={table}"))
            .unwrap()
    }

    /// A connection of the administrator.
    pub fn client(&self, database: &str) -> Client {
        let host = self.folder.path().display();
        Client::connect(&format!("host={host} user=tester dbname={database}"), NoTls).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let data = self.folder.path().join("data");
        let _ = self.command("pg_ctl").args(["stop", "-w", "-m", "immediate", "-D"]).arg(data).output();
    }
}

/// The folder of the binaries of a PostgreSQL that has pgvector.
fn binaries() -> Option<PathBuf> {
    let named = std::env::var_os("MM_POSTGRES").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = named.into_iter().chain(std::env::split_paths(&path)).collect();
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    folders.extend(versions.map(|version| version.path().join("bin")));
    folders.into_iter().find(|folder| folder.join("initdb").exists() && has_pgvector(folder))
}

fn has_pgvector(binaries: &Path) -> bool {
    let Ok(output) = Command::new(binaries.join("pg_config")).arg("--sharedir").output() else {
        return false;
    };
    let share = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    Path::new(&share).join("extension/vector.control").exists()
}

/// The user `name` of this machine.
fn user(name: &str) -> Option<User> {
    let number = |flag: &str| -> Option<u32> {
        let output = Command::new("id").args([flag, name]).output().ok()?;
        String::from_utf8_lossy(&output.stdout).trim().parse().ok()
    };
    Some(User { uid: number("-u")?, gid: number("-g")? })
}
