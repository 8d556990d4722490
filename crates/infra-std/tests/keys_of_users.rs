//! The keys that `server.user` lets in, where the home directory of the user is not where the arguments alone would have it.

use std::collections::BTreeMap;

use infra_core::change::{Action, Change, Content, Effect, Replaces};
use infra_core::fact::Fact;
use infra_core::facts::DiffError;
use infra_std::facts::files::{directory::Directory, file::File, text::Text};
use infra_std::facts::server::groups::{Group, Groups};
use infra_std::facts::server::identity::{Identity, WhoAsks};
use infra_std::facts::server::users::{User, Users};
use infra_std::facts::server::which::Which;
use infra_std::file_status::{Found, Status};
use infra_test::facts::{MadeUp, diff_fully, steps_of};
use serde_json::{Value, json};

const KEY: &str = "ssh-ed25519 AAAAa ann";
const FOLDER: &str = "/srv/ann/.ssh";
const FILE: &str = "/srv/ann/.ssh/authorized_keys";

/// How the keys stand: owner (who is also the group), the modes of folder and file, the text, and where the file is a link to.
type Stand<'a> = Option<(&'a str, u32, u32, &'a str, Option<&'a str>)>;

fn with_stand(table: MadeUp, home: &str, stand: Stand<'_>) -> MadeUp {
    let (folder, path) = (format!("{home}/.ssh"), format!("{home}/.ssh/authorized_keys"));
    match stand {
        None => {
            table.fact(&Directory::at(folder), Found::Nothing).fact(&File::at(&path), Found::Nothing).fact(&Text::at(&path), Found::Nothing)
        }
        Some((owner, folder_mode, mode, text, link)) => {
            let file = Status { link_target: link.map(str::to_owned), ..Status::foreseen(mode, owner, owner, None) };
            let table = table.fact(&Directory::at(folder), Found::Is(Status::foreseen(folder_mode, owner, owner, None)));
            table.fact(&File::at(&path), Found::Is(file)).fact(&Text::at(&path), Found::Is(text.to_owned()))
        }
    }
}

/// A host with the user ann, who has another home directory than most, and without useradd, which keys alone do not need.
fn host(keys: Stand<'_>, home: Found<Status>) -> MadeUp {
    let ann = User { uid: Some(7), group: "staff".to_owned(), home: "/srv/ann".to_owned(), ..User::default() };
    let root = WhoAsks { user: "root".into(), group: "root".into(), uid: Some(0), gid: Some(0), umask: 0o022, home: "/root".into() };
    let table = MadeUp::new()
        .fact(&Users {}, BTreeMap::from([("ann".to_owned(), ann)]))
        .fact(&Groups {}, BTreeMap::from([("staff".to_owned(), Group { gid: Some(4), members: Vec::new() })]))
        .fact(&Which { command: "useradd".to_owned() }, None)
        .fact(&Identity {}, root)
        .fact(&Directory::at("/home/ann"), Found::Nothing)
        .fact(&Directory::at("/home"), Found::Nothing)
        .fact(&Directory::at("/srv/ann"), home);
    with_stand(with_stand(table, "/home/ann", None), "/srv/ann", keys)
}

fn there() -> Found<Status> {
    Found::Is(Status::foreseen(0o755, "ann", "staff", None))
}

fn diff(args: &Value, table: &MadeUp) -> Result<(Change, usize), DiffError> {
    let registry = infra_std::registry();
    let definition = registry.operation("server.user").expect("an operation of the library");
    diff_fully(&*definition.bind(args.as_object().expect("a map").clone()).expect("right arguments"), table)
}

#[test]
fn keys_go_to_the_home_directory_that_the_user_has() {
    let upload = format!("upload {FILE}");
    let make = format!("install -d -m 700 -o ann -g staff -- {FOLDER}");
    let own_folder = format!("chown -- ann:staff {FOLDER} && chmod -- 700 {FOLDER}");
    let own_file = format!("chown -- ann:staff {FILE} && chmod -- 600 {FILE}");
    let key = json!({ "user": "ann", "public_keys": [KEY] });
    for (stand, args, wanted) in [
        (None, key.clone(), vec![&make, &upload]),
        (Some(("root", 0o755, 0o644, "ssh-ed25519 AAAAa\n", None)), key.clone(), vec![&own_folder, &own_file]),
        (Some(("root", 0o755, 0o644, "", None)), key, vec![&own_folder, &upload]),
        (None, json!({ "user": "ann", "public_keys": [], "delete_keys": true }), vec![]),
        (None, json!({ "user": "ann", "public_keys": [] }), vec![]),
    ] {
        let (change, _) = diff(&args, &host(stand, there())).unwrap_or_else(|error| panic!("{args}: {error}"));
        assert_eq!(steps_of(&change), wanted.into_iter().cloned().collect::<Vec<_>>(), "{stand:?} {args}");
        // What it foretells leaves nothing to do.
        let mut after = host(stand, there());
        for effect in &change.effects {
            let Effect::Node { path, node } = effect else { panic!("keys alone foretell only what stands at paths, got {effect:?}") };
            if path == FOLDER {
                after = after.fact(&Directory::at(path), Directory::at(path).foresee(node).expect("an answer"));
            } else {
                after = after.fact(&File::at(path), File::at(path).foresee(node).expect("an answer"));
                after = after.fact(&Text::at(path), Text::at(path).foresee(node).expect("an answer"));
            }
        }
        let (again, _) = diff(&args, &after).expect("nothing");
        assert!(again.is_none(), "{args}: {:?}", steps_of(&again));
    }
}

#[test]
fn a_file_of_keys_is_replaced_only_as_it_was_read() {
    let args = json!({ "user": "ann", "public_keys": [KEY], "delete_keys": true });
    let before = "ssh-rsa AAAAx\n";
    let (change, _) = diff(&args, &host(Some(("ann", 0o700, 0o600, before, None)), there())).expect("a change");
    assert_eq!(change.reason, "add 1 key, remove 1 key, /srv/ann/.ssh: group ann → staff");
    let upload = change.actions.iter().find_map(|action| match action {
        Action::Upload(upload) => Some(upload.clone()),
        _ => None,
    });
    let upload = upload.expect("an upload");
    assert_eq!(upload.content, Content::text(format!("{KEY}\n")));
    assert_eq!(upload.replaces, Replaces::Digest(Content::text(before).sha256()));
    assert_eq!((upload.user.as_deref(), upload.group.as_deref(), upload.mode), (Some("ann"), Some("staff"), Some(0o600)));
}

#[test]
fn keys_that_have_no_place_are_refused() {
    let link = Some(("ann", 0o700, 0o600, "", Some("/etc/shadow")));
    for (table, wanted) in [(host(link, there()), "is a link"), (host(None, Found::Nothing), "/srv/ann is not there")] {
        match diff(&json!({ "user": "ann", "public_keys": [KEY] }), &table) {
            Err(DiffError::Refused { message, hint: Some(_) }) => assert!(message.contains(wanted), "{message}"),
            other => panic!("a refusal, got {other:?}"),
        }
    }
}
