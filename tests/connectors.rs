//! The connectors beside ssh, for real: containers of podman, which also stands in for docker as it takes its command line, and `chroot`.

mod common;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::Ran;
use infra_test::process::{self, Process};
use infra_test::{Containers, SystemFolder};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const IMAGE: &str = Containers::IMAGE;
const DEADLINE: Duration = Duration::from_secs(60);

/// The binary with the podman of the bench.
fn infra(bench: &Containers) -> Command {
    let mut command = common::infra(bench.folder());
    let path = std::env::var("PATH").expect("a PATH");
    command.env("PATH", format!("{}:{path}", bench.docker().display())).envs(bench.environment());
    command
}

fn run(bench: &Containers, words: &[&str]) -> Ran {
    common::ran(infra(bench).args(words))
}

/// A container of the user's, which runs and does nothing.
fn of_the_user(bench: &Containers, name: &str) {
    let run = ["run", "--detach", "--name", name, "--entrypoint", "sleep", IMAGE, "infinity"];
    bench.podman(&run).unwrap_or_else(|error| panic!("{error:?}"));
}

#[track_caller]
fn names(bench: &Containers) -> Vec<String> {
    bench.names().unwrap_or_else(|error| panic!("{error:?}"))
}

/// No container is left but these, which are then removed, and no client.
#[track_caller]
fn nothing_left(bench: &Containers, but: &[&str]) {
    let there = process::wait_for(DEADLINE, || (names(bench) == but).then_some(()));
    assert!(there.is_some(), "{:?}", names(bench));
    for name in but {
        bench.podman(&["rm", "--force", "--time", "0", name]).unwrap_or_else(|error| panic!("{error:?}"));
    }
    let left = bench.leftovers_after(Duration::from_secs(20));
    assert!(left.is_empty(), "{left:#?}");
}

fn bench() -> Containers {
    Containers::start().unwrap_or_else(|error| panic!("{error:?}"))
}

/// A deploy with files of all kinds, and a command.
const DEPLOY: &str = r#"
files.directory { path = "/srv/site", mode = "750", user = "admin", group = "admin" }
local page = files.put { content = "hello\n", dest = "/srv/site/page", mode = "640" }
files.line { path = "/etc/motd", line = "made by a deploy" }
server.group { group = "crew", gid = 4300 }
server.shell { commands = { "wc -c < /srv/site/page > /srv/site/size" }, _if = page.did_change }
"#;

/// The outcomes of a run of the deploy, and where its host stands.
fn told(ran: &Ran) -> (Vec<String>, String) {
    let document = ran.json();
    let (_, host) = document["hosts"].as_object().and_then(|hosts| hosts.iter().next()).expect("a host");
    let outcomes = host["operations"].as_array().expect("operations").iter();
    let outcomes = outcomes.map(|one| one["outcome"].as_str().expect("an outcome").to_owned()).collect();
    (outcomes, host["state"].as_str().expect("a state").to_owned())
}

/// Plans, deploys, and deploys again: what is done is what was said, once.
#[track_caller]
fn deploys(folder: &Path, run: impl Fn(&[&str]) -> Ran) {
    std::fs::write(folder.join("deploy.lua"), DEPLOY).expect("a deploy");
    let dry = run(&["deploy.lua", "--dry", "--json"]).expect(0);
    assert_eq!(told(&dry).1, "planned-changes", "{}", dry.stderr);
    let first = run(&["deploy.lua", "--yes", "--json"]).expect(0);
    assert_eq!(told(&first), (vec!["changed".to_owned(); 5], "changed".to_owned()), "{}", first.stderr);
    let second = run(&["deploy.lua", "--yes", "--json"]).expect(0);
    let nothing = ["unchanged", "unchanged", "unchanged", "unchanged", "skipped"].map(str::to_owned).to_vec();
    assert_eq!(told(&second), (nothing, "unchanged".to_owned()), "{}", second.stderr);
}

