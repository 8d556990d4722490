use super::*;
use crate::command::Shell;
use crate::digest::sha256;
use crate::operation::Idempotence;
use crate::plan::{HostOutlook, OpId, PlannedOperation};

fn plan() -> SavedPlan {
    let change = Outlook::Change {
        reason: "write hunter2-and-more".into(),
        steps: vec!["echo 'hunter2 and more'; echo hunter2-and-more".into()],
        texts: vec![TextChange { path: "/a".into(), before: String::new(), after: "key = hunter2-and-more\n".into(), withheld: None }],
    };
    let mark = Mark { identity: "i".into(), digest: "d".into() };
    let operation = PlannedOperation {
        id: OpId(0),
        kind: "files.put".into(),
        title: "Write it".into(),
        location: None,
        idempotence: Idempotence::Idempotent,
        serial: None,
        blocks: vec![],
        run_once: false,
        hosts: vec![HostOutlook { host: HostId(0), call: 0, outlook: change, mark: mark.clone() }],
    };
    let fact = FactBasis {
        fact: "files.text".into(),
        question: json!({ "path": "/a" }),
        context: Context::default(),
        digest: "x".into(),
        answer: Some(json!({ "text": "key = hunter2-and-more" })),
        operations: vec!["Write it".into()],
    };
    let calls = vec![
        CallBasis { title: "Write it".into(), mark: mark.clone(), planned: Planned::Change, steps: Some("s".into()) },
        CallBasis { title: "Restart".into(), mark, planned: Planned::Depends, steps: None },
    ];
    let answer = CommandAnswer { status: Some(0), stdout: Kept::Text("hunter2-and-more\n".into()), stderr: Kept::Text(String::new()) };
    SavedPlan {
        format: FORMAT,
        program: "0.1.0".into(),
        made: 1,
        invocation: vec!["infra".into(), "web".into(), "deploy.lua".into()],
        folder: "/srv".into(),
        hosts: vec![SavedHost { id: HostId(0), name: "web".into() }],
        plan: Plan { operations: vec![operation], ..Plan::default() },
        basis: Basis {
            salt: "salt".into(),
            hosts: BTreeMap::from([("web".to_owned(), HostBasis { facts: vec![fact], elsewhere: Vec::new(), calls })]),
            places: BTreeMap::new(),
            locals: vec![LocalBasis { path: "/srv/a".into(), size: 3, mode: 0o644, kept: Kept::Text("has hunter2-and-more".into()) }],
        },
        controller: Memory {
            files: BTreeMap::from([("/srv/deploy.lua".to_owned(), Kept::Text("files.put { }".into()))]),
            commands: vec![RememberedCommand {
                key: "k".into(),
                argv: vec!["pass".into()],
                chdir: None,
                whole: true,
                answers: vec![answer],
            }],
            ..Memory::default()
        },
    }
}

#[test]
fn what_is_written_is_read() {
    let text = write(&plan());
    assert_eq!(read(text.as_bytes(), "0.1.0"), Ok(plan()));
    // No answer and the answer that there is nothing are not the same.
    for answer in [None, Some(Value::Null)] {
        let mut other = plan();
        other.basis.hosts.get_mut("web").expect("the host").facts[0].answer = answer;
        assert_eq!(read(write(&other).as_bytes(), "0.1.0"), Ok(other));
    }
    // It is one JSON document, which says its own digest.
    let document: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(document["sha256"].as_str().map(str::len), Some(64));
    assert!(is_plan_file(text.as_bytes()) && text.ends_with("}\n"));
}

#[test]
fn any_byte_that_is_changed_is_noticed() {
    let text = write(&plan()).into_bytes();
    for at in 0..text.len() {
        let mut changed = text.clone();
        changed[at] ^= 1;
        assert!(matches!(read(&changed, "0.1.0"), Err(PlanFileError::Changed | PlanFileError::NoPlan)), "byte {at}");
    }
    for length in [0, 5, 20, 80, text.len() - 1] {
        assert!(read(&text[..length], "0.1.0").is_err(), "{length} bytes");
    }
    assert_eq!(read(&[&text[..], b"\n"].concat(), "0.1.0"), Err(PlanFileError::Changed));
}

#[test]
fn another_version_is_named() {
    let text = write(&plan());
    let error = read(text.as_bytes(), "0.2.0").expect_err("another version");
    assert_eq!(error.to_string(), "it was made by infra 0.1.0 (format 2), and this is infra 0.2.0 (format 2)");
    let newer = write(&SavedPlan { format: 3, ..plan() });
    assert!(matches!(read(newer.as_bytes(), "0.1.0"), Err(PlanFileError::OtherVersion { format: 3, .. })));
}

