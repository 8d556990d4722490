//! What is there to be read is also run: every piece of Lua in the book and the README. (The repository's own deploys are in deploys.rs and fleet.rs.)

mod common;

use std::collections::BTreeSet;
use std::fs::{create_dir_all, read_dir, read_to_string, write};
use std::path::Path;

use common::{repository, run};

/// The names of the files with this ending in a folder of the repository.
fn names_in(folder: &str, ending: &str) -> BTreeSet<String> {
    let entries = read_dir(repository().join(folder)).expect("a folder of the repository");
    let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a name in UTF-8"));
    names.filter(|name| name.ends_with(ending)).collect()
}

#[test]
fn templates_see_their_host_and_the_inventory_from_a_deploy_as_from_the_command_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    write(folder.join("inventory.lua"), "here = { { \"@local\", role = \"web\" } }\nothers = { \"db-1\" }\n").expect("a file");
    let template = "{{ host.name }} {{ host.data.role }}: {% for h in inventory.groups.others %}{{ h.name }}{% endfor %} of {{ inventory.hosts|length }}";
    let deploy = format!(
        "files.template {{ content = [==[{template}]==], dest = \"deploy.txt\" }}\nassert(render([==[{template}]==]) == \"@local web: db-1 of 2\")\n"
    );
    write(folder.join("deploy.lua"), deploy).expect("a file");
    run(folder, &["inventory.lua", "deploy.lua", "--limit", "here", "--yes"]).expect(0);
    let content = format!("content={template}");
    run(folder, &["inventory.lua", "--limit", "here", "--yes", "files.template", &content, "dest=ad_hoc.txt"]).expect(0);
    for file in ["deploy.txt", "ad_hoc.txt"] {
        assert_eq!(read_to_string(folder.join(file)).expect("it was written"), "@local web: db-1 of 2", "{file}");
    }
}

/// The pieces of Lua on a page, each with the name that stands in its first line.
fn pieces(page: &str) -> Vec<(String, String)> {
    let pieces = page.split("```lua\n").skip(1).map(|rest| rest.split("```").next().expect("split gives one piece at least"));
    let named = |piece: &str| {
        let name = piece.lines().next().and_then(|line| line.strip_prefix("-- "));
        (name.unwrap_or_else(|| panic!("its first line must be `-- FILE`:\n{piece}")).to_owned(), piece.to_owned())
    };
    pieces.map(named).collect()
}

#[test]
fn the_lua_of_the_book_is_right() {
    let mut pages: Vec<String> = names_in("docs/src", ".md").into_iter().map(|name| format!("docs/src/{name}")).collect();
    pages.push("README.md".to_owned());
    let mut count = 0;
    for page in pages {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path();
        let pieces = pieces(&read_to_string(repository().join(&page)).expect("a page"));
        for (name, text) in &pieces {
            let file = folder.join(name);
            create_dir_all(file.parent().expect("a folder above")).expect("a folder");
            write(file, text).expect("a file");
            for source in text.split("src").skip(1).filter_map(|rest| rest.trim_start().strip_prefix("= \"")?.split('"').next()) {
                let template = folder.join(source);
                create_dir_all(template.parent().expect("a folder above")).expect("a folder");
                write(template, "{{ host.name }}\n").expect("a file");
            }
        }
        write(folder.join("here.lua"), "web_servers = { \"@local\" }\n").expect("a file");
        for (name, _) in pieces.iter().filter(|(name, _)| !name.contains('/')) {
            count += 1;
            if name == "inventory.lua" {
                run(folder, &[name, "hosts"]).expect(0);
                continue;
            }
            let ran = run(folder, &["here.lua", name, "--dry"]);
            // That this machine has no systemd to ask is no mistake of the page.
            let no_systemd = ran.code == Some(1) && ran.stderr.contains("systemd");
            assert!(ran.code == Some(0) || no_systemd, "{page}, {name}: exit code {:?}\n{}", ran.code, ran.stderr);
        }
    }
    assert!(count >= 8, "only {count} pieces of Lua were found");
}

#[test]
fn every_page_of_the_book_is_listed_and_every_link_leads_somewhere() {
    let book = repository().join("docs/src");
    let links = |text: &str| -> BTreeSet<String> {
        let targets = text.split("](").skip(1).map(|rest| rest.split([')', '#']).next().expect("split gives one piece at least"));
        targets.filter(|target| !target.is_empty() && !target.contains("://")).map(str::to_owned).collect()
    };
    let mut pages = names_in("docs/src", ".md");
    for page in &pages {
        for target in links(&read_to_string(book.join(page)).expect("a page")) {
            assert!(book.join(&target).is_file(), "{page} has a link to {target}");
        }
    }
    pages.remove("SUMMARY.md");
    assert_eq!(links(&read_to_string(book.join("SUMMARY.md")).expect("the summary")), pages);
    for page in ["README.md", "CONTRIBUTING.md", "crates/README.md"] {
        let text = read_to_string(repository().join(page)).expect("a page");
        for word in text.split('`').skip(1).step_by(2).filter(|word| {
            word.contains('/') && !word.contains([' ', '~', '[', '…']) && !word.starts_with(['.']) && !word.starts_with("target/")
        }) {
            let known = Path::new(word).components().next().is_some_and(|first| repository().join(first).exists());
            let example = word.chars().any(char::is_uppercase) && !repository().join(word).exists();
            assert!(!known || example || repository().join(word).exists(), "{page} names {word}, which is not there");
        }
    }
}
