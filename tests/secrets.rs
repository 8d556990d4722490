//! Secrets from outside: a canary stands in every place where one can, and everything that infra shows, keeps or starts is searched for it.

mod common;
#[path = "common/terminal.rs"]
mod terminal;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{Ran, infra};
use infra_core::digest::sha256;
use infra_core::saved_plan::salted;
use infra_test::process;
use terminal::{Elsewhere, Terminal};

/// Each is told from all else by any piece of it that has this many bytes.
const PIECE: usize = 7;

/// A secret for each place that one can come from. Quotes, dollars and slashes are what forms differ by.
const OF_ENVIRONMENT: &str = "Xk9wQ2vL'7$pRz/T4+env";
const OF_FILE: &str = "-----BEGIN fZ83kdPqm1\nWm5Jt0aYvBzE8rUq\nQ0nLc7hXs4GdKo2i\n-----END fZ83kdPqm1";
const OF_COMMAND: &str = "Hy6\"bN3 tUe8\\mMdcmd";
const OF_INVENTORY: &str = "iV5sGq0ZrTb4Lw7PinV";
const OF_PROMPT: &str = "pR7mPt-Kq2xVd9Zs typed";
const OF_PASSWORD: &str = "sUd0Pw-9cXe3Rf7Tg";
const OF_WORDS: &str = "dAtAw0rd-5Bn8Yh2Jk";
const OF_CALL: &str = "cA11-Lit3ral-8Ws2";
const OF_BLOCK: &str = "bL0ck-Giv3n-4Mn7";
const OF_FILE_DEFAULTS: &str = "cOnf1g-Se7s-6Jp9";
const OF_SCRIPT_DATA: &str = "dAta-Ass1gned-3Rk5";
const OF_HOST_DATA: &str = "iNv-Su-Pa55w-1Td8";
const ALL: [&str; 12] = [
    OF_ENVIRONMENT,
    OF_FILE,
    OF_COMMAND,
    OF_INVENTORY,
    OF_PROMPT,
    OF_PASSWORD,
    OF_WORDS,
    OF_CALL,
    OF_BLOCK,
    OF_FILE_DEFAULTS,
    OF_SCRIPT_DATA,
    OF_HOST_DATA,
];

const INVENTORY: &str = r#"
machines = {
  { "@local", token = secret.env("CANARY"), ssh_password = "PASSWORD", header = "Bearer " .. secret.file("inventory.key"), short = "plain" },
}
"#;

