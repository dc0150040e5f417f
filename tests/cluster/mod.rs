//! A PostgreSQL server for this test program, in a temporary folder, without TCP: it stops with the program, also after a crash.

#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    clippy::missing_panics_doc
)] // not every program needs all of it

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
    },
};

/// Reads orders on its standard input; when that ends, the server ends. `postgres` refuses root.
const KEEPER: &str = r#"
set -eu
bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1)
[ -n "$bin" ] || { echo "PostgreSQL is not installed: make deps" >&2; exit 1; }
folder=$(mktemp -d)
trap 'kill -INT "$pid" 2>/dev/null; wait; rm -rf "$folder"' EXIT
pid=
"$bin/initdb" -D "$folder/data" -U owner -A scram-sha-256 --pwfile=<(echo secret) -E UTF8 --no-locale -N >/dev/null
cat > "$folder/data/pg_hba.conf" <<end
local all owner trust
local all all scram-sha-256
hostssl all all 127.0.0.1/32 scram-sha-256
end
start() {
  "$bin/postgres" -D "$folder/data" -k "$folder" -c fsync=${VMGATE_TEST_FSYNC:-off} -c max_connections=200 $settings >>"$folder/log" 2>&1 &
  pid=$!
  until "$bin/pg_isready" -q -h "$folder" ${port:+-p "$port"}; do
    kill -0 "$pid" || { cat "$folder/log" >&2; exit 1; }
    sleep 0.05
  done
}
port=${1:-}
settings="-c listen_addresses="
[ -z "$port" ] || {
  settings="-c listen_addresses=127.0.0.1 -c port=$port -c ssl=on"
  cd "$folder/data"
  san="subjectAltName=IP:127.0.0.1"
  for ca in ca other; do
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$ca" -keyout "$ca.key" -out "$ca.pem"
  done 2>/dev/null
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=db -keyout server.key -out server.csr 2>/dev/null
  openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile <(echo "$san") -out server.crt 2>/dev/null
  chmod 600 server.key
}
start
chmod 755 "$folder"
echo "$folder"
while read -r order; do
  case $order in
    stop) kill -INT "$pid"; wait "$pid" || : ;;
    crash) kill -QUIT "$pid"; wait "$pid" || : ;;
    start) start ;;
    freeze) kill -STOP $(pgrep -P "$pid") "$pid" ;;
    thaw) kill -CONT $(pgrep -P "$pid") "$pid" ;;
  esac
  echo done
done
"#;

/// A server.
pub struct Cluster {
    folder: PathBuf,
    port: Option<u16>,
    keeper: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<std::process::ChildStdout>,
}

/// The server that the tests of a program share.
static SHARED: LazyLock<Cluster> = LazyLock::new(|| Cluster::start(None));

static DATABASES: AtomicU32 = AtomicU32::new(1);

impl Cluster {
    /// A server of one test alone, which may stop it.
    pub fn own() -> Self {
        Self::start(None)
    }

    /// The same with TLS on this port of 127.0.0.1.
    pub fn with_tls(port: u16) -> Self {
        Self::start(Some(port))
    }

    fn start(port: Option<u16>) -> Self {
        let is_root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
        let mut command = if is_root {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--init-groups", "bash"]);
            command
        } else {
            Command::new("bash")
        };
        let mut keeper = command
            .args(["-c", KEEPER, "keeper"])
            .args(port.map(|port| port.to_string()))
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut answers = BufReader::new(keeper.stdout.take().unwrap());
        let mut folder = String::new();
        answers.read_line(&mut folder).unwrap();
        assert!(!folder.is_empty(), "PostgreSQL did not start");
        let orders = keeper.stdin.take();
        Self { folder: folder.trim().into(), port, keeper, orders, answers }
    }

    /// Does something with the server: stop, crash, start, freeze or thaw.
    pub fn order(&mut self, order: &str) {
        writeln!(self.orders.as_mut().unwrap(), "{order}").unwrap();
        let mut done = String::new();
        self.answers.read_line(&mut done).unwrap();
        assert_eq!(done, "done\n", "{order}");
    }

    /// A file of the server's data.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join("data").join(name)
    }

    /// The folder of its socket.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A new, empty database of this server, by its URL as its owner.
    pub fn database(&self) -> String {
        let name = format!("test{}", DATABASES.fetch_add(1, Ordering::SeqCst));
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        self.url("owner", &name)
    }

    /// The URL of a database over the server's socket.
    pub fn url(&self, user: &str, database: &str) -> String {
        let port = self.port.map_or(String::new(), |port| format!("&port={port}"));
        format!("postgres://{user}@/{database}?host={}{port}", self.folder.display())
    }

    /// Runs SQL as the owner of everything, and gives what it prints.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        psql(&self.url("owner", database), sql).unwrap()
    }
}

/// A new, empty database on the shared server.
pub fn database() -> String {
    SHARED.database()
}

/// Runs SQL in a database, and gives what it prints or complains of.
pub fn psql(url: &str, sql: &str) -> Result<String, String> {
    let output =
        Command::new("psql").args(["-qAtX", "-v", "ON_ERROR_STOP=1", url, "-c", sql]).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap().trim().to_owned();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.orders = None;
        self.keeper.wait().unwrap();
    }
}