#[test]
fn no_secret_stands_in_the_file() {
    let mut saved = plan();
    saved.hide(&Secrets::default(), &[]);
    assert_eq!(saved, plan());
    let secrets = Secrets::default();
    secrets.secret("hunter2-and-more").expect("long enough");
    saved.hide(&secrets, &[Secret::new("hunter2 and more")]);
    let text = write(&saved);
    assert!(!text.contains("hunter2"), "{text}");
    assert!(text.contains("echo ***; echo ***") && text.contains("it holds a secret"), "{text}");
    // What held it is known by a digest that is slow to make, and what did not is carried.
    let kept = &saved.basis.locals[0].kept;
    assert_eq!(*kept, Kept::Secret(crate::digest::slow("salt", b"has hunter2-and-more")));
    assert!(kept.is("salt", b"has hunter2-and-more") && !kept.is("salt", b"has"));
    assert!(matches!(saved.controller.commands[0].answers[0].stdout, Kept::Secret(_)));
    assert_eq!(saved.controller.files, plan().controller.files);
    assert_eq!(saved.basis.hosts["web"].facts[0].answer, None);
    // A short one that is known by its name is hidden as well.
    let mut saved = plan();
    saved.hide(&Secrets::default(), &[Secret::new("hunter2")]);
    assert!(!write(&saved).contains("hunter2"));
}

#[test]
fn steps_with_a_secret_have_a_digest_that_is_slow_to_try_out() {
    let secrets = Secrets::default();
    secrets.salt_openly("salt");
    let log_in = |password: &str| Change::new("run").run(Shell::verbatim(format!("login {password}")));
    let plain = steps_digest(&log_in("hunter2-and-more"), &secrets);
    secrets.secret("hunter2-and-more").expect("long enough");
    let guarded = steps_digest(&log_in("hunter2-and-more"), &secrets);
    assert_ne!(plain, guarded, "the same steps, but nobody can make this digest quickly");
    assert_eq!(guarded, steps_digest(&log_in("hunter2-and-more"), &secrets));
    assert_eq!(steps_digest(&log_in("anybody"), &secrets), steps_digest(&log_in("anybody"), &Secrets::default()));
    let input = |text: &str| Change::new("run").then(Action::Run(crate::command::Command::new(Shell::verbatim("cat")).with_stdin(text)));
    assert_ne!(steps_digest(&input("hunter2-and-more"), &secrets), steps_digest(&input("hunter2-and-more"), &Secrets::default()));
}

#[test]
fn answers_are_told_apart_by_what_they_say() {
    let digest = |answer: Result<Value, &str>| answer_digest("salt", &answer.map_err(str::to_owned));
    assert_eq!(digest(Ok(json!({ "a": 1, "b": { "c": 2, "d": 3 } }))), digest(Ok(json!({ "b": { "d": 3, "c": 2 }, "a": 1 }))));
    assert_ne!(digest(Ok(json!([1, 2]))), digest(Ok(json!([2, 1]))));
    assert_ne!(digest(Ok(json!("no"))), digest(Err("no")));
    assert_ne!(answer_digest("salt", &Ok(json!(1))), answer_digest("other", &Ok(json!(1))));
}

#[test]
fn differences_are_said_in_words() {
    let said = |before: Option<Value>, now: Value| difference(before.as_ref(), &Ok(now));
    assert_eq!(said(Some(json!({ "mode": 420, "user": "root" })), json!({ "mode": 384, "user": "root" })), "mode was 420 and is 384");
    assert_eq!(said(Some(json!({ "a": 1 })), json!({ "a": 1, "b": 2 })), "b was nothing and is 2");
    assert_eq!(said(Some(Value::Null), json!({ "a": 1 })), "it was nothing and is {\"a\":1}");
    assert_eq!(said(None, json!("x".repeat(90))), format!("it is now \"{}…", "x".repeat(79)));
    assert_eq!(difference(Some(&json!(1)), &Err("no".into())), "it can no longer be read: no");
}

#[test]
fn steps_are_told_apart_by_what_they_do() {
    let upload = |content: Content| {
        let upload = crate::change::Upload {
            content,
            dest: "/a".into(),
            mode: Some(0o600),
            user: None,
            group: None,
            replaces: crate::change::Replaces::Anything,
        };
        steps_digest(&Change::new("create").then(Action::Upload(upload)), &Secrets::default())
    };
    let local = |text: &str| Content::LocalFile { path: format!("/x/{text}"), size: text.len() as u64, sha256: sha256(text.as_bytes()) };
    assert_eq!(upload(Content::text("one")), upload(local("one")));
    assert_ne!(upload(Content::text("one")), upload(Content::text("two")));
    assert_eq!(steps_digest(&Change::none("as wished"), &Secrets::default()), None);
    let run = |text: &str| steps_digest(&Change::new("run").run(Shell::verbatim(text)), &Secrets::default());
    assert_ne!(run("a"), run("b"));
    let (reason, other) = (Change::new("x").run(Shell::verbatim("a")), Change::new("y").run(Shell::verbatim("a")));
    assert_eq!(steps_digest(&reason, &Secrets::default()), steps_digest(&other, &Secrets::default()), "words are no steps");
}

#[test]
fn what_depends_is_named_once() {
    assert_eq!(plan().depending(["web", "web"]), ["Restart"]);
    assert!(plan().depending(["other"]).is_empty());
}