/// Everything that takes a secret gets one; the last operation fails and prints them all.
const DEPLOY: &str = r#"
local env, file = secret.env("CANARY"), secret.file("key.pem")
local command = secret.command { "cat", "command.key" }
local words = secret(host.data.words)
host.data.made = "token=" .. env
print("all of them", env, { nested = { command } })
host:log("header " .. tostring(#host.groups))
host:log(host.data.header)

files.put { content = "one " .. env .. "\ntwo " .. words .. "\nsame\n", dest = host.data.folder .. "/put", mode = "600" }
files.template { content = "p={{ p }} u={{ p | upper }}\n", vars = { p = env }, dest = host.data.folder .. "/template" }
files.template { content = "h={{ host.data.header }}\n", dest = host.data.folder .. "/scope" }
files.line { path = host.data.folder .. "/put", line = "three=" .. command, escape_regex_characters = true }
files.put { content = file, dest = host.data.folder .. "/key" }
server.shell { commands = { sh("printf '%s\\n' {} | cat", env), "cat " .. host.data.folder .. "/put >&2" } }
server.shell { name = "By the environment", commands = { "printf '%s\n' \"$TOKEN\"; printf '%s' \"$TOKEN\" | base64; env | grep TOKEN; set | grep TOKEN" }, _env = { TOKEN = env } }
local pieces = [[t={}; i=0; while [ $i -lt 3 ]; do printf %s "${t%??????????}"; sleep 0.05; printf '%s\n' "${t#"${t%??????????}"}"; i=$((i+1)); done]]
server.shell { name = "In pieces", commands = { sh(pieces, env) } }
server.shell { name = "Far out", commands = { "head -c 65530 /dev/zero | tr '\\0' x; cat " .. host.data.folder .. "/put; head -c 200000 /dev/zero | tr '\\0' y; cat " .. host.data.folder .. "/key; base64 -w0 < " .. host.data.folder .. "/put; base64 -w0 < " .. host.data.folder .. "/key" } }
local said = server.shell { name = "Traced", commands = { sh("set -x; t={}; : \"$t\" {}", env, command) } }
server.shell { name = "Late", commands = function() return { "echo late " .. quote(env), sh("echo {}", said.stderr) } end }
call(function()
  local within = server.shell { commands = sh("echo {}", command) }
  assert(within.stdout == secret(command) or type(within.stdout) == "string")
  print(within.stdout)
end)
"#;

const FAILS: &str = r#"
server.shell { name = "It fails", commands = { sh("echo {}; echo {} >&2; exit 3", env, command) }, _ignore_errors = true }
files.put { content = "x", dest = "/dev/null/" .. command }
"#;

struct Stage {
    folder: tempfile::TempDir,
    shown: Vec<(String, String)>,
}

impl Stage {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let stage = Self { folder, shown: Vec::new() };
        for (name, text) in [
            ("inventory.lua", INVENTORY.replace("PASSWORD", OF_PASSWORD)),
            ("deploy.lua", DEPLOY.to_owned()),
            ("fails.lua", format!("{DEPLOY}{FAILS}")),
            ("key.pem", format!("{OF_FILE}\n")),
            ("command.key", format!("{OF_COMMAND}\n")),
            ("inventory.key", format!("{OF_INVENTORY}\n")),
        ] {
            fs::write(stage.path(name), text).expect("a file of the test's own");
        }
        fs::create_dir(stage.path("made")).expect("a folder");
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, words: &[&str]) -> std::process::Command {
        let mut command = infra(self.folder.path());
        command.env("CANARY", OF_ENVIRONMENT).args(words);
        command
    }

    /// Runs infra at a terminal, which asks for the vault password and a version. Gives the screen.
    fn type_answers(&mut self, words: &[&str]) -> String {
        let mut terminal = Terminal::start(self.command(words), Elsewhere::default());
        terminal.wait_for("Vault password: ");
        terminal.press(&format!("{OF_PROMPT}\r"));
        terminal.wait_for("Which version: ");
        terminal.press("2.0\r");
        let ended = terminal.end();
        assert_eq!(ended.code, Some(0), "{}", ended.screen);
        self.shown.push(("the terminal".to_owned(), ended.raw));
        ended.screen
    }

    /// Runs infra, and keeps what it showed for the search.
    fn run(&mut self, words: &[&str]) -> Ran {
        let ran = common::ran(&mut self.command(words));
        self.shown.push((format!("stdout of {words:?}"), ran.stdout.clone()));
        self.shown.push((format!("stderr of {words:?}"), ran.stderr.clone()));
        ran
    }

    fn deploy(&mut self, file: &str, more: &[&str]) -> Ran {
        let folder = format!("folder={}", self.path("made").display());
        let words = format!("words={OF_WORDS}");
        self.run(&[&["inventory.lua", file, "--data", &folder, "--data", &words], more].concat())
    }

    /// Nothing that was shown or kept has a piece of a secret.
    #[track_caller]
    fn search(&self) {
        for (what, text) in &self.shown {
            search(what, text.as_bytes());
        }
        let journals = self.path(".local/state/infra/runs");
        let entries: Vec<_> = fs::read_dir(&journals).map(|entries| entries.flatten().collect()).unwrap_or_default();
        for entry in entries {
            search(&format!("the journal {}", entry.path().display()), &fs::read(entry.path()).expect("a journal"));
        }
    }
}

/// What of the secrets may be looked for: pieces as they stand, in capitals, in JSON and in base64.
fn pieces() -> Vec<(String, String)> {
    let mut pieces = Vec::new();
    for secret in ALL {
        // What every key file has in its first and last line is no secret.
        let own: Vec<&str> = secret.split("-----").flat_map(str::lines).filter(|line| line.len() >= PIECE).collect();
        for text in own.iter().flat_map(|line| [(*line).to_owned(), line.to_uppercase()]) {
            for window in text.as_bytes().windows(PIECE).filter(|window| !b"BEGIN ".starts_with(&window[..3])) {
                pieces.push((secret.to_owned(), String::from_utf8_lossy(window).into_owned()));
            }
        }
        for before in 0..3 {
            // No word of a process: another test may be looking at those.
            let encode = r#"printf '%*s%s' "$1" '' "$SECRET" | base64 -w0"#;
            let mut command = std::process::Command::new("sh");
            command.args(["-c", encode, "sh", &before.to_string()]).env("SECRET", secret);
            let encoded = process::run(&mut command, std::time::Duration::from_secs(20)).expect("base64 ends").stdout;
            // Characters at the ends are shared with what stands beside.
            let inner = &encoded.as_bytes()[4..encoded.len() - 4];
            for window in inner.windows(12) {
                pieces.push((format!("{secret} in base64"), String::from_utf8_lossy(window).into_owned()));
            }
        }
    }
    pieces
}

#[track_caller]
fn search(what: &str, text: &[u8]) {
    let text = String::from_utf8_lossy(text);
    for (of, piece) in pieces_once() {
        if let Some(at) = text.find(piece.as_str()) {
            let around: String = text[at..].chars().take(200).collect();
            panic!("a piece of {of:?} stands in {what}:\n{around}…");
        }
    }
}

fn pieces_once() -> &'static Vec<(String, String)> {
    static PIECES: std::sync::OnceLock<Vec<(String, String)>> = std::sync::OnceLock::new();
    PIECES.get_or_init(pieces)
}

