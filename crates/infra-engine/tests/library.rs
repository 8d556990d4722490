//! The example of this crate, run: what a program that uses it does.

#[path = "../examples/own_language.rs"]
mod own_language;

use own_language::own_language;

#[tokio::test]
async fn folders_are_made_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    std::fs::create_dir(at("one")).expect("a folder");
    let wanted = vec![at("one"), at("it's two")];
    let (state, lines) = own_language(wanted.clone()).await;
    let title = |name: &str| format!("own.folder {}", at(name));
    assert_eq!(lines, [format!("{}: unchanged: is there", title("one")), format!("{}: changed: create", title("it's two"))]);
    assert_eq!(state.exit_code(), 0);
    assert!(folder.path().join("it's two").is_dir());

    let (_, lines) = own_language(wanted).await;
    assert!(lines.iter().all(|line| line.ends_with("unchanged: is there")), "{lines:?}");

    let (state, lines) = own_language(vec![at("no/such/place")]).await;
    assert_eq!(lines, [format!("{}: failed: exited with 1", title("no/such/place"))]);
    assert_eq!(state.exit_code(), 1);
}