const LOOK: &str = "stat -c '%a %U %G %n' /srv/site /srv/site/page; cat /srv/site/size; tail -n 1 /etc/motd; getent group crew";
const SEEN: &str = "750 admin admin /srv/site\n640 root root /srv/site/page\n6\nmade by a deploy\ncrew:x:4300:";

#[test]
fn a_running_container_is_used_as_it_is() {
    let bench = bench();
    of_the_user(&bench, "web");
    for connector in ["podman", "docker"] {
        let host = format!("@{connector}/web");
        let ran = run(&bench, &[&host, "exec", "--", "id -un; echo to stderr >&2; exit 3"]).expect(1);
        assert_eq!(ran.stdout, "root\n", "{}", ran.stderr);
        assert!(ran.stderr.contains("exited with 3") && ran.stderr.contains("to stderr"), "{}", ran.stderr);
        let fact = run(&bench, &[&host, "fact", "server.os_release"]).expect(0).json();
        assert_eq!(fact[&host]["server.os_release"]["id"], "debian");
        // Somebody else in there, by the sudo of the container.
        let ran = run(&bench, &[&host, "server.shell", "commands=id -un > /tmp/who", "_sudo=true", "_sudo_user=admin", "--yes"]).expect(0);
        assert!(ran.stderr.contains("1 changed"), "{}", ran.stderr);
        assert_eq!(bench.podman(&["exec", "web", "cat", "/tmp/who"]).expect("a file"), "admin");
    }
    // By its id, too.
    let id = bench.podman(&["container", "inspect", "--format", "{{.Id}}", "web"]).expect("an id");
    run(&bench, &[&format!("@podman/{}", &id[..12]), "exec", "--", "true"]).expect(0);

    deploys(bench.folder(), |words| run(&bench, &[&["@podman/web"], words].concat()));
    assert_eq!(bench.podman(&["exec", "web", "sh", "-c", LOOK]).expect("a look"), SEEN);

    // An image made of it on demand; the container goes on.
    let ran = run(&bench, &["@podman/web", "exec", "--data", "podman_commit=localhost/web:2", "--", "true"]).expect(0);
    assert!(ran.stderr.contains("[@podman/web] the container is the image localhost/web:2 now"), "{}", ran.stderr);
    let made = bench.podman(&["run", "--rm", "--entrypoint", "sh", "localhost/web:2", "-c", LOOK]).expect("it runs");
    assert_eq!(made, SEEN);
    let state = bench.podman(&["container", "inspect", "--format", "{{.State.Status}}", "web"]).expect("a state");
    assert_eq!(state, "running");
    nothing_left(&bench, &["web"]);
}