/// Looks at the arguments of all processes until it is dropped.
struct Watch {
    over: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<Vec<String>>>,
}

impl Watch {
    fn begin() -> Self {
        // Made by processes whose arguments show them, also for the other tests of this program: there are none of those from now on.
        pieces_once();
        let over: Arc<AtomicBool> = Arc::default();
        let watched = over.clone();
        let secrets: Vec<&str> = ALL.into_iter().filter(|secret| *secret != OF_WORDS).collect();
        let thread = std::thread::spawn(move || {
            let mut found = Vec::new();
            while !watched.load(Ordering::SeqCst) {
                for entry in fs::read_dir("/proc").expect("processes").flatten() {
                    let Ok(words) = fs::read(entry.path().join("cmdline")) else { continue };
                    // A path is a word of the tools that look at it, as the page on secrets says; a deploy here has one in a path, for its message.
                    let looks = words.starts_with(b"stat\0") || words.starts_with(b"readlink\0");
                    let mut words = String::from_utf8_lossy(&words).into_owned();
                    if looks {
                        words = words.replace(&format!("/dev/null/{OF_COMMAND}"), "");
                    }
                    let shows = |secret: &&str| {
                        words.contains(secret.lines().next().expect("a line")) || words.contains(secret.lines().last().expect("a line"))
                    };
                    found.extend(secrets.iter().filter(|secret| shows(secret)).map(|_| words.clone()));
                }
                std::thread::yield_now();
            }
            found
        });
        Self { over, thread: Some(thread) }
    }

    #[track_caller]
    fn end(mut self) {
        self.over.store(true, Ordering::SeqCst);
        let found = self.thread.take().expect("it was begun").join().expect("it looked");
        assert!(found.is_empty(), "secrets among the arguments of processes: {found:#?}");
    }
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn no_secret_is_shown_or_kept_anywhere() {
    let mut stage = Stage::new();
    let watch = Watch::begin();
    let dry = stage.deploy("deploy.lua", &["--dry", "--diff", "-vvv"]).expect(0);
    assert!(dry.stderr.contains("it holds a secret"), "{}", dry.stderr);
    // An older secret stands there, which nobody knows any more: the whole difference is withheld.
    fs::write(stage.path("made/template"), "p=0lderSecretOfBefore\n").expect("a file");
    let ran = stage.deploy("fails.lua", &["--yes", "--diff", "-vvv"]).expect(1);
    for shown in [&dry, &ran] {
        assert!(!shown.stderr.contains("0lderSecret") && !shown.stdout.contains("0lderSecret"));
    }
    // What reached the host is what was meant.
    assert_eq!(text(&stage.path("made/put")), format!("one {OF_ENVIRONMENT}\ntwo {OF_WORDS}\nsame\nthree={OF_COMMAND}\n"));
    assert_eq!(text(&stage.path("made/template")), format!("p={OF_ENVIRONMENT} u={}\n", OF_ENVIRONMENT.to_uppercase()));
    assert_eq!(text(&stage.path("made/scope")), format!("h=Bearer {OF_INVENTORY}\n"));
    assert_eq!(text(&stage.path("made/key")), OF_FILE);
    stage.deploy("deploy.lua", &["--yes", "--json", "--diff"]).expect(0);
    stage.deploy("fails.lua", &["--yes", "--json", "-vv"]).expect(1);
    stage.run(&["runs"]).expect(0);
    stage.run(&["runs", "show", "-v"]).expect(0);
    stage.run(&["runs", "show", "--json"]).expect(0);
    let resumed = stage.run(&["resume", "--yes"]).expect(2);
    assert!(resumed.stderr.contains("held a secret, which no journal keeps"), "{}", resumed.stderr);
    stage.run(&["inventory.lua", "hosts"]).expect(0);
    let hosts = stage.run(&["inventory.lua", "hosts", "--json"]).expect(0).json();
    assert_eq!(hosts["@local"]["data"]["token"], "***");
    assert_eq!(hosts["@local"]["data"]["ssh_password"], "***");
    assert_eq!(hosts["@local"]["data"]["header"], "Bearer ***");
    assert_eq!(hosts["@local"]["data"]["short"], "plain");
    // Without the deploy, infra knows the secrets of the inventory alone.
    let scope = format!("path={}", stage.path("made/scope").display());
    stage.run(&["inventory.lua", "exec", "--", "cat", &stage.path("made/scope").display().to_string()]).expect(0);
    let fact = stage.run(&["inventory.lua", "fact", "files.text", &scope]).expect(0);
    assert!(fact.stdout.contains("h=Bearer ***"), "{}", fact.stdout);
    watch.end();
    stage.search();
}

/// Nobody has to say `secret(…)` of what can be nothing else.
#[test]
fn a_password_is_a_secret_wherever_it_is_given() {
    let mut stage = Stage::new();
    let inventory = format!(r#"machines = {{ {{ "@local", _su_password = "{OF_HOST_DATA}", ssh_password = "{OF_PASSWORD}" }} }}"#);
    fs::write(stage.path("given.lua"), inventory).expect("an inventory");
    let shows = |password: &str| {
        format!(r#"server.shell {{ commands = {{ "echo {password} | tee -a made/shown", "false {password}" }}, _ignore_errors = true"#)
    };
    let deploy = [
        format!("{} }}", shows(OF_HOST_DATA)),
        format!("{} }}", shows(OF_PASSWORD)),
        format!(r#"{}, _su_user = "root", _su_password = "{OF_CALL}" }}"#, shows(OF_CALL)),
        format!(r#"with({{ _su_user = "root", _su_password = "{OF_BLOCK}" }}, function() {} }} end)"#, shows(OF_BLOCK)),
        format!(r#"config.su_user, config.su_password = "root", "{OF_FILE_DEFAULTS}""#),
        format!("{} }}", shows(OF_FILE_DEFAULTS)),
        format!(r#"host.data._sudo_password = "{OF_SCRIPT_DATA}" host:log(host.data._sudo_password)"#),
        format!(r#"print(host:fact("server.which", {{ command = "sh", _su_user = "root", _su_password = "{OF_CALL}" }}), "{OF_CALL}")"#),
        format!(r#"files.put {{ content = "{OF_SCRIPT_DATA}\n", dest = "made/put" }}"#),
        format!(r#"files.line {{ path = "made/put", line = "{OF_CALL}" }}"#),
    ];
    fs::write(stage.path("given_deploy.lua"), deploy.join("\n")).expect("a deploy");
    let watch = Watch::begin();
    stage.run(&["given.lua", "given_deploy.lua", "--dry", "--diff", "-vvv"]).expect(0);
    stage.run(&["given.lua", "given_deploy.lua", "--yes", "--diff", "-vvv"]).expect(0);
    stage.run(&["given.lua", "given_deploy.lua", "--yes", "--json", "--diff", "-vv"]).expect(0);
    stage.run(&["runs", "show", "-v"]).expect(0);
    stage.run(&["given.lua", "hosts", "--json"]).expect(0);
    let given = format!("ssh_password={OF_WORDS}");
    let ran = stage.run(&["@local", "exec", "--data", &given, "--", "echo", "it is", OF_WORDS]).expect(0);
    assert!(ran.stdout.contains("it is ***"), "{}", ran.stdout);
    watch.end();
    // What reached the host is what was meant.
    let shown = text(&stage.path("made/shown"));
    assert_eq!(shown.lines().take(4).collect::<Vec<_>>(), [OF_HOST_DATA, OF_PASSWORD, OF_CALL, OF_BLOCK]);
    assert_eq!(text(&stage.path("made/put")), format!("{OF_SCRIPT_DATA}\n{OF_CALL}\n"));
    stage.search();
}

/// Messages about what is wrong, which show lines of scripts and values.
#[test]
fn no_message_shows_one() {
    let mut stage = Stage::new();
    for script in [
        r#"local s = secret.env("CANARY") fail("it is " .. s)"#,
        r#"local s = secret.env("CANARY") error("it is " .. s)"#,
        r#"local s = secret.env("CANARY") error(s)"#,
        r#"local s = secret.env("CANARY") local x = s .. {}"#,
        r#"local s = secret.env("CANARY") files.file { path = "/x", state = s }"#,
        r#"local s = secret.env("CANARY") files.file { path = "/x", mode = s }"#,
        r#"local s = secret.env("CANARY") files.put { src = s, dest = "/x" }"#,
        r#"local s = secret.env("CANARY") host:fact(s)"#,
        r#"local s = secret.env("CANARY") host:fact("files.file", { path = 5, [s] = 1 })"#,
        r#"local s = secret.env("CANARY") include(s)"#,
        r#"local s = secret.env("CANARY") local x = render("{{ p.q }}", { p = s })"#,
        r#"local s = secret.env("CANARY") local x = render("{{ nothing }}" .. s, {})"#,
        r#"local s = secret.env("CANARY") server.shell { commands = "true", _env = { ["A B"] = s } }"#,
        r#"local s = secret.env("CANARY") server.shell { commands = "true", _chdir = s }"#,
        r#"local s = secret.env("CANARY") server.shell { commands = "true", _timeout = s }"#,
        r#"local s = secret.env("CANARY") local_command { "sh", "-c", "cat; exit 1", stdin = s }"#,
        r#"local s = secret.command { "sh", "-c", "cat command.key; exit 1" }"#,
        &format!(r#"local s = secret("{OF_WORDS}") local x = s + 1"#),
    ] {
        fs::write(stage.path("wrong.lua"), script).expect("a deploy");
        let ran = stage.run(&["@local", "wrong.lua", "--yes", "-vvv", "--json"]);
        assert!(matches!(ran.code, Some(1 | 2)), "{script}: {ran:?}");
    }
    fs::write(stage.path("bad.lua"), r#"machines = { { "@local", token = secret.env("CANARY") .. {} } }"#).expect("an inventory");
    stage.run(&["bad.lua", "hosts"]).expect(2);
    fs::write(stage.path("bad.lua"), r#"machines = { { "@lcoal" .. secret.env("CANARY") } }"#).expect("an inventory");
    stage.run(&["bad.lua", "hosts", "--json"]).expect(2);
    stage.search();
}

/// A run that goes on knows the operations whose arguments are secrets, and none can be told from its digest.
#[test]
fn a_run_that_goes_on_knows_secrets_by_salted_digests() {
    let mut stage = Stage::new();
    let deploy = r#"
local s = secret.env("CANARY")
server.shell { name = "Once", commands = { sh("echo {} >> made/log", s) } }
server.shell { name = "Broken", commands = { "test -e made/mended" } }
"#;
    fs::write(stage.path("going.lua"), deploy).expect("a deploy");
    stage.run(&["@local", "going.lua", "--yes", "--data", "x=1"]).expect(1);
    fs::write(stage.path("made/mended"), "").expect("a file");
    let resumed = stage.run(&["resume", "--yes", "-v"]).expect(0);
    assert!(resumed.stderr.contains("not run again"), "{}", resumed.stderr);
    assert_eq!(text(&stage.path("made/log")), format!("{OF_ENVIRONMENT}\n"), "it ran once");
    let salt = stage.path(".local/state/infra/salt");
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&fs::metadata(&salt).expect("the salt")) & 0o777, 0o600);
    let salt = fs::read(&salt).expect("the salt");
    assert_eq!(salt.len(), 32);
    stage.search();
}

/// Typed at a terminal, a secret is not echoed; the question is asked once, also for several hosts, and the screen stays whole.
#[test]
fn a_secret_is_typed_without_being_seen() {
    let mut stage = Stage::new();
    let deploy = r#"
local password, version = secret.prompt("Vault password"), ask("Which version", "1.2")
server.shell { commands = { sh("echo {} of {}", password, version), sh("echo {} > made/typed", password) } }
"#;
    fs::write(stage.path("asks.lua"), deploy).expect("a deploy");
    let screen = stage.type_answers(&["@local", "asks.lua", "--yes", "-v"]);
    assert!(screen.contains("'***' of 2.0"), "{screen}");
    assert_eq!(text(&stage.path("made/typed")), format!("{OF_PROMPT}\n"));

    // Ctrl-C at the question ends the run, and the terminal shows again what is typed.
    let mut terminal = Terminal::start(stage.command(&["@local", "asks.lua", "--yes"]), Elsewhere::default());
    terminal.wait_for("Vault password: ");
    terminal.press_control_c();
    let ended = terminal.end();
    assert_eq!(ended.code, Some(130), "{}", ended.screen);
    stage.search();

    // Where there is no terminal that is said, and the default of a plain question is taken.
    let ran = stage.run(&["@local", "asks.lua", "--yes"]).expect(2);
    assert!(ran.stderr.contains("`Vault password` cannot be asked: there is no terminal"), "{}", ran.stderr);
}

/// What a plan is made of that is saved: secrets of each kind in all that it writes and runs.
const PLANNED: &str = r#"
local env, file, command = secret.env("CANARY"), secret.file("key.pem"), secret.command { "cat", "command.key" }
local again = secret(local_command { "cat", stdin = env, env = { TOKEN = command } })
assert(again == env)
files.put { content = "one " .. env .. "\nsame\n", dest = "made/put", mode = "600" }
files.template { content = "p={{ p }} u={{ p | upper }}\n", vars = { p = env }, dest = "made/template" }
files.template { content = "h={{ host.data.header }}\n", dest = "made/scope" }
files.put { src = "key.pem", dest = "made/copy", mode = "600" }
files.file { path = "made/lines" }
files.line { path = "made/lines", line = "three=" .. command, escape_regex_characters = true }
files.line { path = "made/lines", line = "four" }
local key = files.put { content = file, dest = "made/key" }
server.shell { commands = { sh("printf '%s %s\\n' {} \"$TOKEN\" >> made/log", command) }, _env = { TOKEN = env }, _if = key.did_change }
"#;

impl Stage {
    /// Runs infra with another secret in its environment.
    fn run_with(&mut self, canary: &str, words: &[&str]) -> Ran {
        let outcome = process::run(self.command(words).env("CANARY", canary), std::time::Duration::from_secs(120)).expect("infra ends");
        self.shown.push((format!("stderr of {words:?}"), outcome.stderr.clone()));
        Ran { code: outcome.code, stdout: outcome.stdout, stderr: outcome.stderr }
    }

    /// Nothing in a plan file tells a secret, nor could one try out quickly what it may be.
    #[track_caller]
    fn search_plan(&self, name: &str) {
        let plan = fs::read(self.path(name)).expect("a plan");
        search(name, &plan);
        let document: serde_json::Value = serde_json::from_slice(&plan).expect("JSON");
        let salt = document["plan"]["basis"]["salt"].as_str().expect("a salt");
        let plan = text(&self.path(name));
        let mut written: Vec<String> = ALL.iter().flat_map(|secret| [(*secret).to_owned(), format!("{secret}\n")]).collect();
        written.push(format!("CANARY={OF_ENVIRONMENT}"));
        written.extend(
            ["put", "template", "scope", "copy", "lines", "key"]
                .map(|name| fs::read_to_string(self.path(&format!("made/{name}"))).unwrap_or_default()),
        );
        for content in written.iter().filter(|content| !content.is_empty()) {
            let plain = sha256(content.as_bytes());
            let json = serde_json::json!({ "answer": plain }).to_string();
            for digest in [salted(salt, content), salted(salt, &plain), salted(salt, &json), plain.clone()] {
                assert!(!plan.contains(&digest), "a digest of {content:?} that is quickly made stands in {name}");
            }
        }
    }
}

/// A plan that is saved has references to secrets and slow digests of them; it is applied where they are the same.
#[test]
fn a_saved_plan_has_no_secret_and_is_applied_with_the_same_ones() {
    let mut stage = Stage::new();
    fs::write(stage.path("planned.lua"), PLANNED).expect("a deploy");
    fs::write(stage.path("made/lines"), "four\n").expect("a file");
    let made = |stage: &Stage| fs::read_dir(stage.path("made")).expect("a folder").count();
    stage.run(&["inventory.lua", "planned.lua", "--plan", "p.json", "--json", "--diff"]).expect(0);
    assert_eq!(made(&stage), 1, "a plan changes nothing");
    stage.search_plan("p.json");
    let shown = stage.run(&["show", "p.json", "--diff", "-vv"]).expect(0);
    assert!(shown.stdout.contains("it holds a secret") && shown.stdout.contains("***"), "{}", shown.stdout);
    stage.run(&["show", "p.json", "--json", "--diff"]).expect(0);

    // Another secret is refused before anything is connected to, by the name of where it comes from.
    let apply = ["apply", "p.json", "--yes"];
    let refused = stage.run_with("other-than-it-was", &apply).expect(1);
    let said = "the environment variable CANARY gives another secret than the one that the plan was made with";
    assert!(refused.stderr.contains(said) && !refused.stderr.contains("other-than-it-was"), "{}", refused.stderr);
    for (file, before, said) in [
        ("command.key", OF_COMMAND, "the command `cat command.key` gives another secret than the one that the plan was made with"),
        ("inventory.key", OF_INVENTORY, "inventory.key, which holds a secret, is not what it was when the plan was made"),
        ("key.pem", OF_FILE, "key.pem, which holds a secret, is not what it was when the plan was made"),
    ] {
        fs::write(stage.path(file), "something else\n").expect("a file");
        let refused = stage.run(&apply).expect(1);
        assert!(refused.stderr.contains(said) && !refused.stderr.contains("something else"), "{}", refused.stderr);
        fs::write(stage.path(file), format!("{before}\n")).expect("a file");
    }
    assert_eq!(made(&stage), 1, "nothing was done");

    stage.run(&["apply", "p.json", "--yes", "--json", "--diff", "-vv", "--prove"]).expect(0);
    assert_eq!(text(&stage.path("made/put")), format!("one {OF_ENVIRONMENT}\nsame\n"));
    assert_eq!(text(&stage.path("made/log")), format!("{OF_COMMAND} {OF_ENVIRONMENT}\n"));
    assert_eq!((text(&stage.path("made/key")), text(&stage.path("made/copy"))), (OF_FILE.to_owned(), format!("{OF_FILE}\n")));
    stage.search_plan("p.json");

    // The plan of what is done already has the files with secrets among what it rests on, and nothing of what is in them.
    stage.run(&["inventory.lua", "planned.lua", "--plan", "p.json", "--json"]).expect(0);
    stage.search_plan("p.json");
    let applied = stage.run(&["apply", "p.json", "--yes", "--detailed-exitcode"]).expect(0);
    assert!(applied.stderr.contains("1 unchanged"), "{}", applied.stderr);
    fs::write(stage.path("made/put"), "edited behind its back\n").expect("a file");
    let refused = stage.run(&apply).expect(1);
    assert!(refused.stderr.contains("stale: ") && refused.stderr.contains("files.put made/put"), "{}", refused.stderr);
    assert_eq!(text(&stage.path("made/put")), "edited behind its back\n");
    stage.search();
}

/// A command line stands in the plan file, so it may not hold one.
#[test]
fn no_plan_is_saved_of_a_command_line_that_holds_one() {
    let mut stage = Stage::new();
    let ran = stage.deploy("deploy.lua", &["--plan", "p.json"]).expect(1);
    assert!(ran.stderr.contains("no plan is saved: its command line holds a secret"), "{}", ran.stderr);
    assert!(!stage.path("p.json").exists());
    stage.search();
}

/// What was typed for the plan is asked for again before it is applied, and what was no secret is not.
#[test]
fn a_saved_plan_asks_for_its_secrets_again() {
    let mut stage = Stage::new();
    let deploy = r#"
local password, version = secret.prompt("Vault password"), ask("Which version", "1.2")
files.put { content = password .. " of " .. version .. "\n", dest = "made/typed", mode = "600" }
"#;
    fs::write(stage.path("asks.lua"), deploy).expect("a deploy");
    stage.type_answers(&["@local", "asks.lua", "--plan", "p.json"]);
    stage.search_plan("p.json");

    let ran = stage.run(&["apply", "p.json", "--yes"]).expect(1);
    assert!(ran.stderr.contains("the question `Vault password` of the plan cannot be asked: there is no terminal"), "{}", ran.stderr);

    let apply = |stage: &mut Stage, typed: &[&str], code: i32| {
        let mut terminal = Terminal::start(stage.command(&["apply", "p.json", "--yes"]), Elsewhere::default());
        for (at, word) in typed.iter().enumerate() {
            // Each question stands below the last one.
            terminal.wait_for(
                &["Vault password: "].repeat(at + 1).join("\ninfra: that is another secret than the one that the plan was made with\n"),
            );
            terminal.press(&format!("{word}\r"));
        }
        let ended = terminal.end();
        assert_eq!(ended.code, Some(code), "{}", ended.screen);
        assert!(!ended.screen.contains("Which version"), "what is no secret is in the plan: {}", ended.screen);
        stage.shown.push(("the terminal".to_owned(), ended.raw));
        ended.screen
    };
    let screen = apply(&mut stage, &["mistyped-1", "mistyped-2", "mistyped-3"], 1);
    assert!(screen.contains("the question `Vault password` gives another secret"), "{screen}");
    assert!(!stage.path("made/typed").exists());
    apply(&mut stage, &["mistyped-1", OF_PROMPT], 0);
    assert_eq!(text(&stage.path("made/typed")), format!("{OF_PROMPT} of 2.0\n"));
    stage.search();
}