#[test]
fn a_container_of_an_image_goes_with_the_run() {
    let bench = bench();
    for connector in ["podman", "docker"] {
        let host = format!("@{connector}/{IMAGE}");
        let ran = run(&bench, &[&host, "exec", "--", "id -un; touch /made"]).expect(0);
        assert_eq!(ran.stdout, "root\n");
        assert_eq!(names(&bench), [""; 0], "it is gone when infra is");
        // A fresh one each time; a failure leaves none either.
        let ran = run(&bench, &[&host, "exec", "--", "test -e /made"]).expect(1);
        assert!(ran.stderr.contains("exited with 1"), "{}", ran.stderr);
        assert_eq!(names(&bench), [""; 0]);
    }
    run(&bench, &[&format!("@podman/{IMAGE}"), "fact", "server.hostname"]).expect(0);
    // Two hosts of one image are two containers.
    let inventory =
        format!(r#"boxes = {{ "@podman/one", "@docker/two", data = {{ podman_image = "{IMAGE}", docker_image = "{IMAGE}" }} }}"#);
    std::fs::write(bench.folder().join("inventory.lua"), inventory).expect("an inventory");
    let ran = run(&bench, &["inventory.lua", "server.shell", "commands=hostname > /made; cat /made", "--yes", "--json"]).expect(0).json();
    let of = |host: &str| ran["hosts"][host]["operations"][0]["stdout"].as_str().expect("its name").to_owned();
    assert_ne!(of("@podman/one"), of("@docker/two"));
    nothing_left(&bench, &[]);
}

#[test]
fn a_container_is_kept_and_an_image_made_where_that_is_asked_for() {
    let bench = bench();
    let image = format!("@podman/{IMAGE}");
    let data = ["--data", "podman_keep=box", "--data", "podman_commit=localhost/made:1"];
    let on = |words: &[&str]| run(&bench, &[&[image.as_str()], &data[..], words].concat());
    let images = || bench.podman(&["images", "--format", "{{.Repository}}:{{.Tag}}"]).expect("images");

    // What only looks keeps nothing.
    std::fs::write(bench.folder().join("deploy.lua"), DEPLOY).expect("a deploy");
    on(&["deploy.lua", "--dry"]).expect(0);
    on(&["fact", "server.hostname"]).expect(0);
    assert_eq!((names(&bench), images()), (vec![], IMAGE.to_owned()));

    let ran = on(&["deploy.lua", "--yes"]).expect(0);
    for line in ["the container is the image localhost/made:1 now", "the container is kept as box: @podman/box goes on with it"] {
        assert!(ran.stderr.contains(line), "«{line}» is missing:\n{}", ran.stderr);
    }
    assert_eq!(bench.podman(&["run", "--rm", "localhost/made:1", "sh", "-c", LOOK]).expect("it runs as its own image does"), SEEN);
    assert_eq!(run(&bench, &["@podman/box", "exec", "--", LOOK]).expect(0).stdout.trim(), SEEN);
    let second = run(&bench, &["@podman/localhost/made:1", "deploy.lua", "--yes", "--json"]).expect(0);
    assert_eq!(told(&second).1, "unchanged");

    // The name is taken now, and what has it is nobody's to remove.
    let ran = on(&["exec", "--", "true"]).expect(1);
    assert!(ran.stderr.contains("unreachable (settings): there is a container called box already"), "{}", ran.stderr);
    bench.podman(&["rm", "--force", "--time", "0", "box"]).expect("it is removed");
    bench.podman(&["rmi", "localhost/made:1"]).expect("it is removed");

    // Where not all went well there is no image, and the container is there to be looked at.
    let ran = on(&["exec", "--", "touch /trace; exit 1"]).expect(1);
    assert!(ran.stderr.contains("no image localhost/made:1 is made of the container, as not all went well"), "{}", ran.stderr);
    assert_eq!(images(), IMAGE);
    run(&bench, &["@podman/box", "exec", "--", "test -e /trace"]).expect(0);
    // An image that cannot be made is a failure of its host.
    let ran = run(&bench, &["@podman/box", "exec", "--data", "podman_commit=NOT/A:NAME", "--", "true"]).expect(1);
    assert!(ran.stderr.contains("no image NOT/A:NAME could be made of the container") && ran.stderr.contains("1 failed"), "{}", ran.stderr);
    nothing_left(&bench, &["box"]);
}

/// What stands in the way, the step and the words that say so, and what to do.
#[test]
fn each_way_of_not_reaching_a_container_has_its_words() {
    let bench = bench();
    of_the_user(&bench, "stopped");
    bench.podman(&["stop", "--time", "0", "stopped"]).expect("it stops");
    let empty = bench.folder().join("empty.tar");
    let tar = Command::new("tar").args(["-C", "/etc", "-cf"]).arg(&empty).arg("hostname").status().expect("tar");
    assert!(tar.success());
    bench.podman(&["import", &empty.display().to_string(), "localhost/empty:1"]).expect("an image");
    let image = format!("@podman/{IMAGE}");
    for (words, wanted, hint) in [
        (vec!["@podman/stopped"], "(connect): the container stopped does not run (exited)", "start it: podman start stopped"),
        (
            vec!["@docker/nowhere"],
            "(resolve): there is no container nowhere, and no image of that name that could be pulled",
            "`docker ps`",
        ),
        (vec!["@podman/localhost/empty:1"], "(shell): the image localhost/empty:1 has no sh", "a host needs sh"),
        (vec![&image, "--data", "podman_keep=true"], "(settings): `podman_keep` takes a name, got true", "write podman_keep ="),
    ] {
        let ran = run(&bench, &[&words[..1], &["exec"], &words[1..], &["--", "true"]].concat()).expect(1);
        assert!(ran.stderr.contains(wanted) && ran.stderr.contains(hint), "«{wanted}», «{hint}»:\n{}", ran.stderr);
        assert!(ran.stderr.contains("1 unreachable"), "{}", ran.stderr);
    }
    // No program of that name.
    let ran =
        process::run(infra(&bench).env("PATH", bench.folder()).args(["@podman/web", "exec", "--", "true"]), DEADLINE).expect("it ends");
    assert!(ran.stderr.contains("(settings): there is no podman on this machine"), "{}", ran.stderr);
    // A client without a daemon, as docker's own says it.
    let fake = bench.folder().join("fake");
    std::fs::create_dir(&fake).expect("a folder");
    let daemonless =
        "#!/bin/sh\necho 'Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?' >&2\nexit 1\n";
    std::fs::write(fake.join("docker"), daemonless).expect("a script");
    std::fs::set_permissions(fake.join("docker"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("a mode");
    let ran = process::run(
        infra(&bench).env("PATH", format!("{}:/usr/bin:/bin", fake.display())).args(["@docker/web", "exec", "--", "true"]),
        DEADLINE,
    );
    let ran = ran.expect("it ends");
    assert!(ran.stderr.contains("(connect): docker has no daemon to talk to") && ran.stderr.contains("start its daemon"), "{}", ran.stderr);
    nothing_left(&bench, &["stopped"]);
}

/// A command that says that it is there, and never ends by itself.
fn endless(bench: &Containers, host: &str, more: &[&str]) -> std::process::Child {
    let child = infra(bench)
        .args([&[host, "server.shell", "commands=echo begun > /begun; while :; do sleep 0.05; done", "--yes"], more].concat())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("infra");
    let begun = process::wait_for(DEADLINE, || {
        let name = names(bench).into_iter().find(|name| name.starts_with("infra-") || name == "web")?;
        bench.podman(&["exec", &name, "test", "-s", "/begun"]).ok()
    });
    assert!(begun.is_some(), "the command begins");
    child
}

fn said(child: std::process::Child) -> (Option<i32>, String) {
    let output = child.wait_with_output().expect("it ends");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Whether something with this argument, a pattern that is not the argument itself, runs in a container.
fn runs(bench: &Containers, name: &str, argument: &str) -> bool {
    let look = format!("grep -lzx {argument} /proc/[0-9]*/cmdline || test $? = 1");
    let found = bench.podman(&["exec", name, "sh", "-c", &look]);
    !found.unwrap_or_else(|error| panic!("{error:?}")).is_empty()
}

/// Whether the loop of [`endless`] still runs in a container.
fn loops(bench: &Containers, name: &str) -> bool {
    runs(bench, name, "0[.]05")
}

#[test]
fn time_and_interrupts_end_what_runs_in_a_container() {
    let bench = bench();
    of_the_user(&bench, "web");
    let child = endless(&bench, "@podman/web", &["_timeout=3"]);
    let (code, stderr) = said(child);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("timed out after 3") && !stderr.contains("still running"), "{stderr}");
    assert!(!loops(&bench, "web"));
    bench.podman(&["exec", "web", "rm", "/begun"]).expect("it is removed");

    for image in [false, true] {
        let host = if image { format!("@podman/{IMAGE}") } else { "@podman/web".to_owned() };
        if image {
            bench.podman(&["rm", "--force", "--time", "0", "web"]).expect("it is removed");
        }
        let child = endless(&bench, &host, &[]);
        let pid = Pid::from_raw(child.id().cast_signed());
        kill(pid, Signal::SIGINT).expect("it runs");
        kill(pid, Signal::SIGTERM).expect("it runs");
        let (code, stderr) = said(child);
        assert_eq!(code, Some(130), "{stderr}");
        assert!(stderr.contains("1 indeterminate"), "{stderr}");
        assert!(image || !loops(&bench, "web"));
    }
    nothing_left(&bench, &[]);
}

#[test]
fn a_container_of_an_image_goes_when_infra_is_killed_or_leaves_at_once() {
    let bench = bench();
    for signals in [&[Signal::SIGKILL][..], &[Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]] {
        let child = endless(&bench, &format!("@podman/{IMAGE}"), &[]);
        let pid = Pid::from_raw(child.id().cast_signed());
        for signal in signals {
            kill(pid, *signal).expect("it runs");
        }
        let (code, stderr) = said(child);
        assert!(code.is_none() || code == Some(130), "{code:?} {stderr}");
        nothing_left(&bench, &[]);
    }
    // One that may be kept has no end by itself when it stops: it stops, and is there to be looked at.
    let mut child = endless(&bench, &format!("@podman/{IMAGE}"), &["--data", "podman_keep=box"]);
    child.kill().expect("it is killed");
    child.wait().expect("it is gone");
    let [name] = names(&bench).try_into().expect("one container");
    let stopped = process::wait_for(DEADLINE, || {
        (bench.podman(&["container", "inspect", "--format", "{{.State.Status}}", &name]).ok()? == "exited").then_some(())
    });
    assert!(stopped.is_some());
    nothing_left(&bench, &[&name]);
}

/// A container that comes up when nobody wants it any more ends by itself, or is never made.
#[test]
fn an_interrupt_while_a_container_is_started_leaves_none() {
    let bench = bench();
    let (begun, gate) = (bench.folder().join("begun"), bench.folder().join("gate"));
    let slow = format!(
        "#!/bin/sh\nif [ \"$1\" = run ]; then touch {}; while [ ! -e {} ]; do sleep 0.02; done; fi\nexec podman \"$@\"\n",
        begun.display(),
        gate.display()
    );
    std::fs::write(bench.docker().join("docker"), slow).expect("a script");
    for data in ["x=1", "docker_keep=box"] {
        let child = infra(&bench)
            .args([&format!("@docker/{IMAGE}"), "exec", "--data", data, "--", "true"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("infra");
        assert!(process::wait_for(DEADLINE, || begun.exists().then_some(())).is_some());
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT).expect("it runs");
        let (code, stderr) = said(child);
        assert_eq!(code, Some(130), "{stderr}");
        std::fs::write(&gate, "").expect("a gate");
        let left = bench.leftovers_after(DEADLINE);
        assert!(left.is_empty(), "{left:#?}");
        assert_eq!(names(&bench), [""; 0], "{data}");
        std::fs::remove_file(&gate).and_then(|()| std::fs::remove_file(&begun)).expect("files");
    }
}

#[test]
fn a_container_that_goes_away_is_a_lost_host() {
    let bench = bench();
    of_the_user(&bench, "web");
    let child = endless(&bench, "@podman/web", &[]);
    bench.podman(&["rm", "--force", "--time", "0", "web"]).expect("it is removed");
    let (code, stderr) = said(child);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("1 indeterminate") && stderr.contains("the connection was lost while it ran"), "{stderr}");
    // It has ended before it is gone; and where the client takes its time to say so, nobody waits for that.
    let reasons = ["the container web is gone", "the container web does not run any more", "without a receipt"];
    assert!(reasons.iter().any(|reason| stderr.contains(reason)), "{stderr}");
    nothing_left(&bench, &[]);
}

#[test]
fn what_a_command_leaves_behind_holds_nobody_up() {
    let bench = bench();
    of_the_user(&bench, "web");
    let ran = run(&bench, &["@podman/web", "exec", "--", "sleep 1000 & echo done"]).expect(0);
    assert_eq!(ran.stdout, "done\n");
    assert!(runs(&bench, "web", "100[0]"), "it goes on");
    nothing_left(&bench, &["web"]);
}

#[test]
fn a_folder_is_a_host() {
    let system = SystemFolder::create().unwrap_or_else(|error| panic!("{error:?}"));
    let folder = system.folder();
    let host = format!("@chroot{}", system.root().display());
    let run = |words: &[&str]| common::run(folder, &[&[host.as_str()], words].concat());
    let ran = run(&["exec", "--", "id -un; pwd; echo $HOME; cat /etc/debian_version"]).expect(0);
    assert!(ran.stdout.starts_with("root\n/\n/root\n12."), "{}", ran.stdout);
    assert_eq!(run(&["fact", "server.os_release"]).expect(0).json()[&host]["server.os_release"]["id"], "debian");
    deploys(folder, run);
    let look = Command::new("chroot").arg(system.root()).args(["sh", "-c", LOOK]).output().expect("chroot");
    assert_eq!(String::from_utf8_lossy(&look.stdout).trim(), SEEN);
    assert!(!Path::new("/srv/site").exists(), "nothing was done beside the folder");

    // Its processes are of this machine: they end when their time is up.
    let mark = format!("mark-{}", std::process::id());
    let ran = run(&["server.shell", &format!("commands=: {mark}; while :; do sleep 0.05; done"), "_timeout=1", "--yes"]).expect(1);
    assert!(ran.stderr.contains("timed out after 1") && !ran.stderr.contains("still running"), "{}", ran.stderr);
    let inside = |process: &Process| std::fs::read_link(format!("/proc/{}/root", process.pid)).is_ok_and(|root| root == system.root());
    // The shell that served infra ends when its input does, a moment after infra.
    let left = || process::all().into_iter().filter(inside).collect::<Vec<Process>>();
    let gone = process::wait_for(Duration::from_secs(10), || left().is_empty().then_some(()));
    assert!(gone.is_some(), "{:#?}", left());
}

#[test]
fn each_way_of_not_entering_a_folder_has_its_words() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("file"), "").expect("a file");
    let place = folder.path().display().to_string();
    for (host, wanted, hint) in [
        (format!("@chroot{place}"), format!("(shell): there is no sh in {place} that could be run"), "is there a whole system"),
        (format!("@chroot{place}/none"), format!("(connect): {place}/none cannot be entered: No such file"), "counts from the root"),
        (format!("@chroot{place}/file"), format!("(connect): {place}/file is not a folder"), ""),
    ] {
        let ran = common::run(folder.path(), &[&host, "exec", "--", "true"]).expect(1);
        assert!(ran.stderr.contains(&wanted) && ran.stderr.contains(hint), "«{wanted}», «{hint}»:\n{}", ran.stderr);
    }
    // Somebody who is not root.
    let open = Path::new("/usr");
    let mut command = common::infra(Path::new("/"));
    command.env("HOME", "/nonexistent").arg(format!("@chroot{}", open.display())).args(["exec", "--", "true"]);
    let mut other = Command::new("setpriv");
    other.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(readable_binary(folder.path()));
    other.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?)))).args(command.get_args()).current_dir("/");
    let ran = process::run(&mut other, DEADLINE).expect("it ends");
    assert!(ran.stderr.contains("(authenticate): only root may change the root folder"), "{}", ran.stderr);
    assert!(ran.stderr.contains("sudo infra"), "{}", ran.stderr);
}

/// The binary where everybody may run it.
fn readable_binary(folder: &Path) -> std::path::PathBuf {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    let copy = folder.join("infra");
    std::fs::copy(env!("CARGO_BIN_EXE_infra"), &copy).expect("a copy");
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    copy
}

#[test]
fn connectors_are_listed_with_the_hosts() {
    let folder = tempfile::tempdir().expect("a folder");
    let list = "@podman/web,@docker/registry.example.com:5000/app:1,@chroot/srv/root,@local,web-01";
    let hosts = common::run(folder.path(), &[list, "hosts", "--json"]).expect(0).json();
    let connectors: Vec<&str> = list.split(',').map(|host| hosts[host]["connector"].as_str().expect("a connector")).collect();
    assert_eq!(connectors, ["podman", "docker", "chroot", "local", "ssh"]);
    let wrong = common::run(folder.path(), &["@dokcer/web", "hosts"]).expect(2);
    assert!(
        wrong.stderr.contains("there is no connector `@dokcer`") && wrong.stderr.contains("did you mean `docker`?"),
        "{}",
        wrong.stderr
    );
}
